"""Work that outlives its request: who keeps it, who ends it, and what the gateway waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from imagegate.asgi.background import Background
from imagegate.spool.budget import Budget
from imagegate.spool.upload import Upload, UploadClosed

NOT_LONG = 0.01
"""Seconds, for graces that are meant to run out."""


class Work:
    """A call that ends when it is told to, and knows how it ended."""

    def __init__(self) -> None:
        self.runs = 0
        self.may_end = asyncio.Event()
        self.ended = ""

    async def __call__(self) -> str:
        self.runs += 1
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.ended = "cancelled"
            raise
        self.ended = "done"
        return "a picture"


async def turns() -> None:
    """Lets everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def test_the_end_is_waited_for() -> None:
    """What ends within the grace is not cancelled, nor is what it begins."""

    async def test() -> None:
        background, later = Background(), Work()

        async def first() -> None:
            await asyncio.sleep(0)
            later.may_end.set()
            background.start(later())

        background.start(first())
        assert await background.finish(grace=30) == 0
        assert (later.ended, len(background)) == ("done", 0)

    run(test())


def test_what_does_not_end_is_cancelled() -> None:
    """It is cancelled after the grace, and its last words are waited for."""

    async def test() -> None:
        background, work = Background(), Work()
        background.start(work())
        assert await background.finish(grace=NOT_LONG) == 1
        assert work.ended == "cancelled"
        assert await background.finish(grace=NOT_LONG) == 0

    run(test())


def test_a_file_is_there_until_the_last_one_gives_it_back() -> None:
    """The request's end leaves a file to the call that goes on, and the call's end gives its room back."""

    async def test() -> None:
        budget = Budget(total=100, memory=100)
        upload = Upload("image", "a.png", "image/png", budget=budget)
        await upload.write(b"x" * 60)
        await upload.complete()
        upload.retain()
        upload.close()
        assert await upload.read() == b"x" * 60
        upload.close()
        with pytest.raises(UploadClosed):
            await upload.read()
        budget.take(100)  # all of it is free again

    run(test())
