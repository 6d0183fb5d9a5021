"""ASGI helpers that the layers share."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from random import getrandbits
from typing import Final

from starlette.types import Message, Receive, Scope, Send

from imagegate.errors import ImagegateError, PayloadTooLarge, RequestTimeout
from imagegate.protocol.headers import read_length

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
SECONDS_OF_SILENCE = 30.0
"""Seconds without data after which reading a request body times out."""

Headers = Iterable[tuple[bytes, bytes]]


class ClientDisconnected(Exception):
    """The client disconnected before the response was complete."""


def route_path(scope: Scope) -> str:
    """Return the path below the mount point; ``root_path`` is removed only at a slash."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and (len(path) == len(root) or path[len(root)] == "/"):
        return path[len(root) :]
    return path


def header(scope: Scope, name: bytes) -> bytes | None:
    """Return the first header called `name` (lower case)."""
    for key, value in scope["headers"]:
        if key == name:
            return value  # type: ignore[no-any-return]
    return None


def request_id(sent: bytes | None) -> str:
    """Return the id of a request: a new one, unless the client's own is valid.

    Args:
        sent: the client's ``x-request-id``.
    """
    if sent and _REQUEST_ID.fullmatch(sent):
        return sent.decode()
    return f"req_{getrandbits(128):032x}"  # an identifier, not a secret


def is_form(scope: Scope) -> bool:
    """Return whether ``Content-Type`` is ``multipart/form-data``."""
    for name, value in scope["headers"]:
        if name == b"content-type":
            return bool(value.lower().startswith(b"multipart/form-data"))
    return False


def announced_length(scope: Scope) -> int | None:
    """Return the body's ``Content-Length`` in bytes, its digits cut to 20; None: absent or malformed."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value[:20]) if value.isdigit() else None
    return None


def without_headers(headers: Headers, *names: bytes) -> list[tuple[bytes, bytes]]:
    return [(key, value) for key, value in headers if key.lower() not in names]


def content_length(headers: Headers) -> int | None:
    """Return the length of a body in bytes; None: ``Content-Length`` is absent, repeated or malformed."""
    values = [value for key, value in headers if key.lower() == b"content-length"]
    return read_length(values[0]) if len(values) == 1 else None


async def receive_in_time(receive: Receive, *, silence: float = SECONDS_OF_SILENCE) -> Message:
    """Receive the next ASGI message of a body.

    Args:
        receive: of the server.
        silence: maximum seconds until the message.

            Raises:
        RequestTimeout: no message came in time.
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
    """Yield a `receive` with a timeout for every message: one timer for the whole body, not one a message.

    Args:
        receive: of the server.
        silence: maximum seconds between two messages; the timeout may come up to a second early.

            Raises:
        RequestTimeout: no message came in time.
    """
    loop = asyncio.get_running_loop()
    is_waiting = False
    try:
        async with asyncio.timeout(silence) as timer:

            async def received() -> Message:
                nonlocal is_waiting
                end = loop.time() + silence
                if (timer.when() or 0.0) < end - 1.0:
                    timer.reschedule(end)
                is_waiting = True
                message = await receive()
                is_waiting = False
                return message

            yield received
    except TimeoutError:
        if not is_waiting:
            raise  # from the caller's block, not from `receive`
        raise _silent_for(silence) from None


def _silent_for(seconds: float) -> RequestTimeout:
    return RequestTimeout(
        f"No data of the request body arrived for {seconds:g} s.", headers=[(b"connection", b"close")]
    )


async def read_body(receive: Receive, *, limit: int, counted: Callable[[int], None] | None = None) -> bytes:
    """Return the whole request body.

    Args:
        receive: of the server.
        limit: maximum bytes.
        counted: called with the bytes of each piece before it is kept; what it raises ends the reading.

    Raises:
        PayloadTooLarge: beyond `limit` bytes; the rest is not read.
        ClientDisconnected: before the body was complete.
    """
    body: bytes | bytearray = b""
    while True:
        message = await receive_in_time(receive)
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        chunk: bytes = message.get("body", b"")
        if len(body) + len(chunk) > limit:
            raise too_large(limit)
        if counted is not None:
            counted(len(chunk))
        if not body:
            body = chunk
        else:  # grows where it is: thousands of pieces would leave the heap in pieces
            body = body if isinstance(body, bytearray) else bytearray(body)
            body += chunk
        if not message.get("more_body", False):
            return bytes(body)


def too_large(limit: int, *, endless: bool = True) -> PayloadTooLarge:
    """Return the error for a body beyond `limit` bytes; it closes the connection only where the length is unknown."""
    headers = [(b"connection", b"close")] if endless else []
    return PayloadTooLarge(f"The body is larger than {limit:,} bytes.", headers=headers)


def replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that yields `body` once, then the server's messages (only a disconnect is legal then)."""
    pending = True

    async def replayed() -> Message:
        nonlocal pending
        if pending:
            pending = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replayed


def replay_chunks(chunks: AsyncIterator[bytes], receive: Receive) -> Receive:
    """Return a `receive` that yields `chunks` as the body, then the server's messages."""
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
    """Block forever: a `receive` for work that must go on after the client disconnects."""
    await asyncio.Event().wait()
    raise AssertionError


def before_shutdown(send: Send, close: Callable[[], Awaitable[None]]) -> Send:
    """Return a lifespan `send` that awaits `close` before it reports the end of the shutdown to the server."""

    async def closing(message: Message) -> None:
        if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
            await close()
        await send(message)

    return closing


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the event loop. Raises `RuntimeError` under what is not asyncio, such as trio."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "imagegate runs on asyncio (or uvloop); this server runs its application on another event loop."
        ) from None


async def report_failure(message: str, scope: Scope, receive: Receive, send: Send) -> None:
    """Report to a server in its lifespan that the application cannot start; the caller raises the error.

    Servers take an exception without this message for an application that has no lifespan, and start all the same.
    """
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.failed", "message": message})


async def send_json(send: Send, status: int, body: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
    """Send a complete JSON response."""
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
    """Send an error in OpenAI's envelope."""
    await send_json(send, error.status, error.body(), error.headers)
