"""What goes out and what comes back, and the two things that can go wrong."""

from __future__ import annotations

from collections.abc import AsyncIterable, Coroutine, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeAlias

import msgspec

if TYPE_CHECKING:
    import httpx

CHUNK: Final = 256 * 1024
"""Bytes: no piece of a body handed out or handed to the socket is larger."""


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


class Request(NamedTuple):
    """One request, as `imagegate.http.HTTPClient.send` takes it."""

    method: str
    url: str
    headers: Sequence[tuple[str, str]]
    content: bytes | AsyncIterable[bytes] | None
    timeouts: Timeouts
    sni_hostname: str | None


class NotSent(Exception):
    """The request certainly never reached the server, so sending it elsewhere costs nothing.

    `timed_out` distinguishes a timeout from a refusal. The message names no host and no address.
    """

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


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
        """Gives the connection back, also when the calling task is being cancelled; drops it where bytes are unread."""
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
    """Sends single requests. Raises `NotSent` and `Interrupted`."""

    def send(self, request: Request) -> Coroutine[Any, Any, Response]: ...

    async def aclose(self) -> None:
        """Closes every connection, also those in use."""
        ...


def joined(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """A reply's header as `Response` has it."""
    fields: dict[str, str] = {}
    for name, value in headers:
        key, text = _lower(name), value.decode("latin-1")
        fields[key] = f"{fields[key]}, {text}" if key in fields else text
    return fields


@lru_cache(maxsize=256)
def _lower(name: bytes) -> str:
    return name.decode("latin-1").lower()
