"""Heads of replies on their way to aiohttp's parser: bounded, and with one framing where they say their length twice.

RFC 9110 section 8.6 lets a recipient take several equal lengths for one, and in RFC 9112 section 6.3 chunks override a
length; curl and httpx read both. Different lengths stay: the end of such a reply is unknown.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final

_MOST: Final = 1024 * 1024
"""Bytes until the head has been read. The beginning of the body may be among them: aiohttp gets both at once."""
_MOST_INTERIM: Final = 256
"""Interim replies (1xx) to one request; a server that is at work sends one every few seconds."""
_END: Final = b"\r\n\r\n"
_LONGEST: Final = 256 * 1024
"""Bytes of a head; a longer one is left to the parser."""
_LENGTH: Final = re.compile(rb"\r\ncontent-length[ \t]*:[ \t]*([0-9, \t]*?)[ \t]*(?=\r\n)", re.IGNORECASE)
_CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding[ \t]*:(?:[^\r\n]*,)?[ \t]*chunked[ \t]*\r\n", re.IGNORECASE)
_INTERIM: Final = re.compile(rb"HTTP/1\.[01] 1(?!01)[0-9]{2}")


def mended_head(head: bytes) -> bytes:
    """Return a head, with its empty line, with one framing where it says the same twice."""
    lengths = _LENGTH.findall(head)
    if not lengths or (len(lengths) == 1 and b"," not in lengths[0] and not _CHUNKED.search(head)):
        return head
    if _CHUNKED.search(head):
        without: bytes = _LENGTH.sub(b"", head)
        return without
    said: set[bytes] = {value.strip() for length in lengths for value in length.split(b",")}
    if len(said) != 1 or said == {b""}:
        return head
    first = _LENGTH.search(head)
    if first is None:
        raise AssertionError("there are lengths")
    rest: bytes = _LENGTH.sub(b"", head[first.end() :])
    return head[: first.start()] + b"\r\nContent-Length: " + said.pop() + rest


class ReplyHead(asyncio.Protocol):
    """Wraps the protocol of a connection: mends response heads, and closes the connection when none ever ends.

    aiohttp reads and forgets interim replies for as long as they come.
    """

    def __init__(self, inner: asyncio.Protocol, transport: asyncio.Transport) -> None:
        self._inner = inner
        self._transport = transport
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
        head._is_expected = True
        head._held = b""
        head._left = _MOST
        head._interim = 0
        return head

    def taken(self) -> None:
        """The head of the reply has been read."""
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
            head, data = mended_head(data[:end]), data[end:]
            if not _INTERIM.match(head):
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
