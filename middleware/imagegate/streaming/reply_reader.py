"""Reads a provider's reply: buffers small ones, extracts the images of large ones while they arrive."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from enum import Enum
from typing import Any, Final

import msgspec
from starlette.types import Send

from imagegate.errors import UpstreamError, UpstreamUncertain
from imagegate.http import Body, BodyTooLarge, Interrupted, Response, iter_body
from imagegate.protocol.headers import length_of_reply
from imagegate.protocol.image_format import sniff
from imagegate.protocol.messages import EVENT, HeldMemory, ImageReply, Picture, ReplyImage, StreamEvent
from imagegate.protocol.parsers.base64_json import MAX_REST, OPENAI_MEMBERS, Base64Scanner, PictureStart, ScanError
from imagegate.protocol.parsers.sse import EventEnd, EventReader, EventText, Pause, SSEError, Token
from imagegate.protocol.provider_errors import uncertain
from imagegate.protocol.replies import WHOLE_BODY, UpstreamReply
from imagegate.protocol.reply_streams import StreamReply, event_error, finished_images, is_stream
from imagegate.streaming.image_sinks import PictureSink, Received, Reception

HOLD: Final = 1024**2
"""Bytes of a reply that are held and read whole; only larger ones are worth the trouble."""
_RELAYED_PATH: Final = "data[].b64_json"
_PLAIN_SIGNS: Final = 4096
"""Brackets, braces and texts in the beginning of a reply that is looked at in one go."""
_LINK: Final = re.compile(rb'"url"\s*:\s*"[^"]')
"""In JSON that has it in no text: there its quotes are escaped."""
_TOKENS: Final = 64
"""Of a stream, a few milliseconds, after which others should have a turn."""
_HEAD: Final = 4096
"""Bytes of a body that tell what it is."""
_BEFORE: Final = b"\xef\xbb\xbf \t\r\n"
_BEGINNINGS: Final = (
    b"event:",
    b"data:",
    b"retry:",
    b"id:",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"RIFF",
    b"<svg",
    b"<?xml",
)
_SHORTEST: Final = 12
"""Bytes from which on every kind of body can be told."""
_END_AFTER: Final = 5.0
"""Seconds that a provider has to end its stream after the last picture that was asked for."""
_INDENTATION: Final = 64
"""Bytes of white space that may stand before an event's JSON."""


PLAIN_LIMIT: Final = 4 * 1024**2
"""Bytes of a reply without pictures that are read."""


class Kind(Enum):
    """What the body of a reply is."""

    UNKNOWN = "not known yet"
    JSON = "JSON"
    EVENTS = "a stream of events"
    PICTURE = "a picture"
    OTHER = "something else"


class ReplyConsumer(msgspec.Struct, frozen=True, kw_only=True):
    """What the layers above take of a reply before it is complete."""

    send: Send
    sink: PictureSink | None = None
    relay: bool = False
    events: bool = False
    origin: str = ""
    images: int = 0
    """Images that were asked for; 0: not known."""
    is_picture: bool = False
    """Whether the body of a successful reply is a picture, whatever media type it has."""

    @classmethod
    def of(cls, extension: Mapping[str, Any], send: Send, origin: str) -> ReplyConsumer:
        known = {name: extension[name] for name in ("sink", "relay", "events", "images") if name in extension}
        return cls(send=send, origin=origin, **known)


