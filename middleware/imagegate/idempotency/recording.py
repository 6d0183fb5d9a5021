"""A response that is recorded once, and read by many, also while it grows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from typing import Any, Final

from starlette.types import Message, Send

from imagegate.asgi.helpers import content_length
from imagegate.idempotency.keys import KeptReply
from imagegate.idempotency.outcomes import ReplyGone
from imagegate.spool.budget import Budget
from imagegate.spool.upload import Upload, UploadClosed

_ON_DISK: Final = 2**62
"""Bytes: an answer that was paid for is never refused for want of room; a full disk says so itself."""


class Recording:
    """A `send` that keeps what it gets: small bodies in memory, others in a temporary file.

    Where the disk fails, those who are reading get all of it, as fast as the first of them takes it, and it is not
    kept: a replay is never worth more than the answer itself.

    Args:
        memory: shared by all recordings: bytes that they may hold in memory.
    """

    def __init__(self, memory: Budget) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._announced: int | None = None
        self._body = Upload("", "", "", budget=memory, forgets=True)
        self._begun = asyncio.Event()
        self._failure: BaseException | None = None
        self._readers = 0
        self._is_released = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message.get("headers", ()))
            self._announced = content_length(self.headers)
            self._begun.set()
        elif message["type"] == "http.response.body":
            if body := message.get("body", b""):
                await self._body.write(body)
            if not message.get("more_body", False):
                await self._body.complete()

    @property
    def is_whole(self) -> bool:
        return self._begun.is_set() and self._body.is_complete

    @property
    def is_over(self) -> bool:
        """Whether the recording is complete or has failed."""
        return self._failure is not None or self.is_whole

    @property
    def is_readable(self) -> bool:
        """Whether a client may have read it to its end: with its length known, that is before the application ends."""
        return self.is_over or self._announced == self.size

    @property
    def has_forgotten(self) -> bool:
        """Whether the disk did not take the body, so that it cannot be replayed."""
        return self._body.has_forgotten

    @property
    def size(self) -> int:
        return self._body.size

    def body(self) -> AsyncIterator[bytes]:
        return self._body.chunks()

    def fail(self, error: BaseException) -> None:
        """Fail the recording: there is no response, or it is incomplete."""
        self._failure = error
        self._begun.set()
        if not self._body.is_complete:
            self._body.close()

    async def begun(self) -> None:
        """Wait until status and headers are known.

        Raises:
            BaseException: the failure, where there is no response.
            ReplyGone: it can no longer be read from its beginning.
        """
        await self._begun.wait()
        if self.has_forgotten:
            raise ReplyGone
        if self._failure is not None and not self.status:
            raise self._failure

    async def replay(self, send: Send, *more: tuple[bytes, bytes]) -> None:
        """Send the answer on, as fast as its reader takes it; within `read`."""
        await self._begun.wait()
        await send({"type": "http.response.start", "status": self.status, "headers": [*self.headers, *more]})
        try:
            await send_pieces(send, self._body.chunks())
        except UploadClosed:
            raise self._failure or UploadClosed from None  # the server closes the connection

    @contextmanager
    def read(self) -> Generator[None]:
        """Keep the answer there while the block runs."""
        self._readers += 1
        self._body.expect_readers(1)
        try:
            yield
        finally:
            self._readers -= 1
            self._body.expect_readers(-1)
            self._close_unread()

    def release(self) -> None:
        """Release the body as soon as the last reader is done."""
        self._is_released = True
        self._close_unread()

    def _close_unread(self) -> None:
        if self._is_released and not self._readers:
            self._body.close()


def recording_memory(size: int) -> Budget:
    """Return the budget that recordings share: `size` bytes in memory, as much as need be on disk."""
    return Budget(total=_ON_DISK, memory=size)


async def send_pieces(send: Send, pieces: AsyncIterator[bytes]) -> None:
    """Yield the body in pieces, each as soon as it is available: events must not be delayed."""
    async for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def start_of(reply: KeptReply, *more: tuple[bytes, bytes]) -> dict[str, Any]:
    """Return the head of a kept answer."""
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers]
    return {"type": "http.response.start", "status": reply.status, "headers": [*headers, *more]}
