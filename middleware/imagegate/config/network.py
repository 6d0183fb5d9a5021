"""How upstreams are reached: proxies, trust stores, certificates, and what is sent with each request."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Collection
from typing import Final
from urllib.parse import urlsplit

from imagegate.config.model_contracts import base_url_of
from imagegate.config.schema import Config, DeliveryConfig, UpstreamConfig
from imagegate.errors import ConfigError
from imagegate.http import AiohttpTransport, HTTPClient, Transport, are_header_fields
from imagegate.http.proxies import NO_PROXY, SOCKS_SCHEMES, ProxyRule, has_socks
from imagegate.http.tls import context_of
from imagegate.logger import get_logger
from imagegate.registry import load_adapter

_OURS: Final = frozenset(
    ("connection", "content-length", "content-type", "expect", "host", "te", "trailer", "transfer-encoding", "upgrade")
)
"""Header fields that frame a message, or say what its body is."""
_OF_OUR_TRANSPORT: Final = ("proxy", "trust_env", "ca_file", "client_cert", "reuse_connections")


def check_network(upstream: UpstreamConfig) -> None:
    """Check what a type cannot say.

    Raises:
        ConfigError: beginning with the name of the key that is wrong, and a colon.
    """
    for name, value in upstream.headers.items():
        if not are_header_fields([(name, value)]):
            raise ConfigError(f"headers: {name!r} or its value has characters that HTTP does not allow")
        if name.lower() in _OURS:
            raise ConfigError(f"headers: {name} is set by the gateway, because it frames the message")
    for name, value in upstream.query.items():
        if not name or not name.isprintable() or not value.isprintable():
            raise ConfigError(f"query: {name!r} or its value cannot stand in an address")
    if upstream.proxy:
        _check_proxy("proxy", upstream.proxy)
    _tls(upstream)


def _warn_of_unused(upstreams: Collection[UpstreamConfig]) -> None:
    """Say what a transport of the application's own has to see to itself."""
    plain = UpstreamConfig(name="plain")
    for upstream in upstreams:
        named = [name for name in _OF_OUR_TRANSPORT if getattr(upstream, name) != getattr(plain, name)]
        if named:
            get_logger().warning("settings have no effect beside transport=", upstream=upstream.name, settings=named)


def has_key(upstream: UpstreamConfig) -> bool:
    """Return whether an upstream has a key of its own, or needs none, so that no client's goes there."""
    authentication = load_adapter(upstream.adapter_name, upstream.options).authentication
    has_own = upstream.api_key is not None or upstream.credential is not None
    named = any(name.lower() == authentication.header for name in upstream.headers)
    return has_own or named or not authentication.required


def check_fetch_proxy(delivery: DeliveryConfig) -> None:
    """Raise `ConfigError` where ``fetch_proxy`` is no proxy."""
    if delivery.fetch_proxy:
        _check_proxy("fetch_proxy", delivery.fetch_proxy)


def _check_proxy(key: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        is_good = bool(parts.hostname) and parts.port is not None and parts.path in ("", "/")
        is_good = is_good and not (parts.query or parts.fragment)
    except ValueError:
        is_good, parts = False, urlsplit("")
    if not is_good or parts.scheme not in ("http", "https", *SOCKS_SCHEMES):
        raise ConfigError(f"{key}: must be http://, https:// or socks5:// with a host and a port")
    if parts.scheme in SOCKS_SCHEMES and not has_socks():
        raise ConfigError(f"{key}: {parts.scheme}:// needs an extra: pip install 'imagegate[socks]'")


def _tls(upstream: UpstreamConfig) -> ssl.SSLContext | None:
    if not upstream.ca_file and not upstream.client_cert:
        return None
    try:
        return context_of(upstream.ca_file, upstream.client_cert)
    except OSError as error:
        key = "client_cert" if upstream.client_cert and _is_good_ca(upstream) else "ca_file"
        raise ConfigError(f"{key}: cannot be used: {error.strerror or error}") from error


def _is_good_ca(upstream: UpstreamConfig) -> bool:
    try:
        context_of(upstream.ca_file, "")
    except OSError:
        return False
    return True


def foreign_client(config: Config) -> HTTPClient:
    """Return what fetches links that clients and providers name."""
    return HTTPClient.of(AiohttpTransport(proxy=ProxyRule(url=config.delivery.fetch_proxy)))


class Clients:
    """The HTTP clients of a gateway: one for foreign links, and one for each upstream that needs its own.

    Args:
        transport: takes the requests to all upstreams, and never those for foreign links; not closed here.
        on_surplus: is called with the name of an upstream that sent data beyond a reply.
        foreign: fetches links that clients and providers name; closed here.

    Raises:
        ConfigError: a trust store or a certificate cannot be loaded.
    """

    def __init__(
        self,
        config: Config,
        *,
        transport: Transport | None = None,
        on_surplus: Callable[[str], None] | None = None,
        foreign: HTTPClient,
    ) -> None:
        self._on_surplus = on_surplus
        self._names: dict[str, list[str]] = {}
        """Host and port -> the upstreams there."""
        self.foreign = foreign
        own = AiohttpTransport(on_surplus=self._note_surplus)
        self._shared = HTTPClient.of(own) if transport is None else HTTPClient(transport=transport)
        self._of: dict[str, HTTPClient] = {}
        self._plain: dict[str, HTTPClient] = {}
        if transport is not None:
            _warn_of_unused(config.upstreams)
        for upstream in config.upstreams:
            plain = self._shared if transport is not None else self._plain_client(upstream)
            self._plain[upstream.name] = plain
            self._names.setdefault(urlsplit(base_url_of(upstream)).netloc, []).append(upstream.name)
            self._of[upstream.name] = plain.adding(tuple(upstream.headers.items()), tuple(upstream.query.items()))

    def of(self, upstream: str) -> HTTPClient:
        """Return what sends the requests to an upstream, with what the configuration adds to each."""
        return self._of[upstream]

    def plain(self, upstream: str) -> HTTPClient:
        """Return the same without what is added: for pictures at the upstream's own origin."""
        return self._plain[upstream]

    def _plain_client(self, upstream: UpstreamConfig) -> HTTPClient:
        proxy = ProxyRule(url=upstream.proxy, from_environment=upstream.trust_env)
        tls = _tls(upstream)
        if proxy == NO_PROXY and tls is None and upstream.reuse_connections:
            return self._shared
        reuse = upstream.reuse_connections
        return HTTPClient.of(
            AiohttpTransport(proxy=proxy, tls=tls, reuse_connections=reuse, on_surplus=self._note_surplus)
        )

    def _note_surplus(self, host: str) -> None:
        if self._on_surplus is not None:
            for name in self._names.get(host, ()):
                self._on_surplus(name)

    async def aclose(self) -> None:
        """Close every connection that is not a transport of the application's."""
        await self.foreign.aclose()
        await self.close_upstreams()

    async def close_upstreams(self) -> None:
        """Close the connections to upstreams only: another configuration has clients of its own for them."""
        for client in {id(each): each for each in (self._shared, *self._plain.values())}.values():
            await client.aclose()
