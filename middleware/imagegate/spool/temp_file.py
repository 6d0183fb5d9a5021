"""A temporary file that is written in order by one thread at a time, and read by several."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import IO, Final

from imagegate.spool.write_all import write_all

CHUNK: Final = 256 * 1024
"""Bytes: no piece of a file that is handed out is larger."""
IDLE: Final = 1.0
"""Seconds after which unused files are closed."""


class FileClosed(Exception):
    """The file was closed before this operation."""


class KeptFiles:
    """Files to be written over: giving pages to a new file and taking them back costs four times the writing.

    They are closed when none was given back for a while. A file stays as large as the largest upload that it has held,
    which no other budget counts; so it counts here, also while it is overwritten.

    Args:
        most: bytes of them; a file with more than a quarter of that is not kept.
        idle: seconds without a file given back, after which all are closed.
    """

    def __init__(self, most: int, *, idle: float = IDLE) -> None:
        self._most = most
        self._idle = idle
        self._files: list[tuple[IO[bytes], int]] = []
        self._size = 0
        self._lock = threading.Lock()
        self._timer: tuple[asyncio.AbstractEventLoop, asyncio.TimerHandle] | None = None
        self._used = 0.0
        self._finalizer = weakref.finalize(self, _close_all, self._files)

    def take(self) -> tuple[IO[bytes], int] | None:
        """Return a file, which holds what others have written, and how many bytes that is. `keep` must follow."""
        with self._lock:
            if not self._files:
                return None
            file, size = self._files.pop()
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        return file, size

    def keep(self, file: IO[bytes], size: int, *, before: int = 0) -> bool:
        """Keep a file of `size` bytes; False: it is to be closed.

        Args:
            before: its size when it was taken.
        """
        size = max(size, before)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None  # no loop to schedule the close on
        with self._lock:
            self._size -= before
            if loop is None or size > self._most // 4 or self._size + size > self._most:
                return False
            self._files.append((file, size))
            self._size += size
        self._used = time.monotonic()
        if self._timer is None or self._timer[0] is not loop:
            self._timer = (loop, loop.call_later(self._idle, self._close_idle))
        return True

    def _close_idle(self) -> None:
        if self._timer is None:
            return
        loop = self._timer[0]
        if (left := self._used + self._idle - time.monotonic()) > 0:
            self._timer = (loop, loop.call_later(left, self._close_idle))
            return
        self._timer = None
        with self._lock:
            while self._files:
                file, size = self._files.pop()
                self._size -= size
                close_in_thread(file)


def close_in_thread(file: IO[bytes]) -> None:
    """Close a file in the background, as freeing its pages can take the disk a while."""
    try:
        asyncio.get_running_loop().run_in_executor(None, file.close)
    except RuntimeError:  # no loop, or one that is ending
        file.close()


def _close_all(files: list[tuple[IO[bytes], int]]) -> None:
    while files:
        files.pop()[0].close()


class SpoolFile:
    """Has no name, so that nothing stays behind; a closed one is never written or read as another.

    All methods but `close` are for threads: they wait for the disk.

    Args:
        kept: files to be written over.
        check: gets the descriptor and a number of bytes before they are written, and raises `OSError` where they must
            not be.
    """

    def __init__(self, kept: KeptFiles, *, check: Callable[[int, int], None] | None = None) -> None:
        self._kept = kept
        self._check = check
        self._size = 0
        self._size_before = 0
        """Of what others had written into the file."""
        self._file: IO[bytes] | None = None
        self._lock = threading.Lock()
        self._users = 0
        self._is_closed = False

    def append(self, pieces: Sequence[bytes]) -> None:
        """Append; one thread at a time. Raises `FileClosed` and `OSError`."""
        with self._used():
            if self._file is None:
                self._file, self._size_before = self._kept.take() or (tempfile.TemporaryFile(buffering=0), 0)  # noqa: SIM115 - by close()
            descriptor, size = self._file.fileno(), sum(map(len, pieces))
            if self._check is not None and self._size + size > self._size_before:
                self._check(descriptor, size)
            self._size += size
            write_all(descriptor, pieces)

    def read(self, place: int, length: int) -> list[bytes]:
        """Return what was written there, in pieces. Raises `FileClosed` and `OSError`."""
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
        """Release the disk space, as soon as a running thread has finished."""
        with self._lock:
            self._is_closed = True
            self._end_if_unused()

    def _end_if_unused(self) -> None:
        if self._is_closed and not self._users and self._file is not None:
            if not self._kept.keep(self._file, self._size, before=self._size_before):
                close_in_thread(self._file)
            self._file = None
