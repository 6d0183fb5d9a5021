"""Entries of ``[routes]``: an address, or one that shares requests with its neighbours."""

from __future__ import annotations

import msgspec


class Choice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A candidate of a route that shares requests with its neighbours."""

    to: str
    """``upstream/model``."""
    weight: float = 1.0
    """Its share of the requests, by those of its neighbours; more than 0."""


def address_of(entry: str | Choice) -> str:
    """Return ``upstream/model`` of a route's entry."""
    return entry if isinstance(entry, str) else entry.to
