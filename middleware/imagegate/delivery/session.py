"""One answer on its way to one client: what the application below says, in the form that the client wants."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import cached_property, partial

import msgspec
from starlette.types import Scope, Send

from imagegate.asgi.helpers import ClientDisconnected
from imagegate.contracts.contract import Operation
from imagegate.delivery.converter import ImageConverter
from imagegate.delivery.disclosure import check_count, fewer, format_changes, size_changes
from imagegate.delivery.inner_response import InnerResponse
from imagegate.delivery.response_format import ResponseFormat
from imagegate.delivery.response_writer import ResponseWriter
from imagegate.delivery.result_room import ResultRoom
from imagegate.errors import ContentWithheld, FetchError, ImagegateError, StorageError, UpstreamError, forget_frames
from imagegate.moderation.inspector import Inspector, images_of_event
from imagegate.protocol.image_format import Facts
from imagegate.protocol.messages import Exchange, ImageReply, Picture, ReplyImage, StreamEvent
from imagegate.protocol.provider_errors import some_failed
from imagegate.protocol.reply_encoding import as_partial, completed_events, event_parts, reply_parts
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
from imagegate.streaming.image_sinks import PictureSink
from imagegate.telemetry.progress import PROGRESS_KEY, Progress

Forward = Callable[[dict[str, object], Sequence[ResultRoom], Send], Awaitable[None]]
"""Runs the application below with an extension of its scope, once rooms for what it makes are secured."""


class DeliverySession:
    """Runs the application below and sends what it answers.

    Args:
        form: in which the client wants pictures.
        public_url: gives that of the store.
        inspector: sees the images first, which are spooled until it has decided; None: images are not inspected.
    """

    def __init__(
        self,
        converter: ImageConverter,
        answer: ResponseWriter,
        exchange: Exchange,
        *,
        form: ResponseFormat,
        scope: Scope,
        public_url: Callable[[], str],
        inspector: Inspector | None = None,
    ) -> None:
        self._converter = converter
        self._answer = answer
        self._exchange = exchange
        self._form: ResponseFormat = form
        self._find_public_url = public_url
        self._progress: Progress = scope[PROGRESS_KEY]
        self._streamed = exchange.request.fields.get("stream") is True
        self._inspector = inspector
        self._rooms = [converter.room(exchange, form)]
        received: ResponseFormat = form
        if inspector is not None and form == "url":
            received = "b64_json"
            self._rooms.append(converter.room(exchange, received))
        # A method of this object would make a cycle of the two, and megabytes wait for the garbage collector.
        self._sink = PictureSink(partial(converter.receiver, received, exchange.store_identity, self._rooms[-1]))
        self._kept: list[Picture] = []
        self._facts: list[Facts | None] = []
        """Of the finished pictures of a stream."""
        self._failures: list[UpstreamError] = []
        """Of single images of a stream."""
        self._end_mark: StreamEvent | None = None
        self._withheld: ContentWithheld | None = None
        """Why no more of a stream is delivered; it is read to its end, where the provider says what it has cost."""

    async def run(self, forward: Forward) -> None:
        """Raise what the answer cannot say any more, or does not say yet."""
        self._progress.streamed = self._streamed
        relay = self._form == "b64_json" and not self._streamed and self._inspector is None
        relay = relay and not self._exchange.revised_prompt
        below = InnerResponse(
            self._answer,
            self._sink,
            relay=relay,
            on_event=self._event if self._streamed else None,
            on_pictures=self._note,
            asked=self._exchange.request.n,
            held=self._exchange.request.held,
        )
        try:
            await self._answer.keep_alive(self._run(forward, below, relay=relay))
        finally:
            self._progress.link_fetches += self._sink.links_read
            self._progress.fetch_refusals += self._sink.links_refused
            # After a whole answer nothing here waits: a client that hangs up then has not left early.
            try:
                await below.close()
            finally:
                if not self._sink.is_empty:
                    await self._sink.close(self._kept)
                for room in self._rooms:
                    room.release()

    @cached_property
    def _delivery(self) -> ImageConverter:
        """For this client; made for the first picture that does not pass through."""
        return self._converter.for_client(self._exchange.store_identity)

    @cached_property
    def _public_url(self) -> str:
        """Of the store; "" where no picture becomes a link."""
        return self._find_public_url() if self._form == "url" else ""

    async def _run(self, forward: Forward, below: InnerResponse, *, relay: bool) -> None:
        try:
            n = self._exchange.request.n
            extension: dict[str, object] = {"sink": self._sink, "relay": relay, "events": self._streamed, "images": n}
            await forward(extension, self._rooms, below)
            await self._finish(below)
            self._note_size(self._sink.largest)
        except ImagegateError as error:
            if largest := self._sink.largest:
                self._note_size(largest)
            if isinstance(error, UpstreamError) and error.made:
                await self._list_made(error)
            if isinstance(error, (StorageError, FetchError)) and self._progress.attempts:
                # The pictures are paid for: the official SDKs must not ask again by themselves.
                error.headers.append((b"x-should-retry", b"false"))
            has_broken_off = self._answer.is_relayed and below.relayed is not None
            if not self._answer.has_begun or (self._answer.is_relayed and not has_broken_off):
                raise
            self._progress.failed(error)
            if self._progress.upstream:
                error.details.setdefault("upstream", self._progress.upstream)
            await (self._answer.break_off(error) if has_broken_off else self._answer.fail(error))
            forget_frames(error)
        except ClientDisconnected:
            raise
        except Exception:
            # The wrapped application failed. Its server would close the connection, and the official SDKs would retry.
            if self._answer.can_go_on:
                if below.relayed is not None and self._answer.is_relayed:
                    await self._answer.break_off(_failed())
                elif self._answer.has_begun and not self._answer.is_relayed:
                    await self._answer.fail(_failed())
            raise

    def _note_size(self, largest: int) -> None:
        for room in self._rooms:
            room.note(largest)

    async def _inspect(self, images: Sequence[ReplyImage], origin: str = "", *, is_partial: bool = False) -> None:
        """Raise `ContentWithheld` for images that must not be delivered."""
        if self._inspector is not None:
            request = self._exchange.request
            prompt = str(request.fields.get("prompt", ""))
            await self._inspector.check(images, self._progress, prompt=prompt, origin=origin, is_partial=is_partial)

    async def _list_made(self, error: UpstreamError) -> None:
        """Tell what was made before an error, and where it is, unless it must not be delivered."""
        try:
            await self._inspect(error.made)
        except ContentWithheld as withheld:
            error.details |= {"images_made": len(error.made), **withheld.details}
            error.made = ()
            return
        self._kept += [image.picture for image in error.made if image.picture is not None]
        await self._delivery.list_made(error, public_url=self._find_public_url(), sink=self._sink)

    async def _finish(self, below: InnerResponse) -> None:
        progress = self._progress
        if self._withheld is not None:
            raise self._withheld
        if below.relayed is not None:
            progress.form, progress.images_delivered = "b64_json", len(below.relayed.facts)
            progress.replied(len(below.relayed.facts), below.relayed.fields.get("usage"))
            self._note(below.relayed.facts)
        elif (typed := below.typed or await below.reply()) is not None:
            await self._reply(*typed)
        elif below.had_events:
            if self._failures:
                raise some_failed(self._failures, progress.images_delivered)
            if progress.images_delivered < self._exchange.request.n:
                raise fewer(self._exchange.request.n, progress.images_delivered)
            if self._end_mark is not None:
                await self._answer.event(event_parts(self._end_mark))
            await self._answer.end()
        elif self._answer.has_begun and not self._answer.is_relayed:
            raise below.error()
        else:
            await below.send_unchanged()

    async def _reply(self, reply: ImageReply, origin: str) -> None:
        progress = self._progress
        self._kept += [image.picture for image in reply.images if image.picture is not None]
        if len(reply.images) != self._exchange.request.n:
            progress.reply_changes = check_count(self._exchange.request.n, reply)
        if self._inspector is not None:
            await self._inspect(reply.images, origin)
        if revised := self._exchange.revised_prompt:
            images = [
                msgspec.structs.replace(image, fields={"revised_prompt": revised, **image.fields})
                for image in reply.images
            ]
            reply = msgspec.structs.replace(reply, images=tuple(images))
        are_links = all([image.url is not None and not image.written for image in reply.images])  # noqa: C419 - quicker
        if self._exchange.copies_links or self._form != "url" or not are_links:
            reply = await self._converted(reply, origin)
        if facts := [image.facts for image in reply.images if image.facts is not None]:
            self._note(facts)
        progress.form, progress.images_delivered = self._form, len(reply.images)
        if self._form == "url":  # a link that is passed on as it came is to a picture that we have not seen
            progress.stored_images += sum(image.facts is not None for image in reply.images)
        if not self._streamed:
            await self._answer.document(reply_parts(reply))
            return
        for event in completed_events(reply, self._exchange.operation):
            await self._answer.event(event_parts(event))
        await self._answer.end()

    async def _converted(self, reply: ImageReply, origin: str) -> ImageReply:
        started = time.perf_counter()
        try:
            return await self._delivery.deliver(
                reply,
                self._form,
                public_url=self._public_url,
                sink=self._sink,
                trusted_origins=(origin,) if origin else (),
                copies_links=self._exchange.copies_links,
            )
        finally:
            self._progress.delivery_seconds = time.perf_counter() - started

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
                    await self._sink.release(event.pictures.values())
                    return False
                self._withheld = error
        if self._withheld is None:
            return True
        self._progress.replied(images, usage_of(event))
        await self._sink.release(event.pictures.values())
        return False

    async def _deliver_event(self, event: StreamEvent, origin: str) -> None:
        if not await self._may_deliver(event, origin):
            return
        delivered = await self._delivery.deliver_event(
            event, self._form, public_url=self._public_url, sink=self._sink, origin=origin
        )
        self._kept += event.pictures.values()
        progress = self._progress
        if self._form == "url":
            progress.stored_images += len(event.pictures)
        images = finished_images(event)
        if images:
            progress.form = self._form
            self._facts += [picture.facts for picture in (event.pictures or delivered.pictures).values()]
            self._note(self._facts)
        progress.replied(images, usage_of(event))
        await self._answer.event(event_parts(delivered))
        progress.images_delivered += images
        await self._sink.release((*event.pictures.values(), *delivered.pictures.values()))

    def _note(self, facts: Sequence[Facts | None]) -> None:
        """Write down the sizes that the images have, and where size or format is not what was asked for."""
        progress = self._progress
        sizes = [f"{known.width}x{known.height}" for known in facts if known is not None and known.width]
        progress.sizes_made = tuple(sizes)
        progress.provenance = "c2pa" if facts and all(known is not None and known.c2pa for known in facts) else ""
        others = tuple(change for change in progress.reply_changes if change.kind != "made")
        disclosed = (*progress.route_changes, *progress.fit_changes, *progress.reference_changes)
        disclosed += progress.conversion_changes
        asked = self._exchange.request.fields
        formats = [known.kind for known in facts if known is not None]
        progress.reply_changes = (
            *others,
            *size_changes(asked.get("size"), sizes, disclosed),
            *format_changes(asked.get("output_format"), formats, disclosed),
        )


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


def _failed() -> ImagegateError:
    return ImagegateError("The application failed.", code="internal_error")
