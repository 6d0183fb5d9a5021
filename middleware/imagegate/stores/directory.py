"""The directory of a file store: what is in it, how much of it, and what is too old."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import Final

from imagegate.stores.base import StoreFull
from imagegate.stores.clock import Clock
from imagegate.stores.keys import is_key

PARTIAL: Final = ".partial"
_SECONDS_BETWEEN_SWEEPS: Final = 60.0
_LEAST_FREE: Final = 1024 * 1024
"""Bytes; a disk with less than this is full before anything is written to it."""


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

    def check(self) -> None:
        """Raise `StoreFull` where not even a small picture has room, `OSError` where nothing can be written at all.

        Blocks for its first count only.
        """
        if os.path.lexists(self.path) and not (self.path.is_dir() and os.access(self.path, os.W_OK | os.X_OK)):
            raise OSError("the directory cannot be written to")
        if self._max_bytes is not None:
            if not self._is_counted.is_set():
                self.sweep()
            elif self._is_due():
                threading.Thread(target=self.sweep, name="imagegate-sweep", daemon=True).start()
            with self._lock:
                if self._used >= self._max_bytes:
                    raise StoreFull("the pictures take as many bytes as they may")
        if self._bytes_free() < _LEAST_FREE:
            raise StoreFull("the disk is full")

    def _bytes_free(self) -> float:
        try:
            disk = os.statvfs(self.path)
        except (OSError, AttributeError):  # not yet made; or a system without statvfs
            return float("inf")
        return disk.f_bavail * disk.f_frsize

    def take(self, size: int) -> None:
        """Count bytes that are about to be written. Raises `StoreFull`."""
        with self._lock:
            if self._max_bytes is not None and self._used + size > self._max_bytes:
                raise StoreFull("the pictures take as many bytes as they may")
            self._used += size
            self._used_since_scan += size

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
