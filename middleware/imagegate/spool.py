"""Uploaded files: a little in memory, the rest on disk, all within a budget."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
import threading
from collections.abc import AsyncIterator
from typing import IO, Final

from imagegate.errors import Overloaded
from imagegate.formats import Facts, inspect

CHUNK: Final = 256 * 1024
_HEAD: Final = 64 * 1024
"""Bytes of a file that are looked at for its format and size."""
_WRITE: Final = 256 * 1024
"""Bytes that are written to disk at a time."""


class Budget:
    """Bytes that all requests of a gateway may hold at a time, in memory and on disk together.

    Args:
        total: bytes; beyond them requests are refused until others have ended.
        memory: bytes of them that may stay in memory; the rest goes to disk.
    """

    def __init__(self, *, total: int, memory: int) -> None:
        self._total = total
        self._memory = memory

    def take(self, size: int) -> None:
        """Raises `Overloaded`."""
        if size > self._total:
            raise Overloaded(
                "The gateway holds as many uploads as it may. Try again in a moment.",
                headers=[(b"retry-after", b"5")],
            )
        self._total -= size

    def take_memory(self, size: int) -> bool:
        """Whether `size` bytes may stay in memory."""
        if size > self._memory:
            return False
        self._memory -= size
        return True

    def give_back(self, *, total: int, memory: int) -> None:
        self._total += total
        self._memory += memory


def default_budget() -> Budget:
    """For a layer that stands alone."""
    return Budget(total=1024**3, memory=16 * 1024**2)


class _File:
    """A temporary file without a name, so that nothing stays behind; a closed one is never read as another."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by close()
        self._lock = threading.Lock()

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        with self._lock:
            while view:
                view = view[self._file.write(view) :]

    def read(self, length: int, place: int) -> bytes:
        with self._lock:  # descriptors are used again as soon as they are closed
            if self._file.closed:
                raise UploadClosed
            return os.pread(self._file.fileno(), length, place)

    def close(self) -> None:
        with self._lock:
            self._file.close()


class UploadClosed(Exception):
    """The file was given back while somebody read it; what was read so far is not the whole."""


class Upload:
    """One file, written once, and read as often as it is sent, by several readers at a time, also while it grows.

    Args:
        part: name of the form's part, or of the member that held it.
        filename: as the client named it.
        declared_type: media type that the client declared; empty: none.
    """

    def __init__(self, part: str, filename: str, declared_type: str, *, budget: Budget) -> None:
        self.part = part
        self.filename = filename
        self.declared_type = declared_type
        self.size = 0
        """Bytes so far."""
        self.is_complete = False
        self.links: dict[str, str] = {}
        """Where the file has been published already: upstream -> link."""
        self.publishing = asyncio.Lock()
        self._budget = budget
        self._in_memory = 0
        self._tail = bytearray()  # what is not on disk
        self._on_disk = 0
        self._file: _File | None = None
        self._head = b""
        self._facts: Facts | None = None
        self._is_closed = False
        self._retained = 0
        self._grown = asyncio.Event()

    @property
    def facts(self) -> Facts | None:
        """Format, pixels and transparency, read from the file itself; None: no picture that we know."""
        return self._facts

    @property
    def media_type(self) -> str:
        """What the file is; only where that cannot be told, what the client says it is."""
        return self._facts.kind.media_type if self._facts else self.declared_type or "application/octet-stream"

    async def write(self, data: bytes) -> None:
        """Appends. Raises `Overloaded` where the budget is used up."""
        self._budget.take(len(data))
        self.size += len(data)
        if len(self._head) < _HEAD:
            self._head += data[: _HEAD - len(self._head)]
        self._tail += data
        if len(self._tail) >= _WRITE:
            await self._flush()
        self._grow()

    async def _flush(self) -> None:
        """The tail leaves memory only when it is on disk, so that readers always find it."""
        file = self._file
        if file is None:
            file = self._file = _File()
        data = bytes(self._tail)
        await asyncio.to_thread(file.write, data)
        self._on_disk += len(data)
        del self._tail[: len(data)]

    def _grow(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()

    async def complete(self) -> None:
        """To be called after the last `write`."""
        self._facts = inspect(self._head)
        if self._file is None and self._budget.take_memory(self.size):
            self._in_memory = self.size
        else:
            await self._flush()
        self.is_complete = True
        self._grow()

    async def head_known(self) -> None:
        """Returns when `facts` can be told."""
        while not self.is_complete and not self._is_closed and len(self._head) < _HEAD:
            await self._grown.wait()
        if self._facts is None:
            self._facts = inspect(self._head)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes, in pieces of at most 256 KiB; waits for those that are still to come. Raises `UploadClosed`."""
        place = 0
        while True:
            grown = self._grown
            if self._is_closed:
                raise UploadClosed
            if place < self._on_disk and self._file is not None:
                length = min(CHUNK, self._on_disk - place)
                chunk = await asyncio.to_thread(self._file.read, length, place)
            else:
                start = place - self._on_disk
                chunk = bytes(self._tail[start : start + CHUNK])
            if chunk:
                place += len(chunk)
                yield chunk
            elif self.is_complete:
                return
            else:
                await grown.wait()

    async def read(self) -> bytes:
        """All bytes at once."""
        return b"".join([chunk async for chunk in self.chunks()])

    async def sha256(self) -> str:
        """Of the bytes, in hexadecimal."""
        digest = hashlib.sha256()
        async for chunk in self.chunks():
            digest.update(chunk)
        return digest.hexdigest()

    def retain(self) -> None:
        """Keeps the file for somebody else, who must `close` it too: the room is given back by the last one."""
        self._retained += 1

    def close(self) -> None:
        """Gives the room back, unless somebody else has kept the file."""
        if self._retained:
            self._retained -= 1
            return
        self._is_closed = True
        self._grow()
        self._budget.give_back(total=self.size, memory=self._in_memory)
        self.size = self._in_memory = self._on_disk = 0
        self._tail = bytearray()
        if self._file is not None:
            self._file.close()
            self._file = None
