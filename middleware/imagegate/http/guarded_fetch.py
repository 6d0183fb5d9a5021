"""Guarded fetch of untrusted URLs: a client's references, a provider's result links.

Such a URL must not make this process talk to a private network. So every address that its host has is
checked, the connection goes to a checked address and not to a second lookup of the name, and a redirect
starts all over. What counts is whether an address is public, not whether it is known to be dangerous.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final, TypeAlias
from urllib.parse import SplitResult, urljoin, urlsplit

import idna
import msgspec

from imagegate.http import HTTPClient, Interrupted, NotSent, Response, Timeouts, close, iter_body
from imagegate.http.client import is_offline
from imagegate.http.lookups import Lookups, TooManyLookups
from imagegate.http.public_addresses import is_public, literal_address
from imagegate.protocol.headers import length_of_reply
from imagegate.tracing import operation

Resolver: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""Looks up the addresses of a host and port; raises OSError when there are none."""

MAX_URL: Final = 8192
"""Characters."""

_UNFIT: Final = re.compile(r"[\x00-\x20\x7f-\x9f\\\s]")
_NAME: Final = re.compile(r"(?!(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)$)(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}")
"""A host name; one that ends in a number is an address that some parser may understand."""
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class FetchRefused(Exception):
    """The URL is not allowed. The text names the rule, never an address."""


class FetchFailed(Exception):
    """The URL is allowed but gave nothing usable. The text names no address."""


class FetchBusy(FetchFailed):
    """Too much else is fetched at the moment; nothing was tried."""


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """What a URL held; `content_type` is the server's word for it, unchecked, empty where it has none."""

    content: bytes
    content_type: str


class FetchedStream:
    """A reply of status 200 whose body is still to be read, once, by iterating over it.

    `content_type` is as declared, empty where the server has none. Iterating raises FetchFailed when the body
    is cut, larger than allowed or late.
    """

    def __init__(self, response: Response, deadline: _Deadline, max_bytes: int) -> None:
        self.content_type: str = response.headers.get("content-type", "")
        self._response = response
        self._deadline = deadline
        self._max_bytes = max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        try:
            body = iter_body(self._response)
            while True:
                async with self._deadline.running():
                    piece = await anext(body, None)
                if piece is None:
                    return
                size += len(piece)
                if size > self._max_bytes:
                    raise FetchFailed(f"the file is larger than {self._max_bytes} bytes")
                yield piece
        except Interrupted as exc:
            raise FetchFailed(str(exc)) from exc


