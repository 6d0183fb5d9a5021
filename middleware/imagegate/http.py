"""The outgoing HTTP client, and the one module of the package that names it.

What the rest of the package needs to know about a failed request is a single fact: can the server have
seen it? `NotSent` says no, `Interrupted` says perhaps; nothing else is raised for a failing network.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import re
import socket
import ssl
import zlib
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import aiohttp
import httpx
import msgspec
from yarl import URL

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.client_proto import ResponseHandler

Response: TypeAlias = httpx.Response
"""A streamed reply: status and headers are there, the body is read by the holder, who closes it."""

Transport: TypeAlias = httpx.AsyncBaseTransport
"""The seam: one method that sends one request. `httpx.AsyncHTTPTransport` and `httpx.MockTransport` fit."""

CHUNK = 256 * 1024
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


class AiohttpTransport(httpx.AsyncBaseTransport):
    """aiohttp's connection pool behind httpx's one-method transport interface.

    `limit` bounds the requests in flight (default: none), `keepalive_expiry` is how long an idle connection
    is kept, in seconds, and `tls` replaces the default trust store. Raises httpx's transport exceptions:
    ConnectError, ConnectTimeout and PoolTimeout for nothing that happened after the connection was there.
    """

    # httpx's own pool costs ten times the CPU under load. The package httpx-aiohttp (0.2.0) would do, but it
    # maps aiohttp.ServerDisconnectedError to httpx.ConnectTimeout, and so makes a POST that the server took,
    # and bills, look as if it had never been sent.

    def __init__(
        self,
        *,
        limit: int | None = None,
        keepalive_expiry: float = 4.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        # Our own, because aiohttp has one timeout for waiting in its queue and for connecting.
        self._slots = asyncio.Semaphore(limit) if limit else None
        # Many servers close an idle connection after 5 s. A request that is written just then fails, and
        # nobody can tell whether it was seen; so we let go first.
        self._keepalive_expiry = keepalive_expiry
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request` and return when the head of the reply is there; a POST is sent once at most."""
        timeouts: Mapping[str, float | None] = request.extensions.get("timeout", {})
        if self._slots is not None:
            try:
                async with asyncio.timeout(timeouts.get("pool")):
                    await self._slots.acquire()
            except TimeoutError as exc:
                raise httpx.PoolTimeout("no free connection") from exc
        try:
            reply = await self._send(request, timeouts)
        except BaseException:
            self._release_slot()
            raise
        reason = (reply.reason or "").encode("utf-8", "surrogateescape")
        return httpx.Response(
            reply.status,
            headers=reply.raw_headers,
            stream=_ReplyBody(reply, self._release_slot),
            extensions={"http_version": b"HTTP/1.1", "reason_phrase": reason},
        )

    async def _send(
        self,
        request: httpx.Request,
        timeouts: Mapping[str, float | None],
    ) -> aiohttp.ClientResponse:
        if self._session is None:
            self._session = self._new_session()
        body = _RequestBody.of(request, timeouts.get("write"))
        # aiohttp would make an Authorization header of them.
        url = request.url.copy_with(userinfo=b"") if request.url.userinfo else request.url
        try:
            # aiohttp sends again by itself when a kept connection turns out to be closed, but only methods
            # that are idempotent: GET, HEAD, PUT, DELETE, OPTIONS, TRACE.
            return await self._session.request(
                request.method,
                URL(str(url), encoded=True),
                headers=[
                    (name.decode("ascii"), value.decode("latin-1"))
                    for name, value in request.headers.raw
                    if name.lower() != b"transfer-encoding"  # aiohttp adds it where there is no length
                ],
                data=body,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=None, connect=timeouts.get("connect"), sock_read=timeouts.get("read")
                ),
                server_hostname=request.extensions.get("sni_hostname"),
            )
        except (aiohttp.ClientError, OSError, UnicodeError) as exc:
            failure = exc
        if body is not None and body.error is not None:
            raise body.error
        raise _as_httpx(failure) from failure

    def _new_session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, keepalive_timeout=self._keepalive_expiry, ssl=self._tls or _default_tls()
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            max_field_size=64 * 1024,  # bytes; aiohttp's 8 KiB is less than a signed Location may need
        )

    def _release_slot(self) -> None:
        if self._slots is not None:
            self._slots.release()

    async def aclose(self) -> None:
        """Close every connection, also those in use."""
        if self._session is not None:
            await self._session.close()


