"""Writing in threads: what the writers of files and of cloud objects have in common."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Final, TypeVar

Result = TypeVar("Result")

UNIT: Final = 1024 * 1024
"""Bytes that are collected before a thread takes them: a hop into a thread costs more CPU than copying 256 KiB."""


class ThreadWriter(ABC):
    """A `PictureWriter` whose work is done in threads, a few hops for each picture.

    A thread that its caller no longer waits for runs to its end, so a lock keeps `discard` behind it.

    Args:
        threads: None: the event loop's own.
        limit: maximum seconds that the caller waits for a thread, including the queue; None: unlimited.
    """

    def __init__(self, *, threads: Executor | None = None, limit: float | None = None) -> None:
        self._threads = threads
        self._limit = limit
        self._held: list[bytes] = []
        self._held_size = 0
        self.sent = 0
        """Bytes that threads were given."""
        self._lock = threading.Lock()
        self._has_begun = False
        self._is_aborted = False

    async def write(self, data: bytes) -> None:
        self._held.append(data)
        self._held_size += len(data)
        if self._held_size >= UNIT:
            await self._in_thread(self.append)

    async def commit(self) -> str:
        def all_of_it(data: Sequence[bytes]) -> str:
            self.append(data)
            return self.finish()

        return await self._in_thread(all_of_it)

    async def abort(self) -> None:
        if self.is_to_be_discarded():
            # Handed over at once and shielded: it is done also where the caller is cancelled meanwhile.
            await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._threads, self.discard_in_order))

    def is_to_be_discarded(self) -> bool:
        """End the picture; whether anything of it may be left to clean up."""
        self._held = []
        was_aborted, self._is_aborted = self._is_aborted, True
        return self._has_begun and not was_aborted

    def discard_in_order(self) -> None:
        with self._lock:
            self.discard()

    async def _in_thread(self, work: Callable[[Sequence[bytes]], Result]) -> Result:
        data, self._held = self._held, []
        self.sent += self._held_size
        self._held_size = 0
        self._has_begun = True

        def in_order() -> Result:
            with self._lock:
                if self._is_aborted:  # aborted while it was queued
                    raise OSError("the picture was aborted")
                return work(data)

        try:
            async with asyncio.timeout(self._limit):
                return await asyncio.get_running_loop().run_in_executor(self._threads, in_order)
        except Exception as error:
            raise self.plain(error) from None

    @abstractmethod
    def append(self, data: Sequence[bytes]) -> None:
        """Take the next pieces, perhaps none. Runs in a thread, as what follows."""

    @abstractmethod
    def finish(self) -> str:
        """Make the picture available and return its key."""

    @abstractmethod
    def discard(self) -> None:
        """Clean up, also after `finish`. Never fails."""

    @abstractmethod
    def plain(self, error: Exception) -> Exception:
        """Return a thread's error as callers may see it."""
