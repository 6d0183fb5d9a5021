"""Pictures as files in a directory."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from pathlib import Path
from typing import Final

from starlette.responses import FileResponse
from starlette.types import ASGIApp

from imagegate.formats import BY_EXTENSION, ImageFormat
from imagegate.stores.base import is_key, new_key
from imagegate.stores.serving import picture_headers

_SECRET_FILE: Final = ".link-secret"  # noqa: S105 - a file name
_PARTIAL: Final = ".partial"
_SECONDS_BETWEEN_SWEEPS: Final = 60.0


class FileStore:
    """A directory, made when it is first needed; files older than `ttl` seconds are removed now and then."""

    def __init__(self, directory: Path, *, ttl: float) -> None:
        self._directory = directory
        self._ttl = ttl
        self._swept = time.monotonic() - _SECONDS_BETWEEN_SWEEPS

    async def put(self, picture: bytes, kind: ImageFormat) -> str:
        key = new_key(kind)
        await asyncio.to_thread(self._write, key, picture)
        return key

    def _write(self, key: str, picture: bytes) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._sweep()
        partial = self._directory / (key + _PARTIAL)
        try:
            partial.write_bytes(picture)
            partial.replace(self._directory / key)  # nobody ever sees half a file
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def _sweep(self) -> None:
        now = time.monotonic()
        if now - self._swept < _SECONDS_BETWEEN_SWEEPS:
            return
        self._swept = now
        oldest = time.time() - self._ttl
        with os.scandir(self._directory) as entries:
            for entry in entries:
                ours = is_key(entry.name.removesuffix(_PARTIAL))
                if ours and entry.is_file(follow_symlinks=False) and entry.stat().st_mtime < oldest:
                    Path(entry.path).unlink(missing_ok=True)

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
        try:
            return path.read_bytes()
        except FileNotFoundError:
            self._directory.mkdir(parents=True, exist_ok=True)
            try:
                descriptor = os.open(path.with_suffix(f".{os.getpid()}"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(secrets.token_bytes(32))
                os.link(
                    path.with_suffix(f".{os.getpid()}"), path
                )  # the first of several processes wins, with a whole file
            except FileExistsError:
                pass
            finally:
                path.with_suffix(f".{os.getpid()}").unlink(missing_ok=True)
            return path.read_bytes()

    async def aclose(self) -> None:
        """Nothing is held open."""
