"""Pictures as files in a directory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from starlette.responses import FileResponse
from starlette.types import ASGIApp

from imagegate.formats import BY_EXTENSION, ImageFormat
from imagegate.stores.base import is_key, new_key
from imagegate.stores.serving import picture_headers

_SECRET_FILE: Final = ".link-secret"  # noqa: S105 - a file name
_SECRET_BYTES: Final = 32
_PARTIAL: Final = ".partial"
_SECONDS_BETWEEN_SWEEPS: Final = 60.0


class FileStore:
    """A directory, made when it is first needed; files older than `ttl` seconds are removed now and then."""

    def __init__(self, directory: Path, *, ttl: float) -> None:
        self._directory = directory
        self._ttl = ttl
        self._swept = time.monotonic() - _SECONDS_BETWEEN_SWEEPS

    async def put(self, picture: bytes, kind: ImageFormat) -> str:
        async def whole() -> AsyncIterator[bytes]:
            yield picture

        return await self.put_stream(whole(), kind)

    async def put_stream(self, chunks: AsyncIterator[bytes], kind: ImageFormat) -> str:
        key = new_key(kind)
        partial = await asyncio.to_thread(self._begin, key)
        try:
            async for chunk in chunks:
                await asyncio.to_thread(_append, partial, chunk)
            await asyncio.to_thread(partial.replace, self._directory / key)  # nobody ever sees half a file
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        return key

    def _begin(self, key: str) -> Path:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._sweep()
        partial = self._directory / (key + _PARTIAL)
        partial.touch()
        return partial

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

    async def response(self, key: str) -> ASGIApp | None:
        if not is_key(key):
            return None
        path = self._directory / key
        kind = BY_EXTENSION.get(path.suffix[1:])
        if kind is None or not await asyncio.to_thread(path.is_file):
            return None
        return FileResponse(path, media_type=kind.media_type, headers=picture_headers(self._ttl))

    def link_secret(self) -> bytes:
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


def _append(path: Path, chunk: bytes) -> None:
    with path.open("r+b") as file:  # one that was removed meanwhile is not made anew
        file.seek(0, os.SEEK_END)
        file.write(chunk)