class Fetcher:
    """Fetches URLs that are not trusted.

    `allow` names what is permitted although not public: host names, addresses, either with `:port`, and
    networks (`10.0.0.0/8`). `max_bytes` bounds the decoded body; `timeout`, in seconds, everything from the
    first lookup to the last byte. Raises ValueError for any other entry of `allow`.
    `resolve` replaces bounded lookups in threads of this fetcher's own (`imagegate.http.lookups`).
    `origins` says what sends requests to trusted origins, where it is not `client`. `proxy_guards`: `client` goes
    through a proxy that looks host names up, and keeps private networks out of reach.
    """

    def __init__(
        self,
        client: HTTPClient,
        *,
        allow: Sequence[str] = (),
        max_bytes: int = 64 * 1024 * 1024,
        timeout: float = 60.0,
        max_redirects: int = 3,
        resolve: Resolver | None = None,
        origins: Mapping[str, HTTPClient] | None = None,
        proxy_guards: bool = False,
    ) -> None:
        self._client = client
        self._origins = {_parse(origin).origin: client for origin, client in (origins or {}).items()}
        self._proxy_guards = proxy_guards
        self._allowed = _Allowed(allow)
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._max_redirects = max_redirects
        self._resolve = resolve or Lookups().addresses

    @contextlib.asynccontextmanager
    async def open(
        self,
        url: str,
        *,
        trusted_origins: Collection[str] = (),
    ) -> AsyncGenerator[FetchedStream, None]:
        """Fetch `url` and hand out its body as a stream, closed at the end of the block.

        `trusted_origins` (`scheme://host[:port]`, what follows is ignored) may be private; a redirect away
        from them is checked in full. Raises FetchRefused or FetchFailed.
        """
        link = _parse(url)
        with operation("fetch", nests=False, host=link.host, port=link.port):
            deadline = _Deadline(self._timeout)
            trusted = frozenset(_parse(origin).origin for origin in trusted_origins)
            async with deadline.running():
                response = await self._follow(link, trusted)
            try:
                length = length_of_reply(response.headers)
                if length is not None and length > self._max_bytes:
                    raise FetchFailed(f"the file is larger than {self._max_bytes} bytes")
                yield FetchedStream(response, deadline, self._max_bytes)
            finally:
                await close(response)

    async def read(self, url: str, *, trusted_origins: Collection[str] = ()) -> Fetched:
        """Fetch `url` whole; as `open` otherwise."""
        async with self.open(url, trusted_origins=trusted_origins) as stream:
            content = b"".join([piece async for piece in stream])
        return Fetched(content=content, content_type=stream.content_type)

    async def check(self, url: str) -> None:
        """Look up `url` without fetching it. Raises FetchRefused or FetchFailed."""
        await self._checked_addresses(_parse(url))

    async def post(self, url: str, content: bytes, headers: Sequence[tuple[str, str]] = ()) -> int:
        """Post `content` and return the status; the body of the reply is not read, redirects are not followed.

        Raises FetchRefused or FetchFailed.
        """
        link = _parse(url)
        async with _Deadline(self._timeout).running():
            response = await self._get(link, frozenset(), _Post(content, headers))
            await close(response)
        return response.status_code

    async def _follow(self, link: _Link, trusted: frozenset[_Origin]) -> Response:
        for _ in range(self._max_redirects + 1):
            response = await self._get(link, trusted)
            if response.status_code == 200:
                return response
            await close(response)
            if response.status_code not in _REDIRECTS:
                raise FetchFailed(f"the server answered with status {response.status_code}")
            location = response.headers.get("location")
            if location is None:
                raise FetchFailed("the server answered with a redirect to nowhere")
            target = _parse(_join(link, location))
            if link.scheme == "https" and target.scheme == "http":
                raise FetchRefused("a redirect from https to http is not allowed")
            link = target
        raise FetchFailed(f"more than {self._max_redirects} redirects")

    async def _get(self, link: _Link, trusted: frozenset[_Origin], post: _Post | None = None) -> Response:
        if link.origin in trusted:
            return await self._send(link, link.host, client=self._origins.get(link.origin))
        failure = FetchFailed("the host name cannot be resolved")
        for address in await self._checked_addresses(link):
            try:
                return await self._send(link, address, post)
            except _NoConnection as exc:
                failure = exc
        raise failure

    async def _checked_addresses(self, link: _Link) -> Sequence[str]:
        """Look up a link's host once. Raises FetchRefused if any address is off limits."""
        if link.is_address:
            addresses: Sequence[str] = (link.host,)
        elif self._proxy_guards or is_offline():
            return (link.host,)
        else:
            try:
                addresses = await self._resolve(link.host, link.port)
            except TooManyLookups as exc:
                raise FetchBusy(str(exc)) from exc
            except (OSError, UnicodeError) as exc:
                raise FetchFailed("the host name cannot be resolved") from exc
        if not all(is_public(address) or self._allowed.covers(link, address) for address in addresses):
            raise FetchRefused("the URL leads to an address that is not public")
        return addresses

    async def _send(
        self, link: _Link, host: str, post: _Post | None = None, *, client: HTTPClient | None = None
    ) -> Response:
        """Send the request for `link` to `host`, its own or an address of it."""
        pinned = host != link.host
        accepted = (("Accept", "image/*"),) if post is None else tuple(post.headers)
        try:
            return await (client or self._client).send(
                "GET" if post is None else "POST",
                f"{link.scheme}://{_authority(host, link.port, link.scheme)}{link.target}",
                headers=(
                    ("Host", _authority(link.host, link.port, link.scheme)),
                    ("User-Agent", "imagegate"),
                    ("Accept-Encoding", "identity"),
                    *accepted,
                ),
                content=None if post is None else post.content,
                timeouts=Timeouts(read=self._timeout),
                sni_hostname=link.host if pinned and link.scheme == "https" else None,
            )
        except NotSent as exc:
            raise _NoConnection(str(exc)) from exc
        except Interrupted as exc:
            raise FetchFailed(str(exc)) from exc


