"""The images of one reply, converted into the size and format that were asked for."""

from __future__ import annotations

import asyncio
from base64 import b64encode

from imagegate.contracts.changes import Change
from imagegate.delivery.conversion import NotConverted, Wanted, converted, restated
from imagegate.errors import StorageError
from imagegate.logger import get_logger
from imagegate.protocol.inline_images import decode_base64
from imagegate.protocol.messages import ReplyImage
from imagegate.spool.upload import Upload
from imagegate.streaming.image_sinks import PictureSink


class ExactImages:
    """Converts images, and notes what is to be disclosed of that.

    Args:
        wanted: what the request asks of its images.
        sink: takes what is made.
        turns: limits how many images are converted at a time.
    """

    def __init__(self, wanted: Wanted, sink: PictureSink, turns: asyncio.Semaphore) -> None:
        self._wanted = wanted
        self._sink = sink
        self._turns = turns
        self.changes: list[Change] = []
        self.has_converted = False
        """Whether any image is another than the provider made."""

    async def convert(self, image: ReplyImage) -> ReplyImage:
        """Return an image as it was asked for; one that cannot be converted stays as it is."""
        wanted, facts = self._wanted, image.facts
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
        receiver = self._sink.receiver()
        try:
            await receiver.write(made)
            picture = await receiver.finish()
        except StorageError:  # there is room for what was made, and perhaps not for more
            await receiver.abort()
            return image
        self.changes += wanted.changes(facts)
        self.has_converted = True
        return ReplyImage(picture=picture, fields=restated(image.fields, picture.facts), facts=picture.facts)


async def as_text(image: ReplyImage) -> ReplyImage:
    """Return an image as base64."""
    if image.picture is None:
        return image
    text = b64encode(await _bytes_of(image)).decode()
    return ReplyImage(b64_json=text, fields=image.fields, facts=image.facts)


async def _bytes_of(image: ReplyImage) -> bytes:
    if image.b64_json is not None:
        return decode_base64(image.b64_json)
    if not isinstance(image.picture, Upload):
        raise AssertionError("an image is text, or in the spool")
    return b"".join([piece async for piece in image.picture.chunks()])
