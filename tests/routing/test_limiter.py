"""What stands before an upstream: places, turns, the breaker and the deadline, with a clock of our own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, NamedTuple

import pytest

from imagegate.errors import (
    ImagegateError,
    RequestError,
    UpstreamRefused,
    UpstreamUnavailable,
    UpstreamUncertain,
    UpstreamUnreachable,
)
from imagegate.routing.circuit_breaker import Breaker
from imagegate.routing.limiter import UpstreamLimiter
from imagegate.telemetry.progress import Progress

LONG = 30.0
"""Seconds that no test waits."""
NOT_LONG = 0.01


class Rig:
    """A gate, its clock, and what its breaker said."""

    def __init__(self, *, failures: int = 2, **limits: int | None) -> None:
        self.now = 1000.0
        self.progress = Progress("generations")
        self.states: list[str] = []
        breaker = Breaker(failures=failures, pause=LONG)
        self.gate = UpstreamLimiter(breaker, changed=self.states.append, clock=lambda: self.now, **limits)

    async def ask(self, error: BaseException | None = None, *, queue_timeout: float = 0.0) -> None:
        async def work() -> None:
            if error is not None:
                raise error

        await self.gate.run(work, self.progress, queue_timeout=queue_timeout, until=None)

    async def hold(self, queue_timeout: float = 0.0) -> asyncio.Event:
        """A request that is in flight until the event is set."""
        event, begun = asyncio.Event(), asyncio.Event()

        async def held() -> None:
            begun.set()
            await event.wait()

        self.task = asyncio.create_task(self.gate.run(held, self.progress, queue_timeout=queue_timeout, until=None))
        await begun.wait()
        return event


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def test_a_full_upstream_is_not_asked() -> None:
    """Without a queue timeout it is busy at once, and free when one has ended."""

    async def test() -> None:
        rig = Rig(max_in_flight=1)
        end = await rig.hold()
        with pytest.raises(UpstreamUnavailable) as caught:
            await rig.ask()
        error = caught.value
        assert (error.status, error.code, error.outcome) == (503, "upstream_busy", "not_sent")
        assert (b"retry-after", b"1") in error.headers
        with pytest.raises(UpstreamUnavailable):
            await rig.ask(queue_timeout=NOT_LONG)
        end.set()
        await rig.task
        await rig.ask()

    run(test())


def test_waiting_gets_a_permit() -> None:
    """Who waits is let in when a place is free, first come, first served."""

    async def test() -> None:
        rig = Rig(max_in_flight=1)
        end = await rig.hold()
        served: list[int] = []

        async def wait(number: int) -> None:
            await rig.ask(queue_timeout=LONG)
            served.append(number)

        waiting = [asyncio.create_task(wait(number)) for number in range(3)]
        await asyncio.sleep(0)
        waiting[1].cancel()
        await asyncio.sleep(0)
        end.set()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert served == [0, 2]

    run(test())


@pytest.mark.parametrize(
    "error", [None, UpstreamUncertain("Cut."), RequestError("No."), ValueError("a mistake of ours")]
)
def test_a_place_is_always_given_back(error: Exception | None) -> None:
    """Whatever becomes of a request, also if it is cancelled."""

    async def test() -> None:
        rig = Rig(max_in_flight=1, failures=0)
        for _ in range(3):
            if error is None:
                await rig.ask()
            else:
                with pytest.raises(type(error)):
                    await rig.ask(error)
        await rig.hold()
        rig.task.cancel()
        await asyncio.gather(rig.task, return_exceptions=True)
        await rig.ask()

    run(test())


def test_the_rate_holds_and_says_when_to_come_again() -> None:
    """Two in a minute, and the third when the first is a minute ago."""

    async def test() -> None:
        rig = Rig(requests_per_minute=2)
        await rig.ask()
        rig.now += 20
        await rig.ask()
        with pytest.raises(UpstreamUnavailable) as caught:
            await rig.ask(queue_timeout=39)
        assert (caught.value.code, caught.value.retry_after) == ("upstream_busy", 40)
        rig.now += 40
        await rig.ask()

    run(test())


@pytest.mark.parametrize("error", [RequestError("No."), UpstreamUnreachable("Refused.")])
def test_what_was_not_sent_takes_no_turn(error: ImagegateError) -> None:
    """The provider does not count what it did not get, nor do we."""

    async def test() -> None:
        rig = Rig(requests_per_minute=1, failures=0)
        for _ in range(3):
            with pytest.raises(type(error)):
                await rig.ask(error)
        await rig.ask()
        with pytest.raises(UpstreamUnavailable):
            await rig.ask()

    run(test())


def test_who_leaves_the_queue_leaves_the_turn() -> None:
    """A client that is gone before its turn has come takes nobody's."""

    async def test() -> None:
        rig = Rig(requests_per_minute=1)
        await rig.ask()
        waiter = asyncio.create_task(rig.ask(queue_timeout=100))
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
        rig.now += 60
        await rig.ask()

    run(test())


