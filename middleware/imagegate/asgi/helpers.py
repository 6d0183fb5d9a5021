"""Small ASGI idioms that the layers share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

from starlette.types import Message, Receive, Scope, Send

from imagegate.errors import ImagegateError, PayloadTooLarge, RequestTimeout
from imagegate.protocol.headers import read_length

SECONDS_OF_SILENCE = 30.0
"""How long a client may keep silent in the middle of a body."""

Headers = Iterable[tuple[bytes, bytes]]


class ClientDisconnected(Exception):
    """The client left before it was answered."""


def route_path(scope: Scope) -> str:
    """The path below the mount point; ``root_path`` is only taken off at a slash."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and (len(path) == len(root) or path[len(root)] == "/"):
        return path[len(root) :]
    return path


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header called `name` (lower case)."""
    for key, value in scope["headers"]:
        if key == name:
            return value  # type: ignore[no-any-return]
    return None


def is_form(scope: Scope) -> bool:
    """Whether the body is ``multipart/form-data``, as announced."""
    return (header(scope, b"content-type") or b"").lower().startswith(b"multipart/form-data")


def announced_length(scope: Scope) -> int | None:
    """Bytes of the body, as announced; a number that no body has is a large one. None: it is not."""
    length = header(scope, b"content-length")
    return int(length[:20]) if length is not None and length.isdigit() else None


def without_headers(headers: Headers, *names: bytes) -> list[tuple[bytes, bytes]]:
    return [(key, value) for key, value in headers if key.lower() not in names]


def content_length(headers: Headers) -> int | None:
    """Bytes of a body; None: its headers do not tell, or not in one way."""
    values = [value for key, value in headers if key.lower() == b"content-length"]
    return read_length(values[0]) if len(values) == 1 else None


async def receive_in_time(receive: Receive, *, silence: float = SECONDS_OF_SILENCE) -> Message:
    """The next piece of a body.

    Args:
        silence: seconds that a client may keep silent.

    Raises:
        RequestTimeout: it kept silent for longer, and holds a place of others.
    """
    limit = asyncio.timeout(silence)
    try:
        async with limit:
            return await receive()
    except TimeoutError:
        if not limit.expired():
            raise  # the server's own
        raise _silent_for(silence) from None


@asynccontextmanager
async def receive_with_timeout(receive: Receive, *, silence: float = SECONDS_OF_SILENCE) -> AsyncGenerator[Receive]:
    """The same for a body of many pieces: one timer for all of them, which costs a tenth of one for each.

    Args:
        silence: seconds that a client may keep silent.

    Raises:
        RequestTimeout: a client kept silent, up to a second less than the full time.
    """
    loop = asyncio.get_running_loop()
    is_waiting = False
    try:
        async with asyncio.timeout(silence) as patience:

            async def received() -> Message:
                nonlocal is_waiting
                end = loop.time() + silence
                if (patience.when() or 0.0) < end - 1.0:
                    patience.reschedule(end)
                is_waiting = True
                message = await receive()
                is_waiting = False
                return message

            yield received
    except TimeoutError:
        if not is_waiting:
            raise  # what was done with a piece took so long
        raise _silent_for(silence) from None


def _silent_for(seconds: float) -> RequestTimeout:
    return RequestTimeout(f"Nothing of the body came for {seconds:g} s.", headers=[(b"connection", b"close")])


async def read_body(receive: Receive, *, limit: int) -> bytes:
    """The whole request body.

    Raises:
        PayloadTooLarge: beyond `limit` bytes; the rest is not read.
        ClientDisconnected: before the end.
    """
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive_in_time(receive)
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise too_large(limit)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


def too_large(limit: int, *, endless: bool = True) -> PayloadTooLarge:
    """Hangs up only on a body that names no end: who is still sending would lose the answer."""
    headers = [(b"connection", b"close")] if endless else []
    return PayloadTooLarge(f"The body is larger than {limit:,} bytes.", headers=headers)


def replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives `body` once, then whatever the server says (only a disconnect is legal then)."""
    pending = True

    async def replayed() -> Message:
        nonlocal pending
        if pending:
            pending = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replayed


def replay_chunks(chunks: AsyncIterator[bytes], receive: Receive) -> Receive:
    """The same for a body that is made while it is read."""
    ended = False

    async def replayed() -> Message:
        nonlocal ended
        if ended:
            return await receive()
        try:
            return {"type": "http.request", "body": await anext(chunks), "more_body": True}
        except StopAsyncIteration:
            ended = True
            return {"type": "http.request", "body": b"", "more_body": False}

    return replayed


async def receive_nothing() -> Message:
    """A `receive` for work that goes on whoever leaves: nothing more comes, not even that the client is gone."""
    await asyncio.Event().wait()
    raise AssertionError


def before_shutdown(send: Send, close: Callable[[], Awaitable[None]]) -> Send:
    """A `send` for somebody else's lifespan, which is ours too: closes before the server knows that it has ended."""

    async def closing(message: Message) -> None:
        if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
            await close()
        await send(message)

    return closing


async def send_json(send: Send, status: int, body: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
    """A complete JSON response."""
    length = str(len(body)).encode()
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", b"application/json"), (b"content-length", length), *headers],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def send_error(send: Send, error: ImagegateError) -> None:
    """An error in OpenAI's envelope."""
    await send_json(send, error.status, error.body(), error.headers)
