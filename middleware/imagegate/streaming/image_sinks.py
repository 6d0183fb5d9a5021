"""Image sinks: decode the images of a reply while it arrives, into the store or the spool."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from imagegate.errors import Overloaded, StorageError
from imagegate.logger import get_logger
from imagegate.protocol.image_format import inspect
from imagegate.protocol.messages import HeldMemory, Picture, ReplyImage, StoredPicture
from imagegate.protocol.parsers.base64_decoder import ScanError
from imagegate.protocol.parsers.base64_json import Base64Scanner, Event, PictureData, PictureStart
from imagegate.protocol.parsers.json_mender import JSONMender
from imagegate.protocol.provider_errors import uncertain
from imagegate.spool.budget import FileBudget
from imagegate.spool.upload import Upload
from imagegate.stores import PictureWriter, Store, StoreFull
from imagegate.tracing import operation

HEAD: Final = 64 * 1024
"""Bytes of an image's head that contain its format and size."""
_AT_ONCE: Final = 3
"""Pictures of one reply that are being completed while the next one comes in."""
_DENSE: Final = 2048
"""Quotes in a piece of a document from which on it is mended in steps."""
_STEP: Final = 8192
"""Bytes of such a step, a few milliseconds."""


class Receiver(Protocol):
    """Takes one picture."""

    size: int
    """Bytes so far, of which the last may not have been taken."""

    async def write(self, data: bytes) -> None: ...

    async def finish(self) -> Picture: ...

    async def abort(self) -> None:
        """Leave nothing behind. Never raises."""
        ...


class PictureSink:
    """Where the pictures of one exchange go. `close` must follow.

    Args:
        new: makes a writer for an image.
    """

    def __init__(self, new: Callable[[], Receiver]) -> None:
        self._new = new
        self._receivers: list[Receiver] = []
        self._discards: list[Callable[[], Awaitable[None]]] = []
        self._largest = 0
        self.links_read = 0
        """Links that pictures were fetched from."""
        self.links_refused = 0
        """Those that the guard refused."""

    def receiver(self) -> Receiver:
        """Return a writer for the next image."""
        receiver = self._new()
        self._receivers.append(receiver)
        return receiver

    def on_close(self, discard: Callable[[], Awaitable[None]]) -> None:
        """Call `discard`, too, when the sink is closed."""
        self._discards.append(discard)

    @property
    def largest(self) -> int:
        """Bytes of the largest picture so far, whether it was taken or not."""
        return max((self._largest, *(receiver.size for receiver in self._receivers)))

    def note(self, size: int) -> None:
        """Count a picture of `size` bytes that takes room without going through this sink."""
        self._largest = max(self._largest, size)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to discard."""
        return not (self._receivers or self._discards)

    async def release(self, pictures: Collection[Picture]) -> None:
        """Give back the room of pictures that have been sent."""
        spooled = [one for one in self._receivers if isinstance(one, SpoolReceiver) and one.upload in pictures]
        self._largest = self.largest
        for receiver in spooled:
            await receiver.abort()
            self._receivers.remove(receiver)

    async def close(self, kept: Collection[Picture] = ()) -> None:
        """Discard all images but those in `kept`."""
        left = [one for one in self._receivers if not (isinstance(one, StoreReceiver) and one.stored in kept)]
        discards = [*(receiver.abort for receiver in left), *self._discards]
        if discards:  # also where a client disconnect cancels this
            await asyncio.shield(asyncio.gather(*(discard() for discard in discards)))


class StoreReceiver:
    """Write an image into the store, once its format is known from its head."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._head = bytearray()
        self._writer: PictureWriter | None = None
        self._traced = operation("store", nests=False)
        self.stored: StoredPicture | None = None
        self.size = 0

    async def write(self, data: bytes) -> None:
        self.size += len(data)
        if self._writer is not None:
            await self._write(self._writer, data)
            return
        self._head += data
        if len(self._head) >= HEAD:
            await self._open()

    async def _open(self) -> PictureWriter:
        head = bytes(self._head)
        self._facts = inspect(head)
        if self._facts is None:
            raise uncertain("The provider's reply contains data that is not an image.")
        self._head.clear()
        self._traced.begin()
        try:
            self._writer = await self._store.writer(self._facts.kind)
        except OSError as error:
            self._traced.end(error)
            raise storage_error(error) from error
        await self._write(self._writer, head)
        return self._writer

    async def _write(self, writer: PictureWriter, data: bytes) -> None:
        try:
            await writer.write(data)
        except OSError as error:
            self._traced.end(error)
            raise storage_error(error) from error

    async def finish(self) -> Picture:
        writer = self._writer or await self._open()
        try:
            key = await writer.commit()
        except OSError as error:
            self._traced.end(error)
            raise storage_error(error) from error
        self._traced.note(size=self.size)
        self._traced.end()
        assert self._facts is not None  # noqa: S101 - set where the writer is
        self.stored = StoredPicture(key=key, facts=self._facts)
        return self.stored

    async def abort(self) -> None:
        self._traced.end(asyncio.CancelledError())
        if self._writer is not None:
            await self._writer.abort()


