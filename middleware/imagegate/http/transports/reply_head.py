"""Heads of replies that say their length twice, on their way to aiohttp's parser, which refuses them.

RFC 9110 section 8.6 lets a recipient take several equal lengths for one, and in RFC 9112 section 6.3 chunks override a
length; curl and httpx read both. Different lengths stay: the end of such a reply is unknown.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final

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
    """Wraps a connection's protocol until the head of one reply has been received."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        protocol = transport.get_protocol()
        if not isinstance(protocol, asyncio.Protocol):
            raise TypeError("the connection's protocol does not take bytes")
        self._protocol = protocol
        self._held = b""

    @classmethod
    def expect(cls, transport: asyncio.Transport) -> None:
        """Read the next head on a connection."""
        if isinstance(transport.get_protocol(), asyncio.Protocol) and not isinstance(transport.get_protocol(), cls):
            transport.set_protocol(cls(transport))

    def data_received(self, data: bytes) -> None:
        data = self._held + data
        end = data.find(_END)
        while end >= 0:
            end += len(_END)
            head, data = mended_head(data[:end]), data[end:]
            if not _INTERIM.match(head):
                self._held = b""
                self._step_back()
                self._protocol.data_received(head + data)
                return
            self._protocol.data_received(head)
            end = data.find(_END)
        self._held = data
        if len(data) > _LONGEST:
            self._hand_over()

    def _step_back(self) -> None:
        if self._transport.get_protocol() is self:
            self._transport.set_protocol(self._protocol)

    def _hand_over(self) -> None:
        """Give up what was held back."""
        held, self._held = self._held, b""
        self._step_back()
        if held:
            self._protocol.data_received(held)

    def eof_received(self) -> bool | None:
        self._hand_over()
        return self._protocol.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._hand_over()
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()
