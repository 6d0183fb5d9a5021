"""Pictures in the memory of one process: for tests and small set-ups."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Final

from starlette.responses import Response
from starlette.types import ASGIApp

from imagegate.formats import BY_EXTENSION, ImageFormat
from imagegate.stores.base import StoreFull, new_key
from imagegate.stores.serving import picture_headers

DEFAULT_CAPACITY: Final = 256 * 1024**2


class MemoryStore:
    """Keeps pictures for `ttl` seconds, and the newest `capacity` bytes of them at most."""

    def __init__(self, *, ttl: float, capacity: int = DEFAULT_CAPACITY) -> None:
        self._ttl = ttl
        self._capacity = capacity
        self._pictures: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._size = 0
        self._secret = secrets.token_bytes(32)

    async def put(self, picture: bytes, kind: ImageFormat) -> str:
        if len(picture) > self._capacity:
            raise StoreFull("the picture is larger than the store")
        now = time.monotonic()
        while self._pictures and (self._size + len(picture) > self._capacity or self._oldest() < now - self._ttl):
            _, (_, dropped) = self._pictures.popitem(last=False)
            self._size -= len(dropped)
        key = new_key(kind)
        self._pictures[key] = (now, picture)
        self._size += len(picture)
        return key

    async def put_stream(self, chunks: AsyncIterator[bytes], kind: ImageFormat) -> str:
        return await self.put(b"".join([chunk async for chunk in chunks]), kind)

    def _oldest(self) -> float:
        return next(iter(self._pictures.values()))[0]

    async def response(self, key: str) -> ASGIApp | None:
        if (found := self._pictures.get(key)) is None:
            return None
        kind = BY_EXTENSION[key.rpartition(".")[2]]
        return Response(found[1], media_type=kind.media_type, headers=picture_headers(self._ttl))

    def link_secret(self) -> bytes:
        return self._secret

    async def aclose(self) -> None:
        self._pictures.clear()
        self._size = 0
