"""Refuses what web pages make browsers send to a gateway without keys: cross-site requests and DNS rebinding.

A browser sends forms and bodies without a media type to any address, also on loopback, without asking there first; what
it says of itself in ``Origin`` and ``Sec-Fetch-Site`` (Fetch standard, Fetch Metadata) cannot be written by a page. A
page whose host name is made to resolve to loopback is of the same origin as what it finds there; the name that it was
loaded from is in ``Host``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, NamedTuple

from starlette.middleware.cors import CORSMiddleware
from starlette.types import Scope

from imagegate.errors import ImagegateError

ANY: Final = "*"
_DEFAULT_PORTS: Final[Mapping[str, str]] = {"http": "80", "https": "443"}
_SIMPLE_TYPES: Final = (b"multipart/form-data", b"application/x-www-form-urlencoded", b"text/plain")
"""Media types that browsers send across origins without a preflight (Fetch standard, CORS-safelisted headers)."""
_NEED_PREFLIGHT: Final = (b"idempotency-key", b"imagegate-explain")
"""Header fields of ours that no page can send across origins without one."""
_LONGEST_SHOWN: Final = 100


class AccessDenied(ImagegateError):
    """A browser sent the request for a page that may not use the gateway, or to a name that is not the gateway's."""

    status = 403
    type = "invalid_request_error"
    code = "origin_not_allowed"

    @property
    def nothing_sent(self) -> bool:
        return True


class BrowserGuard:
    """Decides by the header fields of a request whether a page of another origin is behind it.

    In front of an application, that application's rules count: its CORS middleware answers preflights, so a request
    that needs one has its permission, and only those that browsers send without asking are refused here. Which ``Host``
    is right it decides itself.

    Args:
        keyed: whether clients need a key, which no page of another origin has; then only `hosts` are checked.
        mounted: whether an application is mounted behind the gateway; within Starlette's ``Mount`` the scope shows it.
        origins: whose pages may use the gateway, such as ``https://app.example.com``; ``*``: all.
        hosts: names in ``Host`` that are the gateway's beside those of loopback, such as ``*.example.com``; empty: any,
            but on loopback none.
        own_host: one more such name, from the gateway's public URL.
    """

    def __init__(
        self,
        *,
        keyed: bool = False,
        mounted: bool = False,
        origins: Collection[str] = (),
        hosts: Collection[str] = (),
        own_host: str = "",
    ) -> None:
        self._keyed = keyed
        self._mounted = mounted
        self._origins = frozenset(origin.lower() for origin in origins)
        self._hosts = frozenset(host.lower() for host in hosts)
        self._own_hosts = self._hosts | ({own_host.lower()} if own_host else set())

    def check(self, scope: Scope) -> None:
        """Raise `AccessDenied` where the request must not be answered."""
        source = _Origin.of(scope)
        mounted = self._mounted or "app" in scope
        if self._hosts or not (self._keyed or mounted or not is_loopback(_address(scope.get("server")))):
            for host in source.hosts:
                if not self._is_own_host(host):
                    raise AccessDenied(
                        f"The gateway is not known as {_shown(host)}. Its operator can add the name to "
                        "access.allowed_hosts, or set access.keys.",
                        code="host_not_allowed",
                    )
        if not self._keyed and not self._may_come_from(source, scope, mounted=mounted):
            raise AccessDenied(
                "A gateway without keys takes no requests of web pages from elsewhere "
                f"({_shown(source.origin or '')}). Its operator can add the origin to access.allowed_origins, or set "
                "access.keys.",
            )

    def _is_own_host(self, host: str) -> bool:
        name = _name_of(host)
        parents = (f"*.{name[place + 1 :]}" for place, character in enumerate(name) if character == ".")
        return (
            is_loopback_name(name)
            or name in self._own_hosts
            or ANY in self._own_hosts
            or any(parent in self._own_hosts for parent in parents)
        )

    def _may_come_from(self, source: _Origin, scope: Scope, *, mounted: bool) -> bool:
        if source.site == b"same-origin" or ANY in self._origins:
            return True
        if source.origin is None:
            return source.site != b"cross-site" or (mounted and scope["method"] == "GET")
        if source.origin in self._origins or any(is_same_origin(source.origin, host) for host in source.hosts):
            return True
        if not mounted:
            return False
        is_asked_for = scope["method"] != "POST" or source.needs_preflight or source.site == b"same-site"
        return is_asked_for or _application_allows(scope, source.origin)


class _Origin(NamedTuple):
    """What a request says of where it comes from and goes to."""

    hosts: list[str]
    origin: str | None
    site: bytes
    needs_preflight: bool
    """Whether no browser sends it across origins before its server has agreed."""

    @classmethod
    def of(cls, scope: Scope) -> _Origin:
        hosts: list[str] = []
        origin: str | None = None
        site = content_type = b""
        needs_preflight = False
        for name, value in scope["headers"]:
            if name == b"host":
                hosts.append(value.decode("latin-1").strip().lower())
            elif name == b"origin":
                origin = value.decode("latin-1").strip().lower()
            elif name == b"sec-fetch-site":
                site = value.strip().lower()
            elif name == b"content-type":
                content_type = value.partition(b";")[0].strip().lower()
            elif name in _NEED_PREFLIGHT or (name == b"authorization" and value[:7].lower() == b"bearer "):
                needs_preflight = True
        if content_type and content_type not in _SIMPLE_TYPES:
            needs_preflight = True
        return cls(hosts, origin, site, needs_preflight)


def is_same_origin(origin: str, host: str) -> bool:
    """Return whether ``Origin`` and ``Host`` name the same host and port, whichever scheme a proxy has taken off."""
    scheme, _, authority = origin.partition("://")
    port = _DEFAULT_PORTS.get(scheme)
    if port is None:
        return False
    return authority.removesuffix(f":{port}") == host.removesuffix(f":{port}")


def is_loopback_name(name: str) -> bool:
    """Return whether a host name is one that always leads to the machine itself (RFC 6761, section 6.3)."""
    name = name.removesuffix(".")
    return name == "localhost" or name.endswith(".localhost") or is_loopback(name)


def is_loopback(address: str) -> bool:
    """Return whether an IP address is of loopback, also as an IPv4-mapped IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback


def _name_of(host: str) -> str:
    """Return ``Host`` without its port, and without the brackets of an IPv6 address."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _address(server: Any) -> str:
    return str(server[0]) if server else ""


def _application_allows(scope: Scope, origin: str) -> bool:
    """Return whether a Starlette or FastAPI application that the request came through has a CORS rule for `origin`."""
    for middleware in getattr(scope.get("app"), "user_middleware", ()):
        if isinstance(middleware.cls, type) and issubclass(middleware.cls, CORSMiddleware):
            is_allowed: Callable[[str], bool] = middleware.cls(scope["app"], **middleware.kwargs).is_allowed_origin
            return is_allowed(origin)
    return False


def _shown(text: str) -> str:
    return repr(text[:_LONGEST_SHOWN]) if text else "another site"
