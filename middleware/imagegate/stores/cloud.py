"""Pictures as objects in a bucket: S3 and what speaks its language, Google Cloud Storage, Azure Blob Storage.

obstore does the work, by its blocking functions in threads of the store's own: the asynchronous ones hand results to
the event loop from threads that still touch Python afterwards, and a process that ends just then is aborted (exit code
134).
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import IO, TYPE_CHECKING, Final, TypeVar, cast
from urllib.parse import quote

import obstore

from imagegate.protocol.image_format import ImageFormat
from imagegate.spool.disk_room import DiskRoom
from imagegate.spool.reservation import Reservation
from imagegate.stores.cloud_errors import plain_cloud_error
from imagegate.stores.errors import plain_error
from imagegate.stores.health import BucketHealth
from imagegate.stores.keys import ContentKey, new_key, tenant_name
from imagegate.stores.writing import UNIT, ThreadWriter

if TYPE_CHECKING:
    from obstore import Attributes, WritableFile
    from obstore.store import AzureStore, GCSStore, S3Store

    Client = AzureStore | GCSStore | S3Store

Result = TypeVar("Result")

_PART: Final = 5 * 1024 * 1024
"""Bytes. A smaller picture is one PUT. Of a larger one, parts of this size, the least that S3 allows, are sent one
after the other while the next is collected, so that a picture on its way takes 11 MiB however large it is."""
_THREADS: Final = 64
"""Maximum number of concurrent uploads; others are queued."""
_PROBE: Final = "imagegate-probe"
"""Name of the object by which it is found out whether the bucket takes any."""
_REQUESTS: Final = 3
"""Requests that one hop into a thread may wait for: begin a multipart upload, send a part, complete the upload."""


class CloudStore:
    """A bucket. Removing old pictures is left to a lifecycle rule of the bucket.

    Args:
        client: obstore's, for the bucket.
        prefix: of every key; ``{tenant}`` in it becomes a keyed hash of whose picture it is.
        public_url: where clients find the bucket; empty: links are presigned.
        ttl: seconds that presigned links are good for.
        cache_control: header of every picture.
        timeout: seconds for one request to the bucket.
        secret: for hashes of tenants and contents.
        content_addressed: the same bytes are one object and sent once.
    """

    def __init__(
        self,
        client: Client,
        *,
        prefix: str = "",
        public_url: str = "",
        ttl: float,
        cache_control: str,
        timeout: float,
        secret: bytes = b"",
        content_addressed: bool = False,
    ) -> None:
        self.client = client
        self.ttl = ttl
        self.prefix = prefix
        self._public_url = public_url.rstrip("/")
        self._cache_control = cache_control
        self._secret = secret
        self._is_content_addressed = content_addressed
        self._limit = _REQUESTS * timeout
        self._threads: ThreadPoolExecutor | None = None
        self._spool = DiskRoom(tempfile.gettempdir)
        self.health = BucketHealth(self._probe)

    async def reserve(self, size: int) -> Reservation:
        """Promise room where pictures are spooled; a bucket does not say how much it has, only that it takes some."""
        await self.health.check()
        if not self._is_content_addressed:
            return Reservation()
        try:
            return await self._spool.reserve(size)
        except OSError as error:
            raise plain_error(error) from error

    async def _probe(self, size: int) -> None:
        """Do all that a picture needs: write, and sign a link where there is no public one."""
        key = self.prefix.replace("{tenant}", tenant_name("", self._secret)) + _PROBE

        def write() -> None:
            obstore.put(self.client, key, bytes(size))
            with contextlib.suppress(Exception):  # pictures need no permission to delete
                obstore.delete(self.client, key)

        await self.in_thread(write)
        await self.link(key, "")

    async def writer(self, kind: ImageFormat, *, tenant: str = "") -> ThreadWriter:
        prefix = self.prefix.replace("{tenant}", tenant_name(tenant, self._secret))
        attributes: Attributes = {"Content-Type": kind.media_type, "Cache-Control": self._cache_control}
        if self._is_content_addressed:
            return ContentWriter(self, prefix, kind, attributes, ContentKey(self._secret))
        return ObjectWriter(self, prefix + new_key(kind), attributes)

    async def link(self, key: str, base: str) -> str:
        if self._public_url:
            return f"{self._public_url}/{quote(key)}"
        validity = datetime.timedelta(seconds=self.ttl)
        return await self.in_thread(lambda: obstore.sign(self.client, "GET", key, validity))

    async def in_thread(self, work: Callable[[], Result], *, passes: type[Exception] | tuple[()] = ()) -> Result:
        """Run what waits for the bucket.

        Raises:
            OSError: in words of ours, but where it is one of `passes`.
        """
        try:
            async with asyncio.timeout(self.limit):
                return await asyncio.get_running_loop().run_in_executor(self.threads(), work)
        except Exception as error:
            if passes and isinstance(error, passes):
                raise
            raise plain_cloud_error(error) from None

    async def sweep(self) -> None:
        """Do nothing: a lifecycle rule of the bucket removes old pictures."""

    @property
    def limit(self) -> float:
        """Seconds that a caller waits for a thread."""
        return self._limit

    def threads(self) -> Executor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, "imagegate-cloud")
        return self._threads

    async def aclose(self) -> None:
        """Wait for what is under way, among it the clean-up of uploads that were aborted."""
        await self.health.aclose()
        threads, self._threads = self._threads, None
        if threads is not None:
            await asyncio.to_thread(threads.shutdown)


class CloudWriter(ThreadWriter):
    """What both kinds of writers do."""

    def __init__(self, store: CloudStore) -> None:
        super().__init__(threads=store.threads(), limit=store.limit)
        self._store = store

    async def abort(self) -> None:
        """Give up without waiting: a bucket that has just failed may take its time to fail once more."""
        if self.is_to_be_discarded():
            self._store.threads().submit(self.discard_in_order)

    def plain(self, error: Exception) -> Exception:
        plain = plain_cloud_error(error)
        self._store.health.failed(plain, self.sent)
        return plain

    async def commit(self) -> str:
        key = await super().commit()
        self._store.health.worked()
        return key


class ObjectWriter(CloudWriter):
    """Sends a picture while it comes."""

    def __init__(self, store: CloudStore, key: str, attributes: Attributes) -> None:
        super().__init__(store)
        self._key = key
        self._attributes = attributes
        self._object: WritableFile | None = None
        self._is_whole = False

    def append(self, data: Sequence[bytes]) -> None:
        if self._object is None:
            self._object = _open_object(self._store.client, self._key, self._attributes)
        for piece in data:
            self._object.write(piece)

    def finish(self) -> str:
        if self._object is not None:
            self._object.close()
        self._is_whole = True
        return self._key

    def discard(self) -> None:
        with contextlib.suppress(Exception):
            if self._is_whole:
                obstore.delete(self._store.client, self._key)
            elif self._object is not None:
                _abort(self._object)


class ContentWriter(CloudWriter):
    """Keeps a picture, on disk where it is large, until all of it and thereby its name is known; then sends it.

    What the bucket has already is not sent again, unless it is older than a link's time: a lifecycle rule may then be
    about to remove it.
    """

    def __init__(
        self, store: CloudStore, prefix: str, kind: ImageFormat, attributes: Attributes, content: ContentKey
    ) -> None:
        super().__init__(store)
        self._prefix = prefix
        self._kind = kind
        self._attributes = attributes
        self._content = content
        self._spool: IO[bytes] | None = None

    def append(self, data: Sequence[bytes]) -> None:
        if self._spool is None:
            self._spool = cast("IO[bytes]", tempfile.SpooledTemporaryFile(max_size=_PART))  # noqa: SIM115 - lives on
        for piece in data:
            self._content.update(piece)
            self._spool.write(piece)

    def finish(self) -> str:
        key = self._prefix + self._content.key(self._kind)
        if self._spool is not None:
            if not self._is_there(key):
                self._send(key, self._spool)
            self._spool.close()
        return key

    def _is_there(self, key: str) -> bool:
        try:
            age = datetime.datetime.now(datetime.UTC) - obstore.head(self._store.client, key)["last_modified"]
        except Exception:  # not found, or unknown without permission to list: upload it
            return False
        return age.total_seconds() < self._store.ttl

    def _send(self, key: str, spool: IO[bytes]) -> None:
        target = _open_object(self._store.client, key, self._attributes)
        try:
            spool.seek(0)
            while piece := spool.read(UNIT):
                target.write(piece)
            target.close()
        except BaseException:
            with contextlib.suppress(Exception):
                _abort(target)
            raise

    def discard(self) -> None:
        """Leave what has been sent: another request may have been given the same object."""
        if self._spool is not None:
            self._spool.close()


def _open_object(client: Client, key: str, attributes: Attributes) -> WritableFile:
    return obstore.open_writer(client, key, attributes=attributes, buffer_size=_PART, max_concurrency=1)


def _abort(target: WritableFile) -> None:
    """Leave the block with an error, which makes obstore abort a multipart upload."""
    error = OSError("aborted")
    target.__exit__(OSError, error, None)
