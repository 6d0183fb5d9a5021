"""A reply's body on its way in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import aiohttp

from imagegate.http.arriving import RestOfBody, Silence
from imagegate.http.messages import CHUNK, Interrupted, Timeouts
from imagegate.http.why import as_failure

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler

_FEW: Final = 4
"""Pieces after which a reply is a long one."""


class ReplyBody:
    """A reply's body, in pieces as they come; closing it early drops the connection."""

    def __init__(self, reply: aiohttp.ClientResponse, timeouts: Timeouts, on_close: Callable[[], None]) -> None:
        self._reply = reply
        self._timeouts = timeouts
        self._on_close = on_close
        connection = reply.connection  # None once the whole body is in
        self._protocol: ResponseHandler | None = connection.protocol if connection else None
        self._has_length = "content-length" in reply.headers
        self._silence: Silence | None = None
        self._pieces = 0
        self._lost: asyncio.Future[None] | None = None
        self._is_closed = False
        if self._protocol is not None:
            self._lost = self._protocol.closed
            if self._lost is None:
                self._fail_if_unfinished()
            else:
                self._lost.remove_done_callback(_note_exception)  # it may be there from the last reply
                self._lost.add_done_callback(_note_exception)
                self._lost.add_done_callback(self._fail_if_unfinished)

    def _fail_if_unfinished(self, lost: object = None) -> None:
        """Wake the reader when the connection is lost.

        aiohttp forgets him, and the read timeout with him, when a chunk is malformed and when the session is
        closed.
        """
        content = self._reply.content
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError("connection lost"))

    def __aiter__(self) -> ReplyBody:
        return self

    async def __anext__(self) -> bytes:
        content = self._reply.content
        if self._silence is not None:
            self._silence.begins()
        try:
            if self._has_length:
                piece, _ = await content.readchunk()  # what the socket gave, 256 KiB at most; no copying
            else:
                piece = await content.read(CHUNK)  # puts small chunks together
        except Exception as exc:
            raise as_failure(exc, self._timeouts, in_body=True) from exc
        if self._silence is not None:
            self._silence.ends()
        elif self._protocol is not None:
            self._pieces += 1
            if self._pieces == _FEW and not content.is_eof():
                self._is_long(self._protocol, content)
        if piece:
            return piece
        if self._is_cut_off():
            raise Interrupted("connection closed before the reply was complete")
        raise StopAsyncIteration

    def _is_long(self, protocol: ResponseHandler, content: aiohttp.StreamReader) -> None:
        """Reads the rest in ways that pay where there is more of it."""
        self._silence = Silence(protocol, content, self._timeouts.read)
        if self._has_length and protocol.connected and content.exception() is None and RestOfBody.fits(protocol):
            left = int(self._reply.headers["content-length"]) - content.total_bytes
            if left > 0:
                RestOfBody(protocol, content, left)

    def _is_cut_off(self) -> bool:
        """Tell a reset from the end of a body that ends with the connection; to aiohttp both are the end."""
        return (
            not self._has_length
            and "chunked" not in self._reply.headers.get("transfer-encoding", "").lower()
            and self._protocol is not None
            and isinstance(self._protocol.exception(), OSError)
        )

    async def aclose(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        if self._silence is not None:
            self._silence.cancel()
        if self._lost is not None:
            self._lost.remove_done_callback(self._fail_if_unfinished)
        self._reply.close()
        self._on_close()


def _note_exception(lost: asyncio.Future[None]) -> None:
    """Look at the exception of a lost connection, lest asyncio logs that nobody did."""
    if not lost.cancelled():
        lost.exception()
