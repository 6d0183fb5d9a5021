"""What goes out and what comes back, and the two things that can go wrong."""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Coroutine, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import msgspec

if TYPE_CHECKING:
    import httpx

CHUNK: Final = 256 * 1024
"""Bytes: no piece of a body handed out or handed to the socket is larger."""


_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
is_field_value: Final = re.compile(r"[\t -~]*").fullmatch
"""Matches values of header fields whose characters HTTP allows (RFC 9110, section 5.5)."""


@lru_cache(maxsize=256)
def is_token(text: str) -> bool:
    """Return whether a text can be a method or the name of a header field (RFC 9110, section 5.6.2)."""
    return _TOKEN(text) is not None


def are_header_fields(fields: Iterable[tuple[str, str]]) -> bool:
    """Return whether HTTP allows all characters of header fields."""
    return all(is_token(name) and is_field_value(value) for name, value in fields)


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """How long to wait for each part of a request, in seconds.

    `connect` covers name lookup, TCP and TLS; `read` the wait for the reply's head and between two pieces of
    its body; `write` one piece of the request's body; `pool` the wait for a free connection.
    """

    connect: float = 10.0
    read: float = 300.0
    write: float = 60.0
    pool: float = 10.0


DEFAULT_TIMEOUTS: Final = Timeouts()


class Request(msgspec.Struct, frozen=True):
    """One request."""

    method: str
    url: str
    headers: Sequence[tuple[str, str]] = ()
    content: bytes | AsyncIterable[bytes] | None = None
    """An iterable is read once and not closed; without a ``content-length`` among `headers` it goes out chunked."""
    timeouts: Timeouts = DEFAULT_TIMEOUTS
    sni_hostname: str | None = None
    """The name that the server's certificate must carry where it is not the URL's."""


class NotSent(Exception):
    """The request certainly never reached the server, so sending it elsewhere costs nothing.

    `timed_out` distinguishes a timeout from a refusal. The message names no host and no address.
    """

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


def not_http(request: Request) -> NotSent | None:
    """Return the error for a request whose method or header fields HTTP does not allow; None: it is sound."""
    if not is_token(request.method):
        return NotSent("not a valid HTTP method")
    if not are_header_fields(request.headers):
        return NotSent("a request header holds characters that HTTP does not allow")
    return None


class Interrupted(Exception):
    """The request may have reached the server, and the whole reply did not come back.

    `timed_out` distinguishes silence from a broken connection or reply; `was_kept`, a connection that had carried
    another request and ended without any of a reply: most likely the server had closed it before. The text
    names no host and no address.
    """

    def __init__(self, message: str, *, timed_out: bool = False, was_kept: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out
        self.was_kept = was_kept


class BodyTooLarge(Exception):
    """The body is larger than the reader allows; `limit` is that size in bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the reply is larger than {limit} bytes")
        self.limit = limit


class Body(Protocol):
    """A reply's body in pieces of at most `CHUNK` bytes, as they come. Reading it raises `Interrupted`."""

    def __aiter__(self) -> Body: ...

    async def __anext__(self) -> bytes: ...

    async def aclose(self) -> None:
        """Give the connection back, also when the calling task is being cancelled; drop it where bytes are unread."""
        ...


class Response(msgspec.Struct, eq=False):
    """A streamed reply: status and headers are there, the body is read by the holder, who closes it."""

    status_code: int
    headers: Mapping[str, str]
    """Names in lower case; values of the same name are joined by a comma."""
    body: Body
    is_closed: bool = False

    async def aclose(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            await self.body.aclose()


Transport: TypeAlias = "httpx.AsyncBaseTransport"
"""The seam for applications: one method that sends one request. `httpx.AsyncHTTPTransport` and mocks fit."""


class Sender(Protocol):
    """Sends single requests."""

    def send(self, request: Request) -> Coroutine[Any, Any, Response]:
        """Send a request and return as soon as the head of the reply is there. Its holder closes the reply.

        Raises:
            NotSent: nothing of it was sent, also where HTTP does not allow its method or its header fields.
            Interrupted: it may have been; also while the body is read. An exception of an iterable `content` comes
                out as it is.
        """
        ...

    async def aclose(self) -> None:
        """Close every connection, also those in use."""
        ...


def joined(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return a reply's header as `Response` has it."""
    fields: dict[str, str] = {}
    for name, value in headers:
        key, text = _lower(name), value.decode("latin-1")
        fields[key] = f"{fields[key]}, {text}" if key in fields else text
    return fields


@lru_cache(maxsize=256)
def _lower(name: bytes) -> str:
    return name.decode("latin-1").lower()
