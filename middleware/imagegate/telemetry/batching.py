"""Work that is put by for a moment, because many pieces at a time cost less than each alone."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeVar

_Item = TypeVar("_Item")


def taken(waiting: deque[_Item]) -> Iterator[_Item]:
    """Return all that waits, each once, also where another thread takes from it at the same time."""
    with suppress(IndexError):
        while True:
            yield waiting.popleft()


class Soon:
    """Runs work after `seconds`, once for all who ask until then; at once where no event loop runs."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        """That will run it. Another one does not rely on it: it may have ended."""

    def run(self, work: Callable[[], None]) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            work()
            return
        if self._loop is not loop:
            self._loop = loop
            loop.call_later(self._seconds, self._run, work)

    def _run(self, work: Callable[[], None]) -> None:
        self._loop = None
        work()
