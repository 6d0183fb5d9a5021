"""One stream of events on its way to one client."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, ClassVar

import msgspec

from imagegate.contracts.contract import Operation
from imagegate.delivery.disclosure import fewer
from imagegate.delivery.inner_response import InnerResponse, OnEvent
from imagegate.delivery.session import DeliverySession
from imagegate.errors import ContentWithheld, UpstreamError
from imagegate.moderation.inspector import images_of_event
from imagegate.protocol.image_format import Facts
from imagegate.protocol.messages import ImageReply, StreamEvent
from imagegate.protocol.provider_errors import some_failed
from imagegate.protocol.reply_encoding import as_partial, completed_events, event_parts
from imagegate.protocol.reply_pictures import images_with_pictures
from imagegate.protocol.reply_streams import (
    created_at,
    fields_of,
    finished_images,
    image_failure,
    is_own,
    pictures_of,
    usage_of,
)


class StreamSession(DeliverySession):
    """Answers the client with a stream of events, whether the application below streams or not."""

    is_stream: ClassVar = True

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._facts: list[Facts | None] = []
        """Of the finished pictures."""
        self._failures: list[UpstreamError] = []
        """Of single images."""
        self._end_mark: StreamEvent | None = None
        self._withheld: ContentWithheld | None = None
        """Why no more is delivered; the stream is read to its end, where the provider says what it has cost."""

    @property
    def _on_event(self) -> OnEvent:
        return self._event

    async def _finish(self) -> None:
        if self._withheld is not None:
            raise self._withheld
        await super()._finish()

    async def _finish_without_reply(self, inner: InnerResponse) -> None:
        if not inner.had_events:
            await super()._finish_without_reply(inner)
            return
        asked, delivered = self._exchange.request.n, self._progress.images_delivered
        if self._failures:
            raise some_failed(self._failures, delivered)
        if delivered < asked:
            raise fewer(asked, delivered)
        if self._end_mark is not None:
            await self._answer().event(event_parts(self._end_mark))
        await self._answer().end()

    async def _send_reply(self, reply: ImageReply) -> None:
        for event in completed_events(reply, self._exchange.operation):
            await self._answer().event(event_parts(event))
        await self._answer().end()

    async def _event(self, event: StreamEvent, origin: str) -> None:
        if event.is_end_mark:  # SDKs read no further, so it waits until the whole is known to be good
            self._end_mark = event
            return
        if origin and not is_own(event):  # in a dialect that OpenAI's clients do not know
            if failure := image_failure(event):
                self._failures.append(failure)
            translated = list(_translated(event, self._exchange.operation))
            if not translated:  # what is said of the whole, after its last picture
                self._progress.replied(0, usage_of(event))
            for each in translated:
                await self._deliver_event(each, origin)
            return
        await self._deliver_event(event, origin)

    async def _may_deliver(self, event: StreamEvent, origin: str) -> bool:
        """Return whether an event goes to the client; with an image that is withheld, none after it does."""
        if self._inspector is None:
            return True
        images, shown = finished_images(event), images_of_event(event, origin)
        if shown and (images or self._withheld is None):
            try:
                await self._inspect(shown, origin, is_partial=not images)
            except ContentWithheld as error:
                if not images:  # a preview, after which comes the image
                    await self.sink().release(event.pictures.values())
                    return False
                self._withheld = error
        if self._withheld is None:
            return True
        self._progress.replied(images, usage_of(event))
        await self.sink().release(event.pictures.values())
        return False

    async def _deliver_event(self, event: StreamEvent, origin: str) -> None:
        if not await self._may_deliver(event, origin):
            return
        delivered = await self._delivery.deliver_event(
            event, self._form, public_url=self._public_url, sink=self.sink(), origin=origin
        )
        self._kept += tuple(event.pictures.values())
        progress = self._progress
        if self._form == "url":
            progress.stored_images += len(event.pictures)
        images = finished_images(event)
        if images:
            progress.form = self._form
            self._facts += [picture.facts for picture in (event.pictures or delivered.pictures).values()]
            self._note(self._facts)
        progress.replied(images, usage_of(event))
        await self._answer().event(event_parts(delivered))
        progress.images_delivered += images
        await self.sink().release((*event.pictures.values(), *delivered.pictures.values()))


def _translated(event: StreamEvent, operation: Operation) -> Iterator[StreamEvent]:
    """Yield an event of another dialect as OpenAI's; what is about the connection, and nothing else, is left out."""
    now = int(time.time())
    if partial := as_partial(event, operation, now=now):
        yield partial
        return
    images = [
        image if image.picture is None else msgspec.structs.replace(image, facts=image.picture.facts)
        for image in images_with_pictures(pictures_of(event), event.pictures)
    ]
    if images:
        reply = ImageReply(images=tuple(images), created=created_at(event, now=now), fields=fields_of(event))
        yield from completed_events(reply, operation)
