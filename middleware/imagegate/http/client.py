"""Requests to other servers, and what their failures mean."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import re
import socket
import ssl
import zlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator, Sequence
from typing import Any, TypeAlias, cast

import aiohttp
import httpx
import msgspec

from imagegate.http.transport import CHUNK, AiohttpTransport

Response: TypeAlias = httpx.Response
"""A streamed reply: status and headers are there, the body is read by the holder, who closes it."""

Transport: TypeAlias = httpx.AsyncBaseTransport
"""The seam: one method that sends one request. `httpx.AsyncHTTPTransport` and `httpx.MockTransport` fit."""


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """How long to wait for each part of a request, in seconds.

    `connect` covers name lookup, TCP and TLS; `read` the wait for the reply's head and between two pieces of
    its body; `write` one piece of the request's body; `pool` the wait for a free connection.
    """

    connect: float = 10.0
    read: float = 300.0
    write: float = 60.0
    pool: float = 10.0


DEFAULT_TIMEOUTS = Timeouts()

_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FIELD_VALUE = re.compile(r"[\t -~]*")


class NotSent(Exception):
    """The request certainly never reached the server, so sending it elsewhere costs nothing.

    `timed_out` tells waiting in vain from being turned away. The text names no host and no address.
    """

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


class Interrupted(Exception):
    """The request may have reached the server, and the whole reply did not come back.

    `timed_out` tells silence from a broken connection or reply. The text names no host and no address.
    """

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


class BodyTooLarge(Exception):
    """The body is larger than the reader allows; `limit` is that size in bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the reply is larger than {limit} bytes")
        self.limit = limit


class HTTPClient:
    """Sends single requests: no cookies, no redirects, no retries, nothing taken from the environment.

    `transport` replaces the connection pool; it stays the caller's to close.
    """

    def __init__(self, *, transport: Transport | None = None) -> None:
        self._owns_transport = transport is None
        self._transport: Transport = AiohttpTransport() if transport is None else transport

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        content: bytes | AsyncIterable[bytes] | None = None,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        sni_hostname: str | None = None,
    ) -> Response:
        """Send one request and return as soon as the head of the reply is there.

        An iterable `content` is read once and not closed; without a `content-length` header it goes out
        chunked. `sni_hostname` is the name that the server's certificate must carry when it is not the
        URL's (`httpx.AsyncHTTPTransport` forgets it when it uses a connection again). The caller closes the
        response. Raises NotSent or Interrupted, the latter also while the body is read; an exception of the
        iterable itself comes out as it is.
        """
        if not all(_FIELD_NAME.fullmatch(name) and _FIELD_VALUE.fullmatch(value) for name, value in headers):
            raise NotSent("a request header holds characters that HTTP does not allow")
        extensions: dict[str, Any] = {
            "timeout": {
                "connect": timeouts.connect,
                "read": timeouts.read,
                "write": timeouts.write,
                "pool": timeouts.pool,
            }
        }
        if sni_hostname is not None:
            extensions["sni_hostname"] = sni_hostname
        try:
            request = httpx.Request(
                method,
                url,
                headers=list(headers),
                content=content,
                extensions=extensions,
            )
            response = await self._transport.handle_async_request(request)
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise _failure(exc, timeouts, in_body=False) from exc
        # A mock's response may have been read already; its stream has not.
        return httpx.Response(
            response.status_code,
            headers=response.headers,
            stream=_ClassifiedBody(cast("httpx.AsyncByteStream", response.stream), timeouts),
            request=request,
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        """Close every connection; what is still being read ends with Interrupted."""
        if self._owns_transport:
            await self._transport.aclose()


async def close(response: Response) -> None:
    """Give the connection back, also when the calling task is being cancelled."""
    if not response.is_closed:
        await asyncio.shield(response.aclose())


async def iter_body(response: Response) -> AsyncGenerator[bytes, None]:
    """Yield the body with `gzip` and `deflate` undone, in pieces of at most 256 KiB; close it at its end.

    Raises Interrupted when the body is cut, damaged or encoded in another way.
    """
    body = cast("httpx.AsyncByteStream", response.stream)
    encodings = [
        encoding
        for encoding in response.headers.get("content-encoding", "").lower().replace(" ", "").split(",")
        if encoding not in ("", "identity")
    ]
    if not encodings:
        async for data in body:
            yield data
    elif encodings not in (["gzip"], ["x-gzip"], ["deflate"]):
        raise Interrupted("the reply is compressed in a way that was not asked for")
    else:
        # httpx's decoders inflate a whole piece at once, a thousandfold for a hostile server and a thousand
        # times that for nested encodings, and take a cut gzip stream for a whole one.
        inflate = None
        try:
            async for data in body:
                while data:
                    if inflate is None or inflate.eof:  # gzip may hold several members in a row
                        inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # either format
                    if piece := inflate.decompress(data, CHUNK):
                        yield piece
                    data = inflate.unconsumed_tail or inflate.unused_data
        except zlib.error as exc:
            raise Interrupted("the compressed reply is damaged") from exc
        if inflate is not None and not inflate.eof:
            raise Interrupted("connection closed before the reply was complete")
    await response.aclose()


async def read_body(response: Response, *, limit: int) -> bytes:
    """Read the whole decoded body and close the response, whatever happens.

    Raises BodyTooLarge beyond `limit` bytes, and Interrupted when the body is cut or damaged.
    """
    try:
        pieces: list[bytes] = []
        size = 0
        async with contextlib.aclosing(iter_body(response)) as body:
            async for piece in body:
                size += len(piece)
                if size > limit:
                    raise BodyTooLarge(limit)
                pieces.append(piece)
        return b"".join(pieces)
    finally:
        await close(response)


class _ClassifiedBody(httpx.AsyncByteStream):
    """A reply's body that fails with Interrupted, so that no reader has to know httpx."""

    def __init__(self, body: httpx.AsyncByteStream, timeouts: Timeouts) -> None:
        self._body = body
        self._timeouts = timeouts

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._pieces = aiter(self._body)
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._pieces)
        except httpx.HTTPError as exc:
            raise _failure(exc, self._timeouts, in_body=True) from exc

    async def aclose(self) -> None:
        with contextlib.suppress(httpx.HTTPError):
            await self._body.aclose()


