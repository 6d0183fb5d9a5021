"""Requests through aiohttp's `ClientSession`, the default."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import re
import ssl
from collections.abc import Callable
from typing import Any, Final, Self
from weakref import WeakSet

import aiohttp
from yarl import URL

from imagegate.http.messages import (
    Interrupted,
    NotSent,
    Request,
    Response,
    is_field_value,
    is_token,
    not_http,
)
from imagegate.http.proxies import NO_PROXY, ProxyRule
from imagegate.http.tls import loaded_context
from imagegate.http.transports.attempt import CURRENT, Attempt, ReplyBody, TCPConnector
from imagegate.http.transports.request_body import RequestBody
from imagegate.http.transports.resolver import ProviderResolver
from imagegate.protocol.headers import read_length

_NO_URL: Final = "not a valid http or https URL"
_PLAIN_URL: Final = re.compile(r"[!-~]+")
_AUTOMATIC_HEADERS: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
_SMALL: Final = 64 * 1024
"""Bytes of a body that is written at once."""
_FIELD: Final = 64 * 1024
"""Bytes of a reply's header field; aiohttp's 8 KiB is less than a signed Location may need."""
_CLOSING: Final = 1.0
"""Seconds for connections to end in as usual."""


class AiohttpTransport:
    """Sends requests over HTTP/1.1, a POST once at most.

    Uses what aiohttp documents, without its cookies, redirects and decompression. Each event loop has connections of
    its own.

    Args:
        keepalive_expiry: seconds for which an idle connection is kept. Many servers close theirs after five, and a
            POST that is written just then is uncertain; so connections serve bursts and nothing else.
        reuse_connections: False opens a connection for each request. So do all requests to an origin that has once
            sent more than it was asked for: over HTTP/1.1 the surplus would be read as the next reply.
        tls: replaces the default trust store.
        proxy: which requests go through a proxy.
        on_surplus: is called with host and port for each reply that came before its request.
    """

    def __init__(
        self,
        *,
        keepalive_expiry: float = 1.0,
        reuse_connections: bool = True,
        tls: ssl.SSLContext | None = None,
        proxy: ProxyRule = NO_PROXY,
        on_surplus: Callable[[str], None] | None = None,
    ) -> None:
        self._keepalive_expiry = keepalive_expiry
        self._reuse_connections = reuse_connections
        self._tls = tls
        self._proxy = proxy
        self._proxy_of = proxy.url_for if proxy != NO_PROXY else None
        self._on_surplus = on_surplus
        self._sessions: dict[tuple[asyncio.AbstractEventLoop, bool], aiohttp.ClientSession] = {}
        self._attempts: WeakSet[Attempt] = WeakSet()
        """Those whose reply is not closed yet."""
        self._resolver = ProviderResolver()
        self._unreliable: set[str] = set()
        """Hosts that have sent more than they were asked for."""

    async def send(self, request: Request) -> Response:
        """Send one request and return when the head of the reply is there.

        Raises:
            NotSent: no byte of it can have reached the server.
            Interrupted: it may have.
        """
        url = _parse(request.url)
        tls = True if url.scheme == "http" else self._tls or await loaded_context()
        session = await self._session(reuse=self._reuse_connections and url.authority not in self._unreliable)
        deadline = asyncio.timeout(None)
        headers, upload = _prepare(request, deadline)
        attempt = Attempt(request, deadline, upload)
        self._attempts.add(attempt)
        token = CURRENT.set(attempt)
        try:
            async with deadline:
                response = await session.request(
                    request.method,
                    url,
                    data=request.content if upload is None else upload,
                    headers=headers,
                    allow_redirects=False,
                    timeout=_client_timeout(request.timeouts.connect),
                    ssl=tls,
                    server_hostname=request.sni_hostname,
                    proxy=self._proxy_of(url) if self._proxy_of is not None else None,
                )
                attempt.answered()
        except asyncio.CancelledError:
            attempt.drop()
            task = asyncio.current_task()
            if not session.closed or (task is not None and task.cancelling()):
                raise
            raise attempt.was_closed() from None  # aiohttp cancels waiters for a lookup then
        except Exception as exc:  # whatever aiohttp makes of a broken connection, something may have been sent
            attempt.drop()
            if upload is not None and (own := upload.take_error()) is not None:
                raise own  # noqa: B904 - aiohttp's error is only its consequence
            raise attempt.failure(exc) from exc
        except BaseException:
            attempt.drop()
            raise
        finally:
            CURRENT.reset(token)
        if attempt.has_waited and response.status != 101:
            return Response(response.status, _fields(response), ReplyBody(response, attempt))
        attempt.drop()
        response.close()
        if attempt.has_waited:
            raise Interrupted("the server changed the protocol, which it was not asked for")
        # The reply was there before the request could have been read: a surplus of the last one.
        self._unreliable.add(url.authority)
        if self._on_surplus is not None:
            self._on_surplus(url.authority)
        if request.method in ("GET", "HEAD"):
            return await self.send(request)
        raise Interrupted("the server sent a reply before the request")

    async def _session(self, *, reuse: bool) -> aiohttp.ClientSession:
        """Return the session of this event loop; connections of one that has ended cannot be used any more."""
        key = (asyncio.get_running_loop(), reuse)
        session = self._sessions.get(key)
        if session is None or session.closed:
            session = self._sessions[key] = self._new_session(reuse=reuse)
            await self._close(lambda loop: loop.is_closed())
        return session

    def _new_session(self, *, reuse: bool) -> aiohttp.ClientSession:
        options: dict[str, Any] = {"keepalive_timeout": self._keepalive_expiry} if reuse else {"force_close": True}
        return aiohttp.ClientSession(
            connector=self._connector(limit=0, **options),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=_AUTOMATIC_HEADERS,
            max_field_size=_FIELD,
        )

    def _connector(self, **options: Any) -> aiohttp.BaseConnector:
        if not self._proxy.is_socks:
            return TCPConnector(resolver=self._resolver, **options)
        from imagegate.http.transports.socks import socks_connector  # needs an extra

        return socks_connector(self._proxy.url, **options)

    async def aclose(self) -> None:
        """Close the connections of the running event loop, also those in use."""
        running = asyncio.get_running_loop()
        for attempt in tuple(self._attempts):
            attempt.close(running)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSING):
                await self._close(lambda loop: loop is running or loop.is_closed())

    async def _close(self, is_due: Callable[[asyncio.AbstractEventLoop], bool]) -> None:
        due = [key for key in self._sessions if is_due(key[0])]
        for session in [self._sessions.pop(key) for key in due]:
            await session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


@functools.lru_cache(maxsize=256)
def _parse(url: str) -> URL:
    """Return the URL, whose target goes out as it is written; what HTTP does not allow in it is escaped.

    Raises:
        NotSent: it is no URL of http or https.
    """
    is_plain = _PLAIN_URL.fullmatch(url) is not None
    try:
        parsed = URL(url, encoded=is_plain)
        host, port = parsed.raw_host or "", parsed.port
        if ":" in host:
            ipaddress.IPv6Address(host)
    except ValueError as exc:
        raise NotSent(_NO_URL) from exc
    if not host or not port or parsed.scheme not in ("http", "https") or not (is_plain or url.isprintable()):
        raise NotSent(_NO_URL)
    return parsed.with_user(None) if parsed.raw_user is not None or parsed.raw_password is not None else parsed


@functools.lru_cache(maxsize=64)
def _client_timeout(connect: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=connect)


def _prepare(request: Request, deadline: asyncio.Timeout) -> tuple[list[tuple[str, str]], RequestBody | None]:
    """Return the header fields, where what frames the body is ours to say, and a body that does not go out at once.

    Raises:
        NotSent: HTTP does not allow the method or a header field.
    """
    content = request.content
    # What `not_http` looks at, in place: it runs for each request.
    are_fields = all([is_token(name) and is_field_value(value) for name, value in request.headers])  # noqa: C419 - quicker
    if not (are_fields and is_token(request.method)) and (unsound := not_http(request)):
        raise unsound
    headers = [field for field in request.headers if field[0].lower() not in ("content-length", "transfer-encoding")]
    if content is None or (isinstance(content, bytes) and len(content) <= _SMALL):
        return headers, None
    length = len(content) if isinstance(content, bytes) else _length(request)
    if length is not None:
        headers.append(("Content-Length", str(length)))
    return headers, RequestBody(content, length, request.timeouts, deadline)


def _length(request: Request) -> int | None:
    """Return the bytes of a body as its caller says; None: he does not.

    Raises:
        NotSent: the header says what is no length, or several.
    """
    said = {value for name, value in request.headers if name.lower() == "content-length"}
    if not said:
        return None
    length = read_length(said.pop())
    if said or length is None:
        raise NotSent("the content-length header of the request is not one number")
    return length


def _fields(response: aiohttp.ClientResponse) -> dict[str, str]:
    """Return the header as `Response` has it."""
    fields: dict[str, str] = {}
    for name, value in response.headers.items():
        key = name.lower()
        fields[key] = f"{fields[key]}, {value}" if key in fields else value
    return fields
