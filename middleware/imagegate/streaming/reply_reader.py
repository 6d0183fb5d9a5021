"""Reads a provider's reply: buffers small ones, extracts the images of large ones while they arrive."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from enum import Enum
from typing import Any, Final

import msgspec
from starlette.types import Send

from imagegate.errors import UpstreamError
from imagegate.http import Body, BodyTooLarge, Interrupted, Response, iter_body
from imagegate.protocol.headers import length_of_reply
from imagegate.protocol.image_format import holds_picture, sniff
from imagegate.protocol.messages import HeldMemory, Picture
from imagegate.protocol.parsers.base64_decoder import ScanError
from imagegate.protocol.parsers.base64_json import OPENAI_MEMBERS, Base64Scanner, PictureStart
from imagegate.protocol.parsers.lenient_json import is_sound, start_of_document
from imagegate.protocol.provider_errors import uncertain
from imagegate.protocol.replies import WHOLE_BODY, UpstreamReply
from imagegate.protocol.reply_streams import is_stream
from imagegate.streaming.event_stream import collect_events, forward_events, unfinished
from imagegate.streaming.image_sinks import PictureSink, Reception

HOLD: Final = 1024**2
"""Bytes up to which a reply is buffered whole."""
_FEW_DIGITS: Final = 6
"""Digits of a length that is less than `HOLD`, whatever it is."""
_RELAYED_PATH: Final = "data[].b64_json"
_PLAIN_SIGNS: Final = 4096
"""Brackets, braces and strings in the beginning of a reply that are scanned at once."""
_LINK: Final = re.compile(rb'"url"\s*:\s*"[^"]')
"""A member, not text in a string: there, its quotes would be escaped."""
_HEAD: Final = 4096
"""Bytes at the beginning of a body by which its kind is recognized."""
_DOCUMENT: Final = re.compile(rb"\{|\[\s*(?:[\[{\"'\]]|\Z)")
"""The beginning of JSON; a word in brackets is that of a log line."""
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
"""Bytes that suffice to recognize every kind of body."""


PLAIN_LIMIT: Final = 4 * 1024**2
"""Maximum bytes of a reply without images."""


class Kind(Enum):
    """What the body of a reply is."""

    UNKNOWN = "not known yet"
    JSON = "JSON"
    EVENTS = "a stream of events"
    PICTURE = "a picture"
    OTHER = "something else"


class ReplyConsumer(msgspec.Struct, frozen=True, kw_only=True):
    """How the layers above take a reply before it is complete."""

    send: Send
    sink: Callable[[], PictureSink] | None = None
    """Returns what takes pictures while they come in."""
    relay: bool = False
    events: bool = False
    origin: str = ""
    images: int = 0
    """Number of images requested; 0: unknown."""
    is_picture: bool = False
    """Whether the body of a successful reply is an image, whatever its media type."""

    @classmethod
    def of(cls, extension: Mapping[str, Any], send: Send, origin: str) -> ReplyConsumer:
        known = {name: extension[name] for name in ("sink", "relay", "events", "images") if name in extension}
        return cls(send=send, origin=origin, **known)


async def take(
    response: Response,
    consumer: ReplyConsumer | None,
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
    length = response.headers.get("content-length", "")
    is_small = length.isdecimal() and len(length) <= _FEW_DIGITS and "content-encoding" not in response.headers
    pieces = response.body if is_small and limit >= HOLD else _bounded(response, limit)
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
                kind = _kind_of(response, head, consumer)
            if consumer is not None:
                if kind is Kind.EVENTS and consumer.events:
                    await _forward_events(_Resumed(kept, pieces), consumer, members, held)
                    return None
                if kind is Kind.EVENTS and consumer.sink is not None:
                    document, pictures = await collect_events(_Resumed(kept, pieces), consumer.sink(), members, held)
                    return _reply(response, document, pictures)
                if kind is Kind.PICTURE and consumer.sink is not None:
                    kept[:] = [b"".join(kept).lstrip(_BEFORE)]
                    return await _picture(response, _Resumed(kept, pieces), consumer.sink())
            if size <= HOLD and has_room:
                continue
            if kind is Kind.OTHER and response.status_code < 300 and size - len(piece) <= HOLD:
                kind = _cut_to_document(kept)
                sink = consumer.sink if consumer is not None and kind is Kind.OTHER else None
                if sink is not None and (text := _as_document(kept, pieces)) is not None:
                    return await _received(response, kept, text, sink(), members, held)
            if consumer is not None and kind is Kind.JSON:
                _drop_first_lines(kept)
                if consumer.relay and is_plain(kept):
                    await _relay(response, kept, pieces, consumer.send)
                    return None
                if consumer.sink is not None:
                    return await _received(response, kept, pieces, consumer.sink(), members, held)
            if not has_room or (size > PLAIN_LIMIT and kind in (Kind.UNKNOWN, Kind.OTHER)):
                raise BodyTooLarge(min(limit, PLAIN_LIMIT))
        if consumer is not None and consumer.events and kind is not Kind.JSON and _is_labelled_stream(response):
            await _forward_events(_Resumed(kept, pieces), consumer, members, held)
            return None
        counted = 0
        return _reply(response, b"".join(kept))
    finally:
        if held is not None and counted:
            held.give_back(counted)


def _kind_of(response: Response, head: bytes, consumer: ReplyConsumer | None) -> Kind:
    """Return what a body is, by its first bytes without the blanks before them, whatever it is said to be."""
    if consumer is not None and consumer.is_picture:
        return Kind.PICTURE
    if not head or (len(head) < _SHORTEST and any(word.startswith(head) for word in _BEGINNINGS)):
        return Kind.UNKNOWN
    if _DOCUMENT.match(head):
        return Kind.JSON
    if is_stream(head) or (consumer is not None and consumer.events and _is_labelled_stream(response)):
        return Kind.EVENTS
    return Kind.PICTURE if sniff(head) is not None else Kind.OTHER


def _cut_to_document(kept: list[bytes]) -> Kind:
    """Put blanks in the place of what precedes a JSON document; `Kind.OTHER`: there is none."""
    whole = b"".join(kept)
    body = whole.lstrip(_BEFORE)
    start = start_of_document(body[:_HEAD])
    if start is None:
        return Kind.OTHER
    kept[:] = [body[start:].rjust(len(whole))]  # as long as the provider has announced
    return Kind.JSON


def _drop_first_lines(kept: list[bytes]) -> None:
    """Drop what was said about progress in lines of JSON before the one that is so long: that has the pictures."""
    line, newline, _ = kept[0].partition(b"\n")
    if not newline or not is_sound(line):
        return
    whole = body = b"".join(kept)
    while newline and is_sound(line) and (rest := body[len(line) + 1 :].lstrip(_BEFORE)).startswith(b"{"):
        body = rest
        line, newline, _ = body[:_HEAD].partition(b"\n")
    kept[:] = [body.rjust(len(whole))]  # as long as the provider has announced


def _as_document(kept: list[bytes], rest: Body) -> Body | None:
    """Put a picture that came as a text, base64 or a data URL, into a document; None: the body is none.

    Returns the rest of the body, with the end of that document.
    """
    body = b"".join(kept).lstrip(_BEFORE)
    text = body[:_HEAD].lstrip(b'"').decode("latin-1")
    if not (text.lower().startswith("data:image/") or holds_picture(text[:400])):
        return None
    is_quoted = body.startswith(b'"')
    kept[:] = [b'{"b64_json":' if is_quoted else b'{"b64_json":"', body]
    return _Ended(rest, b"}" if is_quoted else b'"}')


class _Ended:
    """A body with something after it."""

    def __init__(self, body: Body, end: bytes) -> None:
        self._body = body
        self._end = end

    def __aiter__(self) -> _Ended:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self._body.__anext__()
        except StopAsyncIteration:
            if not self._end:
                raise
            end, self._end = self._end, b""
            return end

    async def aclose(self) -> None:
        await self._body.aclose()


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
    body = iter_body(response) if "content-encoding" in response.headers else response.body
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


async def _forward_events(
    pieces: Body, consumer: ReplyConsumer, members: Collection[str], held: HeldMemory | None
) -> None:
    if consumer.sink is None:
        raise AssertionError("a consumer of events has a sink")
    await forward_events(
        pieces,
        consumer.send,
        consumer.sink(),
        origin=consumer.origin,
        images=consumer.images,
        members=members,
        held=held,
    )


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
    """Return a reply whose body is an image, passed to the sink piece by piece."""
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
