"""Heads of replies as aiohttp's parser is to read them: with one framing, and with an end after an error. Pure.

RFC 9110 section 8.6 lets a recipient take several equal lengths for one, and in RFC 9112 section 6.3 chunks override a
length; curl and httpx read both. Different lengths stay: the end of such a reply is unknown.
"""

from __future__ import annotations

import re
from typing import Final

_LENGTH: Final = re.compile(rb"\r\ncontent-length[ \t]*:[ \t]*([0-9, \t]*?)[ \t]*(?=\r\n)", re.IGNORECASE)
_CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding[ \t]*:(?:[^\r\n]*,)?[ \t]*chunked[ \t]*\r\n", re.IGNORECASE)


_CONNECTION: Final = re.compile(rb"(?<=\r\n)connection[ \t]*:[^\r\n]*\r\n", re.IGNORECASE)


def closing_head(head: bytes) -> bytes:
    """Return the head of a server's error with the word that its connection is not used again.

    Servers whose application fails, such as uvicorn's under Starlette, answer and then close the connection, which
    they have not said: a request that goes out on it meanwhile is lost, and may have been paid for.
    """
    return _CONNECTION.sub(b"", head[:-2]) + b"Connection: close\r\n\r\n"


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
