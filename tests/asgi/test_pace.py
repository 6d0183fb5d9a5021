"""A client that falls behind the least pace is given up; one that keeps it may take as long as it likes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from starlette.types import Message
from tests.virtual_time import run

from imagegate.asgi.helpers import ClientDisconnected
from imagegate.asgi.in_flight import Pace, PacedClient
from imagegate.errors import RequestTimeout

FAST = 100_000_000
"""Bytes a second, beside which a server's buffers are nothing."""


def request(size: int, *, more: bool = True) -> Message:
    return {"type": "http.request", "body": bytes(size), "more_body": more}


def body(size: int, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": bytes(size), "more_body": more}


def client(*, receive: Callable[[], Awaitable[Message]] | None = None, send: float = 0.0, pace: Pace) -> PacedClient:
    async def nothing() -> Message:
        raise AssertionError

    async def sent(message: Message) -> None:
        await asyncio.sleep(send)

    return PacedClient(receive or nothing, sent, pace)


def arriving(*pieces: tuple[float, Message]) -> Callable[[], Awaitable[Message]]:
    """A `receive` that waits before each message."""
    left = list(pieces)

    async def receive() -> Message:
        seconds, message = left.pop(0)
        await asyncio.sleep(seconds)
        return message

    return receive


def test_who_sends_nothing_is_given_up() -> None:
    """With a 408 that closes the connection, and that names the pace."""

    async def work() -> None:
        slow = client(receive=arriving((0.0, request(1)), (60.0, request(1))), pace=Pace(1000, 0.1))
        await slow.receive()
        await slow.receive()

    with pytest.raises(RequestTimeout, match="1,000 bytes a second") as caught:
        run(work())
    assert (caught.value.status, dict(caught.value.headers)) == (408, {b"connection": b"close"})


def test_who_trickles_is_given_up() -> None:
    """Although something arrives all the time."""

    async def work() -> None:
        slow = client(receive=arriving(*[(0.02, request(1))] * 1000), pace=Pace(1000, 0.2))
        for _ in range(1000):
            await slow.receive()

    with pytest.raises(RequestTimeout):
        run(work())


def test_who_keeps_pace_is_waited_for() -> None:
    """Far longer than a client may fall behind."""

    async def work() -> None:
        steady = client(receive=arriving(*[(0.05, request(1000))] * 20), pace=Pace(1000, 0.5))
        for _ in range(20):
            await steady.receive()

    run(work())


def test_what_arrived_early_is_no_credit() -> None:
    """However much of the body was fast, the rest may not stand still."""

    async def work() -> None:
        slow = client(receive=arriving((0.0, request(10_000_000)), (60.0, request(1))), pace=Pace(1000, 0.1))
        await slow.receive()
        await slow.receive()

    with pytest.raises(RequestTimeout):
        run(work())


def test_only_waiting_for_the_client_counts() -> None:
    """What takes long between two messages is not the client's fault."""

    async def work() -> None:
        patient = client(receive=arriving(*[(0.0, request(1))] * 5), pace=Pace(1000, 0.05))
        for _ in range(5):
            await patient.receive()
            await asyncio.sleep(0.05)
            await patient.send(body(1))

    run(work())


@pytest.mark.parametrize("last", [request(0, more=False), {"type": "http.disconnect"}])
def test_after_the_body_there_is_no_hurry(last: Message) -> None:
    """What is received then is the end of the connection, which comes when it comes."""

    async def work() -> Message:
        done = client(receive=arriving((0.0, last), (0.3, {"type": "http.disconnect"})), pace=Pace(1000, 0.05))
        await done.receive()
        return await done.receive()

    assert run(work())["type"] == "http.disconnect"


def test_who_does_not_read_is_given_up_for_good() -> None:
    """Whoever sends next finds the client gone, without waiting again."""

    async def work() -> int:
        stuck = client(send=60.0, pace=Pace(FAST, 0.1))
        failed = 0
        for _ in range(3):
            try:
                await stuck.send(body(10))
            except ClientDisconnected:
                failed += 1
        return failed

    assert run(work()) == 3


def test_who_reads_at_the_pace_is_waited_for() -> None:
    """Each message may take as long as its bytes do."""

    async def work() -> None:
        steady = client(send=0.1, pace=Pace(FAST, 0.05))
        for _ in range(10):
            await steady.send(body(FAST // 5))

    run(work())


def test_a_server_that_has_buffers_is_waited_for() -> None:
    """At a low pace they may take minutes to drain."""

    async def work() -> None:
        await client(send=0.3, pace=Pace(1_000_000, 0.01)).send(body(1))

    run(work())


def test_another_cancellation_is_passed_on() -> None:
    """While it waits for the client, and although that is too slow as well."""

    async def work() -> bool:
        stuck = client(send=60.0, pace=Pace(FAST, 0.2))
        task = asyncio.create_task(stuck.send(body(1)))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return task.cancelled()

    assert run(work())


def test_a_timeout_around_it_is_the_callers() -> None:
    """Their cancellations are not taken for each other."""

    async def work() -> None:
        async with asyncio.timeout(0.1):
            await client(send=60.0, pace=Pace(FAST, 5.0)).send(body(1))

    with pytest.raises(TimeoutError):
        run(work())
