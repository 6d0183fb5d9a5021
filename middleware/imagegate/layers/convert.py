"""Convert: images in exactly the size and format that the client asked for, where the operator wants that."""

from __future__ import annotations

import asyncio
from functools import partial
from importlib.util import find_spec
from typing import Any, Final

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from imagegate.asgi.captured_response import CapturedResponse
from imagegate.contracts.changes import Change
from imagegate.delivery.conversion import ExactSize, Wanted, restated, wanted_of
from imagegate.delivery.converter import ImageConverter
from imagegate.delivery.exact_images import ExactImages, as_text
from imagegate.delivery.result_room import ResultRoom
from imagegate.errors import ConfigError
from imagegate.layers.base import ExchangeLayer, Work, send_reply
from imagegate.protocol.messages import REPLY, Exchange
from imagegate.protocol.provider_errors import uncertain
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
        fields = exchange.request.fields
        is_streamed = fields.get("stream") is True
        if is_streamed:
            exchange = exchange.replace(request=exchange.request.without(*_STREAMING))
        room = self._delivery.room(exchange, "b64_json")
        sink = PictureSink(partial(SpoolReceiver, room.files))
        exact = ExactImages(wanted, sink, self._turns)
        if is_streamed and fields.get("partial_images"):
            exact.changes.append(Change("partial_images", "dropped"))
        above = (scope.get("extensions") or {}).get(REPLY, {}).get("sink")
        try:
            captured = CapturedResponse()
            await self.forward(_below(scope, sink, room), exchange, receive, captured)
            reply, origin = captured.reply() or (None, "")
            if reply is None:
                raise uncertain("The application's reply contains no image.")
            trusted = (origin,) if origin else ()
            reply = await self._delivery.deliver(reply, "b64_json", public_url="", sink=sink, trusted_origins=trusted)
            facts = [image.facts for image in reply.images]
            progress.provider_sizes = tuple(f"{each.width}x{each.height}" for each in facts if each and each.width)
            images = [await exact.convert(image) for image in reply.images]
            progress.conversion_changes = tuple(dict.fromkeys(exact.changes))
            room.note(sink.largest)
            if above is None:
                images = [await as_text(image) for image in images]
            if exact.has_converted:
                alike = len({image.facts and image.facts[:3] for image in images}) == 1
                shared = images[0].facts if alike else None
                reply = msgspec.structs.replace(reply, fields=restated(reply.fields, shared))
            await send_reply(scope, send, msgspec.structs.replace(reply, images=tuple(images)))
        finally:
            if above is None:
                await _discard(sink, room)
            else:  # which delivers them, also those that were made before an error
                above().on_close(partial(_discard, sink, room))


async def _discard(sink: PictureSink, room: ResultRoom) -> None:
    """Give back what a conversion holds until its images have been delivered."""
    await sink.close()
    room.release()


def _below(scope: Scope, sink: PictureSink, room: ResultRoom) -> Scope:
    """Return the scope in which the layers below hand over all images, and secure room for them before they pay."""
    extensions = {**(scope.get("extensions") or {}), REPLY: {"sink": lambda: sink, "relay": False, "events": False}}
    below: dict[str, Any] = {**scope, "extensions": extensions, SENDING: (room.secure, *scope.get(SENDING, ()))}
    if (listener := scope.get(TASK)) is not None:
        below[TASK] = partial(listener, keep=True)
    return below
