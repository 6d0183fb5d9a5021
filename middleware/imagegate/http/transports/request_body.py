"""A request's body as an asynchronous iterable, with the state of its upload."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

from imagegate.http.messages import CHUNK, Interrupted, Timeouts


class RequestBody:
    """Yields a body in pieces of at most `CHUNK` bytes and moves a deadline as the server takes them.

    aiohttp has no limit of time for writing. It asks for the next piece when the transport has taken the last one, so
    the time between the two is the server's, and the time until the iterable has one is the caller's.

    Args:
        content: what is sent; read once and not closed.
        length: bytes of `content`; None: it goes out chunked.
        deadline: of the wait for the reply's head; moved until `answered` is called.
    """

    def __init__(
        self,
        content: bytes | AsyncIterable[bytes],
        length: int | None,
        timeouts: Timeouts,
        deadline: asyncio.Timeout,
    ) -> None:
        self._content = content
        self._length = length
        self._timeouts = timeouts
        self._deadline: asyncio.Timeout | None = deadline
        self._task: asyncio.Task[Any] | None = None
        self._is_complete = False
        self._is_writing = False
        self._error: Exception | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the transport has taken all of it, so that the connection can serve another request."""
        return self._is_complete and (self._task is None or self._task.done())

    @property
    def is_stalled(self) -> bool:
        """Whether a piece was offered that the server has not taken."""
        return self._is_writing

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self._task = asyncio.current_task()  # aiohttp's, in which the body is written
        self._move(None)
        sent = 0
        try:
            async for piece in self._pieces():
                sent += len(piece)
                if self._length is not None and sent > self._length:
                    break
                self._move(self._timeouts.write)
                self._is_writing = True
                yield piece
                self._is_writing = False
                self._move(None)
            if self._length is not None and sent != self._length:
                raise Interrupted("the request is not as long as announced")  # the server would wait for the rest
        except Exception as exc:
            self._error = exc
            raise
        self._move(self._timeouts.read)
        self._is_complete = True

    async def _pieces(self) -> AsyncIterator[bytes]:
        if isinstance(self._content, bytes):
            for start in range(0, len(self._content), CHUNK):
                yield self._content[start : start + CHUNK]
            return
        async for chunk in self._content:
            if 0 < len(chunk) <= CHUNK:
                yield chunk
            else:
                for start in range(0, len(chunk), CHUNK):
                    yield chunk[start : start + CHUNK]

    def _move(self, seconds: float | None) -> None:
        if self._deadline is not None and not self._deadline.expired():  # which may be just now
            now = asyncio.get_running_loop().time()
            self._deadline.reschedule(None if seconds is None else now + seconds)

    def take_error(self) -> Exception | None:
        """Return what went wrong on our side of the connection: an error of the iterable, or a wrong length."""
        error, self._error = self._error, None  # whose traceback leads back here
        return error

    def answered(self) -> None:
        """End the write deadline, as the reply's head has arrived."""
        self._deadline = None

    def cancel(self) -> None:
        """Ask the iterable for no more."""
        self._deadline = None
        if self._task is not None:
            self._task.cancel()
