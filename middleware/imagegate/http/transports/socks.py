"""Connections through a SOCKS proxy, by aiohttp-socks (the extra `socks`)."""

from __future__ import annotations

from typing import Any

from aiohttp_socks import ProxyConnector

from imagegate.http.transports.attempt import WatchedConnector


class SocksConnector(WatchedConnector, ProxyConnector):
    """Connects through a proxy, which looks up host names where its address begins with ``socks5h`` or ``socks5``."""


def socks_connector(proxy: str, **options: Any) -> ProxyConnector:
    """Return a connector through the proxy at an address such as ``socks5://user:password@host:port``."""
    return SocksConnector.from_url(proxy.replace("socks5h://", "socks5://"), rdns=True, **options)
