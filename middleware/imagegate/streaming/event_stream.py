"""Reads a streamed reply: events, whose images are extracted while they arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from typing import Final

import msgspec
from starlette.types import Send

from imagegate.errors import UpstreamError, UpstreamUncertain
from imagegate.http import Body, Interrupted
from imagegate.protocol.messages import EVENT, HeldMemory, Picture, StreamEvent
from imagegate.protocol.parsers.base64_json import MAX_REST, OPENAI_MEMBERS, Base64Scanner
from imagegate.protocol.parsers.sse import EventEnd, EventReader, EventText, Pause, SSEError, Token
from imagegate.protocol.provider_errors import some_failed, uncertain
from imagegate.protocol.reply_pictures import images_with_pictures
from imagegate.protocol.reply_streams import StreamReply, event_error, finished_images, image_failure, is_last
from imagegate.streaming.image_sinks import PictureSink, Received, Reception

_TOKENS: Final = 64
"""Tokens of a stream, a few milliseconds of work, after which the event loop gets its turn."""
_END_AFTER: Final = 5.0
"""Seconds that a provider has to end its stream after the last image requested."""
_MOST_WAITING: Final = 64
_LARGEST_WAITING: Final = 64 * 1024
"""Bytes of all events that are held back because an image failed and none has come yet."""
_INDENTATION: Final = 64
"""Bytes of white space that may precede an event's JSON."""


class EventIntake:
    """Split a streamed reply into events, and pass their images to a sink while they arrive.

    `feed` and `finish` raise `UpstreamUncertain` where the stream cannot be used, `StorageError`, and what `emit`
    raises.

    Args:
        emit: awaited with each event, for backpressure.
        held: counts what is held of an event.
    """

    def __init__(
        self,
        sink: PictureSink,
        emit: Callable[[StreamEvent], Awaitable[None]],
        *,
        members: Collection[str] = OPENAI_MEMBERS,
        held: HeldMemory | None = None,
    ) -> None:
        self._reader = EventReader()
        self._sink = sink
        self._emit = emit
        self._members = tuple(members)
        self._held = held
        self._text = bytearray()
        """Data that is not a JSON object, or not yet known to be one."""
        self._reception: Reception | None = None
        self._has_ended = False
        self._tokens = 0
        self.is_over = False
        """Whether the provider has marked the end of the stream."""

    async def feed(self, data: bytes) -> None:
        """Take a piece of the body."""
        await self._take(self._reader.feed(data))

    async def finish(self) -> None:
        """End the stream; a last event counts where its data is complete."""
        self._has_ended = True
        await self._take(self._reader.finish())

    async def _take(self, tokens: Iterator[Token]) -> None:
        try:
            for token in tokens:
                if self.is_over:
                    return
                self._tokens += 1
                if self._tokens % _TOKENS == 0 or isinstance(token, Pause):
                    await asyncio.sleep(0)
                if isinstance(token, Pause):
                    continue
                if isinstance(token, EventText):
                    await self._more(token.data)
                else:
                    await self._end(token)
        except SSEError as error:
            raise uncertain(f"The provider's reply is invalid. {error}") from error

    async def _more(self, data: bytes) -> None:
        if self._reception is None:
            self._text += data
            if len(self._text) > MAX_REST:
                raise uncertain("The provider's reply is invalid. An event is too large.")
            if not self._text[:_INDENTATION].lstrip().startswith(b"{"):
                return
            data = bytes(self._text)
            self._text.clear()
            self._reception = Reception(self._sink, Base64Scanner(self._members), self._held)
        await self._reception.feed(data)

    async def _end(self, end: EventEnd) -> None:
        reception, self._reception = self._reception, None
        if reception is None:
            event = StreamEvent(name=end.name, data=bytes(self._text), lines=end.lines)
            self._text.clear()
            self.is_over = event.is_end_mark
            if self._has_ended and not self.is_over:
                raise uncertain("The provider's stream broke off.")
        else:
            received = await self._finished(reception)
            event = StreamEvent(name=end.name, data=received.rest, pictures=received.pictures, lines=end.lines)
        try:
            await self._emit(event)
        finally:
            if reception is not None:
                reception.forget()

    @staticmethod
    async def _finished(reception: Reception) -> Received:
        try:
            return await reception.finish()
        except BaseException:
            await reception.abort()
            raise

    async def abort(self) -> None:
        """Discard an image that is incomplete."""
        if self._reception is not None:
            await self._reception.abort()