class _Post(msgspec.Struct, frozen=True):
    content: bytes
    headers: Sequence[tuple[str, str]]


class _NoConnection(FetchFailed):
    """The next address may do better."""


_Origin: TypeAlias = tuple[str, str, int]


class _Link(msgspec.Struct, frozen=True, kw_only=True):
    """A URL that keeps to the rules, in parts; `host` is a name in lower-case ASCII, or a bare address."""

    scheme: str
    host: str
    is_address: bool
    port: int
    target: str

    @property
    def origin(self) -> _Origin:
        return self.scheme, self.host, self.port

    def __str__(self) -> str:
        return f"{self.scheme}://{_authority(self.host, self.port, self.scheme)}{self.target}"


class _Deadline:
    """A point in time, `seconds` from now, that may interrupt several blocks of work."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._at = asyncio.get_running_loop().time() + seconds

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Run a block. Raises FetchFailed when time is up."""
        try:
            async with asyncio.timeout_at(self._at):
                yield
        except TimeoutError as exc:
            raise FetchFailed(f"not complete within {self._seconds:g} s") from exc


class _Allowed:
    """What the operator permits although it is not public."""

    def __init__(self, entries: Sequence[str]) -> None:
        self._networks: list[IPv4Network | IPv6Network] = []
        self._hosts: set[tuple[str, int | None]] = set()
        for entry in entries:
            try:
                self._networks.append(ip_network(entry, strict=False))
            except ValueError:
                self._hosts.add(_parse_allowed(entry))

    def covers(self, link: _Link, address: str) -> bool:
        canonical = literal_address(address)
        if canonical is None:
            return False
        hosts = {(host, port) for host in (link.host, canonical) for port in (None, link.port)}
        if not hosts.isdisjoint(self._hosts):
            return True
        return any(ip_address(canonical) in network for network in self._networks)


def _parse_allowed(entry: str) -> tuple[str, int | None]:
    try:
        parts = urlsplit(f"//{entry}")
        if parts.netloc == entry and "@" not in entry:
            return _parse_host(parts)[0], parts.port
    except (ValueError, FetchRefused):
        pass
    raise ValueError(f"{entry!r} is not a host, an address or a network")


def _parse(url: str) -> _Link:
    """Take a URL apart. Raises FetchRefused if it breaks a rule that needs no lookup."""
    if len(url) > MAX_URL:
        raise FetchRefused(f"the URL is longer than {MAX_URL} characters")
    if _UNFIT.search(url):
        raise FetchRefused("the URL holds white space, control characters or backslashes")
    try:
        url.encode()
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise FetchRefused("not a valid URL") from exc
    if parts.scheme not in _DEFAULT_PORTS:
        raise FetchRefused("only http and https URLs are allowed")
    if "@" in parts.netloc:
        raise FetchRefused("a URL with credentials is not allowed")
    if port == 0:
        raise FetchRefused("not a valid URL")
    host, is_address = _parse_host(parts)
    return _Link(
        scheme=parts.scheme,
        host=host,
        is_address=is_address,
        port=port or _DEFAULT_PORTS[parts.scheme],
        target=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
    )


def _parse_host(parts: SplitResult) -> tuple[str, bool]:
    """Return the host in its usual spelling, and whether it is an address."""
    host = parts.hostname or ""
    if (address := literal_address(host)) is not None:
        return address, True
    try:
        name = (host if host.isascii() else idna.encode(host, uts46=True).decode()).removesuffix(".")
    except idna.IDNAError as exc:
        raise FetchRefused("the URL's host is not a valid name") from exc
    if len(name) > 253 or not _NAME.fullmatch(name):
        raise FetchRefused("the URL's host is not a valid name")
    return name, False


def _join(link: _Link, location: str) -> str:
    if _UNFIT.search(location):  # urljoin would drop some of them
        raise FetchRefused("the URL holds white space, control characters or backslashes")
    try:
        return urljoin(str(link), location)
    except ValueError as exc:
        raise FetchRefused("not a valid URL") from exc


def _authority(host: str, port: int, scheme: str) -> str:
    bracketed = f"[{host}]" if ":" in host else host
    return bracketed if port == _DEFAULT_PORTS[scheme] else f"{bracketed}:{port}"
