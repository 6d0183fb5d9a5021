"""Turning pictures from one form into the other: base64 -> store -> link, link -> bytes -> base64."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from typing import Any, Final

import msgspec

from imagegate.delivery.response_format import ResponseFormat
from imagegate.delivery.result_room import ResultRoom, UsualSizes
from imagegate.errors import FetchError, RequestError, StorageError, UpstreamError
from imagegate.http.guarded_fetch import Fetcher, FetchFailed, FetchRefused
from imagegate.protocol.image_format import Facts, inspect, sniff
from imagegate.protocol.inline_images import decode_base64, padded
from imagegate.protocol.links import absolute_link, is_full
from imagegate.protocol.messages import FileRef, ImageReply, Picture, ReplyImage, StoredPicture, StreamEvent
from imagegate.protocol.parsers.lenient_json import is_sound, read_object
from imagegate.protocol.provider_errors import uncertain
from imagegate.protocol.reply_encoding import Tokens
from imagegate.protocol.reply_streams import event_images
from imagegate.spool.budget import Budget, default_budget
from imagegate.spool.upload import Upload
from imagegate.stores import Store, StoreOfTenant, put, put_stream
from imagegate.streaming.image_sinks import (
    HEAD,
    PictureSink,
    Receiver,
    SpoolReceiver,
    StoreReceiver,
    storage_error,
)

_ENOUGH: Final = 4096
"""Bytes by which an image is recognized."""
_SHOWN: Final = 200
_AT_ONCE: Final = 3
"""Pictures of one reply that are stored or fetched at a time; each needs a megabyte or two."""
_Convert = Callable[[ReplyImage], Awaitable[ReplyImage]]


class ImageConverter:
    """Stores and fetches pictures.

    Args:
        store: takes what must become a link.
        fetcher: reads what must become base64.
        budget: room for pictures on their way.
        usual: remembers how large pictures are.
    """

    def __init__(
        self, store: Store, fetcher: Fetcher, budget: Budget | None = None, *, usual: UsualSizes | None = None
    ) -> None:
        self._store = store
        self._fetcher = fetcher
        self._budget = budget or default_budget()
        self.usual = usual or UsualSizes()
        self.room = partial(ResultRoom, self._store, self._budget, self.usual)
        """Makes the room for what an exchange will make, in a response format; nothing is secured yet."""

    def for_client(self, authorization: str | None) -> ImageConverter:
        """Return the converter for a client, whose pictures the store may keep apart from others'."""
        store = StoreOfTenant(self._store, authorization or "")
        return ImageConverter(store, self._fetcher, self._budget, usual=self.usual)

    def receiver(self, form: ResponseFormat, authorization: str | None, room: ResultRoom | None = None) -> Receiver:
        """Return what takes a client's picture while it comes in.

        Args:
            room: what was secured for it.
        """
        if form == "url":
            return StoreReceiver(StoreOfTenant(self._store, authorization or ""))
        return SpoolReceiver(self._budget.results() if room is None else room.files)

    async def deliver(
        self,
        reply: ImageReply,
        form: ResponseFormat,
        *,
        public_url: str,
        sink: PictureSink,
        trusted_origins: Collection[str] = (),
        copies_links: bool = False,
    ) -> ImageReply:
        """Return the reply with every picture in `form`; all or none.

        Args:
            sink: holds what has to be fetched; closing it is the caller's.
            copies_links: whether a provider's links become links to copies in the store.

        Raises:
            StorageError: a picture could not be stored.
            FetchError: a link could not be read.
        """
        copied_from = trusted_origins if copies_links else None
        to_link = self._to_link(public_url, copied_from, sink, trusted_origins)
        convert = to_link if form == "url" else self._to_base64(sink, trusted_origins)
        try:
            images = await _all(convert, reply.images)
        except (StorageError, FetchError) as error:
            if links := [{"url": image.url} for image in reply.images if image.url is not None and not image.written]:
                error.details["data"] = links
            raise
        return msgspec.structs.replace(reply, images=tuple(images))

    async def deliver_event(
        self, event: StreamEvent, form: ResponseFormat, *, public_url: str, sink: PictureSink, origin: str
    ) -> StreamEvent:
        """Return the event with its pictures in `form`; what need not change stays as it came. Raises as `deliver`.

        Args:
            origin: of the provider: links to it are trusted, and links without a host are its own.
        """
        document = read_object(event.data)
        if document is None:
            if event.pictures:
                raise uncertain("The provider's stream carries something that is no valid JSON.")
            return event
        linked = [node for node in event_images(document) if _is_link(node.get("url"))]
        written = [node["url"] if origin and not is_full(node["url"]) else "" for node in linked]
        completed = [node for node in linked if origin and _complete_link(node, origin)]
        if form == "url":
            for node, text in zip(linked, written, strict=True):
                if text:
                    await self._look_for(ReplyImage(url=node["url"], written=text), (origin,))
            if not event.pictures and not completed and not is_sound(event.data):
                return _changed(event, document, {})
            links = {token: await self._link_of_made(picture, public_url) for token, picture in event.pictures.items()}
            return _changed(event, _with_links(document, links), {}) if links or completed else event
        moved = _move_base64(document, event.pictures)
        texts = [text for node, text in zip(linked, written, strict=True) if not node.get("b64_json")]
        linked = [node for node in linked if not node.get("b64_json")]
        images = [ReplyImage(url=node["url"], written=text) for node, text in zip(linked, texts, strict=True)]
        reply = ImageReply(images=tuple(images), created=0)
        made = await self.deliver(reply, form, public_url="", sink=sink, trusted_origins=(origin,) if origin else ())
        tokens = Tokens()
        for node, image in zip(linked, made.images, strict=True):
            if image.picture is None:
                raise AssertionError("a link becomes a picture")
            del node["url"]
            node["b64_json"] = tokens.token(image.picture)
        changed = bool(linked or completed or moved) or not is_sound(event.data)
        return _changed(event, document, {**event.pictures, **tokens.pictures}) if changed else event

    async def _link_of_made(self, picture: Picture, public_url: str) -> str:
        """Raise `StorageError`."""
        try:
            return await self._link(picture, public_url)
        except OSError as error:
            raise storage_error(error) from error

    async def list_made(self, error: UpstreamError, *, public_url: str, sink: PictureSink) -> None:
        """Add links to the pictures that were made before `error`; what cannot be stored is only counted."""
        error.details["images_made"] = len(error.made)
        reply = ImageReply(images=error.made, created=0)
        try:
            made = await self.deliver(reply, "url", public_url=public_url, sink=sink)
        except (StorageError, UpstreamError):
            return
        error.details["data"] = [{"url": image.url} for image in made.images]

    async def publish(self, upload: Upload, public_url: str) -> str:
        """Return a link to a reference file, so that a provider can load it.

        Raises:
            StorageError: the store did not take it.
        """
        if upload.facts is None:
            raise RequestError("The file is no image that can be read.", param=upload.part, code="invalid_image_file")
        try:
            room = await self._store.reserve(upload.size)
            try:
                return await self._link(await self._stored(upload, upload.facts), public_url)
            finally:
                room.release()
        except OSError as error:
            raise storage_error(error, "The reference image could not be stored; nothing was sent.") from error

    def _to_link(
        self,
        public_url: str,
        copied_from: Collection[str] | None,
        sink: PictureSink,
        trusted_origins: Collection[str],
    ) -> _Convert:
        async def to_link(image: ReplyImage) -> ReplyImage:
            if image.url is not None and copied_from is None:
                if image.written and trusted_origins:  # an application's own are its affair
                    await self._look_for(image, trusted_origins)
                return image
            try:
                if image.url is not None:
                    picture: Picture = await self._copied(image, copied_from or (), sink)
                elif image.b64_json is not None:
                    content = decode_base64(image.b64_json)
                    facts = known(inspect(content[:HEAD]))
                    sink.note(len(content))
                    picture = StoredPicture(key=await put(self._store, content, facts.kind), facts=facts)
                elif isinstance(image.picture, Upload):
                    sink.note(image.picture.size)
                    picture = await self._stored(image.picture, known(image.picture.facts))
                elif image.picture is not None:
                    picture = image.picture
                else:
                    raise AssertionError("an image is in one of three forms")
                url = await self._link(picture, public_url)
            except OSError as error:
                raise storage_error(error) from error
            return ReplyImage(url=url, fields=image.fields, facts=picture.facts)

        return to_link

    async def _stored(self, upload: FileRef, facts: Facts) -> StoredPicture:
        """Raise `OSError`."""
        return StoredPicture(key=await put_stream(self._store, upload.chunks(), facts.kind), facts=facts)

    async def _link(self, picture: Picture, public_url: str) -> str:
        """Raise `OSError`."""
        if not isinstance(picture, StoredPicture):
            picture = await self._stored(picture, known(picture.facts))
        return await self._store.link(picture.key, public_url)

    def _to_base64(self, sink: PictureSink, trusted_origins: Collection[str]) -> _Convert:
        async def to_base64(image: ReplyImage) -> ReplyImage:
            if image.b64_json is not None:
                facts = inspect(decode_base64(image.b64_json)[:HEAD])
                return msgspec.structs.replace(image, b64_json=padded(image.b64_json), facts=facts)
            if image.picture is not None:
                return msgspec.structs.replace(image, facts=image.picture.facts)
            if image.url is None:
                raise AssertionError("an image is in one of three forms")
            picture = await self._found(image, sink, trusted_origins)
            return ReplyImage(picture=picture, fields=image.fields, facts=picture.facts)

        return to_base64

    async def _copied(self, image: ReplyImage, trusted_origins: Collection[str], noted_by: PictureSink) -> Picture:
        """Into the store, piece by piece."""
        sink = PictureSink(partial(StoreReceiver, self._store))
        try:
            return await self._found(image, sink, trusted_origins)
        except BaseException:
            await sink.close()
            raise
        finally:
            noted_by.note(sink.largest)
            noted_by.links_read += sink.links_read
            noted_by.links_refused += sink.links_refused

    async def _look_for(self, image: ReplyImage, trusted_origins: Collection[str]) -> None:
        """Raise `FetchError` where there is no picture at a reference without a host, which may be any text."""
        head = b""
        try:
            async with self._fetcher.open(image.url or "", trusted_origins=trusted_origins) as stream:
                async for piece in stream:
                    head += piece
                    if len(head) >= _ENOUGH:
                        break
        except (FetchRefused, FetchFailed) as error:
            raise _no_link(image) from error
        if sniff(head) is None:
            raise _no_link(image)

    async def _found(self, image: ReplyImage, sink: PictureSink, trusted_origins: Collection[str]) -> Picture:
        """Return the picture behind a link. Raises `FetchError` and `UpstreamUncertain`."""
        try:
            return await self._fetched(image.url or "", sink, trusted_origins)
        except (FetchError, UpstreamError) as error:
            if not image.written:
                raise
            raise _no_link(image) from error

    async def _fetched(self, url: str, sink: PictureSink, trusted_origins: Collection[str]) -> Picture:
        """Into the spool, so that what cannot be had is known before the answer begins."""
        receiver = sink.receiver()
        try:
            async with self._fetcher.open(url, trusted_origins=trusted_origins) as stream:
                sink.links_read += 1
                async for piece in stream:
                    await receiver.write(piece)
        except FetchRefused as error:
            sink.links_refused += 1
            raise FetchError(f"The provider's link may not be fetched: {error}.") from error
        except FetchFailed as error:
            raise FetchError(f"The provider's link could not be read: {error}.") from error
        picture = await receiver.finish()
        known(picture.facts)
        return picture


