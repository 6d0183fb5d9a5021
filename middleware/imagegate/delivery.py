"""Turning pictures from one form into the other: base64 -> store -> link, link -> bytes -> base64."""

from __future__ import annotations

import asyncio
import binascii
from collections.abc import Collection
from typing import Any, Literal

import msgspec
import pybase64

from imagegate.changes import Change
from imagegate.errors import FetchError, RequestError, StorageError, UpstreamError
from imagegate.exchange import ImageReply, ReplyImage
from imagegate.failures import uncertain
from imagegate.fetch import Fetcher, FetchFailed, FetchRefused
from imagegate.formats import ImageFormat, sniff
from imagegate.spool import Upload
from imagegate.stores import Store, StoreFull, put, put_stream

Form = Literal["url", "b64_json"]


def wanted_form(asked: Any, model: str, default: Form | None) -> Form:
    """How a client wants its pictures: as it says, as configured, or as OpenAI would answer for the model."""
    if asked in ("url", "b64_json"):
        return asked  # type: ignore[no-any-return]
    if default is not None:
        return default
    name = model.rpartition("/")[2]
    return "b64_json" if name.startswith(("gpt-image-", "chatgpt-image-")) else "url"


class Delivery:
    """Stores and fetches pictures.

    Args:
        store: takes what must become a link.
        fetcher: reads what must become base64.
    """

    def __init__(self, store: Store, fetcher: Fetcher) -> None:
        self._store = store
        self._fetcher = fetcher

    async def deliver(
        self, reply: ImageReply, form: Form, *, public_url: str, trusted_origins: Collection[str] = ()
    ) -> ImageReply:
        """The reply with every picture in `form`; all or none.

        Raises:
            StorageError: a picture could not be stored.
            FetchError: a link could not be read.
        """
        convert = self._to_link(public_url) if form == "url" else self._to_base64(trusted_origins)
        try:
            images = await asyncio.gather(*(convert(image) for image in reply.images))
        except (StorageError, FetchError) as error:
            # The pictures are paid for: the official SDKs must not ask again, and links that there are, are told.
            error.headers.append((b"x-should-retry", b"false"))
            if links := [{"url": image.url} for image in reply.images if image.url is not None]:
                error.details["data"] = links
            raise
        return msgspec.structs.replace(reply, images=tuple(images))

    def prepare(self, form: Form) -> None:
        """What can fail before anything is paid for does so here. Raises `StorageError`."""
        if form == "url":
            try:
                self._store.prepare()
            except OSError as error:
                raise _storage_error(error, "The store cannot be used; nothing was sent.") from error

    async def list_made(self, error: UpstreamError, *, public_url: str) -> None:
        """Adds links to the pictures that were made before `error`; what cannot be stored is only counted."""
        error.details["images_made"] = len(error.made)
        reply = ImageReply(images=error.made, created=0)
        try:
            made = await self.deliver(reply, "url", public_url=public_url)
        except (StorageError, UpstreamError):
            return
        error.details["data"] = [{"url": image.url} for image in made.images]

    async def publish(self, upload: Upload, public_url: str) -> str:
        """A link to a reference file, so that a provider can load it.

        Raises:
            StorageError: the store did not take it.
        """
        if upload.facts is None:
            raise RequestError("The file is no image that can be read.", param=upload.part, code="invalid_image_file")
        try:
            key = await put_stream(self._store, upload.chunks(), upload.facts.kind)
            return await self._store.link(key, public_url)
        except OSError as error:
            raise _storage_error(error, "The reference image could not be stored; nothing was sent.") from error

    def _to_link(self, public_url: str) -> Any:
        async def to_link(image: ReplyImage) -> ReplyImage:
            if image.b64_json is None:
                return image
            picture = decode_base64(image.b64_json)
            link = await self._stored(picture, known_format(picture), public_url)
            return ReplyImage(url=link, fields=image.fields)

        return to_link

    def _to_base64(self, trusted_origins: Collection[str]) -> Any:
        async def to_base64(image: ReplyImage) -> ReplyImage:
            if image.url is None:
                return image
            try:
                fetched = await self._fetcher.read(image.url, trusted_origins=trusted_origins)
            except FetchRefused as error:
                raise FetchError(f"The provider's link may not be fetched: {error}.") from error
            except FetchFailed as error:
                raise FetchError(f"The provider's link could not be read: {error}.") from error
            known_format(fetched.content)
            return ReplyImage(b64_json=pybase64.b64encode_as_string(fetched.content), fields=image.fields)

        return to_base64

    async def _stored(self, picture: bytes, kind: ImageFormat, public_url: str) -> str:
        try:
            key = await put(self._store, picture, kind)
            return await self._store.link(key, public_url)
        except OSError as error:
            raise _storage_error(error, "The image was made, but could not be stored.") from error


def _storage_error(error: OSError, message: str) -> StorageError:
    """What a client is told: never the store's own words, which may name hosts and paths."""
    if isinstance(error, StoreFull):
        return StorageError(f"{message} The store is full.", status=507, code="storage_full")
    return StorageError(message)


def decode_base64(text: str) -> bytes:
    """The bytes of a provider's base64, whose padding may be missing. Raises `UpstreamUncertain` where it is none."""
    try:
        return pybase64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise uncertain("The provider's reply carries broken base64.") from None


def known_format(picture: bytes) -> ImageFormat:
    """The format of a provider's picture. Raises `UpstreamUncertain` where it is none that we know."""
    kind = sniff(picture[:256])
    if kind is None:
        raise uncertain("The provider's reply carries something that is no image.")
    return kind


def check_count(asked: int, reply: ImageReply) -> tuple[Change, ...]:
    """More images than asked for are disclosed.

    Raises:
        UpstreamUncertain: fewer came; it names ``n``, and knows those that were made.
    """
    made = len(reply.images)
    if made < asked:
        error = uncertain(f"The provider made {made} of {asked} images.")
        error.code, error.param, error.made = "fewer_images", "n", reply.images
        raise error
    return () if made == asked else (Change("n", "mapped", asked, made),)
