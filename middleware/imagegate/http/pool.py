"""Connections to other servers, by aiohttp."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import os
import re
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final, Self, cast

import aiohttp
import certifi
from yarl import URL

from imagegate.http.arriving import RestOfBody, Silence
from imagegate.http.messages import CHUNK, Interrupted, NotSent, Request, Response, Timeouts, joined
from imagegate.http.why import why_not_connected

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.client_reqrep import ConnectionKey
    from aiohttp.connector import Connection
    from aiohttp.http import StreamWriter
    from aiohttp.tracing import Trace

_SMALL: Final = 64 * 1024
"""Bytes of a request's body that every socket takes at once, so that nobody waits for it."""
_FEW: Final = 4
"""Pieces after which a reply is a long one."""
_PLAIN_URL: Final = re.compile(r"[!-~]+")


class ConnectionPool:
    """aiohttp's connection pool; a POST is sent once at most.

    `limit` bounds the requests in flight (default: none), `keepalive_expiry` is how long an idle connection
    is kept, in seconds, and `tls` replaces the default trust store.
    """

    # httpx's own pool costs ten times the CPU under load.

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

    async def send(self, request: Request) -> Response:
        """As `Sender`: returns when the head of the reply is there."""
        timeouts = request.timeouts
        if self._slots is not None:
            try:
                async with asyncio.timeout(timeouts.pool):
                    await self._slots.acquire()
            except TimeoutError as exc:
                raise NotSent(f"no free connection within {timeouts.pool:g} s", timed_out=True) from exc
        try:
            reply = await self._send(request)
        except BaseException:
            self._release_slot()
            raise
        return Response(reply.status, joined(reply.raw_headers), _ReplyBody(reply, timeouts, self._release_slot))

    async def _send(self, request: Request) -> aiohttp.ClientResponse:
        content, timeouts = request.content, request.timeouts
        session = self._session_of_loop()
        body: _RequestBody | None = None
        data: bytes | _RequestBody | None = None
        if isinstance(content, bytes) and len(content) <= _SMALL:
            data = content or None
        elif content is not None:
            data = body = _RequestBody(content, _length(request.headers, content), timeouts.write)
        try:
            target = _target(request.url)
            # When a kept connection turns out to be closed, aiohttp sends again by itself, but only with the
            # idempotent methods (GET, HEAD, PUT, DELETE, OPTIONS, TRACE). An error is then the second one's.
            reply = await session.request(
                request.method,
                target,
                headers=request.headers,
                data=data,
                allow_redirects=False,
                timeout=_client_timeout(timeouts),
                ssl=True if target.scheme != "https" else self._tls or _default_tls(),
                server_hostname=request.sni_hostname,
            )
            if body is None or body.error is None:
                return reply
            reply.close()  # the server's answer to a request that broke off says nothing
            raise body.error
        except (aiohttp.ClientError, OSError, UnicodeError) as exc:
            failure = exc
        if body is not None and body.error is not None:
            raise body.error
        raise _failure(failure, timeouts) from failure

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
            connector=_Connector(limit=0, keepalive_timeout=self._keepalive_expiry),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            read_bufsize=CHUNK,  # so that one piece that waits stops nothing
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

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _length(headers: Sequence[tuple[str, str]], content: bytes | AsyncIterable[bytes]) -> int | None:
    """Of a body, where it is known."""
    if isinstance(content, bytes):
        return len(content)
    return next((int(value) for name, value in headers if name.lower() == "content-length"), None)


@functools.lru_cache(maxsize=256)
def _target(url: str) -> URL:
    """A URL that goes out as it is; what HTTP does not allow in it is escaped. Raises `aiohttp.InvalidURL`."""
    is_plain = _PLAIN_URL.fullmatch(url) is not None
    try:
        target = URL(url, encoded=is_plain)
        host, port = target.raw_host or "", target.port
        if ":" in host:
            ipaddress.IPv6Address(host)
    except ValueError as exc:
        raise aiohttp.InvalidURL(url) from exc
    if not host or not port or not (is_plain or url.isprintable()):
        raise aiohttp.InvalidURL(url)
    # aiohttp would make an Authorization header of credentials.
    return target.with_user(None) if "@" in target.raw_authority else target


@functools.lru_cache(maxsize=64)
def _client_timeout(timeouts: Timeouts) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=timeouts.connect, sock_read=timeouts.read)


class _RequestBody(aiohttp.Payload):
    """A request's body, written in bounded pieces, each within the write timeout that aiohttp lacks."""

    def __init__(self, content: bytes | AsyncIterable[bytes], length: int | None, timeout: float) -> None:
        super().__init__(content)
        self._length = length
        self._size = length
        self._timeout = timeout
        self.error: Exception | None = None
        """What went wrong on our side of the connection; aiohttp hides it in an error of its own."""

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        raise AssertionError("aiohttp never asks for text")

    async def write(self, writer: AbstractStreamWriter) -> None:
        to = cast("StreamWriter", writer)  # the only one that aiohttp has
        written = 0
        # aiohttp puts a chunk together with what frames it, which copies it; so the framing is our own.
        is_chunked, to.chunked = to.chunked, False
        before = ""
        async for piece in self._pieces():
            size = len(piece)
            written += size
            if is_chunked:
                await to.write(f"{before}{size:x}\r\n".encode(), drain=False)
                before = "\r\n"
            elif self._length is not None and written > self._length:
                break
            await to.write(piece, drain=False)
            await self._taken(to)
        if is_chunked:
            await to.write(f"{before}0\r\n\r\n".encode(), drain=False)
        elif written != self._length:
            # aiohttp would leave the server waiting for the rest, or for the next request.
            self.error = Interrupted("the request is not as long as announced")
            raise self.error
        await self._in_time(to.drain())

    async def _taken(self, writer: StreamWriter) -> None:
        """Waits where the socket has not taken everything, and only then with a timer."""
        transport = writer.transport
        if transport is None or transport.get_write_buffer_size():
            await self._in_time(writer.drain())

    async def _pieces(self) -> AsyncIterator[bytes | memoryview]:
        if isinstance(self._value, bytes):
            for start in range(0, len(self._value), CHUNK):
                yield memoryview(self._value)[start : start + CHUNK]
            return
        try:
            async for chunk in self._value:
                if len(chunk) <= CHUNK:
                    if chunk:  # an empty one would be the end
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
            self.error = Interrupted(f"the server took no more of the request for {self._timeout:g} s", timed_out=True)
            raise