async def take(
    response: Response,
    taker: ReplyConsumer | None,
    *,
    limit: int,
    members: Collection[str] = OPENAI_MEMBERS,
    held: HeldMemory | None = None,
) -> UpstreamReply | None:
    """Return the reply, with tokens for images that went into the sink; None: it has been relayed.

    Args:
        limit: bytes of a reply with pictures; any other is read to 4 MiB.
        members: where this provider's pictures are.
        held: counts the body of the reply that is returned, which is the caller's to give back.

    Raises:
        BodyTooLarge: the reply is larger than allowed, or than there is room for in memory.
        Interrupted: as `imagegate.http.iter_body`.
        UpstreamError: the reply cannot be used.
        StorageError: the sink did not take a picture.
    """
    pieces = _bounded(response, limit)
    kept: list[bytes] = []
    counted = size = 0
    head = b""
    kind = Kind.UNKNOWN if 200 <= response.status_code < 300 else Kind.OTHER
    try:
        async for piece in pieces:
            kept.append(piece)
            size += len(piece)
            has_room = held is None or held.try_take(len(piece))
            counted += len(piece) if has_room else 0
            if kind is Kind.UNKNOWN:
                head = (head + piece).lstrip(_BEFORE)[:_HEAD]
                kind = _kind_of(response, head, taker)
            if taker is not None:
                if kind is Kind.EVENTS and taker.events:
                    await _pass_events(_Resumed(kept, pieces), taker, members=members, held=held)
                    return None
                if kind is Kind.EVENTS and taker.sink is not None:
                    return await _collected(response, _Resumed(kept, pieces), taker.sink, members, held)
                if kind is Kind.PICTURE and taker.sink is not None:
                    return await _picture(response, _Resumed(kept, pieces), taker.sink)
            if size <= HOLD and has_room:
                continue
            if taker is not None and kind is Kind.JSON:
                if taker.relay and is_plain(kept):
                    await _relay(response, kept, pieces, taker.send)
                    return None
                if taker.sink is not None:
                    return await _received(response, kept, pieces, taker.sink, members, held)
            if not has_room or (size > PLAIN_LIMIT and kind in (Kind.UNKNOWN, Kind.OTHER)):
                raise BodyTooLarge(min(limit, PLAIN_LIMIT))
        if taker is not None and taker.events and kind is not Kind.JSON and _is_labelled_stream(response):
            await _pass_events(_Resumed(kept, pieces), taker, members=members, held=held)
            return None
        counted = 0
        return _reply(response, b"".join(kept))
    finally:
        if held is not None:
            held.give_back(counted)


def _kind_of(response: Response, head: bytes, taker: ReplyConsumer | None) -> Kind:
    """Return what a body is, by its first bytes without the blanks before them, whatever it is said to be."""
    if taker is not None and taker.is_picture:
        return Kind.PICTURE
    if not head or (len(head) < _SHORTEST and any(word.startswith(head) for word in _BEGINNINGS)):
        return Kind.UNKNOWN
    if head.startswith((b"{", b"[")):
        return Kind.JSON
    if is_stream(head) or (taker is not None and taker.events and _is_labelled_stream(response)):
        return Kind.EVENTS
    return Kind.PICTURE if sniff(head) is not None else Kind.OTHER


def _is_labelled_stream(response: Response) -> bool:
    return "text/event-stream" in response.headers.get("content-type", "").lower()


class _Resumed:
    """A body whose beginning has been read already."""

    def __init__(self, held: list[bytes], rest: Body) -> None:
        self._held = held
        self._rest = rest

    def __aiter__(self) -> _Resumed:
        return self

    async def __anext__(self) -> bytes:
        return self._held.pop(0) if self._held else await self._rest.__anext__()

    async def aclose(self) -> None:
        await self._rest.aclose()


def _reply(response: Response, body: bytes, pictures: Mapping[str, Picture] | None = None) -> UpstreamReply:
    return UpstreamReply(status=response.status_code, headers=response.headers, body=body, pictures=pictures or {})


def _bounded(response: Response, limit: int) -> Body:
    """Raise `BodyTooLarge`, early where ``Content-Length`` exceeds the limit."""
    length = length_of_reply(response.headers)
    if length is not None and length > limit:
        raise BodyTooLarge(limit)
    body = iter_body(response)
    is_bound = length is not None and body is response.body  # what is compressed is longer than it says
    return body if is_bound else _Bounded(body, limit)


class _Bounded:
    """A body of so many bytes at most, beyond which reading it raises `BodyTooLarge`."""

    def __init__(self, body: Body, limit: int) -> None:
        self._body = body
        self._limit = self._left = limit

    def __aiter__(self) -> _Bounded:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._body.__anext__()
        self._left -= len(piece)
        if self._left < 0:
            raise BodyTooLarge(self._limit)
        return piece

    async def aclose(self) -> None:
        await self._body.aclose()


def is_plain(held: list[bytes]) -> bool:
    """Return whether a reply with this beginning has OpenAI's shape, and can be relayed unchanged.

    It is not where its base64 needs tidying, nor where it has links, which would have to be fetched.
    """
    scanner = Base64Scanner(decode=0, max_signs=_PLAIN_SIGNS)
    try:
        starts = [event for piece in held for event in scanner.feed(piece) if isinstance(event, PictureStart)]
    except ScanError:
        return False
    is_openai = bool(starts) and all(start.path == _RELAYED_PATH for start in starts)
    return is_openai and scanner.is_canonical and not _LINK.search(scanner.rest)