async def _all(convert: _Convert, images: Collection[ReplyImage]) -> list[ReplyImage]:
    """Wait for all results, a few at a time, and return them; or raise the first failure, once all have ended."""
    if len(images) == 1:
        return [await convert(image) for image in images]
    places = asyncio.Semaphore(_AT_ONCE)

    async def in_turn(image: ReplyImage) -> ReplyImage:
        async with places:
            return await convert(image)

    results = await asyncio.gather(*map(in_turn, images), return_exceptions=True)
    if failure := next((result for result in results if isinstance(result, BaseException)), None):
        raise failure
    return [result for result in results if isinstance(result, ReplyImage)]


def _no_link(image: ReplyImage) -> FetchError:
    return FetchError(
        "The provider's reply has neither a link nor an image where one belongs, "
        f"and there is no image at that place of its server: '{image.written[:_SHOWN]}'."
    )


def known(facts: Facts | None) -> Facts:
    """Return the facts of a provider's picture. Raises `UpstreamUncertain` where it is none that we know."""
    if facts is None:
        raise uncertain("The provider's reply carries something that is no image.")
    return facts


def _changed(event: StreamEvent, document: Any, pictures: Mapping[str, Picture]) -> StreamEvent:
    return msgspec.structs.replace(event, data=msgspec.json.encode(document), pictures=pictures)


