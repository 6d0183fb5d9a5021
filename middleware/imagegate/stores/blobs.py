"""Data that outlives a request and is no image: recorded responses, and requests of tasks with their files."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, Protocol

_KEY: Final = re.compile(r"[A-Za-z0-9_-]{32}", re.ASCII)
_READ: Final = 256 * 1024
_SECONDS_BETWEEN_SWEEPS: Final = 60.0


class Blobs(Protocol):
    """Keeps bytes under generated names; they are never served."""

    is_shared: bool
    """Whether other processes can read them."""

    async def put(self, chunks: AsyncIterator[bytes]) -> str:
        """Keep them, whole or not at all, and return their key. Raises `OSError`."""
        ...

    def read(self, key: str) -> AsyncIterator[bytes]:
        """Return the bytes in pieces; `FileNotFoundError` where they are gone. Raises `OSError`."""
        ...

    async def remove(self, key: str) -> None:
        """Remove a blob. Never fails: what cannot be removed now expires later."""
        ...

    async def sweep(self) -> None:
        """Remove what is too old. Called once a minute. Raises `OSError`."""
        ...

    async def aclose(self) -> None: ...


class FileBlobs:
    """Files in a directory, made when it is first needed; those older than `ttl` seconds are removed now and then.

    Args:
        directory: shared by all processes that are given the same; None: one of this process's own, gone at its end.
        sweep_interval: seconds from one look for old files to the next.
    """

    def __init__(self, directory: Path | None, *, ttl: float, sweep_interval: float = _SECONDS_BETWEEN_SWEEPS) -> None:
        self.is_shared = directory is not None
        self._directory = directory
        self._ttl = ttl
        self._sweep_interval = sweep_interval
        self._swept = float("-inf")
        self._lock = threading.Lock()

    async def put(self, chunks: AsyncIterator[bytes]) -> str:
        key = secrets.token_urlsafe(24)
        partial = await asyncio.to_thread(self._begin, key)
        try:
            async for chunk in chunks:
                await asyncio.to_thread(_append, partial, chunk)
            await asyncio.to_thread(partial.replace, partial.with_suffix(""))
        except BaseException:
            # Handed over at once: it is done also where the caller is cancelled meanwhile.
            await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, _remove, partial))
            raise
        return key

    async def read(self, key: str) -> AsyncIterator[bytes]:
        if not _KEY.fullmatch(key):
            raise FileNotFoundError
        file = await asyncio.to_thread(lambda: (self._home() / key).open("rb"))
        try:
            while chunk := await asyncio.to_thread(file.read, _READ):
                yield chunk
        finally:
            file.close()

    async def remove(self, key: str) -> None:
        if _KEY.fullmatch(key):
            await asyncio.to_thread(lambda: _remove(self._home() / key))

    def _home(self) -> Path:
        """Return the directory. Runs in a thread."""
        with self._lock:
            if self._directory is None:
                self._directory = Path(tempfile.mkdtemp(prefix="imagegate-"))
                weakref.finalize(self, shutil.rmtree, self._directory, ignore_errors=True)
            return self._directory

    def _begin(self, key: str) -> Path:
        home = self._home()
        home.mkdir(parents=True, exist_ok=True)
        self._sweep(home)
        partial = home / f"{key}.partial"
        partial.touch(mode=0o600)
        return partial

    async def sweep(self) -> None:
        if self._directory is not None:
            await asyncio.to_thread(self._sweep, self._directory)

    def _sweep(self, home: Path) -> None:
        now = time.monotonic()
        if now - self._swept < self._sweep_interval:
            return
        self._swept = now
        oldest = time.time() - self._ttl
        with contextlib.suppress(OSError), os.scandir(home) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):  # another process may have been faster
                    if entry.stat(follow_symlinks=False).st_mtime < oldest:
                        os.unlink(entry.path)

    async def aclose(self) -> None:
        if not self.is_shared and self._directory is not None:
            directory, self._directory = self._directory, None
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _append(path: Path, chunk: bytes) -> None:
    with path.open("r+b") as file:  # one that was removed meanwhile is not made anew
        file.seek(0, os.SEEK_END)
        file.write(chunk)


async def whole(pieces: AsyncIterator[bytes]) -> bytes:
    """Return all pieces as one."""
    return b"".join([piece async for piece in pieces])


async def pieces_of(content: bytes) -> AsyncIterator[bytes]:
    """Yield bytes in pieces of at most 256 KiB."""
    for start in range(0, len(content), _READ):
        yield content[start : start + _READ]
