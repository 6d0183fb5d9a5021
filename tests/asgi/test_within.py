"""Awaiting with a limit of time: what `asyncio.timeout` promises, and no timer for what does not wait."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.virtual_time import run

from imagegate.asgi.helpers import TooLate, within


async def limited(seconds: float, operation: Awaitable[Any]) -> Any:
    """`within` on the running event loop."""
    return await within(seconds, operation, asyncio.get_running_loop())


class NoTimers(asyncio.SelectorEventLoop):
    """An event loop that makes no timers."""

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any, context: Any = None) -> Any:
        raise AssertionError("a timer")

    call_at = call_later


def test_what_does_not_wait_needs_no_timer() -> None:
    """A value and an error come at once."""

    async def work() -> None:
        assert await limited(1, value(7)) == 7
        with pytest.raises(KeyError):
            await limited(1, error())

    with asyncio.Runner(loop_factory=NoTimers) as runner:
        runner.run(work())


async def value(result: int) -> int:
    return result


async def error() -> None:
    raise KeyError


@given(st.lists(st.floats(0.01, 3), max_size=4), st.floats(0.01, 6), st.booleans())
def test_like_asyncio(pauses: list[float], seconds: float, fails: bool) -> None:
    """The same outcome at the same time, whatever the operation waits for."""

    async def operation() -> str:
        for pause in pauses:
            await asyncio.sleep(pause)
        if fails:
            raise KeyError
        return "done"

    async def theirs() -> str:
        async with asyncio.timeout(seconds):
            return await operation()

    async def outcome(work: Awaitable[str]) -> tuple[str, float, int]:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        began, said = loop.time(), ""
        try:
            said = await work
        except (TooLate, TimeoutError):
            said = "late"
        except KeyError:
            said = "error"
        assert task is not None
        return said, loop.time() - began, task.cancelling()

    async def both() -> None:
        ours, other = await outcome(limited(seconds, operation())), await outcome(theirs())
        assert (ours[0], ours[2]) == (other[0], other[2])
        assert ours[1] == pytest.approx(other[1])

    run(both())


def test_another_cancellation_is_no_end_of_time() -> None:
    """Whoever cancels the task gets what is to be had then; limits outside and inside keep apart."""

    async def work() -> None:
        task = asyncio.create_task(limited(5, asyncio.sleep(60)))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        async def inner() -> str:
            with pytest.raises(TooLate):
                await limited(1, asyncio.sleep(60))
            await asyncio.sleep(60)
            return "never"

        with pytest.raises(TooLate):
            await limited(3, inner())
        with pytest.raises(TooLate):
            await limited(1, limited(3, asyncio.sleep(60)))

    run(work())


def test_what_ends_in_spite_of_the_limit() -> None:
    """What was done when its time was over counts, and leaves no cancellation behind."""

    async def stubborn() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "done"
        return "never"

    async def slow_to_end() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(1)

    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        assert await limited(1, stubborn()) == "done"
        assert task.cancelling() == 0
        with pytest.raises(TooLate):
            await limited(1, slow_to_end())
        assert task.cancelling() == 0
        assert await limited(1, asyncio.wait_for(value(3), 1)) == 3

    run(work())


def test_an_abandoned_task_is_closed() -> None:
    """A generator that is thrown away closes the operation."""
    seen: list[str] = []

    async def operation() -> None:
        try:
            await asyncio.Future()
        finally:
            seen.append("closed")

    async def work() -> None:
        waiting = limited(5, operation())
        waiting.send(None)
        waiting.close()

    run(work())
    assert seen == ["closed"]


class Bare:
    """An awaitable whose iterator has nothing but a next step, as those of some servers."""

    def __init__(self, future: asyncio.Future[None]) -> None:
        self.future = future

    def __await__(self) -> Any:
        return self

    def __next__(self) -> Any:
        if self.future.done():
            raise StopIteration(7)
        self.future._asyncio_future_blocking = True
        return self.future


def test_awaitables_without_throw_and_close() -> None:
    """They end with their task, and cannot do anything about it."""

    async def work() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(TooLate):
            await limited(1, Bare(loop.create_future()))
        future = loop.create_future()
        loop.call_later(1, future.set_result, None)
        assert await limited(2, Bare(future)) == 7
        waiting = limited(1, Bare(loop.create_future()))
        waiting.send(None)
        waiting.close()
        assert await within(1, within(1, value(3), loop), loop) == 3

    run(work())


def test_what_has_failed_is_forgotten() -> None:
    """Without the garbage collector, although its traceback leads through the wait."""

    class Failure(Exception):
        pass

    futures: list[asyncio.Future[None]] = []

    async def waiting() -> None:
        await futures.pop()

    async def work() -> weakref.ref[Failure]:
        loop = asyncio.get_running_loop()
        futures.append(loop.create_future())
        failure = Failure()
        loop.call_soon(futures[0].set_exception, failure)
        known = weakref.ref(failure)
        del failure
        with suppress(Failure):
            await limited(1, waiting())
        return known

    gc.disable()
    try:
        assert asyncio.run(work())() is None
    finally:
        gc.enable()


def test_each_loop_has_timers_of_its_own() -> None:
    """Many at a time, in two threads, all of them in time."""
    expired: list[int] = []

    async def one() -> int:
        try:
            await limited(0.001, asyncio.sleep(60))
        except TooLate:
            return 1
        return 0

    async def work() -> None:
        for _ in range(20):
            ended = await asyncio.wait_for(asyncio.gather(*(one() for _ in range(200))), 30)
            expired.append(sum(ended))

    threads = [threading.Thread(target=lambda: asyncio.run(work())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert expired == [200] * 40
