"""One answer on its way to one client: what the application below says, in the form that the client wants."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import cached_property, partial
from typing import ClassVar

import msgspec
from starlette.types import Message, Send

from imagegate.asgi.helpers import ClientDisconnected, send_json
from imagegate.delivery.converter import ImageConverter
from imagegate.delivery.disclosure import check_count, format_changes, size_changes, stated_size
from imagegate.delivery.inner_response import InnerResponse, OnEvent
from imagegate.delivery.response_format import ResponseFormat
from imagegate.delivery.response_writer import ResponseWriter
from imagegate.delivery.result_room import Kind, ResultRoom, bytes_of_shape
from imagegate.errors import ContentWithheld, FetchError, ImagegateError, StorageError, UpstreamError, forget_frames
from imagegate.moderation.inspector import Inspector
from imagegate.protocol.image_format import Facts, ImageFormat
from imagegate.protocol.messages import REPLY, Exchange, ImageReply, Picture, ReplyImage
from imagegate.protocol.reply_encoding import reply_parts
from imagegate.streaming.image_sinks import PictureSink
from imagegate.telemetry.progress import Progress
from imagegate.upstream.dispatch_hooks import Sending


class DeliverySession:
    """Runs the application below, as its `send`, and answers the client with a JSON document.

    What a reply of links can do without is made when it is needed: the sink for pictures, the reader of a response in
    bytes, the writer of anything but one document.

    Args:
        send: of the layer above.
        form: in which the client wants pictures.
        progress: of the exchange.
        public_url: gives that of the store.
        heartbeat: seconds between two signs of life; None: there are none.
        inspector: sees the images first, which are spooled until it has decided; None: images are not inspected.
    """

    is_stream: ClassVar = False
    """Whether the answer is a stream of events."""

    def __init__(
        self,
        converter: ImageConverter,
        send: Send,
        exchange: Exchange,
        *,
        form: ResponseFormat,
        progress: Progress,
        public_url: Callable[[], str],
        heartbeat: float | None,
        inspector: Inspector | None = None,
    ) -> None:
        self._converter = converter
        self._send = send
        self._exchange = exchange
        self._form: ResponseFormat = form
        self._progress = progress
        self._find_public_url = public_url
        self._heartbeat = heartbeat
        self._inspector = inspector
        is_json = form == "b64_json" and not self.is_stream
        self._may_relay = is_json and inspector is None and not exchange.revised_prompt
        """Whether a large reply may go to the client as the bytes that the provider sent."""
        self._received_as: ResponseFormat = form if inspector is None else "b64_json"
        self._forms = (form,) if form == self._received_as else (form, self._received_as)
        self._rooms: dict[ResponseFormat, ResultRoom] = {}
        """For what the application below makes, where it needs any."""
        self._sending: Sending | None = None
        """What was sent last."""
        self._typed: tuple[ImageReply, str] | None = None
        """A reply of a layer, and where its links are trusted to lead."""
        self._kept: tuple[Picture, ...] = ()
        self._sink: PictureSink | None = None
        self._inner: InnerResponse | None = None
        self._writer: ResponseWriter | None = None

    @property
    def extension(self) -> dict[str, object]:
        """What the application below is told of the replies that are taken, as `REPLY` has it."""
        n = self._exchange.request.n
        return {"sink": self.sink, "relay": self._may_relay, "events": self.is_stream, "images": n}

    async def __call__(self, message: Message) -> None:
        """Take a message of the application below."""
        if message["type"] == REPLY:
            self._typed = message["reply"], message.get("origin", "")
        else:
            await self._below()(message)

    def sink(self) -> PictureSink:
        """Return what takes the pictures of a reply while it comes in."""
        if self._sink is None:
            # A method of this object would make a cycle of the two, and megabytes wait for the garbage collector.
            identity, room = self._exchange.store_identity, self._room(self._received_as)
            self._sink = PictureSink(partial(self._converter.receiver, self._received_as, identity, room))
        return self._sink

    async def secure(self, sending: Sending) -> None:
        """Secure room for what the application below will make, before it is paid for; raise as `ResultRoom.secure`.

        Nothing is made for it where such pictures go past store and spool.
        """
        self._sending = sending
        exchange, roomless = self._exchange, self._converter.usual.roomless
        shape = exchange.request.shape if roomless else None
        expected = 0 if shape is None else bytes_of_shape(shape)
        for form in self._forms:
            # As `ResultRoom.expect` has it; `expected` is never 0.
            kind = Kind(sending.upstream, sending.model, expected, form, self.is_stream, exchange.copies_links)
            if form in self._rooms or kind not in roomless:
                await self._room(form).secure(sending)

    def _room(self, form: ResponseFormat) -> ResultRoom:
        room = self._rooms.get(form)
        if room is None:
            room = self._rooms[form] = self._converter.room(self._exchange, form)
            if self._sending is not None:
                room.expect(self._sending)
        return room

    def _below(self) -> InnerResponse:
        """Return what takes a response that is no typed reply."""
        if self._inner is None:
            self._inner = InnerResponse(
                self._answer(),
                self.sink(),
                relay=self._may_relay,
                on_event=self._on_event,
                on_pictures=self._note,
                asked=self._exchange.request.n,
                held=self._exchange.request.held,
            )
        return self._inner

    @property
    def _on_event(self) -> OnEvent | None:
        """Takes the events of the application below; None: they were not asked for."""
        return None

    def _answer(self) -> ResponseWriter:
        if self._writer is None:
            self._writer = ResponseWriter(self._send, streamed=self.is_stream, heartbeat=self._heartbeat)
        return self._writer

    async def run(self, forward: Callable[[], Awaitable[None]]) -> None:
        """Raise what the answer cannot say any more, or does not say yet.

        Args:
            forward: runs the application below with this object as its `send`.
        """
        self._progress.streamed = self.is_stream
        try:
            work = self._run(forward)
            await (work if self._heartbeat is None else self._answer().keep_alive(work))
        finally:
            # After a whole answer nothing here waits: a client that hangs up then has not left early.
            try:
                inner, self._inner = self._inner, None  # which refers to this object
                if inner is not None:
                    await inner.close()
            finally:
                if self._sink is not None:
                    await self._close(self._sink)
                for room in self._rooms.values():
                    room.release()

    async def _close(self, sink: PictureSink) -> None:
        self._progress.link_fetches += sink.links_read
        self._progress.fetch_refusals += sink.links_refused
        if not sink.is_empty:
            await sink.close(self._kept)

    @cached_property
    def _delivery(self) -> ImageConverter:
        """For this client; made for the first picture that does not pass through."""
        return self._converter.for_client(self._exchange.store_identity)

    @cached_property
    def _public_url(self) -> str:
        """Of the store; "" where no picture becomes a link."""
        return self._find_public_url() if self._form == "url" else ""

    async def _run(self, forward: Callable[[], Awaitable[None]]) -> None:
        try:
            await forward()
            await self._finish()
            self._note_size(0 if self._sink is None else self._sink.largest)
        except ImagegateError as error:
            if self._sink is not None and (largest := self._sink.largest):
                self._note_size(largest)
            if isinstance(error, UpstreamError) and error.made:
                await self._list_made(error)
            if isinstance(error, (StorageError, FetchError)) and self._progress.attempts:
                # The pictures are paid for: the official SDKs must not ask again by themselves.
                error.headers.append((b"x-should-retry", b"false"))
            if not await self._says(error):
                raise
            forget_frames(error)
        except ClientDisconnected:
            raise
        except Exception:
            # The wrapped application failed. Its server would close the connection, and the official SDKs would retry.
            answer = self._writer
            if answer is not None and answer.can_go_on:
                if answer.is_relayed and self._has_relayed:
                    await answer.break_off(_failed())
                elif answer.has_begun and not answer.is_relayed:
                    await answer.fail(_failed())
            raise

    async def _says(self, error: ImagegateError) -> bool:
        """Return whether an answer that has begun could be ended with an error."""
        answer = self._writer
        if answer is None or not answer.has_begun or (answer.is_relayed and not self._has_relayed):
            return False
        self._progress.failed(error)
        if self._progress.upstream:
            error.details.setdefault("upstream", self._progress.upstream)
        await (answer.break_off(error) if answer.is_relayed else answer.fail(error))
        return True

    @property
    def _has_relayed(self) -> bool:
        """Whether a reply with pictures has gone to the client as it came, at least in part."""
        return self._inner is not None and self._inner.relayed is not None

    def _note_size(self, largest: int) -> None:
        for form in self._forms if largest else tuple(self._rooms):
            self._room(form).note(largest)

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
        self._kept += tuple(image.picture for image in error.made if image.picture is not None)
        await self._delivery.list_made(error, public_url=self._find_public_url(), sink=self.sink())

    async def _finish(self) -> None:
        inner, progress = self._inner, self._progress
        if inner is not None and (relayed := inner.relayed) is not None:
            progress.form, progress.images_delivered = "b64_json", len(relayed.facts)
            progress.replied(len(relayed.facts), relayed.fields.get("usage"))
            self._note(relayed.facts)
            return
        typed = self._typed or (None if inner is None else await inner.reply())
        if typed is not None:
            await self._reply(*typed)
        else:
            await self._finish_without_reply(self._below())

    async def _finish_without_reply(self, inner: InnerResponse) -> None:
        if inner.had_events or (self._answer().has_begun and not self._answer().is_relayed):
            raise inner.error()
        await inner.send_unchanged()

    async def _reply(self, reply: ImageReply, origin: str) -> None:
        progress, asked = self._progress, self._exchange.request.n
        if pictures := [image.picture for image in reply.images if image.picture is not None]:
            self._kept += tuple(pictures)
        if len(reply.images) != asked:
            progress.reply_changes = check_count(asked, reply)
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
        elif stated := [stated_size(image.fields) for image in reply.images if image.fields]:
            self._note_sizes([size for size in stated if size])
        progress.form, progress.images_delivered = self._form, len(reply.images)
        if self._form == "url":  # a link that is passed on as it came is to a picture that we have not seen
            progress.stored_images += sum(image.facts is not None for image in reply.images)
        await self._send_reply(reply)

    async def _send_reply(self, reply: ImageReply) -> None:
        has_files = any([image.picture is not None for image in reply.images])  # noqa: C419 - quicker
        if self._writer is None and not has_files:
            await send_json(self._send, 200, reply.encode())
        else:
            await self._answer().document(reply_parts(reply))

    async def _converted(self, reply: ImageReply, origin: str) -> ImageReply:
        started = time.perf_counter()
        try:
            return await self._delivery.deliver(
                reply,
                self._form,
                public_url=self._public_url,
                sink=self.sink(),
                trusted_origins=(origin,) if origin else (),
                copies_links=self._exchange.copies_links,
            )
        finally:
            self._progress.delivery_seconds = time.perf_counter() - started

    def _note(self, facts: Sequence[Facts | None]) -> None:
        """Write down the sizes that the images have, and where size or format is not what was asked for."""
        progress = self._progress
        sizes = [f"{known.width}x{known.height}" for known in facts if known is not None and known.width]
        progress.provenance = "c2pa" if facts and all(known is not None and known.c2pa for known in facts) else ""
        self._note_sizes(sizes, [known.kind for known in facts if known is not None])

    def _note_sizes(self, sizes: Sequence[str], formats: Sequence[ImageFormat] = ()) -> None:
        progress, asked = self._progress, self._exchange.request.fields
        progress.sizes_made = tuple(sizes)
        others = tuple(change for change in progress.reply_changes if change.kind != "made")
        disclosed = (*progress.route_changes, *progress.fit_changes, *progress.reference_changes)
        disclosed += progress.conversion_changes
        progress.reply_changes = (
            *others,
            *size_changes(asked.get("size"), sizes, disclosed),
            *format_changes(asked.get("output_format"), formats, disclosed),
        )


def _failed() -> ImagegateError:
    return ImagegateError("The application failed.", code="internal_error")
