"""Adapters by name: installed packages announce them as entry points in the group ``imagegate.adapters``."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from imagegate.adapter import Adapter
from imagegate.errors import ConfigError

GROUP: Final = "imagegate.adapters"


@cache
def installed() -> Mapping[str, EntryPoint]:
    """Every announced adapter, sorted by name; scanned once, nothing is imported.

    Raises:
        ConfigError: two packages announce the same name.
    """
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        other = found.setdefault(entry.name, entry)
        if other.value != entry.value:
            raise ConfigError(f"Two packages announce the adapter '{entry.name}': {other.value} and {entry.value}.")
    return dict(sorted(found.items()))


def load_adapter(name: str) -> Adapter:
    """Imports and makes the adapter called `name`. Raises `ConfigError` with the names that exist."""
    entry = installed().get(name)
    if entry is None:
        near = get_close_matches(name, installed(), n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise ConfigError(f"There is no adapter '{name}'.{hint} Installed: {', '.join(installed()) or 'none'}.")
    adapter: Adapter = entry.load()()
    return adapter
