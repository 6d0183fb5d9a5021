"""What a gateway has from its start to its end, whichever configuration it runs under."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from imagegate.config.network import foreign_client
from imagegate.config.schema import Config
from imagegate.config.store_factory import open_blobs, open_store
from imagegate.http import HTTPClient
from imagegate.spool.budget import UPLOADS_SHARE, Budget
from imagegate.spool.memory import Memory
from imagegate.stores.base import Store
from imagegate.stores.blobs import Blobs
from imagegate.tasks.factory import task_secret
from imagegate.tasks.ids import TaskIds

_KEPT_FILES: Final = 64 * 1024 * 1024
"""Bytes on disk, beside those that uploads hold."""


@dataclass(frozen=True, kw_only=True)
class Lasting:
    """Room, stores and secrets; a reload cannot change what they are made of (`config.reloading`)."""

    memory: Memory
    budget: Budget
    store: Store
    """Of images."""
    blobs: Blobs
    ids: TaskIds
    foreign: HTTPClient
    """For links that clients and providers name, behind the guard."""


def lasting_services(config: Config) -> Lasting:
    """Return what lasts. Raises `ConfigError`."""
    memory = Memory(config.limits.memory)
    budget = Budget(
        total=config.limits.spool,
        memory=config.limits.spool_memory,
        kept=_KEPT_FILES,
        uploads=UPLOADS_SHARE,
        shared=memory,
    )
    return Lasting(
        memory=memory,
        budget=budget,
        store=open_store(config.delivery),
        blobs=open_blobs(config),
        ids=TaskIds(task_secret(config), ttl=config.tasks.ttl),
        foreign=foreign_client(config),
    )
