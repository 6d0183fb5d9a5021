"""A request's body on its way out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable
from typing import TYPE_CHECKING

import aiohttp
from aiohttp.http import StreamWriter

from imagegate.http.messages import CHUNK, Interrupted

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler


class Upload:
    """Writes a request in bounded pieces, each within `timeout` seconds, while somebody waits for the reply.

    Args:
        length: bytes of `content`; None sends it in chunks.
    """

    def __init__(
        self,
        protocol: ResponseHandler,
        head: bytes,
        content: bytes | AsyncIterable[bytes],
        length: int | None,
        timeout: float,
    ) -> None:
        self._protocol = protocol
        self._writer = StreamWriter(protocol, asyncio.get_running_loop())
        self._content = content
        self._length = length
        self._timeout = timeout
        self._error: Exception | None = None
        self._is_answered = False
        self._task = asyncio.create_task(self._run(head))

    @property
    def has_ended(self) -> bool:
        """Whether nothing more is written, be it that the rest cannot be."""
        return self._task.done()

    @property
    def is_complete(self) -> bool:
        return self._task.done() and not self._protocol.should_close

    def cancel(self) -> None:
        """Ends the connection too: closed as usual it would wait for a server that does not take what was written."""
        self._task.cancel()
        self._protocol.abort()

    def answered(self) -> None:
        """Leaves the connection to who reads the reply, whose head is there; to half a request it says nothing."""
        self._is_answered = True
        if self._error is not None:
            raise aiohttp.ClientConnectionError("the request broke off")

    def raise_error(self) -> None:
        """Raises what went wrong on our side of the connection; who waits for the reply gets an error of aiohttp's."""
        try:
            if self._error is not None:
                raise self._error
        finally:
            self._error = None  # its traceback leads back here

    async def _run(self, head: bytes) -> None:
        protocol = self._protocol
        try:
            await self._write(head)
        except BaseException as exc:  # also a CancelledError of the content's
            protocol.force_close()  # half a request is on it
            if isinstance(exc, Interrupted):
                self._error = exc
            if not self._is_answered:
                protocol.set_exception(aiohttp.ClientConnectionError("the request could not be written"))
            if not isinstance(exc, Exception):
                raise
        else:
            if not self._is_answered:
                protocol.start_timeout()

    async def _write(self, head: bytes) -> None:
        writer = self._writer
        await writer.write(head, drain=False)
        written = 0
        is_chunked = self._length is None
        before = ""
        async for piece in self._pieces():
            size = len(piece)
            written += size
            # aiohttp puts a chunk together with what frames it, which copies it; so the framing is our own.
            if is_chunked:
                await writer.write(f"{before}{size:x}\r\n".encode(), drain=False)
                before = "\r\n"
            elif self._length is not None and written > self._length:
                break
            await writer.write(piece, drain=False)
            await self._taken()
        if is_chunked:
            await writer.write(f"{before}0\r\n\r\n".encode(), drain=False)
        elif written != self._length:
            raise Interrupted("the request is not as long as announced")  # the server would wait for the rest
        await self._in_time(writer.drain())

    async def _taken(self) -> None:
        """Waits where the socket has not taken everything, and only then with a timer."""
        transport = self._writer.transport
        if transport is None or transport.get_write_buffer_size():
            await self._in_time(self._writer.drain())

    async def _pieces(self) -> AsyncIterator[bytes | memoryview]:
        if isinstance(self._content, bytes):
            for start in range(0, len(self._content), CHUNK):
                yield memoryview(self._content)[start : start + CHUNK]
            return
        try:
            async for chunk in self._content:
                if len(chunk) <= CHUNK:
                    if chunk:  # an empty one would be the end
                        yield chunk
                else:
                    for start in range(0, len(chunk), CHUNK):
                        yield memoryview(chunk)[start : start + CHUNK]
        except Exception as exc:
            self._error = exc
            raise

    async def _in_time(self, step: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await step
        except TimeoutError:
            raise Interrupted(
                f"the server took no more of the request for {self._timeout:g} s", timed_out=True
            ) from None
