"""One request on its way through a `ClientSession`: its deadline, its connection, and what is known of both."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any, Protocol
from weakref import WeakSet

import aiohttp

from imagegate.http.messages import Interrupted, NotSent, Request
from imagegate.http.transports.failures import as_interrupted, as_not_sent
from imagegate.http.transports.reply_head import ReplyHead
from imagegate.http.transports.request_body import RequestBody

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

    def connected(self, connection: _Connection, *, is_reused: bool) -> None:
        """Note the connection, a kept or a new one; a second time where aiohttp repeats an idempotent request."""
        self.has_connected = True
        self.is_reused = is_reused
        self.has_waited = False
        self._transport = connection.transport
        if self._transport is not None:
            self._head = ReplyHead.expect(self._transport)
        self._turn = self._loop.call_soon(self._note_turn)
        if self.upload is None:
            self._deadline.reschedule(self._loop.time() + self.timeouts.read)

    def _note_turn(self) -> None:
        self.has_waited = True

    def answered(self) -> None:
        """The head of the reply is there."""
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


class WatchedConnector(aiohttp.BaseConnector):
    """Connector that reports to the current attempt which connection it got."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._transports_used: WeakSet[asyncio.Transport] = WeakSet()

    async def connect(self, *args: Any, **kwargs: Any) -> Any:
        connection = await super().connect(*args, **kwargs)
        transport = connection.transport
        is_reused = transport in self._transports_used
        if transport is not None and not is_reused:
            self._transports_used.add(transport)
        if (attempt := CURRENT.get()) is not None:
            attempt.connected(connection, is_reused=is_reused)
        return connection


class TCPConnector(WatchedConnector, aiohttp.TCPConnector):
    """aiohttp's, for connections without a SOCKS proxy."""
