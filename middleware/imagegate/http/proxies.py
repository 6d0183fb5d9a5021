"""Which requests go through a proxy, by configuration or by the environment's ``HTTPS_PROXY`` and ``NO_PROXY``."""

from __future__ import annotations

import functools
from importlib.util import find_spec
from typing import Final
from urllib.request import getproxies, proxy_bypass

import msgspec
from yarl import URL

from imagegate.http.messages import NotSent

SOCKS_SCHEMES: Final = ("socks4", "socks5", "socks5h")


def has_socks() -> bool:
    """Return whether the extra `socks` is installed."""
    return find_spec("aiohttp_socks") is not None


class ProxyRule(msgspec.Struct, frozen=True, kw_only=True):
    """The proxy of an upstream.

    Attributes:
        url: ``http://[user:password@]host:port`` of a proxy for every request; empty: none.
        from_environment: whether ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY`` decide where `url` is
            empty, as they do for curl.
    """

    url: str = ""
    from_environment: bool = False

    @property
    def is_socks(self) -> bool:
        """Whether connections are made through a SOCKS proxy, of which requests know nothing."""
        return self.url.startswith(SOCKS_SCHEMES)

    def url_for(self, target: URL) -> URL | None:
        """Return the HTTP proxy of a request to `target`; None: there is none.

        Raises:
            NotSent: the environment names a proxy that is not an HTTP proxy.
        """
        if self.url:
            return None if self.is_socks else _url(self.url)
        return _of_environment(target.scheme, target.raw_host or "", target.port) if self.from_environment else None


NO_PROXY = ProxyRule()


@functools.lru_cache(maxsize=16)
def _url(text: str) -> URL:
    return URL(text)


@functools.lru_cache(maxsize=256)
def _of_environment(scheme: str, host: str, port: int | None) -> URL | None:
    """Read once for each host: the environment of a process does not change while it serves."""
    if proxy_bypass(f"{host}:{port}"):
        return None
    proxies = getproxies()
    found = proxies.get(scheme) or proxies.get("all")
    if not found:
        return None
    proxy = URL(found if "://" in found else f"http://{found}")
    if proxy.scheme not in ("http", "https"):
        raise NotSent("the environment's proxy is not an HTTP proxy; name it in the upstream's configuration")
    return proxy
