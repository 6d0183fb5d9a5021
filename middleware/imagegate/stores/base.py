"""Interface of a store, and the mapping of addresses such as ``file://./images`` to stores."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol, runtime_checkable

from starlette.responses import Response

from imagegate.protocol.image_format import ImageFormat
from imagegate.spool.reservation import Reservation
from imagegate.stores.health import StoreHealth
from imagegate.tracing import operation


class PictureWriter(Protocol):
    """One picture on its way into a store, pushed in pieces as they come. It must end in `commit` or `abort`."""

    async def write(self, data: bytes) -> None:
        """Append. Raises `OSError`, including `StoreFull`; only `abort` may follow an error."""
        ...

    async def commit(self) -> str:
        """End the picture and return its key; only from now on can it be had. Raises `OSError`."""
        ...

    async def abort(self) -> None:
        """Nothing stays behind. Never fails, may be called at any time, and ends also where its caller is cancelled.

        After `commit` it takes the picture back, but where the same bytes are one picture: others may have its link.
        """
        ...


class Store(Protocol):
    """Keeps images under unguessable names.

    The messages of its errors are short and name no host, path or secret, but they are for the log, not for clients.
    """

    @property
    def health(self) -> StoreHealth:
        """What is known of whether it takes pictures."""
        ...

    async def reserve(self, size: int) -> Reservation:
        """Promise room for pictures of `size` bytes together. Called before anything is billed.

        Raises:
            StoreFull: there is not so much room.
            OSError: the store cannot be used.
        """
        ...

    async def writer(self, kind: ImageFormat, *, tenant: str = "") -> PictureWriter:
        """Begin a picture.

        Args:
            tenant: whose it is, such as the client's key. Stores that keep tenants apart show a keyed hash of it.

        Raises:
            OSError: the store cannot take it.
        """
        ...

    async def link(self, key: str, base: str) -> str:
        """Return the public link to a picture.

        Args:
            base: where the gateway is reached under ``/images/``; for stores that it serves itself.

        Raises:
            OSError: the link cannot be signed.
        """
        ...

    async def sweep(self) -> None:
        """Remove what has expired. Called once a minute. Raises `OSError`."""
        ...

    async def aclose(self) -> None: ...


@runtime_checkable
class ServedStore(Store, Protocol):
    """A store whose images the gateway serves itself, by signed links."""

    async def prepare(self) -> None:
        """Read from a disk, in a thread, what `holds` needs. Raises `OSError`."""
        ...

    def holds(self, key: str, query_string: bytes) -> bool:
        """Return whether a request's query for `key` is one that the store has signed and that has not expired."""
        ...

    async def response(self, key: str) -> Response | None:
        """Return a response with the picture, its ``ETag`` and ``Last-Modified``; None: there is no such key."""
        ...


class StoreOfTenant:
    """A store as one tenant sees it."""

    def __init__(self, store: Store, tenant: str) -> None:
        self._store = store
        self._tenant = tenant
        self.health = store.health

    async def reserve(self, size: int) -> Reservation:
        return await self._store.reserve(size)

    async def writer(self, kind: ImageFormat, *, tenant: str = "") -> PictureWriter:
        return await self._store.writer(kind, tenant=tenant or self._tenant)

    async def link(self, key: str, base: str) -> str:
        return await self._store.link(key, base)

    async def sweep(self) -> None:
        await self._store.sweep()

    async def aclose(self) -> None:
        """Do nothing: the store is shared."""


async def put(store: Store, picture: bytes, kind: ImageFormat, *, tenant: str = "") -> str:
    """Store a picture, whole or not at all, and return its key. Raises `OSError`."""
    with operation("store", size=len(picture)):
        writer = await store.writer(kind, tenant=tenant)
        try:
            await writer.write(picture)
            return await writer.commit()
        except BaseException:
            await writer.abort()
            raise


async def put_stream(store: Store, chunks: AsyncIterator[bytes], kind: ImageFormat, *, tenant: str = "") -> str:
    """Return the same for a picture that is read while it is stored."""
    with operation("store"):
        writer = await store.writer(kind, tenant=tenant)
        try:
            async for chunk in chunks:
                await writer.write(chunk)
            return await writer.commit()
        except BaseException:
            await writer.abort()
            raise
