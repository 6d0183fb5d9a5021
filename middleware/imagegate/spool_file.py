"""A temporary file that is written in order by one thread at a time, and read by several."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import IO, Final

CHUNK: Final = 256 * 1024
"""Bytes: no piece of a file that is handed out is larger."""
_MOST_BUFFERS: Final = 512
"""That are given to the kernel at a time; it takes 1,024 at most."""


class FileClosed(Exception):
    """Somebody was still about to use it."""


class SpoolFile:
    """Has no name, so that nothing stays behind; a closed one is never written or read as another.

    All methods but `close` are for threads: they wait for the disk.
    """

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._lock = threading.Lock()
        self._users = 0
        self._is_closed = False

    def append(self, pieces: Sequence[bytes]) -> None:
        """Writes; one thread at a time. Raises `FileClosed` and `OSError`."""
        with self._used():
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by close()
            for first in range(0, len(pieces), _MOST_BUFFERS):
                _write(self._file.fileno(), pieces[first : first + _MOST_BUFFERS])

    def read(self, place: int, length: int) -> list[bytes]:
        """What was written there, in pieces. Raises `FileClosed` and `OSError`."""
        with self._used():
            if self._file is None:
                raise FileClosed
            file, end = self._file.fileno(), place + length
            return [os.pread(file, min(CHUNK, end - at), at) for at in range(place, end, CHUNK)]

    @contextmanager
    def _used(self) -> Generator[None]:
        with self._lock:  # descriptors are used again as soon as they are closed
            if self._is_closed:
                raise FileClosed
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                self._end_if_unused()

    def close(self) -> None:
        """Gives the disk back, as soon as the thread that is at work has ended."""
        with self._lock:
            self._is_closed = True
            self._end_if_unused()

    def _end_if_unused(self) -> None:
        if self._is_closed and not self._users and self._file is not None:
            self._file.close()
            self._file = None


def _write(file: int, pieces: Sequence[bytes]) -> None:
    """All of it, however much the kernel takes at a time."""
    left = sum(map(len, pieces)) - os.writev(file, pieces)
    if left:
        rest = memoryview(b"".join(pieces)[-left:])
        while rest:
            rest = rest[os.write(file, rest) :]
