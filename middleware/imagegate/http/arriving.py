"""Long replies while they arrive, read beside aiohttp's own ways where those cost more than the rest of the work."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler


class RestOfBody:
    """Takes what is left of a body whose length is known as it comes from the socket: aiohttp's parser would copy it.

    aiohttp has a place for such parsers, made for WebSockets, and makes itself a new one of its own for each request.

    Args:
        left: bytes that are still to come, at least one.
    """

    def __init__(self, protocol: ResponseHandler, content: aiohttp.StreamReader, left: int) -> None:
        self._protocol = protocol
        self._content = content
        self._left = left
        protocol.set_parser(self, content)

    @staticmethod
    def fits(protocol: ResponseHandler) -> bool:
        """Whether this aiohttp has what `_end` sets back."""
        return hasattr(protocol, "_payload_parser") and hasattr(protocol, "_parser")

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """As aiohttp asks for it: whether the connection is of no more use, and what is left over."""
        if self._content.exception() is not None:
            return False, b""
        left = self._left = self._left - len(data)
        if left < 0:  # nobody has asked for more, so the next reply would be somebody else's
            self._protocol.force_close()
            data = data[:left]
        self._content.feed_data(data)
        if left <= 0:
            self._end()
        return False, b""

    def _end(self) -> None:
        # With us in place the connection would not be used again, and aiohttp's parser, which has seen a part of the
        # body, would call it cut.
        self._protocol._payload_parser = self._protocol._parser = None  # pyright: ignore[reportPrivateUsage]
        self._content.feed_eof()

    def feed_eof(self) -> None:
        """The connection has ended."""
        if self._content.exception() is None and not self._content.is_eof():
            self._content.set_exception(aiohttp.ClientPayloadError("connection lost"))


class Silence:
    """Ends the wait for a piece of a reply that does not come for `seconds`.

    One timer for a whole body: aiohttp's own is set anew for every piece, which costs more than to look at the piece.
    """

    def __init__(self, protocol: ResponseHandler, content: aiohttp.StreamReader, seconds: float) -> None:
        protocol.read_timeout = None  # from the next piece on, until the next request
        self._content = content
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._since: float | None = None
        self._timer = self._loop.call_later(seconds, self._look)

    def begins(self) -> None:
        """Somebody waits from now on."""
        self._since = self._loop.time()

    def ends(self) -> None:
        self._since = None

    def _look(self) -> None:
        now = self._loop.time()
        until = (now if self._since is None else self._since) + self._seconds
        if now < until:
            self._timer = self._loop.call_at(until, self._look)
        elif self._content.exception() is None:
            self._content.set_exception(aiohttp.SocketTimeoutError("no data in time"))

    def cancel(self) -> None:
        self._timer.cancel()
