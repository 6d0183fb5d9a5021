"""Pictures in the memory of one process: for tests and small set-ups."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from email.utils import formatdate
from typing import Final, NamedTuple

from starlette.responses import Response

from imagegate.protocol.image_format import BY_EXTENSION, ImageFormat
from imagegate.spool.reservation import Reservation
from imagegate.stores.clock import Clock
from imagegate.stores.errors import StoreFull
from imagegate.stores.health import StoreHealth
from imagegate.stores.keys import ContentKey, new_key
from imagegate.stores.links import Links
from imagegate.stores.overflow import DEFAULT_OVERFLOW
from imagegate.stores.serving import picture_headers

DEFAULT_CAPACITY: Final = 256 * 1024**2


class MemoryStore:
    """Keeps pictures for `ttl` seconds, and the newest `capacity` bytes of them at most.

    Args:
        ttl: seconds that links are good for and pictures are kept.
        capacity: bytes; None: 256 MiB.
        link_secret: signs links; empty: a random one, so that links end with the process as the pictures do.
        content_addressed: the same bytes are kept once.
        clock: source of the time.
    """

    def __init__(
        self,
        *,
        ttl: float,
        capacity: int | None = None,
        link_secret: bytes = b"",
        content_addressed: bool = False,
        clock: Clock = time,
    ) -> None:
        self.capacity = DEFAULT_CAPACITY if capacity is None else capacity
        self._ttl = ttl
        self._clock = clock
        self.has_refused = False
        """Whether a picture was larger than `capacity`."""
        self._pictures: OrderedDict[str, _Kept] = OrderedDict()
        self._size = 0
        secret = link_secret or secrets.token_bytes(32)
        self._content_secret = secret if content_addressed else None
        self.health = StoreHealth()
        self._links = Links(lambda: secret, ttl=ttl, clock=clock)

    async def prepare(self) -> None:
        """Do nothing: there is no disk."""

    async def reserve(self, size: int) -> Reservation:
        """Refuse only what is larger than the store, once a picture was: the oldest pictures make room for others."""
        if size > self.capacity and self.has_refused:
            raise StoreFull("the pictures are larger than the store")
        return Reservation()

    async def writer(self, kind: ImageFormat, *, tenant: str = "") -> MemoryWriter:
        return MemoryWriter(self, kind)

    def add(self, picture: bytes, kind: ImageFormat) -> str:
        """Keep a picture and return its key; the oldest ones make room, but for one larger than `capacity`."""
        now = self._clock.monotonic()
        key = self._key(picture, kind)
        self._remove(key)
        most = max(self.capacity, len(picture) + self._size if len(picture) > self.capacity else 0)
        while self._pictures and (self._size + len(picture) > most or self._oldest() < now - self._ttl):
            self._remove(next(iter(self._pictures)))
        self._pictures[key] = _Kept(now, self._clock.time(), picture)
        self._size += len(picture)
        return key

    def _key(self, picture: bytes, kind: ImageFormat) -> str:
        if self._content_secret is None:
            return new_key(kind)
        content = ContentKey(self._content_secret)
        content.update(picture)
        return content.key(kind)

    def take_back(self, key: str) -> None:
        """Drop a picture, but where the same bytes are one."""
        if self._content_secret is None:
            self._remove(key)

    def _remove(self, key: str) -> None:
        if (found := self._pictures.pop(key, None)) is not None:
            self._size -= len(found.content)

    def _oldest(self) -> float:
        return next(iter(self._pictures.values())).since

    async def sweep(self) -> None:
        while self._pictures and self._oldest() < self._clock.monotonic() - self._ttl:
            self._remove(next(iter(self._pictures)))

    async def link(self, key: str, base: str) -> str:
        return self._links.link(base, key)

    def holds(self, key: str, query_string: bytes) -> bool:
        return self._links.holds(key, query_string)

    async def response(self, key: str) -> Response | None:
        if (found := self._pictures.get(key)) is None:
            return None
        kind = BY_EXTENSION[key.rpartition(".")[2]]
        headers = {**picture_headers(key, self._ttl), "last-modified": formatdate(found.modified, usegmt=True)}
        return Response(found.content, media_type=kind.media_type, headers=headers)

    async def aclose(self) -> None:
        self._pictures.clear()
        self._size = 0


class _Kept(NamedTuple):
    since: float
    """On the monotonic clock."""
    modified: float
    """Unix time."""
    content: bytes


class MemoryWriter:
    """Collects a picture outside the store, which gets it whole."""

    def __init__(self, store: MemoryStore, kind: ImageFormat) -> None:
        self._store = store
        self._kind = kind
        self._pieces: list[bytes] = []
        self._size = 0
        self._key = ""

    async def write(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._store.capacity:
            self._store.has_refused = True  # the next one; this one is paid for
        if self._size > self._store.capacity + DEFAULT_OVERFLOW:
            raise StoreFull("the picture is larger than the store")
        self._pieces.append(data)

    async def commit(self) -> str:
        picture = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._key = self._store.add(picture, self._kind)
        return self._key

    async def abort(self) -> None:
        self._pieces.clear()
        self._store.take_back(self._key)
