"""Data that outlives a request and is no image, as objects in a place of their own in a bucket."""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import AsyncIterator
from typing import Final

import obstore
from structlog import get_logger

from imagegate.protocol.image_format import ImageFormat
from imagegate.stores.base import put_stream
from imagegate.stores.clock import Clock
from imagegate.stores.cloud import CloudStore

_KIND: Final = ImageFormat("application/octet-stream", "blob")
_KEY: Final = re.compile(r"(?:[A-Za-z0-9._-]+/)*[A-Za-z0-9_-]{32}\.blob", re.ASCII)
_READ: Final = 256 * 1024
_SECONDS_BETWEEN_SWEEPS: Final = 600.0


class CloudBlobs:
    """Objects that are read and removed with the gateway's own credentials; no client gets a link to them.

    Args:
        store: writes them, under a prefix that holds nothing else; closed with the blobs.
        ttl: seconds for which they are kept.
        clock: source of the time.
    """

    is_shared = True

    def __init__(self, store: CloudStore, *, ttl: float, clock: Clock = time) -> None:
        self._store = store
        self._ttl = ttl
        self._clock = clock
        self._swept = float("-inf")

    async def put(self, chunks: AsyncIterator[bytes]) -> str:
        return await put_stream(self._store, chunks, _KIND)

    async def read(self, key: str) -> AsyncIterator[bytes]:
        """Yield the bytes; keys that earlier versions made, between the images, are read too."""
        if not _KEY.fullmatch(key) or ".." in key.split("/"):
            raise FileNotFoundError
        client = self._store.client
        stream = await self._store.in_thread(
            lambda: iter(obstore.get(client, key).stream(min_chunk_size=_READ)), passes=FileNotFoundError
        )
        while (piece := await self._store.in_thread(lambda: next(stream, None))) is not None:
            yield bytes(piece)

    async def remove(self, key: str) -> None:
        if _KEY.fullmatch(key):
            try:
                await self._store.in_thread(lambda: obstore.delete(self._store.client, key))
            except OSError as error:
                get_logger("imagegate").warning("a kept reply was not removed", reason=str(error))

    async def sweep(self) -> None:
        """Remove what is too old, every ten minutes at most. Raises `OSError`."""
        if self._clock.monotonic() - self._swept < _SECONDS_BETWEEN_SWEEPS:
            return
        self._swept = self._clock.monotonic()
        oldest = datetime.datetime.fromtimestamp(self._clock.time() - self._ttl, datetime.UTC)
        client, prefix = self._store.client, self._store.prefix

        def remove_old() -> None:
            for listed in obstore.list(client, prefix.rstrip("/")):
                old = [each["path"] for each in listed if each["last_modified"] < oldest]
                if ours := [path for path in old if _KEY.fullmatch(path)]:
                    obstore.delete(client, ours)

        await self._store.in_thread(remove_old)

    async def aclose(self) -> None:
        await self._store.aclose()
