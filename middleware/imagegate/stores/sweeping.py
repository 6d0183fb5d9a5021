"""Removes what has expired, also while no request comes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from structlog import get_logger

from imagegate.asgi.background import repeat, stop

_SECONDS_BETWEEN_SWEEPS: Final = 60.0


class Sweeper:
    """Runs sweeps, each at once and every minute from then on; one that fails runs again, and does not keep the others.

    Args:
        sweeps: each removes what is too old.
        pause: seconds between two rounds.
    """

    def __init__(
        self, sweeps: Sequence[Callable[[], Awaitable[None]]], *, pause: float = _SECONDS_BETWEEN_SWEEPS
    ) -> None:
        self._sweeps = sweeps
        self._pause = pause
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin, unless it has begun; call on an event loop."""
        if all(task.done() for task in self._tasks):
            self._tasks = [
                asyncio.create_task(repeat(sweep, pause=self._pause, on_error=_log_error)) for sweep in self._sweeps
            ]

    async def aclose(self) -> None:
        tasks, self._tasks = self._tasks, []
        running = asyncio.get_running_loop()
        await stop(*(task for task in tasks if task.get_loop() is running))


def _log_error(error: Exception) -> None:
    get_logger("imagegate").warning("old data could not be removed", reason=str(error))
