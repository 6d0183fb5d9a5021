"""What a store is, and which one an address such as ``file://./images`` names."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, Protocol

from starlette.types import ASGIApp

from imagegate.errors import ConfigError
from imagegate.formats import ImageFormat

_KEY: Final = re.compile(r"[A-Za-z0-9_-]{32}\.[a-z0-9]{2,5}")


class StoreFull(OSError):
    """There is no room for the picture."""


class Store(Protocol):
    """Keeps pictures under names that nobody can guess."""

    async def put(self, picture: bytes, kind: ImageFormat) -> str:
        """Stores a picture, whole or not at all, and returns its key. Raises `OSError`."""
        ...

    async def put_stream(self, chunks: AsyncIterator[bytes], kind: ImageFormat) -> str:
        """The same for a picture that is read while it is stored. Raises `OSError`."""
        ...

    async def response(self, key: str) -> ASGIApp | None:
        """An ASGI response with the picture, where the gateway serves the store itself; None: there is no such key."""
        ...

    def link_secret(self) -> bytes:
        """The secret that signs links, the same for every process that shares the store. Raises `OSError`."""
        ...

    async def aclose(self) -> None: ...


def new_key(kind: ImageFormat) -> str:
    """192 random bits and the format's extension."""
    return f"{secrets.token_urlsafe(24)}.{kind.extension}"


def is_key(text: str) -> bool:
    return _KEY.fullmatch(text) is not None


def open_store(address: str, *, ttl: float) -> Store:
    """The store at an address.

    Args:
        ttl: seconds that pictures are kept.

    Raises:
        ConfigError: no such kind of store.
    """
    from imagegate.stores.file import FileStore
    from imagegate.stores.memory import MemoryStore

    scheme, separator, rest = address.partition("://")
    if scheme == "memory" and separator and not rest:
        return MemoryStore(ttl=ttl)
    if scheme == "file" and rest:
        return FileStore(Path(rest), ttl=ttl)
    raise ConfigError(f"delivery.store: {address!r} is neither file://directory nor memory://")
