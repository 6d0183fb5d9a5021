"""One request through a `ClientSession`: its connection and its deadline, and the reply's head and body."""

from __future__ import annotations

import asyncio
import re
from contextvars import ContextVar
from typing import Any, Final, Protocol

import aiohttp

from imagegate.asgi.helpers import TooLate, within
from imagegate.http.messages import CHUNK, Interrupted, NotSent, Request
from imagegate.http.transports.failures import as_interrupted, as_not_sent
from imagegate.http.transports.framing import closing_head, mended_head
from imagegate.http.transports.request_body import RequestBody

_MOST: Final = 1024 * 1024
"""Bytes until the head has been read. The beginning of the body may be among them: aiohttp gets both at once."""
_MOST_INTERIM: Final = 256
"""Interim replies (1xx) to one request; a server that is at work sends one every few seconds."""
_END: Final = b"\r\n\r\n"
_LONGEST: Final = 256 * 1024
"""Bytes of a head; a longer one is left to the parser."""
_FRAMING: Final = re.compile(rb"\r\n(?:content-length|transfer-encoding)[ \t]*:([^\r\n]*)", re.IGNORECASE)
_STATUS: Final = len(b"HTTP/1.1 ")
"""Where the status of a head begins."""
_INTERIM: Final = re.compile(rb"HTTP/1\.[01] 1(?!01)[0-9]{2}")
_LOOK: Final = 1.0
"""Seconds after which a waiting reader looks whether there still is a connection: aiohttp does not wake it when a chunk
is malformed, nor when the session is closed."""

CURRENT: ContextVar[Attempt | None] = ContextVar("imagegate.http.attempt", default=None)
"""The attempt that the running task makes."""


class _Connection(Protocol):
    """What is used of an `aiohttp.Connection`."""

    @property
    def transport(self) -> asyncio.Transport | None: ...


class Attempt:
    """Follows a request from the connection to the head of its reply.

    Args:
        deadline: of the wait for that head; it runs from the moment that there is a connection.
    """

    def __init__(self, request: Request, deadline: asyncio.Timeout, upload: RequestBody | None) -> None:
        self.timeouts = request.timeouts
        self._deadline = deadline
        self.upload = upload
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._head: ReplyHead | None = None
        self._turn: asyncio.Handle | None = None
        self.has_connected = False
        """Whether bytes may have gone out."""
        self.is_reused = False
        """Whether the connection has carried another request."""
        self.has_waited = False
        """Whether the event loop has gone on since, without which no reply can have come."""

    def connected(self, connection: _Connection) -> None:
        """Note the connection, a kept or a new one; a second time where aiohttp repeats an idempotent request."""
        self.has_connected = True
        self.has_waited = False
        self._transport = connection.transport
        if self._transport is not None:
            self._head = ReplyHead.expect(self._transport)
        self.is_reused = self._head is not None and self._head.is_reused
        self._turn = self._loop.call_soon(self._note_turn)
        if self.upload is None and not self._deadline.expired():
            self._deadline.reschedule(self._loop.time() + self.timeouts.read)

    def _note_turn(self) -> None:
        self.has_waited, self._turn = True, None

    def answered(self) -> None:
        """Note that the head of the reply is there."""
        if self._turn is not None:
            self._turn.cancel()
        if self._head is not None:
            self._head.taken()
        if self.upload is not None:
            self.upload.answered()

    def cancel_upload(self) -> None:
        """Ask the request's body for no more."""
        if self.upload is not None:
            self.upload.cancel()

    def drop(self) -> None:
        """End the connection; closed as usual it would wait for a server that does not take what was written."""
        self.cancel_upload()
        if self._transport is not None:
            self._transport.abort()

    @property
    def is_closing(self) -> bool:
        """Whether the connection has ended, or is about to."""
        return self._transport is not None and self._transport.is_closing()

    def close(self, loop: asyncio.AbstractEventLoop) -> None:
        """Drop the connection where it belongs to `loop`."""
        if loop is self._loop:
            self.drop()

    def failure(self, exc: Exception) -> NotSent | Interrupted:
        """Classify what aiohttp raised: without a connection nothing was sent, with one it may have been."""
        upload, timeouts = self.upload, self.timeouts
        if not self.has_connected:
            return as_not_sent(exc, timeouts)
        if isinstance(exc, TimeoutError) and upload is not None and upload.is_stalled:
            return Interrupted(f"the server took no more of the request for {timeouts.write:g} s", timed_out=True)
        return as_interrupted(exc, timeouts, is_reused=self.is_reused)

    def was_closed(self) -> NotSent | Interrupted:
        """Return the failure of a request whose client was closed."""
        text = "the client was closed"
        return Interrupted(text) if self.has_connected else NotSent(text)