class SpoolReceiver:
    """Takes a picture into the spool, for as long as the exchange lasts."""

    def __init__(self, budget: FileBudget) -> None:
        self.upload = Upload("", "", "", budget=budget)
        self.size = 0

    async def write(self, data: bytes) -> None:
        self.size += len(data)
        try:
            await self.upload.write(data)
        except Overloaded as error:
            raise no_room() from error

    async def finish(self) -> Picture:
        try:
            await self.upload.complete()
        except Overloaded as error:
            raise no_room() from error
        return self.upload

    async def abort(self) -> None:
        self.upload.close()


async def mended(mender: JSONMender, data: bytes) -> bytes:
    """Feed the mender; the event loop gets its turn in between where the data is dense."""
    if mender.pass_on(data):
        return data
    if not _is_dense(data):
        return mender.feed(data)
    pieces: list[bytes] = []
    for start in range(0, len(data), _STEP):
        pieces.append(mender.feed(data[start : start + _STEP]))
        await asyncio.sleep(0)
    return b"".join(pieces)


def _is_dense(data: bytes) -> bool:
    place = -1
    for _ in range(_DENSE):  # `bytes.count` goes byte by byte, `find` through base64 at the speed of memory
        place = data.find(b'"', place + 1)
        if place < 0:
            return False
    return True


class Received(msgspec.Struct, frozen=True):
    """A document that has come in: its rest, in which tokens stand for `pictures`."""

    rest: bytes
    pictures: Mapping[str, Picture]


class Reception:
    """One document whose pictures go into a sink while it comes in, several at a time.

    Every method raises `UpstreamUncertain` where the document cannot be used, and `StorageError`.

    Args:
        held: counts what is kept of the document beside its pictures, until `forget` or `abort`.
    """

    def __init__(self, sink: PictureSink, scanner: Base64Scanner, held: HeldMemory | None = None) -> None:
        self._sink = sink
        self._mender = JSONMender()
        self._scanner = scanner
        self._held = held
        self._counted = 0
        self._token = ""
        self._receiver: Receiver | None = None
        self._finishing: dict[str, asyncio.Task[Picture]] = {}

    async def feed(self, data: bytes) -> None:
        await self._scan(await mended(self._mender, data))

    async def _scan(self, data: bytes) -> None:
        steps = self._scanner.steps(data)
        is_first = True
        while (events := self._next(steps)) is not None:
            if not is_first:
                await asyncio.sleep(0)  # what is dense takes long
            is_first = False
            self._count()
            await self._take(events)

    @staticmethod
    def _next(steps: Iterator[Sequence[Event]]) -> Sequence[Event] | None:
        try:
            return next(steps, None)
        except ScanError as error:
            raise broken(error) from error

    def _count(self) -> None:
        grown = self._scanner.rest_size - self._counted
        if self._held is not None and grown > 0:
            if not self._held.try_take(grown):
                raise uncertain("The provider's reply is too large, even without its pictures.")
            self._counted += grown

    def forget(self) -> None:
        """Give back what was counted: nothing of the document is kept any more."""
        if self._held is not None:
            self._held.give_back(self._counted)
            self._counted = 0

    async def _take(self, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, PictureStart):
                await self._wait_for_room()
                self._token, self._receiver = event.token, self._sink.receiver()
            elif self._receiver is None:
                raise AssertionError("the scanner announces each image")
            elif isinstance(event, PictureData):
                await self._receiver.write(event.data)
            else:
                self._finishing[self._token] = asyncio.create_task(self._receiver.finish())

    async def _wait_for_room(self) -> None:
        running = [task for task in self._finishing.values() if not task.done()]
        if len(running) >= _AT_ONCE:
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in self._finishing.values():
            if task.done():
                task.result()  # what failed need not be followed by more

    async def finish(self) -> Received:
        """Finish the document, and wait for its images."""
        await self._scan(self._mender.finish())
        try:
            rest = self._scanner.finish()
        except ScanError as error:
            raise broken(error) from error
        pictures = await asyncio.gather(*self._finishing.values())
        return Received(rest, dict(zip(self._finishing, pictures, strict=True)))

    async def made(self) -> tuple[ReplyImage, ...]:
        """Return the complete images of an incomplete document."""
        pictures = await asyncio.gather(*self._finishing.values(), return_exceptions=True)
        return tuple(ReplyImage(picture=picture) for picture in pictures if not isinstance(picture, BaseException))

    async def abort(self) -> None:
        """Cancel running work; the sink's `close` discards what it left."""
        self.forget()
        running = [task for task in self._finishing.values() if not task.done()]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)


def broken(error: ScanError) -> Exception:
    return uncertain(f"The provider's reply is invalid. {error}")


_NOT_STORED: Final = "The image was made, but could not be stored."


def storage_error(error: OSError, message: str = _NOT_STORED) -> StorageError:
    """Return the error for the client, without the store's own message, which is only logged."""
    get_logger().warning("store failed", reason=str(error))
    if isinstance(error, StoreFull) or error.errno in (errno.ENOSPC, errno.EDQUOT):
        return no_room(message)
    return StorageError(message)


def no_room(message: str = _NOT_STORED) -> StorageError:
    return StorageError(f"{message} The store is full.", status=507, code="storage_full")
