"""Work ends with the client that it is for, and leaves its task as it found it."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from starlette.types import Message

from imagegate.asgi.helpers import ClientDisconnected
from imagegate.asgi.in_flight import while_connected


async def gone() -> Message:
    return {"type": "http.disconnect"}


async def cancellations() -> int:
    """How many times the task is still asked to end; it can wait for something, as whatever comes next must."""
    await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


def test_work_is_cancelled_when_the_client_leaves() -> None:
    async def test() -> None:
        with pytest.raises(ClientDisconnected):
            await while_connected(asyncio.sleep(60), gone, watched_after=0)
        assert await cancellations() == 0

    asyncio.run(test())


@pytest.mark.parametrize("fails", [False, True])
def test_work_that_takes_no_notice_leaves_no_cancellation_behind(fails: bool) -> None:
    """It ends as it likes, and `asyncio.timeout` around what follows counts cancellations."""

    async def work() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        if fails:
            raise LookupError

    async def test() -> None:
        with contextlib.suppress(LookupError):
            await while_connected(work(), gone, watched_after=0)
        assert await cancellations() == 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.sleep(60)

    asyncio.run(test())


def test_a_receive_that_never_waits() -> None:
    """Some servers and middlewares answer at once as long as the client is there: the loop stays free for the work."""
    calls = 0

    async def receive() -> Message:
        nonlocal calls
        calls += 1
        return {"type": "http.request", "body": b"", "more_body": False} if calls < 4 else await gone()

    async def test() -> None:
        with pytest.raises(ClientDisconnected):
            await while_connected(asyncio.sleep(60), receive, watched_after=0)

    asyncio.run(test())
    assert calls == 4

    async def endless() -> Message:
        nonlocal calls
        calls += 1
        return {"type": "http.request", "body": b"", "more_body": False}

    async def work() -> None:
        for _ in range(100):
            await asyncio.sleep(0)

    calls = 0
    asyncio.run(while_connected(work(), endless, watched_after=0))
    assert calls <= 2  # not once for each turn of the loop


def test_somebody_elses_cancellation_stays() -> None:
    """The client leaves, and the server ends the task as well: that is no disconnect."""

    async def test() -> None:
        async def work() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                while task.cancelling() < 2:
                    await asyncio.sleep(0)
                raise

        with pytest.raises(asyncio.CancelledError):
            await while_connected(work(), gone, watched_after=0)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 1
        task.uncancel()

    asyncio.run(test())
