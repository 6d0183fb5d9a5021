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
    from aiohttp.connector import Connection
    from aiohttp.http import RawResponseMessage

    from imagegate.http.request_body import Upload

_FEW: Final = 4
"""Pieces after which a reply is a long one."""


class BodyInMemory:
    """A reply's body that has come in whole; its connection serves others already."""

    def __init__(self, content: bytes, on_close: Callable[[], None]) -> None:
        self._rest = content
        self._on_close = on_close
        self._is_closed = False

    def __aiter__(self) -> BodyInMemory:
        return self

    async def __anext__(self) -> bytes:
        piece, self._rest = self._rest[:CHUNK], self._rest[CHUNK:]
        if piece:
            return piece
        raise StopAsyncIteration

    async def aclose(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._on_close()


class ReplyBody:
    """A reply's body, in pieces as they come; closing it early drops the connection."""

    def __init__(
        self,
        connection: Connection,
        protocol: ResponseHandler,
        message: RawResponseMessage,
        content: aiohttp.StreamReader,
        timeouts: Timeouts,
        upload: Upload | None,
        on_close: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._content = content
        length = message.headers.get("Content-Length")
        self._length = None if length is None else int(length)
        self._ends_with_connection = length is None and not message.chunked
        self._timeouts = timeouts
        self._upload = upload
        self._on_close = on_close
        self._protocol = protocol
        self._silence: Silence | None = None
        self._pieces = 0
        self._is_closed = False
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
        content = self._content
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError("connection lost"))

    def __aiter__(self) -> ReplyBody:
        return self

    async def __anext__(self) -> bytes:
        content = self._content
        if self._silence is not None:
            self._silence.begins()
        try:
            if self._length is not None:
                piece, _ = await content.readchunk()  # what the socket gave, 256 KiB at most; no copying
            else:
                piece = await content.read(CHUNK)  # puts small chunks together
        except Exception as exc:
            raise as_failure(exc, self._timeouts, in_body=True) from exc
        if self._silence is not None:
            self._silence.ends()
        else:
            self._pieces += 1
            if self._pieces == _FEW and not content.is_eof():
                self._is_long()
        if piece:
            return piece
        if self._is_cut_off():
            raise Interrupted("connection closed before the reply was complete")
        raise StopAsyncIteration

    def _is_long(self) -> None:
        """Reads the rest in ways that pay where there is more of it."""
        protocol, content = self._protocol, self._content
        self._silence = Silence(protocol, content, self._timeouts.read)
        left = 0 if self._length is None else self._length - content.total_bytes
        if left > 0 and protocol.connected and content.exception() is None and RestOfBody.fits(protocol):
            RestOfBody(protocol, content, left)

    def _is_cut_off(self) -> bool:
        """Tell a reset from the end of a body that ends with the connection; to aiohttp both are the end."""
        return self._ends_with_connection and isinstance(self._protocol.exception(), OSError)

    async def aclose(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        if self._silence is not None:
            self._silence.cancel()
        if self._lost is not None:
            self._lost.remove_done_callback(self._fail_if_unfinished)
        if self._content.is_eof() and (self._upload is None or self._upload.is_complete):
            self._connection.release()
        else:
            self._content.set_exception(aiohttp.ClientConnectionError("closed"))
            if self._upload is not None:
                self._upload.cancel()
            self._connection.close()
        self._on_close()


def _note_exception(lost: asyncio.Future[None]) -> None:
    """Look at the exception of a lost connection, lest asyncio logs that nobody did."""
    if not lost.cancelled():
        lost.exception()
