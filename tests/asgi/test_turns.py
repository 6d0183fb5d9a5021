"""Requests that come together begin a few at a time, in their order, and nobody is forgotten."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegate.asgi.turns import Turns


async def begins(turns: Turns, name: int, begun: list[int]) -> None:
    if (turn := turns.begin()) is not None:
        await turn
    begun.append(name)


def test_a_turn_lets_a_few_in_and_the_next_ones_follow() -> None:
    """Between two turns of the loop no more begin than may, in the order in which they came."""

    async def main() -> None:
        turns, begun, seen = Turns(at_once=3), list[int](), list[int]()
        tasks = [asyncio.create_task(begins(turns, name, begun)) for name in range(10)]
        while len(begun) < 10:
            before = len(begun)
            await asyncio.sleep(0)
            seen.append(len(begun) - before)
        await asyncio.gather(*tasks)
        assert begun == list(range(10))
        assert max(seen) == 3

    asyncio.run(main())


def test_who_comes_later_does_not_push_in() -> None:
    """As long as somebody waits, new ones wait behind him."""

    async def main() -> None:
        turns, begun = Turns(at_once=1), list[int]()
        tasks: list[asyncio.Task[None]] = []
        for name in range(20):
            tasks.append(asyncio.create_task(begins(turns, name, begun)))
            if name % 3 == 0:
                await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        assert begun == list(range(20))

    asyncio.run(main())


@given(st.lists(st.booleans(), max_size=40), st.integers(1, 5))
def test_who_is_cancelled_takes_nobodys_turn(leaves: list[bool], at_once: int) -> None:
    """Whoever leaves while waiting, the others begin."""

    async def main() -> None:
        turns, begun = Turns(at_once=at_once), list[int]()
        tasks = [asyncio.create_task(begins(turns, name, begun)) for name in range(len(leaves))]
        await asyncio.sleep(0)
        for task, leave in zip(tasks, leaves, strict=True):
            if leave:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        staying = [name for name, leave in enumerate(leaves) if not leave]
        assert [name for name in begun if not leaves[name]] == staying
        await begins(turns, -1, begun)
        assert begun[-1] == -1

    asyncio.run(main())


@pytest.mark.parametrize("ends", ["at once", "after a turn"])
def test_a_loop_that_ends_holds_nobody_up_in_the_next(ends: str) -> None:
    """What waited in a loop that is gone is gone with it."""
    turns, begun = Turns(at_once=1), list[int]()

    async def main() -> None:
        tasks = [asyncio.create_task(begins(turns, name, begun)) for name in range(3)]
        await asyncio.sleep(0)
        if ends == "after a turn":
            await asyncio.gather(*tasks)

    for _ in range(3):
        asyncio.run(asyncio.wait_for(main(), 5))
    asyncio.run(asyncio.wait_for(begins(turns, 9, begun), 5))
    assert begun[-1] == 9
