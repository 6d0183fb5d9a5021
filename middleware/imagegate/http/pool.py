"""Connections to other servers, by aiohttp."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import os
import re
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Self

import aiohttp
import certifi
from yarl import URL

from imagegate.http.messages import Interrupted, NotSent, Request, Response, Timeouts
from imagegate.http.outbox import outbox_of
from imagegate.http.round_trip import ClosedBeforehand, Target, round_trip
from imagegate.http.why import why_not_connected

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.client_reqrep import ConnectionKey
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

_NO_URL: Final = "not a valid http or https URL"
_IDEMPOTENT: Final = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PUT", "TRACE"})
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
        self._limit = limit
        # Many servers close an idle connection after 5 s. A request that is written just then fails, and
        # nobody can tell whether it was seen; so we let go first.
        self._keepalive_expiry = keepalive_expiry
        self._tls = tls
        self._connector: _Connector | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def send(self, request: Request) -> Response:
        """As `Sender`: returns when the head of the reply is there."""
        connector = self._connector_of_loop()
        slots = connector.slots
        if slots is None:
            return await self._send(connector, request, _nothing)
        seconds = request.timeouts.pool
        try:
            async with asyncio.timeout(seconds):
                await slots.acquire()
        except TimeoutError as exc:
            raise NotSent(f"no free connection within {seconds:g} s", timed_out=True) from exc
        try:
            return await self._send(connector, request, slots.release)
        except BaseException:
            slots.release()
            raise

    async def _send(self, connector: _Connector, request: Request, on_close: Callable[[], None]) -> Response:
        target = _target(request.url)
        tls = (self._tls or _default_tls()) if target.origin.scheme == "https" else None
        destination = connector.destination(target.origin, tls, request.sni_hostname)
        # A server may close a kept connection just when it is used again. Then another one takes what has not gone out,
        # and what does nothing twice is sent twice.
        may_repeat = request.method in _IDEMPOTENT and (request.content is None or isinstance(request.content, bytes))
        connection = await _connect(connector, destination, request.timeouts)
        try:
            return await round_trip(connection, target, request, on_close, connector.outbox)
        except ClosedBeforehand:
            connection = await _connect(connector, destination, request.timeouts)
        except Interrupted as exc:
            if not may_repeat or not isinstance(exc.__cause__, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError):
                raise
            try:
                connection = await _connect(connector, destination, request.timeouts)
            except NotSent:
                raise exc from exc.__cause__  # the server may have seen the first
        return await round_trip(connection, target, request, on_close, connector.outbox)

    def _connector_of_loop(self) -> _Connector:
        """Connections belong to an event loop; those of one that has ended cannot be used or closed any more."""
        loop = asyncio.get_running_loop()
        if self._connector is None or self._connector.closed or self._loop is not loop:
            if self._connector is not None and not self._connector.closed:
                self._connector.forsake()
            self._connector, self._loop = _Connector(self._limit, self._keepalive_expiry), loop
        return self._connector

    async def aclose(self) -> None:
        """Close every connection, also those in use."""
        connector, self._connector = self._connector, None
        if connector is not None:
            await connector.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _nothing() -> None:
    """What is given back with a reply where any number may be in flight."""


@functools.lru_cache(maxsize=256)
def _target(url: str) -> Target:
    """The target goes out as it is written; what HTTP does not allow in it is escaped. Raises `NotSent`."""
    is_plain = _PLAIN_URL.fullmatch(url) is not None
    try:
        target = URL(url, encoded=is_plain)
        host, port = target.raw_host or "", target.port
        if ":" in host:
            ipaddress.IPv6Address(host)
    except ValueError as exc:
        raise NotSent(_NO_URL) from exc
    if not host or not port or target.scheme not in ("http", "https") or not (is_plain or url.isprintable()):
        raise NotSent(_NO_URL)
    return Target(target.origin(), target.raw_path_qs, target.host_port_subcomponent or "")


async def _connect(connector: _Connector, destination: aiohttp.ClientRequest, timeouts: Timeouts) -> Connection:
    """A connection of the pool or a new one. Raises `NotSent`."""
    try:
        return await connector.connect(destination, [], _client_timeout(timeouts))
    except asyncio.CancelledError as exc:
        task = asyncio.current_task()
        if not connector.closed or (task is not None and task.cancelling()):
            raise
        raise NotSent("the client was closed") from exc  # aiohttp cancels who waits for a lookup then
    except TimeoutError as exc:
        raise NotSent(f"no connection within {timeouts.connect:g} s", timed_out=True) from exc
    except (aiohttp.ClientError, OSError, UnicodeError) as exc:  # the last: a host name that DNS cannot hold
        raise NotSent(why_not_connected(exc)) from exc


@functools.lru_cache(maxsize=64)
def _client_timeout(timeouts: Timeouts) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=timeouts.connect)


class _Connector(aiohttp.TCPConnector):
    """aiohttp's connections, without the rest of its client: that takes more time than all that is done here.

    Gives no connection again on which something has come since its last reply was read.

    Nobody has asked for it, and aiohttp would take it for the answer to the next request: somebody else's picture.
    """

    def __init__(self, limit: int | None, keepalive_expiry: float) -> None:
        super().__init__(limit=0, keepalive_timeout=keepalive_expiry)
        self.slots = asyncio.Semaphore(limit) if limit else None
        """Our own, because aiohttp has one timeout for waiting in its queue and for connecting."""
        self.outbox = outbox_of(self._loop)
        self.destination = functools.lru_cache(maxsize=256)(_destination)

    async def close(self, *, abort_ssl: bool = False) -> None:
        for protocol in self._acquired:
            protocol.abort()  # as `Upload.cancel`
        await super().close(abort_ssl=abort_ssl)

    def forsake(self) -> None:
        """Closes what can be closed without its event loop."""
        self._close()

    async def _wrap_create_connection(self, *args: Any, **kwargs: Any) -> tuple[asyncio.Transport, ResponseHandler]:
        addresses = kwargs.get("addr_infos", ())
        if len(addresses) != 1 or addresses[0][4][2:] not in ((), (0, 0)):
            return await super()._wrap_create_connection(*args, **kwargs)
        # Nothing to choose between, so the event loop connects by itself; the way round costs more than the connection.
        host, port, *_ = addresses[0][4]
        options = {"host": host, "port": port, "ssl": kwargs["ssl"], "server_hostname": kwargs["server_hostname"]}
        return await self._loop.create_connection(*args, **options)

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        while (connection := await super()._get(key, traces)) is not None:
            protocol = connection.protocol
            if protocol is not None and not protocol.should_close:
                return connection
            connection.close()
        return None


def _destination(origin: URL, tls: ssl.SSLContext | None, sni_hostname: str | None) -> aiohttp.ClientRequest:
    """What aiohttp connects by."""
    return aiohttp.ClientRequest("GET", origin, ssl=tls or True, server_hostname=sni_hostname)


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
