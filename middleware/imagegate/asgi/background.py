"""Work that outlives the request that began it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

_PATIENCE: Final = 5.0
"""Seconds that a task has to end in after it was cancelled."""


class Background:
    """What the gateway runs by itself. It is waited for before the gateway ends, and then cancelled."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Runs `work` as a task, which is kept from being collected. Its error is the starter's to look at."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def finish(self, grace: float) -> int:
        """Waits until nothing runs, for `grace` seconds at most; the rest is cancelled and waited for.

        Returns:
            How many were cancelled.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + grace
        while self._tasks and (left := until - loop.time()) > 0:  # what ends may have begun something new
            await asyncio.wait(self._tasks, timeout=left)
        unfinished = tuple(self._tasks)
        await stop(*unfinished)
        return len(unfinished)


async def stop(*tasks: asyncio.Task[Any], patience: float = _PATIENCE) -> None:
    """Cancels tasks and waits for them; again where one goes on, because something below it has swallowed the word.

    Args:
        patience: seconds that a task has to end in before it is cancelled again.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=patience)


def is_cancelled() -> bool:
    """Whether the running task was told to end and is only tidying up."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