class _Connector(aiohttp.TCPConnector):
    """Gives no connection again on which something has come since its last reply was read.

    Nobody has asked for it, and aiohttp would take it for the answer to the next request: somebody else's picture.
    """

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        while (connection := await super()._get(key, traces)) is not None:
            protocol = connection.protocol
            if protocol is not None and not protocol.should_close:
                return connection
            connection.close()
        return None


class _ReplyBody:
    """A reply's body, in pieces as they come; closing it early drops the connection."""

    def __init__(self, reply: aiohttp.ClientResponse, timeouts: Timeouts, on_close: Callable[[], None]) -> None:
        self._reply = reply
        self._timeouts = timeouts
        self._on_close = on_close
        connection = reply.connection  # None once the whole body is in
        self._protocol: ResponseHandler | None = connection.protocol if connection else None
        self._has_length = "content-length" in reply.headers
        self._silence: Silence | None = None
        self._pieces = 0
        self._lost: asyncio.Future[None] | None = None
        self._is_closed = False
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

    def __aiter__(self) -> _ReplyBody:
        return self

    async def __anext__(self) -> bytes:
        content = self._reply.content
        if self._silence is not None:
            self._silence.begins()
        try:
            if self._has_length:
                piece, _ = await content.readchunk()  # what the socket gave, 256 KiB at most; no copying
            else:
                piece = await content.read(CHUNK)  # puts small chunks together
        except Exception as exc:
            raise _failure(exc, self._timeouts, in_body=True) from exc
        if self._silence is not None:
            self._silence.ends()
        elif self._protocol is not None:
            self._pieces += 1
            if self._pieces == _FEW and not content.is_eof():
                self._is_long(self._protocol, content)
        if piece:
            return piece
        if self._is_cut_off():
            raise Interrupted("connection closed before the reply was complete")
        raise StopAsyncIteration

    def _is_long(self, protocol: ResponseHandler, content: aiohttp.StreamReader) -> None:
        """Reads the rest in ways that pay where there is more of it."""
        self._silence = Silence(protocol, content, self._timeouts.read)
        if self._has_length and protocol.connected and content.exception() is None and RestOfBody.fits(protocol):
            left = int(self._reply.headers["content-length"]) - content.total_bytes
            if left > 0:
                RestOfBody(protocol, content, left)

    def _is_cut_off(self) -> bool:
        """Tell a reset from the end of a body that ends with the connection; to aiohttp both are the end."""
        return (
            not self._has_length
            and "chunked" not in self._reply.headers.get("transfer-encoding", "").lower()
            and self._protocol is not None
            and isinstance(self._protocol.exception(), OSError)
        )

    async def aclose(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        if self._silence is not None:
            self._silence.cancel()
        if self._lost is not None:
            self._lost.remove_done_callback(self._fail_if_unfinished)
        self._reply.close()
        self._on_close()


def _note_exception(lost: asyncio.Future[None]) -> None:
    """Look at the exception of a lost connection, lest asyncio logs that nobody did."""
    if not lost.cancelled():
        lost.exception()


def _failure(exc: Exception, timeouts: Timeouts, *, in_body: bool = False) -> NotSent | Interrupted:
    """Maps an exception of aiohttp. Only those that its connector raises may say that nothing was sent."""
    match exc:
        case aiohttp.ConnectionTimeoutError():
            return NotSent(f"no connection within {timeouts.connect:g} s", timed_out=True)
        case aiohttp.ClientConnectorError() | UnicodeError():  # the latter: a host name that DNS cannot hold
            return NotSent(why_not_connected(exc))
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return NotSent("not a valid http or https URL")
        case TimeoutError() if in_body:
            return Interrupted(f"the reply stopped for {timeouts.read:g} s", timed_out=True)
        case TimeoutError():
            return Interrupted(f"no reply within {timeouts.read:g} s", timed_out=True)
        case aiohttp.ClientResponseError():
            return Interrupted("the reply is not valid HTTP")
        case _ if in_body:
            return Interrupted("connection closed before the reply was complete")
        case _:
            return Interrupted("connection closed without a reply")


@functools.cache
def _default_tls() -> ssl.SSLContext:
    """The authorities of certifi or SSL_CERT_FILE, and those of the machine; loaded once, it takes long.

    Raises `NotSent` where they cannot be: an `OSError` from here would pass for one of the connection's.
    """
    try:
        context = ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE") or certifi.where())
        context.load_default_certs()
    except OSError as exc:
        raise NotSent("the certificates of trusted authorities cannot be loaded; see SSL_CERT_FILE") from exc
    context.set_alpn_protocols(["http/1.1"])
    return context
