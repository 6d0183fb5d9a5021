"""Which requests go through a proxy, by configuration or by the environment's ``HTTPS_PROXY`` and ``NO_PROXY``."""

from __future__ import annotations

import functools
from urllib.request import getproxies, proxy_bypass

import msgspec
from yarl import URL


class ProxyRule(msgspec.Struct, frozen=True, kw_only=True):
    """The proxy of an upstream.

    Attributes:
        url: ``http://[user:password@]host:port`` of a proxy for every request; empty: none.
        from_environment: whether ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY`` decide where `url` is
            empty, as they do for curl.
    """

    url: str = ""
    from_environment: bool = False

    def url_for(self, target: URL) -> URL | None:
        """Return the proxy of a request to `target`; None: it goes straight."""
        if self.url:
            return _url(self.url)
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
    return None if not found else URL(found if "://" in found else f"http://{found}")
