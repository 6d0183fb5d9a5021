"""One client's connection: what it may send and leave unread, before and behind the server's own protocol."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from imagegate.errors import ImagegateError, Overloaded, RequestTimeout
from imagegate.server.connections import Connections
from imagegate.server.refusal import response_of
from imagegate.server.request_head import END, check_head, read_head
from imagegate.server.send_queue import unacknowledged
from imagegate.server.transport import GuardedTransport

_WRITE_BUFFER: Final = 16 * 1024
"""Bytes of responses that wait for a client to read them, before the application waits too."""
_SHORT_READ: Final = 64 * 1024
"""Bytes that are read at a time of a body that may end before them, or that nothing reads."""
_IN_CHUNKS: Final = -1
_FIELD: Final = 128
"""Bytes that a header field takes beside its own, once it is parsed."""


class Connection(asyncio.BufferedProtocol):
    """Bounds a connection; everything else is the inner protocol's.

    The inner protocol gets heads that are complete and within their limits, and never a byte of a request before the
    last one is answered: what a client sends ahead stays in this object up to ``limits.pipelined`` bytes, and then in
    the kernel. `begins`, `ends` and `answered` are to be called for what the inner protocol's parser sees.
    """

    def __init__(self, connections: Connections, loop: asyncio.AbstractEventLoop) -> None:
        self._connections = connections
        self.limits = connections.limits
        self._loop = loop
        self._inner = asyncio.Protocol()
        self._transport: Any = None  # asyncio.Transport lacks nothing, but asyncio promises a BaseTransport
        self.is_closing = False
        self.written = 0
        """Bytes that were given to the transport."""
        self.held = 0
        """Bytes that are counted for the head of the last request."""
        self._head = bytearray()
        self._ahead = b""
        self._is_receiving = False
        self._is_responding = False
        self._is_new = False
        """Whether a request has begun with the bytes that are being taken."""
        self._is_early = False
        """Whether a request has begun and its application has not."""
        self._is_known = False
        """Whether a request was answered."""
        self._is_queued = False
        """Whether a request waits for a turn of the event loop to begin in."""
        self._may_begin = False
        self._body = 0
        """Bytes of the body that are to come, or `_IN_CHUNKS`."""
        self._tail = b""
        """The last bytes of a chunked body, in which its end may begin."""
        self._fruitless = 0
        """Bytes of a chunked body since the last ones that were data."""
        self._discards_until = 0.0
        self._is_lingering = False
        self._is_held = False
        self._inner_is_paused = False
        self._is_paused = False
        self._read = 0
        self._read_at = 0.0
        self._stall_left: float = self.limits.client_stall

    def wrap(self, inner: asyncio.Protocol) -> None:
        """Set the inner protocol. To be called once, before the connection is made."""
        self._inner = inner

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._transport.set_write_buffer_limits(high=_WRITE_BUFFER)
        has_room = self._connections.opened(self)
        self._inner.connection_made(GuardedTransport(self, self._transport))
        self._connections.waits(self, self.limits.head_timeout)
        if not has_room:
            self.refuse(
                Overloaded("Too many connections. Retry in a moment.", headers=[(b"retry-after", b"1")]), "connections"
            )

    def get_buffer(self, sizehint: int) -> memoryview:
        if self.is_closing:
            return self._connections.buffer(_SHORT_READ)
        if not self._is_receiving or self._is_early:
            return self._connections.buffer(self.limits.pipelined - len(self._ahead))
        if self._body == _IN_CHUNKS:
            return self._connections.buffer(_SHORT_READ)
        return self._connections.buffer(self._body if self._is_responding else min(self._body, _SHORT_READ))

    def buffer_updated(self, nbytes: int) -> None:
        if not self._is_responding and (self._is_receiving or self.is_closing):
            # An event loop may read many times before others have their turn, and nothing needs these bytes.
            self._hold(True)
            self._connections.later(self)
        if self.is_closing:
            return
        data = bytes(self._connections.buffer(nbytes)[:nbytes])
        if self._ahead or self._is_early:
            self._keep_ahead(self._ahead + data)
        else:
            self._take(data)

    def eof_received(self) -> bool | None:
        return None if self._is_lingering else self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        self._connections.forget(self)
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._watch_reader()
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        if not self.is_closing:
            self._connections.writes(self, is_blocked=False)
        self._inner.resume_writing()

    # Requests

    def _take(self, data: bytes) -> None:
        while data and not self.is_closing:
            if self._is_receiving:
                if self._is_new and self._body == _IN_CHUNKS:
                    break  # to parse chunks costs more than to refuse their request
                data = self._take_body(data)
            elif self._is_responding or self._is_queued:
                break
            else:
                data = self._take_head(data)
        if self.is_closing:
            return
        if self._is_new and self._is_receiving:
            # The application may refuse the request before more of its body is in memory.
            self._is_early = True
            self._loop.call_soon(self.go_on)
        self._is_new = False
        if data or self._is_held:
            self._keep_ahead(data)

    def _keep_ahead(self, data: bytes) -> None:
        """Keep what cannot be taken yet, and read no more than its limit allows."""
        self._ahead = data
        is_held = len(data) >= self.limits.pipelined
        if is_held != self._is_held:
            self._hold(is_held)

    def _take_head(self, data: bytes) -> bytes:
        """Take as much as belongs to a head, and a body that came with it; return the rest."""
        if self._head:
            start = max(0, len(self._head) - len(END) + 1)
            head = bytes(self._head + data)
        else:
            start = 0
            head = data = data.lstrip(b"\r\n")
        end = head.find(END, start)
        raw = head if end < 0 else head[: end + len(END)]
        try:
            if raw:
                check_head(raw, limit=self.limits.head, fields=self.limits.head_fields)
            if end < 0:
                self._keep_head(data)
                return b""
            read, length = read_head(raw)
        except ImagegateError as error:
            self.refuse(error, str(error.code))
            return b""
        if not self._connections.may_begin(self, is_known=self._is_known):
            self._head, self._is_queued = bytearray(), True
            return head
        if self._head:
            self._head = bytearray()
        self._charge(len(raw) + _FIELD * raw.count(b"\n"))
        if self.is_closing:
            return b""
        whole = len(raw) + (length or 0)
        if length is None or whole > len(head):
            self._begin(read, _IN_CHUNKS if length is None else length)
            return head[len(raw) :]
        is_all = read is raw and whole == len(head)
        self._begin(head if is_all else read + head[len(raw) : whole], 0)
        if self._is_receiving:
            self.drop("framing")
        return b"" if is_all else head[whole:]

    def _keep_head(self, data: bytes) -> None:
        """Keep a part of a head until the rest arrives."""
        if data and not self._head:
            self._connections.waits(self, self.limits.head_timeout)
        self._head += data
        self._charge(len(self._head))

    def _charge(self, size: int) -> None:
        """Count the memory that a head takes, until the next one takes its place."""
        if size != self.held:
            more, self.held = size - self.held, size
            self._connections.hold(self, more)

    def _begin(self, data: bytes, left: int) -> None:
        """Give a request to the inner protocol: all of it but `left` bytes of its body."""
        self._connections.works(self)
        self._is_receiving = self._is_responding = self._is_new = self._may_begin = True
        self._body, self._tail, self._fruitless = left, b"", 0
        self._inner.data_received(data)

    def _take_body(self, data: bytes) -> bytes:
        """Take as much as belongs to the body; return the rest."""
        if not self._is_responding:
            self._discard(len(data))
        if self._body != _IN_CHUNKS:
            piece, rest = data[: self._body], data[self._body :]
            self._body -= len(piece)
            self._inner.data_received(piece)
            if not self._body and self._is_receiving:
                self.drop("framing")
            return rest
        end = self._end_in(data)
        piece, rest = data[:end], data[end:]
        self._tail = (self._tail + piece)[-len(END) + 1 :]
        self._fruitless += len(piece)
        self._inner.data_received(piece)
        if self._fruitless > self.limits.head and self._is_receiving:
            self.drop("trailers")  # or chunk extensions: the parser keeps them, and the application gets nothing
        return rest

    def _end_in(self, data: bytes) -> int:
        """Return where the next piece ends that may end a chunked body."""
        known = len(self._tail)
        start = (self._tail + data[: len(END)]).find(END)
        if start >= 0:
            return start + len(END) - known
        end = data.find(END)
        return end + len(END) if end >= 0 else len(data)

    def _discard(self, size: int) -> None:
        """Go on with a body that nothing reads, as long as the client keeps pace."""
        gained = size / self.limits.client_pace
        self._connections.extend(self, gained, most=self.limits.client_stall, until=self._discards_until)

    # What the parser sees

    def begins(self) -> None:
        """Begin a request."""
        if not self._may_begin:
            self.drop("framing")
        self._may_begin = False

    def has_data(self) -> None:
        """Note that a piece of a body was parsed."""
        self._fruitless = 0

    def ends(self) -> None:
        """Note that the request is complete."""
        self._is_receiving = False
        if not self._is_responding and not self.is_closing:
            self._connections.waits(self, self.limits.idle_timeout, is_kept=True)

    def answered(self) -> None:
        """Note that the response is complete."""
        self._is_responding = False
        self._is_known = True
        if self.is_closing:
            return
        if self._is_receiving and self._body == _IN_CHUNKS:
            self.close()  # to look for its end costs more than the connection is worth
        elif self._is_receiving:
            self._discards_until = self._loop.time() + self.limits.idle_timeout
            self._connections.waits(self, self.limits.client_stall)
        else:
            self._connections.waits(self, self.limits.idle_timeout, is_kept=True)
            if self._ahead:
                self._connections.later(self)

    def go_on(self) -> None:
        """Take what had to wait."""
        self._is_queued = self._is_early = False
        if self.is_closing:
            self._hold(False)
            return
        data, self._ahead = self._ahead, b""
        self._take(data)

    # Reading and writing

    def _hold(self, is_held: bool) -> None:
        self._is_held = is_held
        self._set_reading()

    def pause_inner(self, is_paused: bool) -> None:
        """Stop or go on reading, as the inner protocol says."""
        self._inner_is_paused = is_paused
        self._set_reading()

    def _set_reading(self) -> None:
        is_paused = self._is_held or (self._inner_is_paused and not self.is_closing)
        if is_paused != self._is_paused and not self._transport.is_closing():
            self._is_paused = is_paused
            if is_paused:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def _watch_reader(self) -> None:
        self._read, self._read_at = self._taken(), self._loop.time()
        self._stall_left = self.limits.client_stall
        self._connections.writes(self, is_blocked=True)

    def _taken(self) -> int:
        """Return how many bytes the client's side has taken so far."""
        return self.written - int(self._transport.get_write_buffer_size()) - unacknowledged(self._transport)

    def reads_in_time(self) -> bool:
        """Return whether the client has kept pace with reading since this was last asked."""
        now, taken = self._loop.time(), self._taken()
        gained = (taken - self._read) / self.limits.client_pace - (now - self._read_at)
        self._read, self._read_at = taken, now
        self._stall_left = min(self._stall_left + gained, self.limits.client_stall)
        return self._stall_left > 0

    # The end

    def refuse(self, error: ImagegateError, reason: str) -> None:
        """Answer a request that the application does not get, and close the connection."""
        if not self.is_closing:
            self._connections.closed[reason] += 1
            response = response_of(error)
            self.written += len(response)
            self._transport.write(response)
            self.close(is_amid=True)

    def expire(self) -> None:
        """Close: the client has not sent in time what it is waited for."""
        if self.is_closing:
            self._transport.abort()
        elif self._head:
            self.refuse(RequestTimeout("The request's head was not complete in time."), "head_timeout")
        elif self._is_receiving:
            self.drop("client_stall")
        else:
            self.close()

    def close(self, *, is_amid: bool = False) -> None:
        """Close the connection once the client has what was written, or at once when called again.

        A client that is still sending would lose its response to the reset that follows data for a closed socket. So
        the response is ended first, and what comes in is discarded for a while.

        Args:
            is_amid: whether the client is still sending; default: whether a request is incomplete, or sent ahead.
        """
        if self.is_closing:
            self._transport.close()
            return
        is_amid = is_amid or self._is_receiving or bool(self._ahead)
        self._end()
        if not is_amid and not self._transport.get_write_buffer_size():
            self._transport.close()
            return
        self._set_reading()
        self._watch_reader()
        if is_amid and self._transport.can_write_eof():
            self._is_lingering = True
            self._transport.write_eof()
            self._connections.waits(self, self.limits.client_stall)
        else:
            self._connections.works(self)
            self._transport.close()

    def drop(self, reason: str) -> None:
        """Close at once, whatever is under way. `reason` is for the log."""
        self._connections.closed[reason] += 1
        self._end()
        self._connections.forget(self)
        self._transport.abort()

    def _end(self) -> None:
        self.is_closing = True
        self._is_held = False
        self._charge(0)
        self._head, self._ahead = bytearray(), b""
