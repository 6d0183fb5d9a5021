"""A bound on what a server may send before the head of its reply: interim replies and heads without end."""

from __future__ import annotations

import asyncio
from typing import Final

_MOST: Final = 1024 * 1024
"""Bytes until the head has been read. The beginning of the body may be among them: aiohttp gets both at once."""
_INTERIM: Final = b"HTTP/1.1 1"
_MOST_INTERIM: Final = 256
"""Interim replies (1xx) to one request; a server that is at work sends one every few seconds."""


class HeadMeter(asyncio.Protocol):
    """Wraps the protocol of a connection, and closes the connection when too much arrives before a response head.

    aiohttp reads and forgets interim replies for as long as they come.
    """

    def __init__(self, inner: asyncio.Protocol, transport: asyncio.Transport) -> None:
        self._inner = inner
        self._transport = transport
        self._left: int | None = None
        self._interim = 0

    @classmethod
    def of(cls, transport: asyncio.Transport) -> HeadMeter | None:
        """Return the meter of a connection, which it keeps; None: it cannot have one."""
        protocol = transport.get_protocol()
        if isinstance(protocol, HeadMeter):
            return protocol
        if not isinstance(protocol, asyncio.Protocol):
            return None
        meter = cls(protocol, transport)
        transport.set_protocol(meter)
        return meter

    def begin(self) -> None:
        """A request is about to be sent."""
        self._left = _MOST
        self._interim = 0

    def end(self) -> None:
        """The head of the reply has been read."""
        self._left = None

    def data_received(self, data: bytes) -> None:
        if self._left is not None:
            self._left -= len(data)
            self._interim += data.count(_INTERIM)
            if self._left < 0 or self._interim > _MOST_INTERIM:
                self._transport.abort()
                return
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()
