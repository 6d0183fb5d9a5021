"""Opens the stores that a configuration names."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from imagegate.config.schema import Config, DeliveryConfig
from imagegate.errors import ConfigError
from imagegate.stores.base import Store
from imagegate.stores.blobs import Blobs, FileBlobs
from imagegate.stores.file import FileStore
from imagegate.stores.memory import MemoryStore
from imagegate.stores.overflow import DEFAULT_OVERFLOW

_BLOBS: Final = ".blobs"


def open_store(delivery: DeliveryConfig) -> Store:
    """Return the store that a configuration names; nothing is written or connected to yet.

    Raises:
        ConfigError: naming the key that is wrong.
    """
    scheme, separator, rest = delivery.store.partition("://")
    secret = delivery.link_secret.encode()
    if separator and scheme in ("s3", "gs", "az"):
        from imagegate.config.cloud_store import open_cloud_store  # needs an extra

        return open_cloud_store(delivery)
    if scheme == "memory" and separator and not rest:
        return MemoryStore(
            ttl=delivery.link_ttl,
            capacity=delivery.max_bytes,
            link_secret=secret,
            content_addressed=delivery.content_addressed,
        )
    if scheme == "file" and rest:
        return FileStore(
            Path(rest),
            ttl=delivery.link_ttl,
            max_bytes=delivery.max_bytes,
            link_secret=secret,
            content_addressed=delivery.content_addressed,
            overflow=DEFAULT_OVERFLOW,
        )
    raise ConfigError(
        f"delivery.store: {delivery.store!r} is not one of file://directory, memory://, s3://bucket/prefix, "
        "gs://bucket/prefix, az://container/prefix"
    )


def open_blobs(config: Config) -> Blobs:
    """Return the private store of requests and recorded replies.

    It lies apart in the image store; where that is in memory, in a temporary directory of this process.
    """
    scheme, _, rest = config.delivery.store.partition("://")
    ttl = max(config.tasks.ttl, config.idempotency.ttl)
    if scheme == "memory":
        return FileBlobs(None, ttl=ttl)
    if scheme == "file":
        return FileBlobs(Path(rest) / _BLOBS, ttl=ttl)
    from imagegate.config.cloud_store import open_private_blobs  # needs an extra

    return open_private_blobs(config.delivery, ttl=ttl)
