"""Cancels the work of a request when its client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final

from starlette.types import Receive

from imagegate.asgi.helpers import ClientDisconnected

_WATCHED_AFTER: Final = 0.05
"""Seconds of work after which the client's connection is watched."""
_LONGEST_PAUSE: Final = 1.0
"""Maximum seconds between two calls of a `receive` that does not wait for the client to disconnect."""


async def while_connected(work: Awaitable[None], receive: Receive, *, watched_after: float = _WATCHED_AFTER) -> None:
    """Await `work`, and cancel it when the client disconnects.

    Servers do not cancel handlers: after the body, the only ASGI message left is ``http.disconnect``.

    Args:
        work: to be awaited.
        receive: of the server.
        watched_after: seconds of work before the connection is watched; a watcher task is costly for short work.

    Raises:
        ClientDisconnected: the client disconnected before `work` was done.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task(loop)
    left = False
    watcher: asyncio.Task[None] | None = None

    async def watch() -> None:
        nonlocal left
        pause = _WATCHED_AFTER
        while (await receive())["type"] != "http.disconnect":
            await asyncio.sleep(pause)  # a `receive` that returns at once must not keep the event loop busy
            pause = min(pause * 2, _LONGEST_PAUSE)
        left = True
        if task is not None:
            task.cancel()

    def start() -> None:
        nonlocal watcher
        watcher = asyncio.create_task(watch())

    timer = loop.call_later(watched_after, start)
    try:
        await work
    except asyncio.CancelledError:
        if left and task is not None:
            left = False
            if task.uncancel() == 0:  # no other cancellation is pending
                raise ClientDisconnected from None
        raise
    finally:
        timer.cancel()
        if watcher is not None:
            watcher.cancel()
        if left and task is not None:  # `work` swallowed the cancellation, which must not reach what follows
            task.uncancel()
