"""Pictures that are paid for and that a full disk did not take: kept in memory until it does."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from imagegate.stores.clock import Clock
from imagegate.stores.directory import PARTIAL, PictureDirectory
from imagegate.stores.errors import StoreFull

DEFAULT_OVERFLOW: Final = 64 * 1024**2
"""Bytes. Room is secured before a picture is paid for; this is for those that turn out larger than any before."""


class Overflowing(NamedTuple):
    """A picture in memory."""

    since: float
    """Unix time."""
    content: bytes


class Overflow:
    """Holds pictures of a directory in memory. All methods may be called from any thread.

    Args:
        capacity: bytes.
        ttl: seconds that a picture is kept.
    """

    def __init__(self, capacity: int, *, ttl: float, clock: Clock) -> None:
        self._left = capacity
        self._ttl = ttl
        self._clock = clock
        self._pictures: dict[str, Overflowing] = {}
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        """Return whether a picture waits for room."""
        return bool(self._pictures)

    def take(self, size: int) -> bool:
        """Return whether `size` bytes may be held."""
        with self._lock:
            if size > self._left:
                return False
            self._left -= size
            return True

    def give_back(self, size: int) -> None:
        """Count bytes that are held no more, and are no picture's."""
        with self._lock:
            self._left += size

    def add(self, key: str, content: bytes) -> None:
        """Hold a picture, whose bytes were taken."""
        self.remove(key)
        with self._lock:
            self._pictures[key] = Overflowing(self._clock.time(), content)

    def get(self, key: str) -> Overflowing | None:
        return self._pictures.get(key)

    def remove(self, key: str) -> None:
        """Drop a picture; none is no error."""
        with self._lock:
            if (found := self._pictures.pop(key, None)) is not None:
                self._left += len(found.content)

    def flush(self, directory: PictureDirectory) -> None:
        """Write to disk what it takes now, and drop what is too old. Call in a thread."""
        for key, picture in list(self._pictures.items()):
            if picture.since >= self._clock.time() - self._ttl and not _is_written(directory, key, picture):
                return
            self.remove(key)


def _is_written(directory: PictureDirectory, key: str, picture: Overflowing) -> bool:
    partial = directory.path / (key + PARTIAL)
    try:
        directory.take(len(picture.content))
    except StoreFull:
        return False
    try:
        partial.write_bytes(picture.content)
        os.utime(partial, (picture.since, picture.since))
        partial.replace(directory.path / key)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        directory.give_back(len(picture.content))
        return False
    return True


def joined(path: Path, size: int, data: Sequence[bytes]) -> bytes:
    """Return the first `size` bytes of a file, and `data` after them."""
    head = b""
    if size:
        with path.open("rb") as file:
            head = file.read(size)
    return b"".join((head, *data))
