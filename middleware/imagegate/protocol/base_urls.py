"""Base URLs of APIs as operators write them, and the URLs of requests that follow from them. Pure.

An API's paths begin with ``/v1``. A base URL that has a version in its path already, names an Azure deployment or
carries a query is complete: what follows the ``/v1`` is appended to it, and the query comes last.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, urlsplit

_VERSION: Final = re.compile(r"v[0-9]+(?:\.[0-9]+)*(?:[a-z]+[0-9]*)?", re.ASCII | re.IGNORECASE)
"""``v1``, ``v3``, ``v1beta``, ``v2alpha1``, ``v1.1``."""
_DEPLOYMENT: Final = re.compile(r"/deployments/[^/]+(?:/|$)")
_ENDPOINTS: Final = (
    *("/images/generations", "/images/edits", "/images/variations"),
    *("/chat/completions", "/completions", "/responses", "/embeddings", "/models", "/files", "/messages", "/tasks"),
)
"""What is pasted with a base URL: the ends of OpenAI's endpoints."""
_OWN: Final = "v1"
"""What adapters' paths begin with."""


class BaseURL(NamedTuple):
    """A base URL in parts."""

    origin: str
    """Scheme and host."""
    path: str
    """Without a slash at its end; empty: none."""
    query: str
    is_complete: bool
    """Whether it takes the place of the ``/v1`` of a path."""

    def url(self, path: str) -> str:
        """Return the URL of an API's path. Of a parameter that both have, the operator's value counts."""
        base = self.path
        if self.is_complete:
            version = _first(path)
            if version == _OWN:
                path = path.removeprefix(f"/{_OWN}")
            elif _VERSION.fullmatch(version) and _VERSION.fullmatch(base.rpartition("/")[2]):
                base = base.rpartition("/")[0]  # of an adapter that has versions of its own
        path, mark, query = path.partition("?")
        query = "&".join(pair for pair in query.split("&") if pair and not self._has(pair))
        return self.with_query(f"{self.origin}{base}{path}{mark and query and '?'}{query}")

    def with_query(self, url: str) -> str:
        """Return the URL with the parameters of the base URL's query that it does not have."""
        if not self.query:
            return url
        present = {name for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True)}
        pairs = [pair for pair in self.query.split("&") if not {name for name, _ in _pairs(pair)} <= present]
        return f"{url}{'&' if '?' in url else '?'}{'&'.join(pairs)}" if pairs else url

    def _has(self, pair: str) -> bool:
        names = {name for name, _ in _pairs(self.query)}
        return any(name in names for name, _ in _pairs(pair))

    def follows(self, path: str) -> bool:
        """Return whether a provider's path begins at the origin; else at the root of its API."""
        if not self.path or path.startswith(f"{self.path}/"):
            return True
        first = _first(self.path)
        return not _VERSION.fullmatch(first) and _first(path) == first

    def redacted(self, url: str, others: Collection[str] = ()) -> str:
        """Return the URL without the values of its query that may be keys: those in `secrets`, and `others`."""
        hidden = {*self.secrets, *others}
        target, mark, query = url.partition("?")
        shown = [
            f"{pair.partition('=')[0]}=[redacted]" if hidden.intersection(_secrets(pair)) else pair
            for pair in query.split("&")
        ]
        return f"{target}{mark}{'&'.join(shown)}"

    @property
    def secrets(self) -> tuple[str, ...]:
        """Values in the query that may be keys; a version is none."""
        return tuple(_secrets(self.query))


@lru_cache(maxsize=256)
def read_base_url(url: str) -> BaseURL:
    """Return a base URL in parts. Raises `ValueError` where it is none."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    is_complete = bool(parts.query) or _has_version(path) or _DEPLOYMENT.search(path) is not None
    return BaseURL(f"{parts.scheme}://{parts.netloc}", path, parts.query, is_complete)


@lru_cache(maxsize=1024)
def request_url(base_url: str, path: str) -> str:
    """Return the URL of an API's path below a base URL."""
    return read_base_url(base_url).url(path)


def _has_version(path: str) -> bool:
    return any(map(_VERSION.fullmatch, path.split("/")))


def fault_of(url: str, own_paths: Collection[str] = ()) -> str:
    """Return what is wrong with a base URL, for operators; empty: nothing.

    Args:
        own_paths: the endpoints of the API, beside OpenAI's.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises where it is no number
    except ValueError:
        return _SHAPE
    is_plain = url.isascii() and url.isprintable() and " " not in url
    has_more = parts.fragment or "@" in parts.netloc or url.endswith("#")
    if not is_plain or parts.scheme not in ("http", "https") or not parts.hostname or has_more:
        return _SHAPE
    path = parts.path.rstrip("/")
    ends = (*_ENDPOINTS, *own_paths)
    lower = path.lower()
    if lower.endswith(ends) or (lower.endswith("/images") and _has_version(path)):
        found = max((end for end in ends if lower.endswith(end)), key=len, default="/images")
        shorter = path[: -len(found)]
        return f"is an endpoint, not the base URL of an API: leave out the '{path[len(shorter) :]}' at its end"
    return ""


_SHAPE: Final = "must be http:// or https://, a host, and perhaps a port, a path and a query"


def _first(path: str) -> str:
    """Return the first segment."""
    return re.split(r"[/?]", path.removeprefix("/"), maxsplit=1)[0]


def _secrets(query: str) -> list[str]:
    return [value for name, value in _pairs(query) if "version" not in name.lower()]


def _pairs(query: str) -> list[tuple[str, str]]:
    return parse_qsl(query, keep_blank_values=True)
