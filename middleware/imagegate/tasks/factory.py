"""Opens what tasks need from a configuration: their store, and the secret that signs their ids."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

from imagegate.config.schema import Config
from imagegate.stores.redis_client import RedisClient
from imagegate.stores.secret_file import SECRET_BYTES, kept_secret
from imagegate.tasks.base import TaskStore
from imagegate.tasks.memory import MemoryTaskStore
from imagegate.tasks.redis import RedisTaskStore

_SECRET_FILE: Final = ".task-secret"  # noqa: S105 - a file name


def open_task_store(config: Config, on_unreadable: Callable[[str], None]) -> TaskStore:
    """Return the task store that a configuration names; nothing is connected to yet.

    Args:
        on_unreadable: is called once for each record that cannot be read.

    Raises:
        ConfigError: the store needs a package that is not installed.
    """
    tasks = config.tasks
    if tasks.store == "memory://":
        return MemoryTaskStore(ttl=tasks.ttl)
    return RedisTaskStore(RedisClient(tasks.store), ttl=tasks.ttl, lease=tasks.lease, on_unreadable=on_unreadable)


def task_secret(config: Config) -> Callable[[], bytes]:
    """Return what loads the secret that signs ids.

    It is configured, derived from the secret of the links, kept in the store's directory, or random per process.
    """
    if config.tasks.secret:
        return config.tasks.secret.encode
    if config.delivery.link_secret:
        return lambda: hmac.digest(config.delivery.link_secret.encode(), b"imagegate tasks", hashlib.sha256)
    scheme, _, rest = config.delivery.store.partition("://")
    if scheme == "file":
        return lambda: kept_secret(Path(rest) / _SECRET_FILE)
    return lambda: secrets.token_bytes(SECRET_BYTES)
