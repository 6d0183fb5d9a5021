"""Connections to other servers, by aiohttp."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import os
import re
import ssl
from collections.abc import AsyncIterable, Sequence
from typing import TYPE_CHECKING, Final, Self

import aiohttp
import certifi
from yarl import URL

from imagegate.http.messages import CHUNK, NotSent, Request, Response, Timeouts, joined
from imagegate.http.reply_body import ReplyBody
from imagegate.http.request_body import RequestBody
from imagegate.http.why import as_failure

if TYPE_CHECKING:
    from aiohttp.client_reqrep import ConnectionKey
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

_SMALL: Final = 64 * 1024
"""Bytes of a request's body that every socket takes at once, so that nobody waits for it."""
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
        return Response(reply.status, joined(reply.raw_headers), ReplyBody(reply, timeouts, self._release_slot))

    async def _send(self, request: Request) -> aiohttp.ClientResponse:
        content, timeouts = request.content, request.timeouts
        session = self._session_of_loop()
        body: RequestBody | None = None
        data: bytes | RequestBody | None = None
        if isinstance(content, bytes) and len(content) <= _SMALL:
            data = content or None
        elif content is not None:
            data = body = RequestBody(content, _length(request.headers, content), timeouts.write)
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
        raise as_failure(failure, timeouts) from failure

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
