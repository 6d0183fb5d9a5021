"""An event loop whose clock stands still while work is done, and jumps to the next timer while there is none.

What waits by the clock takes no time then, and always equally long, however busy the machine is. The clock also stands
still while a thread of the loop's is at work. It is for code that waits for these and for timers only: what other
threads, processes or sockets have to bring about would find the time over.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

_Result = TypeVar("_Result")


class _Selector(selectors.DefaultSelector):
    """Waits for threads alone: the time it should have waited otherwise is over at once."""

    now = 0.0
    threads = 0
    """At work."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.threads and timeout != 0:
            return super().select(None)
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

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """Let the clock stand still until the function has ended."""
        future: asyncio.Future[Any] = super().run_in_executor(executor, func, *args)
        self.clock.threads += 1
        future.add_done_callback(self._ended)
        return future

    def _ended(self, _: asyncio.Future[Any]) -> None:
        self.clock.threads -= 1

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Wait for its threads by the real clock: since Python 3.12 there is a limit of time, which would be over."""
        await super().shutdown_default_executor()


def run(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Do what `asyncio.run` does, on such a loop."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(work)