@pytest.mark.parametrize(
    ("errors", "states"),
    [
        ([UpstreamUncertain("Cut."), UpstreamUnreachable("Refused.")], ["open"]),
        ([UpstreamRefused("Broken.", status=500), UpstreamRefused("Slow.", status=408)], ["open"]),
        ([UpstreamRefused("Broken.", status=500), None, UpstreamRefused("Broken.", status=500)], []),
        ([UpstreamRefused("Broken.", status=500), UpstreamRefused("Wrong.", status=400)] * 3, []),
        ([UpstreamRefused("Slower.", status=429)] * 5, []),
        ([RequestError("No.")] * 5, []),
        ([ValueError("a mistake of ours")] * 5, []),
        ([UpstreamUncertain("Cut."), RequestError("No."), UpstreamUncertain("Cut.")], ["open"]),
    ],
)
def test_what_opens_the_breaker(errors: list[Exception | None], states: list[str]) -> None:
    """Failures of the provider in a row; the client's errors and rate limits are none."""

    async def test() -> None:
        rig = Rig(failures=2)
        for error in errors:
            if error is None:
                await rig.ask()
            else:
                with pytest.raises(type(error)):
                    await rig.ask(error)
        assert states == rig.states

    run(test())


def test_an_open_breaker_and_its_probe() -> None:
    """Open: not asked, with the time to come again. Then one probe, during which the others are not let through."""

    async def test() -> None:
        rig = Rig(failures=1)
        with pytest.raises(UpstreamUncertain):
            await rig.ask(UpstreamUncertain("Cut."))
        rig.now += 10
        with pytest.raises(UpstreamUnavailable) as caught:
            await rig.ask(queue_timeout=LONG)
        assert (caught.value.code, caught.value.retry_after) == ("upstream_unavailable", 20)
        rig.now += 20
        end = await rig.hold()
        assert rig.states == ["open", "half_open"]
        with pytest.raises(UpstreamUnavailable):
            await rig.ask()
        end.set()
        await rig.task
        assert rig.states == ["open", "half_open", "closed"]
        await rig.ask()

    run(test())


def test_the_breaker_may_open_while_one_waits() -> None:
    """Who got a place in the meantime is told then, and takes no turn."""

    async def test() -> None:
        rig = Rig(failures=1, max_in_flight=1, requests_per_minute=2)
        release = asyncio.Event()

        async def fail() -> None:
            await release.wait()
            raise UpstreamUncertain("Cut.")

        failing = asyncio.create_task(rig.gate.run(fail, rig.progress, queue_timeout=0, until=None))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(rig.ask(queue_timeout=LONG))
        await asyncio.sleep(0)
        release.set()
        first, second = await asyncio.gather(failing, waiting, return_exceptions=True)
        assert (type(first), type(second)) == (UpstreamUncertain, UpstreamUnavailable)
        rig.now += LONG
        await rig.ask()  # the second turn of this minute

    run(test())


def test_a_client_that_leaves_is_no_failure() -> None:
    """A cancelled request says nothing about the provider."""

    async def test() -> None:
        rig = Rig(failures=1)
        await rig.hold()
        rig.task.cancel()
        await asyncio.gather(rig.task, return_exceptions=True)
        await rig.ask()
        assert rig.states == []

    run(test())


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_slow_client_is_no_failure_of_the_provider(is_whole: bool) -> None:
    """A provider may hang up on a form that does not come to its end; on a whole one it should not."""

    async def test() -> None:
        rig = Rig(failures=1)
        files = Live(is_whole)

        async def fail() -> None:
            raise UpstreamUncertain("Cut.")

        with pytest.raises(UpstreamUncertain):
            await rig.gate.run(fail, rig.progress, queue_timeout=0, until=None, live=files)
        assert (["open"] if is_whole else []) == rig.states

    run(test())


class Live(NamedTuple):
    """A form on its way."""

    is_whole: bool

    def files(self) -> Any:
        raise AssertionError


@pytest.mark.parametrize("was_sent", [True, False])
def test_the_deadline(was_sent: bool) -> None:
    """What may have been made when the time is over is uncertain and counts; what was not sent is neither."""

    async def test() -> None:
        rig = Rig(failures=1)

        async def ask() -> None:
            rig.progress.attempts += was_sent
            rig.progress.upstream_task_id = "task-7"
            await asyncio.sleep(LONG)

        with pytest.raises(UpstreamUncertain if was_sent else UpstreamUnavailable) as caught:
            await rig.gate.run(ask, rig.progress, queue_timeout=0, until=asyncio.get_running_loop().time() + 1)
        assert caught.value.status == 504
        assert ((b"x-should-retry", b"false") in caught.value.headers) is was_sent
        assert ("upstream_task_id" in caught.value.details) is was_sent
        assert (["open"] if was_sent else []) == rig.states

    run(test())


def test_nothing_is_begun_after_the_deadline() -> None:
    async def test() -> None:
        rig = Rig()
        with pytest.raises(UpstreamUnavailable) as caught:
            await rig.gate.run(unasked, rig.progress, queue_timeout=0, until=asyncio.get_running_loop().time())
        assert (caught.value.status, caught.value.code) == (504, "deadline_exceeded")

    async def unasked() -> None:
        raise AssertionError

    run(test())


def test_a_time_out_of_somebody_else_is_none_of_ours() -> None:
    """An error below that happens to be a TimeoutError comes out as it is."""

    async def test() -> None:
        rig = Rig()
        with pytest.raises(TimeoutError):
            await rig.ask(TimeoutError())

    run(test())
