"""What connections have to say, said at the end of a turn of the event loop."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol
from weakref import WeakKeyDictionary, ref

_MOST_PIECES: Final = 4
SMALL: Final = 64 * 1024
"""Bytes of a write that may wait for others; every socket takes as much at once."""


class Writable(Protocol):
    """What an outbox needs of an `asyncio.WriteTransport`."""

    def write(self, data: bytes, /) -> None: ...

    def is_closing(self) -> bool: ...

    def abort(self) -> None: ...


class Outbox:
    """Small writes of all connections of an event loop, done one after the other when everybody has had a turn.

    A write wakes the process at the other end, which costs as much as the write itself, and on a virtual machine more.
    Between one write and the next, each of another request, it would fall asleep again; so it is woken once for all.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = ref(loop)  # which knows us
        self._waiting: dict[Writable, list[bytes]] = {}

    def write(self, transport: Writable, data: bytes) -> None:
        """Writes `data`, no more than about `SMALL` bytes, at the end of this turn of the event loop."""
        if not self._waiting and (loop := self._loop()) is not None:
            loop.call_soon(self._send_all)
        pieces = self._waiting.setdefault(transport, [])
        pieces.append(data)
        if len(pieces) == _MOST_PIECES:  # so that the transport may say that it has enough
            self.send(transport)

    def send(self, transport: Writable) -> None:
        """Writes what waits for this connection, before something that does not."""
        if pieces := self._waiting.pop(transport, None):
            _send(transport, pieces)

    def _send_all(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for transport, pieces in waiting.items():
            _send(transport, pieces)


def _send(transport: Writable, pieces: list[bytes]) -> None:
    if transport.is_closing():
        return
    try:
        transport.write(b"".join(pieces))
    except Exception:  # transports tell their protocols what fails; should one raise, the others are heard all the same
        transport.abort()


_outboxes: WeakKeyDictionary[asyncio.AbstractEventLoop, Outbox] = WeakKeyDictionary()


def outbox_of(loop: asyncio.AbstractEventLoop) -> Outbox:
    """The one that everybody shares."""
    outbox = _outboxes.get(loop)
    if outbox is None:
        outbox = _outboxes[loop] = Outbox(loop)
    return outbox