async def forward_events(
    pieces: Body,
    send: Send,
    sink: PictureSink,
    *,
    origin: str = "",
    images: int = 0,
    members: Collection[str] = OPENAI_MEMBERS,
    held: HeldMemory | None = None,
    end_after: float = _END_AFTER,
) -> None:
    """Send a streamed reply event by event.

    An error in the first event is the request's error; a later one follows events that are billed. A stream that says
    of every image that it failed, and shows no preview, is that error, too, and none of its events is sent. After the
    last requested image the provider has a few seconds to end the stream, and no error counts any more.

    Args:
        send: receives a message of type `EVENT` for each event.
        sink: takes the images.
        origin: scheme and host of the provider, for its relative links.
        images: number of images requested; 0: unknown.
        members: where this provider's images are.
        held: counts what is held of an event.
        end_after: seconds that the provider has to end its stream after the last image requested.

    Raises:
        UpstreamError: the provider's error, or the stream cannot be used.
        Interrupted: the connection broke.
        StorageError: the sink did not take an image.
    """
    sent = finished = 0
    waiting: list[StreamEvent] = []
    """From the first failure of an image on, until there is a picture."""
    failures: list[UpstreamError] = []

    async def emit(event: StreamEvent) -> None:
        nonlocal sent, finished
        if error := event_error(event):
            raise error
        finished += finished_images(event)
        if not (finished or sent or event.pictures) and (failure := image_failure(event)):
            failures.append(failure)
        if failures and not (finished or event.pictures) and _is_small([*waiting, event]):
            waiting.append(event)
            return
        failures.clear()
        for each in (*waiting, event):
            sent += 1
            await send({"type": EVENT, "event": each, "origin": origin})
        waiting.clear()

    intake = EventIntake(sink, emit, members=members, held=held)
    end = asyncio.timeout(None)
    is_complete = False
    try:
        async with end:
            async for piece in pieces:
                await intake.feed(piece)
                if intake.is_over:
                    break  # whatever becomes of the connection
                if images and finished >= images and not is_complete:
                    is_complete = True
                    end.reschedule(asyncio.get_running_loop().time() + end_after)
            await intake.finish()
            if failures:
                is_told = intake.is_over or 0 < images <= len(failures) or any(map(is_last, waiting))
                raise some_failed(failures, 0) if is_told else uncertain("The provider's stream broke off.")
    except (UpstreamError, Interrupted, TimeoutError) as error:
        if is_complete and (end.expired() or not isinstance(error, TimeoutError)):
            return
        if isinstance(error, UpstreamError) and sent and error.allows_fallback:
            raise _after_events(error) from error
        raise
    finally:
        await intake.abort()
    if not sent:
        raise uncertain("The provider's stream contains no event.")


async def collect_events(
    pieces: Body, sink: PictureSink, members: Collection[str], held: HeldMemory | None
) -> tuple[bytes, Mapping[str, Picture]]:
    """Return a stream as the JSON document of the equivalent reply, with the images whose tokens are in it.

    Raises:
        UpstreamError: the provider's error, or the stream cannot be used; it has the images that were made.
        StorageError: the sink did not take an image.
    """
    reply = StreamReply()
    pictures: dict[str, Picture] = {}

    async def emit(event: StreamEvent) -> None:
        pictures.update(event.pictures)
        reply.add(event)

    intake = EventIntake(sink, emit, members=members, held=held)
    try:
        async for piece in pieces:
            await intake.feed(piece)
            if intake.is_over:
                break
        await intake.finish()
    except (Interrupted, UpstreamError) as failure:
        error = failure if isinstance(failure, UpstreamError) else unfinished(failure)
        error.made = images_with_pictures(reply.images, pictures)
        raise error from failure
    finally:
        await intake.abort()
    return msgspec.json.encode(reply.document()), pictures


def _is_small(events: Sequence[StreamEvent]) -> bool:
    """Return whether events may be held back: what they hold is not counted."""
    return len(events) <= _MOST_WAITING and sum(len(event.data) for event in events) <= _LARGEST_WAITING


def unfinished(error: Interrupted) -> UpstreamError:
    """Return the error of a reply that broke off."""
    return uncertain(f"The provider's reply is incomplete: {error}.", timed_out=error.timed_out)


def _after_events(error: UpstreamError) -> UpstreamError:
    """Return the error as uncertain: streamed events were billed, so there is no fallback."""
    later = UpstreamUncertain(error.message, status=error.status, type=error.type, code=error.code, param=error.param)
    later.details = error.details
    return later
