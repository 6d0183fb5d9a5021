"""Background tasks that outlive the request that started them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_CANCEL_TIMEOUT: Final = 5.0
"""Seconds after which a task that ignored its cancellation is cancelled again."""


class Background:
    """Background tasks of the gateway: awaited at shutdown, and cancelled after the grace period."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run `work` as a task and hold a reference to it. The caller handles its error."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def join(self) -> None:
        """Wait for all tasks, and for those that they start."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def finish(self, grace: float) -> int:
        """Wait up to `grace` seconds for all tasks, then cancel the rest and wait for them.

        Returns:
            The number of cancelled tasks.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + grace
        while self._tasks and (left := until - loop.time()) > 0:  # a task may have started another one
            await asyncio.wait(self._tasks, timeout=left)
        unfinished = tuple(self._tasks)
        await stop(*unfinished)
        return len(unfinished)


async def repeat(work: Callable[[], Awaitable[None]], *, pause: float, on_error: Callable[[Exception], None]) -> None:
    """Run `work` again and again, `pause` seconds apart, until cancelled. An error never ends it.

    Args:
        work: runs once at once.
        pause: seconds between the end of one run and the next.
        on_error: is called with an exception of `work`.
    """
    while True:
        try:
            await work()
        except Exception as error:
            on_error(error)
        await asyncio.sleep(pause)


async def stop(*tasks: asyncio.Task[Any], interval: float = _CANCEL_TIMEOUT) -> None:
    """Cancel tasks and wait for them; cancel again where a task swallowed its cancellation.

    Args:
        tasks: to be cancelled.
        interval: seconds until a task that still runs is cancelled again.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=interval)


def is_cancelled() -> bool:
    """Return whether cancellation of the current task was requested."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function in a thread; a cancelled caller waits for its end, so that what it did can be undone."""
    running = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise
