"""The answer to one client: a JSON document or a stream of events, kept alive while there is nothing to say yet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, Final

import msgspec
from starlette.types import Message, Send

from imagegate.asgi.helpers import content_length, send_json
from imagegate.errors import ImagegateError
from imagegate.protocol.parsers.sse import HEARTBEAT, event
from imagegate.protocol.reply_encoding import Part, length_of
from imagegate.spool.body_chunks import reply_chunks

_STREAM_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would hold events back
)
_JSON = (b"content-type", b"application/json")
_SPACES: Final = b" " * 65536

Headers = Sequence[tuple[bytes, bytes]]


class ResponseWriter:
    """Begins an answer once there is something to say, or once the client has waited for long enough.

    Args:
        streamed: a stream of events, not a JSON document.
        heartbeat: seconds after which a sign of life is sent: a comment in a stream, white space before JSON. It
            costs the status, which is 200 from then on, whatever follows. None: never.
    """

    def __init__(self, send: Send, *, streamed: bool, heartbeat: float | None) -> None:
        self._send = send
        self._streamed = streamed
        self._heartbeat = heartbeat
        # Signs of life stand between events, never inside one.
        self._turn: AbstractAsyncContextManager[Any] = nullcontext() if heartbeat is None else asyncio.Lock()
        self.headers: Headers = ()
        """Of the application below, which has its own for the answer."""
        self.has_begun = False
        self._has_ended = False
        self._is_amid = False
        self._announced: int | None = None
        """Bytes that a relayed head has announced and that have not been sent."""
        self.is_relayed = False
        """Whether another application's bytes are relayed, so that an error can only abort the response."""

    @property
    def can_go_on(self) -> bool:
        """Whether anything may follow: the answer has not ended, and we did not stop amid an event or a document."""
        return not (self._has_ended or self._is_amid)

    def keep_alive(self, work: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None]:
        """Run `work`, and send heartbeats meanwhile."""
        return work if self._heartbeat is None else self._keep_alive(work, self._heartbeat)

    async def _keep_alive(self, work: Coroutine[Any, Any, None], seconds: float) -> None:
        beating = asyncio.create_task(self._beat(seconds))
        try:
            await work
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)

    async def _beat(self, seconds: float) -> None:
        while not (self.is_relayed or self._has_ended):
            await asyncio.sleep(seconds)
            async with self._turn:
                if not (self.is_relayed or self._has_ended):
                    await self._begin()
                    await self._body(HEARTBEAT if self._streamed else b" ")

    async def _begin(self, headers: Headers = ()) -> None:
        if not self.has_begun:
            self.has_begun = True
            named = {name.lower() for name, _ in self.headers}
            ours = [header for header in (_STREAM_HEADERS if self._streamed else (_JSON,)) if header[0] not in named]
            own = [*self.headers, *headers, *ours]
            await self._send({"type": "http.response.start", "status": 200, "headers": own})

    async def _body(self, data: bytes, *, more: bool = True) -> None:
        self._has_ended = not more
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def document(self, parts: Sequence[Part]) -> None:
        """Send the whole response as JSON."""
        async with self._turn:
            if not self.has_begun and len(parts) == 1 and isinstance(parts[0], bytes):
                self.has_begun = self._has_ended = True
                await send_json(self._send, 200, parts[0], self.headers)
                return
            await self._begin(((b"content-length", str(length_of(parts)).encode()),))
            await self._pieces(reply_chunks(parts))
            await self._body(b"", more=False)

    async def event(self, parts: Sequence[Part]) -> None:
        """Send one event of a stream."""
        async with self._turn:
            await self._begin()
            await self._pieces(reply_chunks(parts))

    async def _pieces(self, pieces: AsyncIterable[bytes]) -> None:
        self._is_amid = True
        async for piece in pieces:
            await self._body(piece)
        self._is_amid = False

    async def end(self) -> None:
        """End a stream."""
        async with self._turn:
            await self._begin()
            await self._body(b"", more=False)

    async def fail(self, error: ImagegateError) -> None:
        """Send an error after the response has started: an event that the official SDKs raise, or the JSON envelope."""
        async with self._turn:
            body = error.body()
            await self._body(event("error", _as_event(error)) if self._streamed else body, more=False)

    async def break_off(self, error: ImagegateError) -> None:
        """End a relayed JSON document in the middle, so that no reader of JSON takes it for whole.

        To hang up would do that too, but the official SDKs send a request again when its answer breaks off, whatever it
        has cost; a document that they cannot read they do not. So where a length was announced, spaces fill it up.
        """
        async with self._turn:
            body = b"\n" + error.body()  # JSON has no line break inside a text
            if self._announced is not None:
                for piece in _filled(body, self._announced):
                    await self._body(piece)
                body = b""
            await self._body(body, more=False)

    async def relay(self, message: Message) -> None:
        """Relay an ASGI message of another application; its start is dropped after a heartbeat."""
        if message["type"] == "http.response.start":
            async with self._turn:
                is_late, self.has_begun, self.is_relayed = self.has_begun, True, True
                if not is_late:
                    self._announced = content_length(message.get("headers", ()))
                    await self._send(message)
            return
        if message["type"] == "http.response.body":  # signs of life have ended
            self._has_ended = not message.get("more_body", False)
            if self._announced is not None:
                self._announced -= len(message.get("body", b""))
        await self._send(message)


def _filled(body: bytes, length: int) -> Iterator[bytes]:
    """So many bytes: the body, or as much of it as has room, and spaces."""
    yield body[: max(length, 0)]
    for start in range(len(body), length, len(_SPACES)):
        yield _SPACES[: length - start]


def _as_event(error: ImagegateError) -> bytes:
    return msgspec.json.encode({"type": "error", **error.envelope()})
