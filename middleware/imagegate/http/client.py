"""Requests to other servers, and the bodies of their replies."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterable, Callable, Coroutine, Sequence
from copy import copy
from functools import partial
from threading import RLock
from typing import Any, Final, Self
from urllib.parse import parse_qsl, urlencode, urlsplit
from weakref import WeakSet

import msgspec

from imagegate.http.messages import (
    CHUNK,
    DEFAULT_TIMEOUTS,
    Body,
    BodyTooLarge,
    Interrupted,
    Request,
    Response,
    Sender,
    Timeouts,
    Transport,
)
from imagegate.http.transports.aiohttp_transport import AiohttpTransport

_instead_of_network: Sender | None = None


def use_instead_of_network(transport: Transport | None) -> Callable[[], None]:
    """Send everything through a transport, for tests; return what undoes that.

    An application that mounts a gateway may have made it before its tests run, so this cannot be an argument.

    Args:
        transport: None: the network.
    """
    before = _instead_of_network
    _replace_network(None if transport is None else _through(transport))
    return partial(_replace_network, before)


def _replace_network(sender: Sender | None) -> None:
    global _instead_of_network
    with _choosing:
        _instead_of_network = sender
        for client in tuple(_clients):
            client.choose_sender()


def is_offline() -> bool:
    """Return whether a transport replaces the network, so that host names must not be resolved."""
    return _instead_of_network is not None


def _through(transport: Transport) -> Sender:
    from imagegate.http.transports.httpx_transport import HttpxTransport  # httpx takes long to import

    return HttpxTransport(transport)


class HTTPClient:
    """Sends single requests: no cookies, no redirects, no retries.

    Args:
        transport: replaces aiohttp's connections; it stays the caller's to close.
    """

    def __init__(self, *, transport: Transport | AiohttpTransport | None = None) -> None:
        self._headers: Sequence[tuple[str, str]] = ()
        self._query: Sequence[tuple[str, str]] = ()
        self.added_headers: frozenset[str] = frozenset()
        """Names, in lower case, of the fields that are sent with each request."""
        self._owns_sender = transport is None
        self._sender: Sender
        if transport is None or isinstance(transport, AiohttpTransport):
            self._sender = transport or AiohttpTransport()
        else:
            self._sender = _through(transport)
        self.choose_sender()

    def choose_sender(self) -> None:
        """Choose between the client's own connections and what replaces the network."""
        with _choosing:
            _clients.add(self)
            sender = self._sender if _instead_of_network is None else _instead_of_network
            self.transmit: Callable[[Request], Coroutine[Any, Any, Response]] = sender.send
            """Sends one request, as `Sender.send` does; it is the method of the transport itself wherever it can."""
            if self._headers or self._query:
                self.transmit = partial(_send_with, sender, self._headers, self._query)

    @classmethod
    def of(cls, transport: AiohttpTransport) -> Self:
        """Make a client that closes its transport."""
        client = cls(transport=transport)
        client._owns_sender = True
        return client

    def adding(self, headers: Sequence[tuple[str, str]], query: Sequence[tuple[str, str]]) -> HTTPClient:
        """Return this client, or one on the same connections that adds to each request.

        Args:
            headers: sent in place of the request's own fields of these names.
            query: added to the address, where it has no parameter of that name.
        """
        if not headers and not query:
            return self
        client = copy(self)
        client._owns_sender = False
        client._headers, client._query = headers, query
        client.added_headers = frozenset(name.lower() for name, _ in headers)
        client.choose_sender()
        return client

    def without(self, header: str) -> HTTPClient:
        """Return this client, or one on the same connections that does not add a header field, named in lower case."""
        if header not in self.added_headers:
            return self
        client = copy(self)
        client._owns_sender = False
        client._headers = tuple(field for field in self._headers if field[0].lower() != header)
        client.added_headers = self.added_headers - {header}
        client.choose_sender()
        return client

    def completed(self, url: str, headers: Sequence[tuple[str, str]]) -> tuple[str, Sequence[tuple[str, str]]]:
        """Return the address and the header fields of a request as they are sent."""
        return _completed(url, headers, self._headers, self._query)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What is sent with each request and must not be shown."""
        return tuple(value for _, value in (*self._headers, *self._query))

    def send(
        self,
        method: str,
        url: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        content: bytes | AsyncIterable[bytes] | None = None,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        sni_hostname: str | None = None,
    ) -> Coroutine[Any, Any, Response]:
        """Send one request, whose parts are those of `Request`, as `transmit` does."""
        return self.transmit(Request(method, url, headers, content, timeouts, sni_hostname))

    async def aclose(self) -> None:
        """Close every connection; what is still being read ends with Interrupted."""
        if self._owns_sender:
            await self._sender.aclose()


_clients: WeakSet[HTTPClient] = WeakSet()
"""All that there are, of all threads: they are told when something replaces the network."""
_choosing: Final = RLock()
"""Held while clients choose their transport."""


def _send_with(
    sender: Sender, headers: Sequence[tuple[str, str]], query: Sequence[tuple[str, str]], request: Request
) -> Coroutine[Any, Any, Response]:
    url, completed = _completed(request.url, request.headers, headers, query)
    return sender.send(msgspec.structs.replace(request, url=url, headers=completed))


def _completed(
    url: str,
    headers: Sequence[tuple[str, str]],
    added_headers: Sequence[tuple[str, str]],
    added_query: Sequence[tuple[str, str]],
) -> tuple[str, Sequence[tuple[str, str]]]:
    if added_headers:
        names = {name.lower() for name, _ in added_headers}
        headers = [*(field for field in headers if field[0].lower() not in names), *added_headers]
    if added_query:
        present = {name for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True)}
        added = urlencode([pair for pair in added_query if pair[0] not in present])
        url += f"{'&' if '?' in url else '?'}{added}" if added else ""
    return url, headers


async def close(response: Response) -> None:
    """Give the connection back, also when the calling task is being cancelled."""
    await response.aclose()


def iter_body(response: Response) -> Body:
    """Return the body with `gzip` and `deflate` undone, in pieces of at most 256 KiB.

    Raises Interrupted, also while it is read, when the body is cut, damaged or encoded in another way.
    """
    named = response.headers.get("content-encoding", "")
    encodings = [encoding for encoding in named.lower().replace(" ", "").split(",") if encoding not in ("", "identity")]
    if not encodings:
        return response.body
    if encodings not in (["gzip"], ["x-gzip"], ["deflate"]):
        raise Interrupted("the reply is compressed in a way that was not asked for")
    return _Inflated(response.body)


class _Inflated:
    """A compressed body."""

    # httpx's decoders inflate a whole piece at once, a thousandfold for a hostile server and a thousand times that for
    # nested encodings, and take a cut gzip stream for a whole one.

    def __init__(self, body: Body) -> None:
        self._body = body
        self._data = b""
        self._inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # either format
        self._is_empty = True

    def __aiter__(self) -> _Inflated:
        return self

    async def __anext__(self) -> bytes:
        try:
            while True:
                while self._data:
                    if self._inflate.eof:  # gzip may hold several members in a row
                        self._inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
                    piece = self._inflate.decompress(self._data, CHUNK)
                    self._data = self._inflate.unconsumed_tail or self._inflate.unused_data
                    if piece:
                        return piece
                self._data = await anext(self._body)
                self._is_empty = False
        except zlib.error as exc:
            raise Interrupted("the compressed reply is damaged") from exc
        except StopAsyncIteration:
            if self._is_empty or self._inflate.eof:
                raise
            raise Interrupted("connection closed before the reply was complete") from None

    async def aclose(self) -> None:
        await self._body.aclose()


async def read_body(response: Response, *, limit: int) -> bytes:
    """Read the whole decoded body and close the response, whatever happens.

    Raises BodyTooLarge beyond `limit` bytes, and Interrupted when the body is cut or damaged.
    """
    try:
        pieces: list[bytes] = []
        size = 0
        async for piece in iter_body(response):
            size += len(piece)
            if size > limit:
                raise BodyTooLarge(limit)
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        await close(response)
