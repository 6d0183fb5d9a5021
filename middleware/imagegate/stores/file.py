"""Pictures as files in a directory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import time
from collections.abc import Sequence
from email.utils import formatdate
from pathlib import Path
from typing import IO, Final

from starlette.responses import FileResponse, Response

from imagegate.logger import get_logger
from imagegate.protocol.image_format import BY_EXTENSION, ImageFormat
from imagegate.spool.reservation import Reservation
from imagegate.spool.write_all import write_all
from imagegate.stores.clock import Clock
from imagegate.stores.directory import PARTIAL, PictureDirectory
from imagegate.stores.errors import StoreFull, is_full, plain_error
from imagegate.stores.health import StoreHealth
from imagegate.stores.keys import ContentKey, is_key, new_key
from imagegate.stores.links import Links
from imagegate.stores.overflow import Overflow, joined
from imagegate.stores.secret_file import kept_secret
from imagegate.stores.serving import picture_headers
from imagegate.stores.writing import ThreadWriter

_SECRET_FILE: Final = ".link-secret"  # noqa: S105 - a file name


class FileStore:
    """A directory, made when it is first needed; files older than `ttl` seconds are removed now and then.

    Args:
        ttl: seconds that links are good for and pictures are kept.
        max_bytes: of all pictures together; more are refused until old ones have gone. None: as the disk allows.
        link_secret: signs links; empty: one that is made once and kept in the directory.
        content_addressed: the same bytes are one file.
        overflow: bytes of pictures that are kept in memory while the disk has no room for them; meanwhile `reserve`
            refuses.
        clock: source of the time.
    """

    def __init__(
        self,
        directory: Path,
        *,
        ttl: float,
        max_bytes: int | None = None,
        link_secret: bytes = b"",
        content_addressed: bool = False,
        overflow: int = 0,
        clock: Clock = time,
    ) -> None:
        self._path = directory
        self._directory = PictureDirectory(directory, ttl=ttl, max_bytes=max_bytes, clock=clock)
        self._overflow = Overflow(overflow, ttl=ttl, clock=clock)
        self._ttl = ttl
        self._links = Links((lambda: link_secret) if link_secret else self._own_secret, ttl=ttl, clock=clock)
        self._is_content_addressed = content_addressed
        self.health = StoreHealth()

    async def prepare(self) -> None:
        try:
            await self._links.prepare()
        except OSError as error:
            raise plain_error(error) from error

    async def reserve(self, size: int) -> Reservation:
        try:
            await self.prepare()
            if self._overflow:
                await self._flush()
            reservation = await self._directory.reserve(size)
        except OSError as error:
            plain = plain_error(error)
            self.health.refused(plain)
            raise plain from error
        self.health.become("usable")
        return reservation

    async def writer(self, kind: ImageFormat, *, tenant: str = "") -> FileWriter:
        content = None
        if self._is_content_addressed:
            await self.prepare()
            content = ContentKey(self._links.secret())
        return FileWriter(self._directory, self._overflow, kind, content)

    async def link(self, key: str, base: str) -> str:
        await self.prepare()
        return self._links.link(base, key)

    def holds(self, key: str, query_string: bytes) -> bool:
        return self._links.holds(key, query_string)

    async def response(self, key: str) -> Response | None:
        if not is_key(key):
            return None
        path = self._path / key
        kind = BY_EXTENSION.get(path.suffix[1:])
        if kind is None:
            return None
        headers = picture_headers(key, self._ttl)
        if (waiting := self._overflow.get(key)) is not None:
            headers["last-modified"] = formatdate(waiting.since, usegmt=True)
            return Response(waiting.content, media_type=kind.media_type, headers=headers)
        if (facts := await asyncio.to_thread(_facts_of_file, path)) is None:
            return None
        return FileResponse(path, media_type=kind.media_type, headers=headers, stat_result=facts)

    async def sweep(self) -> None:
        await asyncio.to_thread(self._directory.sweep)
        if self._overflow:
            await asyncio.to_thread(self._overflow.flush, self._directory)
        if self.health.state != "usable":
            with contextlib.suppress(OSError):
                (await self.reserve(1)).release()

    async def _flush(self) -> None:
        """Raise `StoreFull` where a picture is left that the disk does not take."""
        await asyncio.to_thread(self._overflow.flush, self._directory)
        if self._overflow:
            raise StoreFull("pictures wait for room on the disk")

    def _own_secret(self) -> bytes:
        """Kept in the directory, so that links outlive a restart and hold in every worker."""
        return kept_secret(self._path / _SECRET_FILE)

    async def aclose(self) -> None:
        """Write what waits for room, if there is any by now."""
        if self._overflow:
            await asyncio.to_thread(self._overflow.flush, self._directory)


def _facts_of_file(path: Path) -> os.stat_result | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts if stat.S_ISREG(facts.st_mode) else None


class FileWriter(ThreadWriter):
    """Writes ``NAME.partial``, which `commit` renames: no reader ever sees a partial file.

    Args:
        overflow: takes the picture where the disk does not.
        content: names the picture by its bytes; None: a random name.
    """

    def __init__(
        self, directory: PictureDirectory, overflow: Overflow, kind: ImageFormat, content: ContentKey | None
    ) -> None:
        super().__init__()
        self._directory = directory
        self._overflow = overflow
        self._rescued: bytes | None = None
        """The picture so far, where the disk has not taken it."""
        self._is_held = False
        self._kind = kind
        self._content = content
        self._key = new_key(kind)
        self._partial = directory.path / (self._key + PARTIAL)
        self._file: IO[bytes] | None = None
        self._size = 0

    def append(self, data: Sequence[bytes]) -> None:
        size = sum(map(len, data))
        try:
            if self._rescued is None:
                self._write(data, size)
            elif self._overflow.take(size):
                self._rescued += b"".join(data)
            else:
                raise StoreFull("the disk and the memory beside it are full")
        except OSError as error:
            if self._rescued is not None or not is_full(error) or not self._overflow.take(self._size + size):
                raise
            self._rescue(data)
        self._size += size
        if self._content is not None:
            for piece in data:
                self._content.update(piece)

    def _write(self, data: Sequence[bytes], size: int) -> None:
        if self._file is None:
            self._directory.sweep()
            self._file = self._open()
        self._directory.take(size)
        try:
            write_all(self._file.fileno(), data)
        except OSError:
            self._directory.give_back(size)
            raise

    def _rescue(self, data: Sequence[bytes]) -> None:
        """Go on in memory, and leave the disk to others."""
        get_logger().warning("the store's disk is full; a picture that is paid for is kept in memory until it is not")
        self._rescued = joined(self._partial, self._size, data)
        if self._file is not None:
            self._file.close()
        self._partial.unlink(missing_ok=True)
        self._directory.give_back(self._size)

    def _open(self) -> IO[bytes]:
        try:
            return open(self._partial, "xb", buffering=0)
        except FileNotFoundError:
            self._partial.parent.mkdir(parents=True, exist_ok=True)
            return open(self._partial, "xb", buffering=0)

    def finish(self) -> str:
        if self._rescued is not None:
            if self._content is not None:
                self._key = self._content.key(self._kind)
            self._overflow.add(self._key, self._rescued)
            self._is_held = True
            return self._key
        if self._file is not None:
            self._file.close()  # some file systems report only now that they are full
        if self._content is None:
            self._partial.rename(self._directory.path / self._key)
            return self._key
        path = self._directory.path / self._content.key(self._kind)
        with contextlib.suppress(FileNotFoundError):
            self._directory.give_back(path.stat().st_size)
        self._partial.replace(path)  # one that is there already starts its time anew
        return path.name

    def discard(self) -> None:
        """Leave a picture named by its bytes, once it is whole: another request may have been given the same."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
        if self._rescued is not None:
            if not self._is_held:
                self._overflow.give_back(self._size)
            elif self._content is None:
                self._overflow.remove(self._key)
            return
        is_there = False
        for path in (self._partial, self._directory.path / self._key):
            with contextlib.suppress(OSError):
                path.unlink()
                is_there = True
        if is_there:
            self._directory.give_back(self._size)

    def plain(self, error: Exception) -> Exception:
        return plain_error(error) if isinstance(error, OSError) else error
