"""Convert: images in exactly the size and format that the client asked for, where the operator wants that."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from functools import partial
from importlib.util import find_spec
from typing import Any, Final

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from imagegate.asgi.captured_response import CapturedResponse
from imagegate.contracts.changes import Change
from imagegate.delivery.conversion import ExactSize, NotConverted, Wanted, converted, wanted_of
from imagegate.delivery.converter import ImageConverter
from imagegate.delivery.result_room import ResultRoom
from imagegate.errors import ConfigError, StorageError
from imagegate.layers.base import ExchangeLayer, Work, send_reply
from imagegate.logger import get_logger
from imagegate.protocol.inline_images import decode_base64
from imagegate.protocol.messages import REPLY, Exchange, ReplyImage
from imagegate.protocol.provider_errors import uncertain
from imagegate.spool.upload import Upload
from imagegate.streaming.image_sinks import PictureSink, SpoolReceiver
from imagegate.telemetry.progress import PROGRESS_KEY, Progress
from imagegate.upstream.dispatch_hooks import SENDING, TASK

_AT_ONCE: Final = 2
"""Images that are converted at a time: each takes a core, and up to 300 MB where it is of `MOST_PIXELS`."""
_STREAMING: Final = ("stream", "partial_images")


class Convert(ExchangeLayer):
    """Scales images to the size asked for, and encodes them in the format asked for, before they are delivered.

    Images that are as asked pass untouched. What is converted is disclosed, as in
    ``size;from="1254x1254";converted="1024x1024"``, and so is a lost C2PA manifest (``provenance;dropped``). An image
    that cannot be converted is delivered as it is: it is paid for. A stream has no partial images, which would be of
    another size.

    Args:
        delivery: fetches images, and has room for them.
        size: ``resize`` scales in each direction, ``crop`` keeps proportions and cuts off what is too long.
        formats: whether ``output_format`` is made true.

    Raises:
        ConfigError: Pillow is not installed.
    """

    def __init__(
        self, app: ASGIApp, *, delivery: ImageConverter, size: ExactSize, formats: bool, prefix: str = "/v1"
    ) -> None:
        super().__init__(app, prefix=prefix)
        if find_spec("PIL") is None:
            raise ConfigError("policy.exact_size and exact_format need Pillow: pip install 'imagegate[convert]'")
        self._delivery = delivery
        self._size: ExactSize = size
        self._formats = formats
        self._turns = asyncio.Semaphore(_AT_ONCE)

    def handle_exchange(self, scope: Scope, exchange: Exchange, receive: Receive, send: Send) -> Work:
        wanted = wanted_of(exchange.request.fields, self._size, formats=self._formats)
        if wanted is None or exchange.explain:
            return self.forward(scope, exchange, receive, send)
        return self._convert(scope, exchange, receive, send, wanted)

    async def _convert(self, scope: Scope, exchange: Exchange, receive: Receive, send: Send, wanted: Wanted) -> None:
        progress: Progress = scope[PROGRESS_KEY]
        disclosed: list[Change] = []
        fields = exchange.request.fields
        if fields.get("stream") is True:
            disclosed += [Change("partial_images", "dropped")] if fields.get("partial_images") else []
            exchange = exchange.replace(request=exchange.request.without(*_STREAMING))
        room = self._delivery.room(exchange, "b64_json")
        sink = PictureSink(partial(SpoolReceiver, room.files))
        above = (scope.get("extensions") or {}).get(REPLY, {}).get("sink")
        try:
            captured = CapturedResponse()
            await self.forward(_below(scope, sink, room), exchange, receive, captured)
            reply, origin = captured.reply() or (None, "")
            if reply is None:
                raise uncertain("The application's reply contains no image.")
            trusted = (origin,) if origin else ()
            reply = await self._delivery.deliver(reply, "b64_json", public_url="", sink=sink, trusted_origins=trusted)
            images = [await self._exact(image, wanted, sink, disclosed) for image in reply.images]
            progress.conversion_changes = tuple(dict.fromkeys(disclosed))
            room.note(sink.largest)
            if above is None:
                images = [await _as_text(image) for image in images]
            await send_reply(scope, send, msgspec.structs.replace(reply, images=tuple(images)))
        finally:
            if above is None:
                await _discard(sink, room)
            else:  # which delivers them, also those that were made before an error
                above.on_close(partial(_discard, sink, room))

    async def _exact(self, image: ReplyImage, wanted: Wanted, sink: PictureSink, disclosed: list[Change]) -> ReplyImage:
        """Return an image as it was asked for, where that can be."""
        facts = image.facts
        if facts is None or wanted.is_met_by(facts) or not wanted.is_possible(facts):
            return image
        async with self._turns:
            content = await _bytes_of(image)
            try:
                made = await asyncio.to_thread(converted, content, wanted)
            except NotConverted as error:
                reason = type(error.__cause__).__name__ if error.__cause__ else "several frames"
                get_logger().warning("an image was not converted", format=facts.kind.extension, reason=reason)
                return image
        receiver = sink.receiver()
        try:
            await receiver.write(made)
            picture = await receiver.finish()
        except StorageError:  # there is room for what was made, and perhaps not for more
            await receiver.abort()
            return image
        disclosed += wanted.changes(facts)
        return ReplyImage(picture=picture, fields=image.fields, facts=picture.facts)


async def _discard(sink: PictureSink, room: ResultRoom) -> None:
    """Give back what a conversion holds until its images have been delivered."""
    await sink.close()
    room.release()


def _below(scope: Scope, sink: PictureSink, room: ResultRoom) -> Scope:
    """Return the scope in which the layers below hand over all images, and secure room for them before they pay."""
    extensions = {**(scope.get("extensions") or {}), REPLY: {"sink": sink, "relay": False, "events": False}}
    below: dict[str, Any] = {**scope, "extensions": extensions, SENDING: (room.secure, *scope.get(SENDING, ()))}
    if (listener := scope.get(TASK)) is not None:
        below[TASK] = partial(listener, keep=True)
    return below


async def _bytes_of(image: ReplyImage) -> bytes:
    if image.b64_json is not None:
        return decode_base64(image.b64_json)
    if not isinstance(image.picture, Upload):
        raise AssertionError("an image is text, or in the spool")
    return b"".join([piece async for piece in image.picture.chunks()])


async def _as_text(image: ReplyImage) -> ReplyImage:
    if image.picture is None:
        return image
    text = b64encode(await _bytes_of(image)).decode()
    return ReplyImage(b64_json=text, fields=image.fields, facts=image.facts)
