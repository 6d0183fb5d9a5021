"""A limit of time: what is late is cancelled, and everybody else's cancelling stays his own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from imagegate.asgi.time_limit import TimeOver, before

LONG = 30.0
"""Seconds that no test waits."""


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize("seconds", [None, LONG])
def test_what_is_in_time_is_left_alone(seconds: float | None) -> None:
    """Its result comes back, or its error."""

    async def work(error: Exception | None) -> int:
        if error is not None:
            raise error
        return 7

    async def test() -> None:
        when = None if seconds is None else now() + seconds
        assert await before(when, work(None)) == 7
        with pytest.raises(TimeoutError) as caught:
            await before(when, work(TimeoutError()))
        assert type(caught.value) is TimeoutError

    run(test())


def test_what_is_late_is_cancelled() -> None:
    """The work sees that it is, and the task goes on afterwards as if nothing had been."""

    async def test() -> None:
        seen: list[str] = []

        async def work() -> None:
            try:
                await asyncio.sleep(LONG)
            finally:
                seen.append("ended")

        with pytest.raises(TimeOver):
            await before(now(), work())
        task = asyncio.current_task()
        assert (seen, task and task.cancelling()) == (["ended"], 0)
        await asyncio.sleep(0)

    run(test())


@pytest.mark.parametrize("error", [None, ValueError("its own")])
def test_work_that_ends_all_the_same(error: Exception | None) -> None:
    """What does not let itself be cancelled ends in its own way, and leaves no cancelling behind."""

    async def test() -> None:
        async def work() -> int:
            try:
                await asyncio.sleep(LONG)
            except asyncio.CancelledError:
                if error is not None:
                    raise error from None
            return 7

        if error is None:
            assert await before(now(), work()) == 7
        else:
            with pytest.raises(ValueError, match="its own"):
                await before(now(), work())
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    run(test())


@pytest.mark.parametrize("late", [True, False])
def test_a_task_that_somebody_else_cancels(late: bool) -> None:
    """Is cancelled, whether or not its time is over at the same moment."""

    async def test() -> None:
        begun = asyncio.Event()

        async def work() -> None:
            begun.set()
            await asyncio.sleep(LONG)

        task = asyncio.create_task(before(now() + (0.01 if late else LONG), work()))
        await begun.wait()
        if late:
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.sleep(0)
        else:
            task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    run(test())


def test_limits_within_limits() -> None:
    """The one that is over is the one that is told of, and the outer one still holds."""

    async def test() -> None:
        with pytest.raises(TimeOver):
            await before(now(), before(now() + LONG, asyncio.sleep(LONG)))

        async def outer() -> str:
            try:
                await before(now(), asyncio.sleep(LONG))
            except TimeOver:
                return "inner"
            return "none"

        assert await before(now() + LONG, outer()) == "inner"

    run(test())
