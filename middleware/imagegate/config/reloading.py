"""What a running gateway can take from another configuration. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from imagegate.config.schema import Config
from imagegate.errors import ConfigError

_FIXED: Final[Mapping[str, tuple[str, ...]]] = {
    "access": ("store", "cache", "callable", "allowed_origins", "allowed_hosts"),
    "console": (),
    "delivery": (
        *("store", "cloud", "public_url", "link_ttl", "link_secret", "max_bytes", "content_addressed", "fetch_proxy"),
    ),
    "idempotency": ("store", "max_bytes", "ttl"),
    "limits": (),
    "log": (),
    "metrics": (),
    "prefix": (),
    "spending": (),
    "tasks": (),
}
"""Table -> keys that only a new process can change, because what they say is in use: stores, secrets, room, addresses;
none: every key of it."""


def check_reload(before: Config, after: Config) -> None:
    """Raise `ConfigError` where a configuration differs in what only a new process can change."""
    if changed := list(_changed(before, after)):
        raise ConfigError(f"{', '.join(changed)}: cannot change while the gateway runs; restart it")
    if before.access.is_open != after.access.is_open:
        raise ConfigError("access: a gateway that runs cannot begin or cease to ask for keys; restart it")


def _changed(before: Config, after: Config) -> Iterator[str]:
    for table, keys in _FIXED.items():
        old, new = getattr(before, table), getattr(after, table)
        if not keys and old != new:
            yield table
        yield from (f"{table}.{key}" for key in keys if getattr(old, key) != getattr(new, key))