async def _relay(response: Response, kept: list[bytes], rest: AsyncIterator[bytes], send: Send) -> None:
    headers = [(b"content-type", b"application/json")]
    if (length := length_of_reply(response.headers)) is not None:
        headers.append((b"content-length", str(length).encode()))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for piece in kept:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    kept.clear()
    async for piece in rest:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _received(
    response: Response,
    kept: list[bytes],
    rest: AsyncIterator[bytes],
    sink: PictureSink,
    members: Collection[str],
    held: HeldMemory | None,
) -> UpstreamReply:
    reception = Reception(sink, Base64Scanner(tuple(members)), held)
    try:
        while kept:
            await reception.feed(kept.pop(0))
        async for piece in rest:
            await reception.feed(piece)
        received = await reception.finish()
    except (Interrupted, UpstreamError) as failure:
        error = failure if isinstance(failure, UpstreamError) else unfinished(failure)
        error.made = await reception.made()
        reception.forget()
        raise error from failure
    except BaseException:
        await reception.abort()
        raise
    return _reply(response, received.rest, received.pictures)


async def _picture(response: Response, pieces: Body, sink: PictureSink) -> UpstreamReply:
    """A reply that is a picture, piece by piece."""
    receiver = sink.receiver()
    try:
        async for piece in pieces:
            await receiver.write(piece)
        picture = await receiver.finish()
    except BaseException:
        await receiver.abort()
        raise
    if picture.facts is None:
        raise uncertain("The provider's reply contains data that is not an image.")
    return _reply(response, b"", {WHOLE_BODY: picture})


def unfinished(error: Interrupted) -> UpstreamError:
    """Return the error of a reply that broke off."""
    return uncertain(f"The provider's reply is incomplete: {error}.", timed_out=error.timed_out)


# Streamed replies


class EventIntake:
    """A streamed reply, cut into events whose pictures go into a sink while they come in.

    `feed` and `finish` raise the error that an event carries, `UpstreamUncertain` where the stream cannot be used, and
    `StorageError`.

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
        """Data that is no JSON object, or not known to be one."""
        self._reception: Reception | None = None
        self._has_ended = False
        self._tokens = 0
        self.is_over = False
        """Whether the provider has said that nothing more comes."""

    async def feed(self, data: bytes) -> None:
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
            if error := event_error(event):
                raise error
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
        if self._reception is not None:
            await self._reception.abort()


async def _pass_events(
    pieces: Body, taker: ReplyConsumer, *, members: Collection[str], held: HeldMemory | None
) -> None:
    """Event by event. An error in the first one is an error of the request; later ones may follow what was paid for.

    After the last picture that was asked for nothing can go wrong any more: what still comes has some seconds.
    """
    passed = images = 0

    async def emit(event: StreamEvent) -> None:
        nonlocal passed, images
        passed += 1
        images += finished_images(event)
        await taker.send({"type": EVENT, "event": event, "origin": taker.origin})

    if taker.sink is None:
        raise AssertionError("a consumer of events has a sink")
    intake = EventIntake(taker.sink, emit, members=members, held=held)
    end = asyncio.timeout(None)
    is_complete = False
    try:
        async with end:
            async for piece in pieces:
                await intake.feed(piece)
                if intake.is_over:
                    break  # whatever becomes of the connection
                if taker.images and images >= taker.images and not is_complete:
                    is_complete = True
                    end.reschedule(asyncio.get_running_loop().time() + _END_AFTER)
            await intake.finish()
    except (UpstreamError, Interrupted, TimeoutError) as error:
        if is_complete and (end.expired() or not isinstance(error, TimeoutError)):
            return
        if isinstance(error, UpstreamError) and passed and error.allows_fallback:
            raise _after_events(error) from error
        raise
    finally:
        await intake.abort()
    if not passed:
        raise uncertain("The provider's stream contains no event.")


async def _collected(
    response: Response, pieces: Body, sink: PictureSink, members: Collection[str], held: HeldMemory | None
) -> UpstreamReply:
    """A stream that nobody asked for, as the reply that it amounts to."""
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
    finally:
        await intake.abort()
    return _reply(response, msgspec.json.encode(reply.document()), pictures)


def _after_events(error: UpstreamError) -> UpstreamError:
    """Return the error as uncertain: streamed events were billed, so there is no fallback."""
    later = UpstreamUncertain(error.message, status=error.status, type=error.type, code=error.code, param=error.param)
    later.details = error.details
    return later


def with_pictures(reply: ImageReply, pictures: Mapping[str, Picture]) -> ImageReply:
    """Return the reply with tokens replaced by their images."""
    return msgspec.structs.replace(reply, images=images_with_pictures(reply.images, pictures)) if pictures else reply


def images_with_pictures(images: Collection[ReplyImage], pictures: Mapping[str, Picture]) -> tuple[ReplyImage, ...]:
    return tuple(
        image
        if image.b64_json is None or image.b64_json not in pictures
        else ReplyImage(picture=pictures[image.b64_json], fields=image.fields)
        for image in images
    )
