"""Pictures as files in a directory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import IO, Final

from starlette.responses import FileResponse
from starlette.types import ASGIApp

from imagegate.formats import BY_EXTENSION, ImageFormat
from imagegate.stores.base import is_key, new_key, plain_error
from imagegate.stores.links import Links
from imagegate.stores.serving import picture_headers

_SECRET_FILE: Final = ".link-secret"  # noqa: S105 - a file name
_SECRET_BYTES: Final = 32
_PARTIAL: Final = ".partial"
_SECONDS_BETWEEN_SWEEPS: Final = 60.0
_WRITE: Final = 1024 * 1024
"""Bytes that are collected before a thread writes them: a hop into a thread costs more CPU than copying 256 KiB."""


class FileStore:
    """A directory, made when it is first needed; files older than `ttl` seconds are removed now and then.

    Args:
        ttl: seconds that links are good for and pictures are kept.
        link_secret: signs links; empty: one that is made once and kept in the directory.
    """

    def __init__(self, directory: Path, *, ttl: float, link_secret: bytes = b"") -> None:
        self._directory = directory
        self._ttl = ttl
        self._links = Links((lambda: link_secret) if link_secret else self._own_secret, ttl=ttl)
        self._swept = time.monotonic() - _SECONDS_BETWEEN_SWEEPS

    def prepare(self) -> None:
        with _plain_errors():
            self._links.secret()

    async def writer(self, kind: ImageFormat, *, tenant: str = "") -> FileWriter:
        return FileWriter(self._directory, new_key(kind), self._sweep)

    async def link(self, key: str, base: str) -> str:
        with _plain_errors():
            return self._links.link(base, key)

    def holds(self, key: str, query_string: bytes) -> bool:
        return self._links.holds(key, query_string)

    async def response(self, key: str) -> ASGIApp | None:
        if not is_key(key):
            return None
        path = self._directory / key
        kind = BY_EXTENSION.get(path.suffix[1:])
        if kind is None or not await asyncio.to_thread(path.is_file):
            return None
        return FileResponse(path, media_type=kind.media_type, headers=picture_headers(self._ttl))

    def _sweep(self) -> None:
        now = time.monotonic()
        if now - self._swept < _SECONDS_BETWEEN_SWEEPS:
            return
        self._swept = now
        oldest = time.time() - self._ttl
        with contextlib.suppress(OSError), os.scandir(self._directory) as entries:  # cleaning never fails a picture
            for entry in entries:
                with contextlib.suppress(OSError):  # another process may have been faster
                    ours = is_key(entry.name.removesuffix(_PARTIAL))
                    if ours and entry.is_file(follow_symlinks=False) and entry.stat().st_mtime < oldest:
                        os.unlink(entry.path)

    def _own_secret(self) -> bytes:
        """Made once and kept in the directory, so that links outlive a restart and hold in every worker."""
        path = self._directory / _SECRET_FILE
        if not path.exists():
            self._make_secret(path)
        secret = path.read_bytes()
        if len(secret) < _SECRET_BYTES:
            raise OSError(f"{_SECRET_FILE} is damaged")
        return secret

    def _make_secret(self, path: Path) -> None:
        """Written elsewhere and linked in whole: of several processes the first one wins."""
        self._directory.mkdir(parents=True, exist_ok=True)
        descriptor, partial = tempfile.mkstemp(dir=self._directory, prefix=_SECRET_FILE)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(_SECRET_BYTES))
            with contextlib.suppress(FileExistsError):
                os.link(partial, path)
        finally:
            os.unlink(partial)

    async def aclose(self) -> None:
        """Nothing is held open."""


class FileWriter:
    """Writes ``KEY.partial``, which `commit` renames: nobody ever sees half a file.

    Threads do the work, a few for each picture. One that its caller no longer waits for runs to its end, so a lock
    keeps `abort` behind it.
    """

    def __init__(self, directory: Path, key: str, sweep: Callable[[], None]) -> None:
        self._path = directory / key
        self._partial = directory / (key + _PARTIAL)
        self._sweep = sweep
        self._held: list[bytes] = []
        self._held_size = 0
        self._file: IO[bytes] | None = None
        self._lock = threading.Lock()
        self._has_begun = False
        self._is_over = False

    async def write(self, data: bytes) -> None:
        self._held.append(data)
        self._held_size += len(data)
        if self._held_size >= _WRITE:
            await self._in_thread(self._append, self._taken())

    async def commit(self) -> str:
        await self._in_thread(self._finish, self._taken())
        self._is_over = True
        return self._path.name

    async def abort(self) -> None:
        self._held.clear()
        if self._has_begun and not self._is_over:
            self._is_over = True
            # Handed over at once and shielded: it is done also where the caller is cancelled meanwhile.
            await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, self._discard))

    def _taken(self) -> Sequence[bytes]:
        held, self._held, self._held_size = self._held, [], 0
        return held

    async def _in_thread(self, work: Callable[[Sequence[bytes]], None], data: Sequence[bytes]) -> None:
        self._has_begun = True

        def locked() -> None:
            with self._lock:
                if self._is_over:  # aborted before its turn came
                    raise OSError("the picture was aborted")
                work(data)

        with _plain_errors():
            await asyncio.to_thread(locked)

    def _append(self, data: Sequence[bytes]) -> None:
        file = self._file
        if file is None:
            self._sweep()
            file = self._file = self._open()
        for piece in data:
            view = memoryview(piece)
            while view:
                view = view[file.write(view) :]

    def _open(self) -> IO[bytes]:
        try:
            return open(self._partial, "xb", buffering=0)
        except FileNotFoundError:
            self._partial.parent.mkdir(parents=True, exist_ok=True)
            return open(self._partial, "xb", buffering=0)

    def _finish(self, data: Sequence[bytes]) -> None:
        self._append(data)
        if self._file is not None:
            self._file.close()  # some file systems tell only now that they are full
        self._partial.rename(self._path)

    def _discard(self) -> None:
        with self._lock:
            if self._file is not None:
                with contextlib.suppress(OSError):
                    self._file.close()
            for path in (self._partial, self._path):
                with contextlib.suppress(OSError):
                    path.unlink()


@contextlib.contextmanager
def _plain_errors() -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise plain_error(error) from error