def _is_link(url: Any) -> bool:
    return isinstance(url, str) and url != "" and not url.startswith("data:")


def _complete_link(node: dict[str, Any], origin: str) -> bool:
    """Write the link in full. Return whether it was not."""
    link = node["url"]
    node["url"] = absolute_link(link, origin)
    return bool(node["url"] != link)


def _move_base64(document: dict[str, Any], pictures: Mapping[str, Picture]) -> bool:
    """Pictures that came as data URLs move to ``b64_json``. Whether there were any."""
    moved = False
    for node in event_images(document):
        url = node.get("url")
        token = url.rpartition(",")[2] if isinstance(url, str) else ""
        if token in pictures:
            del node["url"]
            node["b64_json"] = token
            moved = True
    return moved


def _with_links(node: Any, links: Mapping[str, str]) -> Any:
    """Return the document with links in the places of pictures, in members called ``url``."""
    if isinstance(node, list):
        return [_with_links(item, links) for item in node]
    if not isinstance(node, dict):
        return node
    found: dict[str, Any] = {}
    own: dict[str, str] = {}
    for name, value in node.items():
        token = value.rpartition(",")[2] if isinstance(value, str) else ""
        if token in links:
            own["url"] = links[token]
        else:
            found[name] = _with_links(value, links)
    return found | own  # ours is the one link that is known to hold the picture
