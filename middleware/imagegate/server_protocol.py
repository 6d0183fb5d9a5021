"""uvicorn's HTTP protocol, whose small writes wait for those of other connections (`imagegate.outbox`)."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from imagegate.outbox import SMALL, Outbox, outbox_of


class ServerProtocol(HttpToolsProtocol):
    """For ``uvicorn.run(http=ServerProtocol)``."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(PatientTransport(transport, outbox_of(self.loop)))  # type: ignore[arg-type]


class PatientTransport:
    """A transport whose small writes go through an outbox: an answer's head and its body are one write then."""

    def __init__(self, transport: asyncio.Transport, outbox: Outbox) -> None:
        self._transport = transport
        self._outbox = outbox
        self.is_closing = transport.is_closing
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def __getattr__(self, name: str) -> Any:
        """Whatever else a transport can do."""
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if len(data) <= SMALL:
            self._outbox.write(self._transport, data)
        else:
            self._outbox.send(self._transport)
            self._transport.write(data)

    def close(self) -> None:
        self._outbox.send(self._transport)
        self._transport.close()
