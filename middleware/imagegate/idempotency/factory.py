"""Opens the store of recorded replies that a configuration names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from imagegate.config.schema import Config
from imagegate.idempotency.base import ReplayStore
from imagegate.idempotency.journal import Journal
from imagegate.idempotency.journaled import JournaledReplays
from imagegate.idempotency.memory import MemoryReplays
from imagegate.idempotency.redis import RedisReplays
from imagegate.stores.blobs import Blobs
from imagegate.stores.redis_client import RedisClient

_KEYS: Final = ".keys"


def open_replay_store(config: Config, blobs: Blobs, on_unreadable: Callable[[str], None]) -> ReplayStore:
    """Return the store of recorded replies: Redis where the configuration names one, else memory; each with marks on
    disk where the image store has a directory.

    Args:
        blobs: keeps large replies.
        on_unreadable: is called once for each record that cannot be read.

    Raises:
        ConfigError: the store needs a package that is not installed.
    """
    tasks, idempotency = config.tasks, config.idempotency
    journal = _journal(config)
    if (address := idempotency.store or tasks.store) != "memory://":
        store = RedisReplays(RedisClient(address), lease=tasks.lease, on_unreadable=on_unreadable)
        return store if journal is None else JournaledReplays(store, journal)
    return MemoryReplays(blobs, max_bytes=idempotency.max_bytes, journal=journal)


def _journal(config: Config) -> Journal | None:
    """Return the journal of sent requests in the image store's directory; other stores have none."""
    scheme, _, rest = config.delivery.store.partition("://")
    if scheme != "file":
        return None
    idempotency = config.idempotency
    return Journal(Path(rest) / _KEYS, ttl=max(idempotency.ttl, idempotency.derive_window))
