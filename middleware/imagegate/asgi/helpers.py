"""ASGI helpers that the layers share."""

from __future__ import annotations

import asyncio
import re
import types
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterable, Sequence
from contextlib import asynccontextmanager
from random import getrandbits
from typing import Any, Final, TypeVar

from starlette.types import Message, Receive, Scope, Send

from imagegate.errors import ImagegateError, PayloadTooLarge, RequestTimeout
from imagegate.protocol.headers import read_length

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
SECONDS_OF_SILENCE = 30.0
"""Seconds without data after which reading a request body times out."""

Headers = Iterable[tuple[bytes, bytes]]
_T = TypeVar("_T")


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


class TooLate(Exception):
    """What was awaited took too long."""


class _Limit:
    """Cancels a task when its time is over. Lighter than closures: thousands of them may be there at a time."""

    __slots__ = ("is_over", "task")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.task = task
        self.is_over = False

    def expire(self) -> None:
        self.is_over = True
        self.task.cancel()


@types.coroutine
def within(seconds: float, operation: Awaitable[_T], loop: asyncio.AbstractEventLoop) -> Generator[Any, Any, _T]:
    """Await an operation for so long at most, as `asyncio.timeout` does, with a timer only where it has to wait.

    Most messages of a body are there when they are asked for, and most are taken at once.

    Raises:
        TooLate: the time is over.
    """
    steps: Any = operation.__await__() if hasattr(operation, "__await__") else operation  # of `types.coroutine`
    try:
        awaited = [next(steps)]
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    task = asyncio.current_task(loop)
    if task is None:
        raise AssertionError("coroutines run in tasks")
    result: _T
    cancelled, limit = task.cancelling(), _Limit(task)
    timer = loop.call_later(max(seconds, 0.0), limit.expire)
    try:
        while True:
            try:
                yield awaited.pop()  # what has failed must not be held by the frame that its traceback leads to
            except GeneratorExit:
                if hasattr(steps, "close"):
                    steps.close()
                raise
            except BaseException as error:
                if not hasattr(steps, "throw"):  # an iterator need not have it (PEP 492), and granian's have not
                    raise
                awaited.append(steps.throw(error))
            else:
                if hasattr(steps, "send"):
                    result = yield from steps
                    break
                awaited.append(next(steps))
    except StopIteration as done:  # of what was thrown into it
        result = done.value
    except BaseException as error:
        if limit.is_over and task.uncancel() <= cancelled and isinstance(error, asyncio.CancelledError):
            raise TooLate from None
        raise
    finally:
        timer.cancel()
    if limit.is_over:  # it was done all the same
        task.uncancel()
    return result


async def receive_in_time(receive: Receive, *, silence: float = SECONDS_OF_SILENCE) -> Message:
    """Receive the next ASGI message of a body.

    Args:
        receive: of the server.
        silence: maximum seconds until the message.

    Raises:
        RequestTimeout: no message came in time.
    """
    try:
        return await within(silence, receive(), asyncio.get_running_loop())
    except TooLate:
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
