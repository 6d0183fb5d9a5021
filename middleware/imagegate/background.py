"""Work that outlives the request that began it, and who still wants its result."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, Generic, TypeVar

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


async def stop(*tasks: asyncio.Task[Any]) -> None:
    """Cancels tasks and waits for them; again where one goes on, because something below it has swallowed the word."""
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_PATIENCE)


def is_cancelled() -> bool:
    """Whether the running task was told to end and is only tidying up."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class SharedCall(Generic[T]):
    """One call for several who want its result. It is cancelled when the last of them leaves, unless it is kept.

    ``while_connected`` cancels the layers of a client that has left; whoever awaits `result` there merely leaves.
    Files of the request that the call reads must be kept for it: `imagegate.spool.Upload.retain`.

    Args:
        background: runs it.
        work: done once, whoever wants it.
    """

    def __init__(self, background: Background, work: Coroutine[Any, Any, T]) -> None:
        self._task = background.start(work)
        self._task.add_done_callback(_look_at)
        self._wanted = 0
        self._kept = False

    @property
    def is_over(self) -> bool:
        return self._task.done()

    def keep(self) -> None:
        """From now on it runs to its end, whoever leaves: a key or a task wants the result later."""
        self._kept = True

    async def result(self) -> T:
        """Waits for the result, or raises the call's error.

        Raises:
            asyncio.CancelledError: the waiter was cancelled, or the call.
        """
        self._wanted += 1
        try:
            return await asyncio.shield(self._task)
        finally:
            self._wanted -= 1
            if not self._wanted and not self._kept:
                self._task.cancel()  # of what is over this does nothing


def _look_at(task: asyncio.Task[Any]) -> None:
    """The error of a call whose clients have all left is nobody's; asyncio would log it."""
    if not task.cancelled():
        task.exception()