class ReplyHead(asyncio.Protocol):
    """Wraps the protocol of a connection: mends response heads, and closes the connection when none ever ends.

    aiohttp reads and forgets interim replies for as long as they come.
    """

    def __init__(self, inner: asyncio.Protocol, transport: asyncio.Transport) -> None:
        self._inner = inner
        self._transport = transport
        self.is_reused = False
        """Whether a reply before this one was expected on the connection."""
        self._is_expected = False
        self._held = b""
        self._left: int | None = None
        self._interim = 0

    @classmethod
    def expect(cls, transport: asyncio.Transport) -> ReplyHead | None:
        """Read the head of the next reply on a connection, which keeps its reader; None: it cannot have one."""
        head = transport.get_protocol()
        if not isinstance(head, cls):
            if not isinstance(head, asyncio.Protocol):
                return None
            head = cls(head, transport)
            transport.set_protocol(head)
        else:
            head.is_reused = True
        head._is_expected = True
        head._held = b""
        head._left = _MOST
        head._interim = 0
        return head

    def taken(self) -> None:
        """Note that the head of the reply has been read."""
        self._left = None

    def data_received(self, data: bytes) -> None:
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                self._transport.abort()
                return
        if not self._is_expected:
            self._inner.data_received(data)
            return
        data = self._held + data
        while self._is_expected and (end := data.find(_END)) >= 0:
            end += len(_END)
            head, data = data[:end], data[end:]
            said = _FRAMING.findall(head)
            if len(said) > 1 or (said and b"," in said[0]):
                head = mended_head(head)
            if not _INTERIM.match(head):
                if head.startswith(b"5", _STATUS):
                    head = closing_head(head)
                self._is_expected, data = False, head + data
                break
            self._interim += 1
            if self._interim > _MOST_INTERIM:
                self._transport.abort()
                return
            self._inner.data_received(head)
        if self._is_expected and len(data) <= _LONGEST:
            self._held = data
        else:
            self._is_expected, self._held = False, b""
            self._inner.data_received(data)

    def _hand_over(self) -> None:
        """Give up what was held back."""
        held, self._held, self._is_expected = self._held, b"", False
        if held:
            self._inner.data_received(held)

    def eof_received(self) -> bool | None:
        self._hand_over()
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._hand_over()
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()


class ReplyBody:
    """Pieces of at most `CHUNK` bytes as they come. Closing it early drops the connection."""

    def __init__(self, response: aiohttp.ClientResponse, attempt: Attempt) -> None:
        self._response = response
        self._content = response.content
        self._has_length = "Content-Length" in response.headers
        self._timeouts = attempt.timeouts
        self._attempt: Attempt | None = attempt

    def __aiter__(self) -> ReplyBody:
        return self

    async def __anext__(self) -> bytes:
        while not self._content.at_eof():
            try:
                # What is there already needs no timer, and goes on in fewer pieces than it came in.
                piece = self._content.read_nowait(CHUNK) or await self._read()
            except (aiohttp.ClientError, TimeoutError, OSError) as exc:
                raise as_interrupted(exc, self._timeouts, in_body=True) from exc
            if piece:
                return piece
        raise StopAsyncIteration

    async def _read(self) -> bytes:
        left, loop, content = self._timeouts.read, asyncio.get_running_loop(), self._content
        while True:
            try:
                if self._has_length:
                    return (await within(min(_LOOK, left), content.readchunk(), loop))[0]  # as it came; no copying
                return await within(min(_LOOK, left), content.read(CHUNK), loop)  # puts small chunks together
            except TooLate:
                left -= _LOOK
            if left <= 0:
                raise Interrupted(f"the reply stopped for {self._timeouts.read:g} s", timed_out=True)
            if self._attempt is not None and self._attempt.is_closing:
                raise Interrupted("connection closed before the reply was complete")

    async def aclose(self) -> None:
        """Give the connection back, or drop it where the reply is unread or the request still goes out."""
        attempt, self._attempt = self._attempt, None
        if attempt is None:
            return
        response, upload = self._response, attempt.upload
        if response.content.at_eof() and (upload is None or upload.is_complete):
            response.release()
        elif response.connection is None:  # it serves others already
            attempt.cancel_upload()
        else:
            attempt.drop()
            response.close()


class WatchedConnector(aiohttp.BaseConnector):
    """Connector that reports to the current attempt which connection it got."""

    async def connect(self, *args: Any, **kwargs: Any) -> Any:
        connection = await super().connect(*args, **kwargs)
        if (attempt := CURRENT.get()) is not None:
            attempt.connected(connection)
        return connection


class TCPConnector(WatchedConnector, aiohttp.TCPConnector):
    """aiohttp's, for connections without a SOCKS proxy."""
