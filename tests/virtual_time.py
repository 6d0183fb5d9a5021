"""An event loop whose clock stands still while work is done, and jumps to the next timer while there is none.

What waits by the clock takes no time then, and always equally long, however busy the machine is. It is for code that
waits for timers only: what other threads, processes or sockets have to bring about would find the time over.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

_Result = TypeVar("_Result")


class _Selector(selectors.DefaultSelector):
    """Waits for nothing: the time it should have waited is over at once."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(None if timeout is None else 0)
        if not ready and timeout is not None:
            self.now += max(timeout, 0.0)
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.clock = _Selector()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Wait for its threads by the real clock: since Python 3.12 there is a limit of time, which would be over."""
        await super().shutdown_default_executor()


def run(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Do what `asyncio.run` does, on such a loop."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(work)
