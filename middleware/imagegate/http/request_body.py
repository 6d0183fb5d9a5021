"""A request's body on its way out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable
from typing import TYPE_CHECKING, cast

import aiohttp

from imagegate.http.messages import CHUNK, Interrupted

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.http import StreamWriter


class RequestBody(aiohttp.Payload):
    """A request's body, written in bounded pieces, each within the write timeout that aiohttp lacks."""

    def __init__(self, content: bytes | AsyncIterable[bytes], length: int | None, timeout: float) -> None:
        super().__init__(content)
        self._length = length
        self._size = length
        self._timeout = timeout
        self.error: Exception | None = None
        """What went wrong on our side of the connection; aiohttp hides it in an error of its own."""

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        raise AssertionError("aiohttp never asks for text")

    async def write(self, writer: AbstractStreamWriter) -> None:
        to = cast("StreamWriter", writer)  # the only one that aiohttp has
        written = 0
        # aiohttp puts a chunk together with what frames it, which copies it; so the framing is our own.
        is_chunked, to.chunked = to.chunked, False
        before = ""
        async for piece in self._pieces():
            size = len(piece)
            written += size
            if is_chunked:
                await to.write(f"{before}{size:x}\r\n".encode(), drain=False)
                before = "\r\n"
            elif self._length is not None and written > self._length:
                break
            await to.write(piece, drain=False)
            await self._taken(to)
        if is_chunked:
            await to.write(f"{before}0\r\n\r\n".encode(), drain=False)
        elif written != self._length:
            # aiohttp would leave the server waiting for the rest, or for the next request.
            self.error = Interrupted("the request is not as long as announced")
            raise self.error
        await self._in_time(to.drain())

    async def _taken(self, writer: StreamWriter) -> None:
        """Waits where the socket has not taken everything, and only then with a timer."""
        transport = writer.transport
        if transport is None or transport.get_write_buffer_size():
            await self._in_time(writer.drain())

    async def _pieces(self) -> AsyncIterator[bytes | memoryview]:
        if isinstance(self._value, bytes):
            for start in range(0, len(self._value), CHUNK):
                yield memoryview(self._value)[start : start + CHUNK]
            return
        try:
            async for chunk in self._value:
                if len(chunk) <= CHUNK:
                    if chunk:  # an empty one would be the end
                        yield chunk
                else:
                    for start in range(0, len(chunk), CHUNK):
                        yield memoryview(chunk)[start : start + CHUNK]
        except Exception as exc:
            self.error = exc
            raise

    async def _in_time(self, step: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await step
        except TimeoutError:
            self.error = Interrupted(f"the server took no more of the request for {self._timeout:g} s", timed_out=True)
            raise
