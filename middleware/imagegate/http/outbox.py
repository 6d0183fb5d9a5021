"""What connections have to say, said together once the event loop has run all that was ready."""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import Final, Protocol
from weakref import WeakKeyDictionary, ref

SMALL: Final = 64 * 1024
"""Bytes of a write that may wait for others."""
_MOST_PIECES: Final = 4
"""That wait for one connection, so that its transport may say that it has enough."""

Pieces = list[bytes]
"""What waits for a connection; emptied when it is written. What the connection has not lived to see stays in it."""


class Writable(Protocol):
    """What an outbox needs of an `asyncio.WriteTransport`."""

    def write(self, data: bytes, /) -> None: ...

    def is_closing(self) -> bool: ...

    def abort(self) -> None: ...


class Outbox:
    """Small writes of all connections of an event loop, done one after the other in its next turn.

    A write wakes the process at the other end, which costs as much as the write itself, and on a virtual machine more.
    Between one write and the next, each of another request, it would fall asleep again; so it is woken once for all.
    Who does not let the event loop go on keeps them back.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = ref(loop)  # which knows us
        self._context = Context()  # nobody's own: transports call back from it
        self._is_scheduled = False
        self._waiting: dict[Writable, Pieces] = {}

    def write(self, transport: Writable, data: bytes) -> Pieces:
        """Takes `data`, which nobody changes any more and which is no longer than about `SMALL`."""
        if not self._is_scheduled and (loop := self._loop()) is not None:
            self._is_scheduled = True
            loop.call_soon(self._flush_all, context=self._context)
        pieces = self._waiting.setdefault(transport, [])
        pieces.append(data)
        if len(pieces) == _MOST_PIECES:
            self.flush(transport)
        return pieces

    def flush(self, transport: Writable) -> None:
        """Writes at once what waits for this connection."""
        if pieces := self._waiting.pop(transport, None):
            self._write(transport, pieces)

    def _flush_all(self) -> None:
        self._is_scheduled = False
        waiting, self._waiting = self._waiting, {}
        for transport, pieces in waiting.items():
            self._write(transport, pieces)

    def _write(self, transport: Writable, pieces: Pieces) -> None:
        if transport.is_closing():
            return
        data = b"".join(pieces)
        pieces.clear()
        try:
            transport.write(data)
        except Exception as error:  # which is this connection's affair; the others are heard all the same
            transport.abort()
            if (loop := self._loop()) is not None:
                loop.call_exception_handler({"message": "a connection cannot be written to", "exception": error})


_outboxes: WeakKeyDictionary[asyncio.AbstractEventLoop, Outbox] = WeakKeyDictionary()


def outbox_of(loop: asyncio.AbstractEventLoop) -> Outbox:
    """The one that everybody shares."""
    outbox = _outboxes.get(loop)
    if outbox is None:
        outbox = _outboxes[loop] = Outbox(loop)
    return outbox
