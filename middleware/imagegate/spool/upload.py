"""Uploaded files: a little in memory, the rest on disk, all within a budget."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator
from itertools import islice
from typing import Final

from structlog import get_logger

from imagegate.protocol.image_format import Facts, inspect
from imagegate.protocol.late_facts import LateFacts
from imagegate.protocol.messages import FileRef
from imagegate.spool.budget import FileBudget, SpoolFull
from imagegate.spool.temp_file import CHUNK, FileClosed, SpoolFile

_HEAD: Final = 64 * 1024
"""Bytes of a file that are looked at for its format and size."""
_LATE: Final = 256 * 1024
"""Bytes of a growing file that are waited for where its format says more behind its head."""
_BATCH: Final = 512 * 1024
"""Bytes that go to disk at a time: two of them wait in memory at most, and a thread is not asked for less."""
_WINDOW: Final = 512 * 1024
"""Bytes that stay in memory although they are on disk, for a reader who keeps pace with the writer."""
_SMALL_BATCH: Final = 64 * 1024
"""Bytes that go to disk at a time where many uploads come in, or are stopped half way, and none has a window then."""
_PIECES: Final = 2048
"""Pieces at which a batch or a window is full, however short they are: each takes memory beside its bytes."""


class UploadClosed(Exception):
    """The file was closed while it was being read; the bytes read so far are incomplete."""


class Upload(FileRef):
    """One file, written once, and read as often as it is sent, by several readers at a time, also while it grows.

    Args:
        part: name of the form's part, or of the member that held it.
        filename: as the client named it.
        declared_type: media type that the client declared; empty: none.
        held: bytes that wait in memory for the end, while the budget has room, before any goes to disk: for a file that
            is not read before it is whole.
        forgets: where the disk fails, keep only what readers are about to read, in place of failing.
    """

    def __init__(
        self,
        part: str,
        filename: str,
        declared_type: str,
        *,
        budget: FileBudget,
        held: int = 0,
        forgets: bool = False,
    ) -> None:
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
        self._held = held
        self._forgets = forgets
        self._expected = 0
        """Readers that are, or are about to begin; without any, a file that forgets keeps nothing."""
        self._is_off_disk = False
        """Whether the disk has failed, and what is not on it stays in memory."""
        self._rescued = 0
        """Bytes in memory because of that."""
        self._has_read = asyncio.Event()
        self._taken = 0
        self._in_memory = 0
        self._coming_in = 0
        self._window: deque[bytes] = deque()  # the last pieces
        self._first = 0  # number of the first of them
        self._start = 0  # bytes before it
        self._handed = 0  # bytes that were given to the disk
        self._handed_pieces = 0  # that hold them
        self._on_disk = 0
        self._file: SpoolFile | None = None
        self._saving: asyncio.Future[None] | None = None
        self._failure: BaseException | None = None
        self._readers: list[_Reader] = []
        self._head = b""
        self._facts: Facts | None = None
        self._late = LateFacts()
        self._is_closed = False
        self._retained = 0
        self._grown = asyncio.Event()

    @property
    def facts(self) -> Facts | None:
        """Format, pixels and transparency, read from the file itself; None: no picture that we know."""
        return self._facts

    @property
    def media_type(self) -> str:
        """The detected media type; the client's declaration where detection fails."""
        return self._facts.kind.media_type if self._facts else self.declared_type or "application/octet-stream"

    async def write(self, data: bytes) -> None:
        """Append. Raises `Overloaded` where the budget is used up, and `SpoolFull` where the disk fails."""
        self._budget.take(len(data))
        self._taken += len(data)
        for start in range(0, len(data), CHUNK):
            if self._is_closed:
                return  # while the disk was waited for
            piece = data[start : start + CHUNK]  # the same object, where it is all
            if self._is_off_disk:
                await self._make_room(len(piece))
            self.size += len(piece)
            if len(self._head) < _HEAD:
                self._head += piece[: _HEAD - len(self._head)]
            if not self._late.is_done:
                self._late.feed(piece)
            self._window.append(piece)
            self._note_coming_in(len(piece))
            self._grow()
            unsaved = self._first + len(self._window) - self._handed_pieces
            if self.size - self._handed >= self._batch or unsaved >= _PIECES:
                await self._saved()  # no more than two batches wait in memory
                self._save()

    async def _make_room(self, size: int) -> None:
        """Make room in memory. Raises `SpoolFull`."""
        if not self._forgets:
            self._rescue(size)
            return
        while self.size - self._foremost() >= _WINDOW and not self._is_closed:
            self._has_read.clear()
            await self._has_read.wait()
        self._forget()

    def _rescue(self, size: int) -> None:
        if not self._budget.take_last_resort(size):
            raise SpoolFull
        self._rescued += size

    def _foremost(self) -> int:
        """Return the place of the reader who is ahead of the others."""
        return max((reader.place for reader in self._readers), default=0 if self._expected else self.size)

    def expect_readers(self, change: int) -> None:
        """Count readers that are about to begin, or have gone: what they are to read is not forgotten."""
        self._expected += change
        self._has_read.set()

    def _forget(self) -> None:
        """Drop what the foremost reader has read, but for a window; slower ones find a gap."""
        foremost, before = self._foremost(), self._start
        while self._window and self._start + len(self._window[0]) <= foremost and self.size - self._start > _WINDOW:
            self._start += len(self._window.popleft())
            self._first += 1
        self._note_coming_in(before - self._start)

    @property
    def has_forgotten(self) -> bool:
        """Whether a part of the file is gone, so that it cannot be read from the beginning any more."""
        return self._start > self._on_disk

    @property
    def _batch(self) -> int:
        """Bytes in memory at which they go to disk."""
        if self._budget.is_crowded:
            return _SMALL_BATCH
        # Not one byte is on disk yet, and perhaps none has to be.
        may_wait = self._file is None and self._held > _BATCH and self._budget.may_hold(self.size)
        return self._held + 1 if may_wait else _BATCH

    def _note_coming_in(self, size: int) -> None:
        self._coming_in += size
        self._budget.note_coming_in(size)

    def _save(self) -> None:
        """Start writing buffered bytes to disk; they stay in memory until written, so that readers find them."""
        if self._is_closed or self._is_off_disk:
            return
        file = self._file
        if file is None:
            file = self._file = SpoolFile(self._budget.kept, check=self._budget.check_disk)
        pieces = list(islice(self._window, self._handed_pieces - self._first, None))
        self._handed, self._handed_pieces = self.size, self._first + len(self._window)
        self._saving = asyncio.get_running_loop().run_in_executor(None, file.append, pieces)
        self._saving.add_done_callback(self._note_saved)

    def _note_saved(self, saving: asyncio.Future[None]) -> None:
        self._saving = None
        failure = asyncio.CancelledError() if saving.cancelled() else saving.exception()
        if self._is_closed:
            return
        if failure is None:
            self._on_disk = self._handed
            self._trim()
        elif isinstance(failure, OSError):
            self._leave_disk(failure)
        else:
            self._failure = failure

    def _leave_disk(self, error: OSError) -> None:
        """Go on in memory, where this file may: what is there already stays."""
        size = self.size - self._on_disk
        if self._forgets:
            self._is_off_disk = True
        elif self._budget.take_last_resort(size):
            self._is_off_disk, self._rescued = True, size
        else:
            get_logger("imagegate").warning("spool failed", reason=error.strerror or str(error))
            self._failure = SpoolFull(error)

    async def _saved(self) -> None:
        """Wait until all handed-over bytes are on disk."""
        while self._saving is not None:
            await asyncio.wait([self._saving])  # not the future itself: what has begun is not to be cancelled
        if self._failure is not None:
            raise self._failure

    def _trim(self) -> None:
        """Drop what is on disk, but for what readers are about to read."""
        wanted = min((reader.place for reader in self._readers), default=self.size)
        window = 0 if self._budget.is_crowded else _WINDOW
        before = self._start
        while self._window:
            end = self._start + len(self._window[0])
            is_near = self.size - self._start <= window and len(self._window) <= _PIECES
            if end > self._on_disk or (end > wanted and is_near):
                break
            self._window.popleft()
            self._first += 1
            self._start = end
        self._note_coming_in(before - self._start)

    def _grow(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()

    async def complete(self) -> None:
        """Call after the last `write`. Raises `SpoolFull` where the disk fails."""
        self._facts = self._late.complete(inspect(self._head))
        if self._file is None and self._budget.take_memory(self.size):
            self._in_memory = self.size
            self._note_coming_in(-self._coming_in)
        else:
            await self._saved()
            if self._handed < self.size and not self._is_off_disk:
                self._save()
                await self._saved()
        self.is_complete = True
        self._grow()

    @property
    def _may_tell_more(self) -> bool:
        return len(self._head) < _HEAD or (not self._late.is_done and self.size < _LATE)

    async def head_known(self) -> None:
        """Wait until `facts` can be detected."""
        while not self.is_complete and not self._is_closed and self._may_tell_more:
            await self._grown.wait()
        if self._facts is None:
            self._facts = self._late.complete(inspect(self._head))

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the bytes, in pieces of at most 256 KiB, as they arrive. Raises `UploadClosed`."""
        reader = _Reader()
        self._readers.append(reader)
        try:
            while True:
                grown = self._grown
                if self._is_closed:
                    raise UploadClosed
                if reader.place < self._start:
                    for piece in await self._from_disk(reader.place):
                        reader.place += len(piece)
                        yield piece
                    continue
                piece = self._from_window(reader)
                if piece:
                    yield piece
                    if self._on_disk > self._start:
                        self._trim()
                    self._has_read.set()
                elif self.is_complete:
                    return
                else:
                    await grown.wait()
        finally:
            self._readers.remove(reader)
            self._has_read.set()

    async def _from_disk(self, place: int) -> list[bytes]:
        length = min(_BATCH, self._start - place, self._on_disk - place)
        if self._file is None or length <= 0:
            raise UploadClosed
        try:
            return await asyncio.to_thread(self._file.read, place, length)
        except FileClosed:
            raise UploadClosed from None

    def _from_window(self, reader: _Reader) -> bytes:
        """Return the next piece, small ones put together; empty: there is none yet."""
        if reader.place == self._start:
            reader.number = self._first
        pieces: list[bytes] = []
        size = 0
        for piece in islice(self._window, reader.number - self._first, None):
            size += len(piece)
            if size > CHUNK:
                break
            pieces.append(piece)
        reader.number += len(pieces)
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        reader.place += len(data)
        return data

    async def read(self) -> bytes:
        """Return all bytes at once."""
        return b"".join([chunk async for chunk in self.chunks()])

    async def sha256(self) -> str:
        """Return the hash of the bytes, in hexadecimal."""
        digest = hashlib.sha256()
        async for chunk in self.chunks():
            digest.update(chunk)
        return digest.hexdigest()

    def retain(self) -> None:
        """Add a reference; each holder must call `close`, and the last one releases the file."""
        self._retained += 1

    def close(self) -> None:
        """Drop a reference, and release the file with the last one."""
        if self._retained:
            self._retained -= 1
            return
        self._is_closed = True
        self._grow()
        self._has_read.set()
        self._budget.give_back(total=self._taken, memory=self._in_memory)
        if self._rescued:
            self._budget.give_back_last_resort(self._rescued)
        self._note_coming_in(-self._coming_in)
        self.size = self._taken = self._in_memory = self._rescued = 0
        self._window.clear()
        if self._file is not None:
            self._file.close()
            self._file = None


class _Reader:
    """The position of one reader."""

    __slots__ = ("number", "place")

    def __init__(self) -> None:
        self.place = 0
        """Bytes."""
        self.number = 0
        """Of the next piece, where it is in memory."""
