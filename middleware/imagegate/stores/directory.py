"""The directory of a file store: what is in it, how much of it, and what is too old."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import Final

from imagegate.spool.disk_room import DiskFull, DiskRoom, bytes_free
from imagegate.spool.reservation import Reservation
from imagegate.stores.clock import Clock
from imagegate.stores.errors import StoreFull
from imagegate.stores.keys import is_key

PARTIAL: Final = ".partial"
_SECONDS_BETWEEN_SWEEPS: Final = 60.0
_NO_MORE: Final = "the pictures take as many bytes as they may"


class PictureDirectory:
    """Removes pictures older than `ttl` seconds now and then, and counts the bytes of the others.

    All methods may be called from any thread. Several processes may share a directory: each counts what it writes
    itself, and every minute, in the same pass that removes the old, what all have written.

    Args:
        max_bytes: of all pictures together; None: as the disk allows.
        clock: source of the time.
    """

    def __init__(self, path: Path, *, ttl: float, max_bytes: int | None = None, clock: Clock = time) -> None:
        self.path = path
        self._clock = clock
        self._ttl = ttl
        self._max_bytes = max_bytes
        self._used = 0
        self._used_since_scan = 0
        self._swept = clock.monotonic() - _SECONDS_BETWEEN_SWEEPS
        self._lock = threading.Lock()
        self._is_counted = threading.Event()
        self._room = DiskRoom(lambda: path, free=self._look, clock=clock.monotonic)

    async def reserve(self, size: int) -> Reservation:
        """Promise room for `size` bytes, or for all that there may be at most: pictures can be smaller than expected.

        Raises:
            StoreFull: there is not so much room.
            OSError: nothing can be written at all.
        """
        if self._max_bytes is not None:
            size = min(size, self._max_bytes)
        try:
            reservation = await self._room.reserve(size)
        except DiskFull as error:
            raise StoreFull("the disk is full") from error
        with self._lock:
            is_over = self._max_bytes is not None and self._used + self._room.reserved > self._max_bytes
        if is_over:
            reservation.release()
            raise StoreFull(_NO_MORE)
        return reservation

    def _look(self, path: str | Path) -> float:
        """Return the free bytes of the disk, and count the pictures. Runs in a thread. Raises `OSError`."""
        if os.path.lexists(path) and not (self.path.is_dir() and os.access(path, os.W_OK | os.X_OK)):
            raise OSError("the directory cannot be written to")
        self.path.mkdir(parents=True, exist_ok=True)
        if self._max_bytes is not None and not self._is_counted.is_set():
            self.sweep()
        elif self._max_bytes is not None and self._is_due():
            threading.Thread(target=self.sweep, name="imagegate-sweep", daemon=True).start()
        return bytes_free(path)

    def take(self, size: int) -> None:
        """Count bytes that are about to be written. Raises `StoreFull`."""
        with self._lock:
            if self._max_bytes is not None and self._used + size > self._max_bytes:
                raise StoreFull(_NO_MORE)
            self._used += size
            self._used_since_scan += size
        self._room.note_written(size)

    def give_back(self, size: int) -> None:
        """Count bytes that are there no more."""
        with self._lock:
            self._used -= size
            self._used_since_scan -= size

    def sweep(self) -> None:
        """Remove old pictures and count the others, once a minute."""
        with self._lock:
            if is_due := self._is_due():
                self._swept = self._clock.monotonic()
                self._used_since_scan = 0
        if is_due:
            found = self._scan(self._clock.time() - self._ttl)
            with self._lock:
                self._used = found + self._used_since_scan
            self._is_counted.set()
        elif self._max_bytes is not None:
            self._is_counted.wait()  # only while another thread counts for the first time

    def _is_due(self) -> bool:
        return self._clock.monotonic() - self._swept >= _SECONDS_BETWEEN_SWEEPS

    def _scan(self, oldest: float) -> int:
        """Return bytes that are left of pictures, whole ones and partial ones."""
        used = 0
        with contextlib.suppress(OSError), os.scandir(self.path) as entries:  # cleaning never fails a picture
            for entry in entries:
                with contextlib.suppress(OSError):  # another process may have been faster
                    if not is_key(entry.name.removesuffix(PARTIAL)) or not entry.is_file(follow_symlinks=False):
                        continue
                    facts = entry.stat()
                    if facts.st_mtime < oldest:
                        os.unlink(entry.path)
                    else:
                        used += facts.st_size
        return used
