"""Receives a response of the wrapped application that is no typed reply: events, or bytes parsed incrementally."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from starlette.types import Message

from imagegate.asgi.helpers import content_length, without_headers
from imagegate.delivery.response_writer import ResponseWriter
from imagegate.errors import UpstreamError
from imagegate.protocol.image_format import Facts, inspect
from imagegate.protocol.messages import EVENT, HeldMemory, ImageReply, StreamEvent
from imagegate.protocol.parsers.base64_decoder import ScanError
from imagegate.protocol.parsers.base64_json import Base64Scanner, PictureData, PictureEnd, PictureStart
from imagegate.protocol.parsers.json_mender import JSONMender
from imagegate.protocol.parsers.lenient_json import is_sound, read_object
from imagegate.protocol.provider_errors import failure, uncertain
from imagegate.protocol.replies import images_of, read_document
from imagegate.protocol.reply_pictures import with_pictures
from imagegate.protocol.reply_streams import event_error
from imagegate.streaming.event_stream import EventIntake
from imagegate.streaming.image_sinks import HEAD, PictureSink, Received, Reception, mended
from imagegate.streaming.reply_reader import HOLD, is_plain

SLACK: Final = 256
"""Bytes that a relayed reply is announced to be longer than the provider's: what is mended in it may be longer, and the
rest is blanks at its end."""
TAIL: Final = 4096
"""Bytes of a relayed reply that are held back until the whole is known to be good; an error has room there."""

OnEvent = Callable[[StreamEvent, str], Awaitable[None]]
OnPictures = Callable[[Sequence[Facts | None]], None]

# What the application says of its own bytes, which are not the ones that are sent.
_OF_THE_BYTES = (
    b"content-length",
    b"content-type",
    b"content-encoding",
    b"etag",
    b"digest",
    b"content-md5",
    b"transfer-encoding",
)


class InnerResponse:
    """Takes messages as `send` does. What is no reply with pictures goes to the client as it is.

    Args:
        sink: for pictures of large replies.
        relay: whether a large reply in OpenAI's shape goes to the client as it comes.
        on_event: takes the events of a stream; None: a stream was not asked for.
        on_pictures: called with the known facts of the images before a relayed reply starts.
        asked: images.
        held: counts what is kept of the response.
    """

    def __init__(
        self,
        answer: ResponseWriter,
        sink: PictureSink,
        *,
        relay: bool,
        on_event: OnEvent | None,
        on_pictures: OnPictures,
        asked: int,
        held: HeldMemory | None = None,
    ) -> None:
        self._answer = answer
        self._sink = sink
        self._memory = held
        self._may_relay = relay
        self._on_event = on_event
        self._on_pictures = on_pictures
        self._asked = asked
        self._start: Message = {}
        self._take: Callable[[Message], Awaitable[None]] = self._hold
        self._held: list[bytes] = []
        self._held_size = 0
        self._reception: Reception | None = None
        self._events: EventIntake | None = None
        self.relayed: Relay | None = None
        self.had_events = False

    async def __call__(self, message: Message) -> None:
        kind = message["type"]
        if kind == EVENT:
            self.had_events = True
            if self._on_event is not None:
                await self._on_event(message["event"], message.get("origin", ""))
        elif kind == "http.response.start":
            await self._begin(message)
        elif kind == "http.response.body":
            await self._take(message)
        elif self._answer.is_relayed:
            await self._answer.relay(message)

    async def _begin(self, message: Message) -> None:
        self._start = message
        headers = message.get("headers", ())
        content_type = b";".join(value for name, value in headers if name.lower() == b"content-type")
        is_document = message["status"] == 200 and b"json" in content_type
        is_stream = message["status"] == 200 and b"text/event-stream" in content_type and self._on_event is not None
        if is_document or is_stream:
            self._answer.headers = without_headers(headers, *_OF_THE_BYTES)
        if is_document:
            return
        if is_stream:
            self._events = EventIntake(self._sink, self._event, held=self._memory)
            self._take = self._feed_events
        elif not self._answer.has_begun:
            await self._answer.relay(message)
            self._take = self._answer.relay

    async def _event(self, event: StreamEvent) -> None:
        if error := event_error(event):
            raise error
        self.had_events = True
        if self._on_event is not None:
            await self._on_event(event, "")

    async def _feed_events(self, message: Message) -> None:
        if self._events is None:
            raise AssertionError("set where the stream began")
        await self._events.feed(message.get("body", b""))
        if not message.get("more_body", False):
            await self._events.finish()

    async def _hold(self, message: Message) -> None:
        body = message.get("body", b"")
        self._held.append(body)
        self._held_size += len(body)
        has_room = self._memory is None or self._memory.try_take(len(body))
        if self._held_size <= HOLD and has_room:
            return
        if self._memory is not None:
            self._memory.give_back(self._held_size if has_room else self._held_size - len(body))
        if self._may_relay and is_plain(self._held):
            self.relayed = Relay(self._answer, self._start, self._on_pictures, self._asked)
            feed, self._take = self.relayed.feed, self.relayed.take
        else:
            self._reception = Reception(self._sink, Base64Scanner(), self._memory)
            feed, self._take = self._reception.feed, self._receive
        held, self._held = self._held, []
        for piece in held[:-1]:
            await feed(piece)
        await self._take({**message, "body": held[-1]})

    async def _receive(self, message: Message) -> None:
        if self._reception is None:
            raise AssertionError("set where the holding ended")
        await self._reception.feed(message.get("body", b""))

    async def reply(self) -> tuple[ImageReply, str] | None:
        """Return the reply in bytes that were held, and where its links are trusted to lead; None: there is none."""
        if self._reception is not None:
            received = await self._reception.finish()
            if received.pictures:
                return _with_pictures(received), ""
            self._held = [received.rest]  # all of it is still there
        reply = images_of(read_object(b"".join(self._held)), now=int(time.time()))
        return None if reply is None else (reply, "")

    async def send_unchanged(self) -> None:
        """Send the buffered response to the client unchanged."""
        if not self._start or self._answer.is_relayed:
            return
        await self._answer.relay(self._start)
        for body in self._held[:-1]:
            await self._answer.relay({"type": "http.response.body", "body": body, "more_body": True})
        await self._answer.relay({"type": "http.response.body", "body": b"".join(self._held[-1:])})

    def error(self) -> UpstreamError:
        """Return what was held, as an error, where the answer has begun and it can no longer be sent as it is."""
        status = self._start.get("status", 200)
        if status >= 400:
            return failure(status, read_object(b"".join(self._held)))
        return uncertain("The provider's reply contains no image.")

    async def close(self) -> None:
        for intake in (self._reception, self._events):
            if intake is not None:
                await intake.abort()
        # What refers to itself keeps all that it has held, megabytes perhaps, until the collector comes by.
        self._take, self._events = self._answer.relay, None


class Relay:
    """A reply that goes to the client as it comes. Its end is held back until the whole is known to be good."""

    def __init__(self, answer: ResponseWriter, start: Message, on_pictures: OnPictures, asked: int) -> None:
        self._answer = answer
        self._start: Message | None = start
        self._on_pictures = on_pictures
        self._asked = asked
        self._scanner = Base64Scanner(decode=HEAD)
        self._mender = JSONMender()
        self._room = SLACK
        """Bytes by which what is sent may still be longer than what comes in, where its length was announced."""
        self._is_announced = content_length(start.get("headers", ())) is not None
        self._held: deque[bytes] = deque()
        self._held_size = 0
        self._head = bytearray()
        self.facts: list[Facts | None] = []
        """Of each picture whose head has come in."""
        self.fields: Mapping[str, Any] = {}
        """Members of the reply beside its pictures, once it is complete."""

    async def take(self, message: Message) -> None:
        body = message.get("body", b"")
        if not message.get("more_body", False):
            await self._end(await self._sound(body, is_last=True))
            return
        await self.feed(body)
        while self._held_size - len(self._held[0]) >= TAIL:
            piece = self._held.popleft()
            self._held_size -= len(piece)
            await self._pass(piece)

    async def feed(self, data: bytes) -> None:
        """Take a piece that goes on with what comes after it: what headers say of the pictures is known by then."""
        sound = await self._sound(data)
        self._held.append(sound)
        self._held_size += len(sound)

    async def _sound(self, body: bytes, *, is_last: bool = False) -> bytes:
        """Return a piece mended and looked through. Raises `UpstreamUncertain` where it is no part of a reply."""
        if not is_last and self._scanner.needs_end_only and self._mender.pass_on(body):
            sound = body
        else:
            sound = await mended(self._mender, body) + (self._mender.finish() if is_last else b"")
            await self._scan(sound)
        self._room += len(body) - len(sound)
        if self._room < 0 and self._is_announced:
            raise uncertain("The provider's reply is no valid JSON.")
        return sound

    async def _scan(self, sound: bytes) -> None:
        try:
            for place, events in enumerate(self._scanner.steps(sound)):
                if place:
                    await asyncio.sleep(0)  # what is dense takes long
                for event in events:
                    self._note(event)
        except ScanError as error:
            raise uncertain(f"The provider's reply is invalid. {error}") from error

    def _note(self, event: Any) -> None:
        if isinstance(event, PictureStart):
            self._head.clear()
        elif isinstance(event, PictureData):
            self._head += event.data
        is_known = len(self.facts) == self._scanner.pictures
        if not is_known and (len(self._head) >= HEAD or isinstance(event, PictureEnd)):
            self.facts.append(inspect(bytes(self._head)))

    async def _pass(self, body: bytes, *, more: bool = True) -> None:
        start, self._start = self._start, None
        if start is not None:
            self._on_pictures(self.facts)
            headers = start.get("headers", ())
            length = content_length(headers)
            headers = without_headers(headers, b"content-length")
            if length is not None:
                headers = [*headers, (b"content-length", str(length + SLACK).encode())]
            await self._answer.relay({**start, "headers": headers})
        await self._answer.relay({"type": "http.response.body", "body": body, "more_body": more})

    async def _end(self, body: bytes) -> None:
        try:
            rest = self._scanner.finish()
        except ScanError as error:
            raise uncertain(f"The provider's reply is invalid. {error}") from error
        document = read_object(rest)
        if document is None or not is_sound(rest):
            raise uncertain("The provider's reply is no valid JSON.")
        reply = read_document(document, now=0)  # raises what the reply says beside its pictures
        if not isinstance(reply, ImageReply) or len(reply.images) < self._asked:
            raise uncertain(f"The provider made {len(self.facts)} of {self._asked} images.")
        self.fields = reply.fields
        for piece in (*self._held, body):
            await self._pass(piece)
        while self._is_announced and self._room > 0:  # what was left out behind the document may be long
            blanks = min(self._room, TAIL)
            self._room -= blanks
            await self._pass(b" " * blanks)
        await self._pass(b"", more=False)


def _with_pictures(received: Received) -> ImageReply:
    """Raise `UpstreamError` where what is left of a document without its pictures is no reply."""
    document = read_object(received.rest)
    if document is None:
        raise uncertain("The provider's reply is no valid JSON.")
    reply = read_document(document, now=int(time.time()))
    if not isinstance(reply, ImageReply):
        raise uncertain("The provider's reply contains no image.")
    return with_pictures(reply, received.pictures)