_NEVER_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
)


def _failure(exc: Exception, timeouts: Timeouts, *, in_body: bool) -> NotSent | Interrupted:
    """The one place where httpx's exceptions become ours. What is not known to be unsent may be sent."""
    timed_out = isinstance(exc, httpx.TimeoutException)
    if isinstance(exc, _NEVER_SENT) and not in_body:
        return NotSent(_why_not_sent(exc, timeouts), timed_out=timed_out)
    match exc:
        case httpx.WriteTimeout():
            text = f"the server took no more of the request for {timeouts.write:g} s"
        case httpx.TimeoutException() if in_body:
            text = f"the reply stopped for {timeouts.read:g} s"
        case httpx.TimeoutException():
            text = f"no reply within {timeouts.read:g} s"
        case httpx.LocalProtocolError():
            text = "the request is not as long as announced"
        case httpx.RemoteProtocolError() if "closed" not in str(exc) and "disconnected" not in str(exc):
            text = "the reply is not valid HTTP"
        case _ if in_body:
            text = "connection closed before the reply was complete"
        case _:
            text = "connection closed without a reply"
    return Interrupted(text, timed_out=timed_out)


def _why_not_sent(exc: Exception, timeouts: Timeouts) -> str:
    if isinstance(exc, httpx.PoolTimeout):
        return f"no free connection within {timeouts.pool:g} s"
    if isinstance(exc, httpx.ConnectTimeout):
        return f"no connection within {timeouts.connect:g} s"
    if isinstance(exc, httpx.UnsupportedProtocol | httpx.InvalidURL):
        return "not a valid http or https URL"
    causes = list(_causes(exc))
    if any(isinstance(cause, socket.gaierror | aiohttp.ClientConnectorDNSError) for cause in causes):
        return "name not resolved"
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return "TLS certificate not accepted"
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return "TLS handshake failed"
    if any(isinstance(cause, OSError) and cause.errno == errno.ECONNREFUSED for cause in causes):
        return "connection refused"
    return "cannot connect"


def _causes(exc: BaseException) -> Iterator[BaseException]:
    """Yield an exception, what it was raised from, and the members of groups among them."""
    yield exc
    if isinstance(exc, BaseExceptionGroup):
        for member in exc.exceptions:
            yield from _causes(member)
    if (cause := exc.__cause__ or exc.__context__) is not None:
        yield from _causes(cause)
