"""aiohttp behind httpx's one-method seam."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, cast

import aiohttp
import httpx
from yarl import URL

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.client_proto import ResponseHandler

CHUNK = 256 * 1024
"""Bytes: no piece of a body handed out or handed to the socket is larger."""


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
        self._loop: asyncio.AbstractEventLoop | None = None

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
        session = self._session_of_loop()
        body = _RequestBody.of(request, timeouts.get("write"))
        # aiohttp would make an Authorization header of them.
        url = request.url.copy_with(userinfo=b"") if request.url.userinfo else request.url
        try:
            # When a kept connection turns out to be closed, aiohttp sends again by itself, but only with the
            # idempotent methods (GET, HEAD, PUT, DELETE, OPTIONS, TRACE). An error is then the second one's.
            reply = await session.request(
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
            if body is None or body.error is None:
                return reply
            reply.close()  # the server's answer to a request that broke off says nothing
            raise body.error
        except (aiohttp.ClientError, OSError, UnicodeError) as exc:
            failure = exc
        if body is not None and body.error is not None:
            raise body.error
        raise _as_httpx(failure) from failure

    def _session_of_loop(self) -> aiohttp.ClientSession:
        """Connections belong to an event loop; those of one that has ended cannot be used or closed any more."""
        loop = asyncio.get_running_loop()
        if self._session is None or self._session.closed or self._loop is not loop:
            if self._session is not None and not self._session.closed and self._session.connector is not None:
                self._session.connector.close()  # closes what it can at once; awaiting it needs the old loop
                self._session.detach()
            self._session, self._loop = self._new_session(), loop
        return self._session

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
        session, self._session = self._session, None
        if session is not None:
            await session.close()


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
