"""Room on a disk: what is free there, less what has been promised already."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from imagegate.spool.reservation import Reservation

_MAX_AGE: Final = 1.0
"""Seconds for which a look at the disk is good, but where it shows too little room."""
_MARGIN: Final = 64 * 1024
"""Bytes that a file system takes beside the contents of files."""


class DiskFull(OSError):
    """The disk has no room for what is about to be written."""

    def __init__(self) -> None:
        super().__init__(errno.ENOSPC, "the disk is full")


class DiskRoom:
    """Promises room on the disk that holds a folder.

    The disk is looked at in a thread, once a second at most while there is room enough. Until the next look a
    reservation that has been released counts on, as does what has been written, so that too much is never promised.

    Args:
        folder: gives the folder, which need not exist yet.
        free: gives the free bytes of the disk that holds a folder.
        clock: gives the seconds of a monotonic clock.
    """

    def __init__(
        self,
        folder: Callable[[], str | Path],
        *,
        free: Callable[[str | Path], float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._bytes_free = free or bytes_free
        self._clock = clock
        self._free = 0.0
        self._looked = float("-inf")
        self._promised = 0
        """Bytes that were promised since the last look, or were in use then."""
        self._reserved = 0
        """Bytes of reservations that are in use."""
        self._made = 0
        """Bytes of all reservations there have been."""
        self._written = 0
        """Bytes that have been written there."""
        self._written_before = 0
        """Of these, what the last look has seen."""
        self._lock = threading.Lock()
        self._look: asyncio.Future[None] | None = None

    @property
    def reserved(self) -> int:
        """Bytes of reservations that are in use."""
        return self._reserved

    async def reserve(self, size: int) -> Reservation:
        """Promise `size` bytes. Raises `DiskFull`, and what `free` raises."""
        if self._clock() - self._looked > _MAX_AGE or not self._has(size):
            await self._look_again()
            if not self._has(size):
                raise DiskFull
        self._promised += size
        self._reserved += size
        self._made += size
        return Reservation(partial(self._release, size))

    def note_written(self, size: int) -> None:
        """Count bytes that are about to be written there, until the next look sees them. Call from any thread."""
        with self._lock:
            self._written += size

    def _has(self, size: int) -> bool:
        return self._free - self._promised - (self._written - self._written_before) >= size

    def _release(self, size: int) -> None:
        self._reserved -= size

    async def _look_again(self) -> None:
        """One look at a time, which is shared by all who wait for it."""
        loop = asyncio.get_running_loop()
        if self._look is None or self._look.done() or self._look.get_loop() is not loop:
            self._look = asyncio.ensure_future(self._measure())
            self._look.add_done_callback(lambda look: look.cancelled() or look.exception())
        await asyncio.shield(self._look)

    async def _measure(self) -> None:
        looked, reserved, made, written = self._clock(), self._reserved, self._made, self._written
        free = await asyncio.to_thread(lambda: self._bytes_free(self._folder()))
        self._free, self._looked = free, looked
        self._promised, self._written_before = reserved + self._made - made, written


def bytes_free(folder: str | Path) -> float:
    """Return the free bytes of the disk that holds a folder, or will; infinite where the system does not report it."""
    if not hasattr(os, "statvfs"):
        return float("inf")
    place = Path(folder).absolute()
    while True:
        try:
            disk = os.statvfs(place)
        except FileNotFoundError:
            if place == place.parent:
                return float("inf")
            place = place.parent
        except OSError:
            return float("inf")  # writing there raises the error
        else:
            return max(0, disk.f_bavail * disk.f_frsize - _MARGIN)


def free_behind(descriptor: int) -> float:
    """Return the free bytes of the disk that holds an open file."""
    try:
        disk = os.fstatvfs(descriptor)
    except (OSError, AttributeError):
        return float("inf")
    return disk.f_bavail * disk.f_frsize