class _RequestBody(aiohttp.Payload):
    """A request's body, written in bounded pieces, each within the write timeout that aiohttp lacks."""

    def __init__(self, chunks: AsyncIterable[bytes], length: int | None, timeout: float | None) -> None:
        super().__init__(chunks)
        self._length = length
        self._timeout = timeout
        self.error: Exception | None = None
        """What went wrong on our side of the connection; aiohttp hides it in an error of its own."""

    @classmethod
    def of(cls, request: httpx.Request, timeout: float | None) -> _RequestBody | None:
        with contextlib.suppress(httpx.RequestNotRead):
            if not request.content:
                return None
        length = request.headers.get("content-length")
        stream = cast("httpx.AsyncByteStream", request.stream)
        return cls(stream, None if length is None else int(length), timeout)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        raise AssertionError("aiohttp never asks for text")

    async def write(self, writer: AbstractStreamWriter) -> None:
        written = 0
        async for piece in self._pieces():
            written += len(piece)
            if self._length is not None and written > self._length:
                break
            await self._in_time(writer.write(piece))
        if self._length is not None and written != self._length:
            # aiohttp would leave the server waiting for the rest, or for the next request.
            self.error = httpx.LocalProtocolError("the body is not as long as its content-length")
            raise self.error
        await self._in_time(writer.drain())

    async def _pieces(self) -> AsyncIterator[bytes | memoryview]:
        try:
            async for chunk in self._value:
                if len(chunk) <= CHUNK:
                    yield chunk
                else:
                    for start in range(0, len(chunk), CHUNK):
                        yield memoryview(chunk)[start : start + CHUNK]
        except Exception as exc:
            self.error = exc
            raise

    async def _in_time(self, step: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await step
        except TimeoutError:
            self.error = httpx.WriteTimeout("the server reads no more")
            raise


class _ReplyBody(httpx.AsyncByteStream):
    """A reply's body, in pieces as they come; closing it early drops the connection."""

    def __init__(self, reply: aiohttp.ClientResponse, on_close: Callable[[], None]) -> None:
        self._reply = reply
        self._on_close = on_close
        connection = reply.connection  # None once the whole body is in
        self._protocol: ResponseHandler | None = connection.protocol if connection else None
        self._lost: asyncio.Future[None] | None = None
        if self._protocol is not None:
            self._lost = self._protocol.closed
            if self._lost is None:
                self._fail_if_unfinished()
            else:
                self._lost.remove_done_callback(_note_exception)  # it may be there from the last reply
                self._lost.add_done_callback(_note_exception)
                self._lost.add_done_callback(self._fail_if_unfinished)

    def _fail_if_unfinished(self, lost: object = None) -> None:
        """Wake the reader when the connection is lost.

        aiohttp forgets him, and the read timeout with him, when a chunk is malformed and when the session is
        closed.
        """
        content = self._reply.content
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError("connection lost"))

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        content = self._reply.content
        try:
            if "content-length" in self._reply.headers:
                piece, _ = await content.readchunk()  # what the socket gave, 256 KiB at most; no copying
            else:
                piece = await content.read(CHUNK)  # puts small chunks together
        except Exception as exc:
            raise _as_httpx(exc) from exc
        if piece:
            return piece
        if self._is_cut_off():
            raise httpx.ReadError("connection reset")
        raise StopAsyncIteration

    def _is_cut_off(self) -> bool:
        """Tell a reset from the end of a body that ends with the connection; to aiohttp both are the end."""
        headers = self._reply.headers
        return (
            "content-length" not in headers
            and "chunked" not in headers.get("transfer-encoding", "").lower()
            and self._protocol is not None
            and isinstance(self._protocol.exception(), OSError)
        )

    async def aclose(self) -> None:
        if self._lost is not None:
            self._lost.remove_done_callback(self._fail_if_unfinished)
        self._reply.close()
        self._on_close()


def _note_exception(lost: asyncio.Future[None]) -> None:
    """Look at the exception of a lost connection, lest asyncio logs that nobody did."""
    if not lost.cancelled():
        lost.exception()


def _as_httpx(exc: Exception) -> httpx.TransportError:
    """Map an exception of aiohttp. Only those that its connector raises may say that nothing was sent."""
    match exc:
        case aiohttp.ConnectionTimeoutError():
            return httpx.ConnectTimeout("no connection in time")
        case aiohttp.ClientConnectorError() | UnicodeError():  # the latter: a host name that DNS cannot hold
            return httpx.ConnectError("cannot connect")
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return httpx.UnsupportedProtocol("not a valid http or https URL")
        case TimeoutError():
            return httpx.ReadTimeout("no data in time")
        case aiohttp.ClientResponseError():
            return httpx.RemoteProtocolError("the reply is not valid HTTP")
        case _:
            return httpx.ReadError("the connection was closed")


@functools.cache
def _default_tls() -> ssl.SSLContext:
    """The authorities of certifi or SSL_CERT_FILE, and those of the machine; loaded once, it takes long."""
    context = httpx.create_ssl_context()
    context.load_default_certs()
    context.set_alpn_protocols(["http/1.1"])
    return context
