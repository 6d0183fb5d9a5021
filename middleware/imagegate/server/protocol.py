"""uvicorn's HTTP protocol, whose small writes wait for those of other connections (`imagegate.http.outbox`)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from imagegate.http.outbox import SMALL, Outbox, outbox_of


class ServerProtocol(HttpToolsProtocol):
    """For ``uvicorn.run(http=ServerProtocol)``."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._outgoing = OutboxTransport(transport, outbox_of(self.loop))
        super().connection_made(self._outgoing)  # type: ignore[arg-type]

    def eof_received(self) -> None:
        self._outgoing.flush()  # the event loop closes the connection now, though the client may still be reading
        super().eof_received()


class OutboxTransport:
    """A transport whose small writes go through an outbox, the head of an answer and its body as one."""

    __slots__ = ("_outbox", "_transport", "is_closing", "pause_reading", "resume_reading")

    def __init__(self, transport: asyncio.Transport, outbox: Outbox) -> None:
        self._transport = transport
        self._outbox = outbox
        self.is_closing = transport.is_closing
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def __getattr__(self, name: str) -> Any:
        """Whatever else a transport can do, which writes nothing."""
        return getattr(self._transport, name)

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if type(data) is not bytes:
            data = memoryview(data).tobytes()  # a copy, for it may be changed while it waits
        if len(data) <= SMALL:
            self._outbox.write(self._transport, data)
        else:
            self.flush()
            self._transport.write(data)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        for data in list_of_data:
            self.write(data)

    def flush(self) -> None:
        """Writes at once what waits for this connection."""
        self._outbox.flush(self._transport)

    def write_eof(self) -> None:
        self.flush()
        self._transport.write_eof()

    def close(self) -> None:
        self.flush()
        self._transport.close()
