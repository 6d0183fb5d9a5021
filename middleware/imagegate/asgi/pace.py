"""The least pace at which a client has to send its request and to read its response."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from math import inf
from typing import Any, Final, NamedTuple, TypeVar

from starlette.types import Message, Receive, Send

from imagegate.asgi.helpers import ClientDisconnected
from imagegate.errors import RequestTimeout

_T = TypeVar("_T")
_BUFFERED: Final = 2 * 1024 * 1024
"""Bytes that a server's socket may have to get rid of before it takes more, while its client reads all the time."""


class Pace(NamedTuple):
    """How slow a client may be."""

    rate: int
    """Bytes a second."""
    stall: float
    """Seconds by which it may fall behind."""


_SECONDS_BETWEEN_LOOKS: Final = 0.5
DEFAULT_PACE: Final = Pace(8192, 20.0)


class _TooSlow(Exception):
    """The client was waited for in vain."""


async def _within(seconds: float, operation: Awaitable[_T], loop: asyncio.AbstractEventLoop) -> _T:
    """Await an operation for so long: what `asyncio.timeout` does, at a fifth of its cost, which every request pays.

    Raises:
        _TooSlow: the time is over.
    """
    task: asyncio.Task[Any] | None = asyncio.current_task(loop)
    if task is None:
        raise AssertionError("coroutines run in tasks")
    cancelled = task.cancelling()
    is_over = False

    def cancel() -> None:
        nonlocal is_over
        is_over = True
        task.cancel()

    timer = loop.call_later(max(seconds, 0.0), cancel)
    try:
        return await operation
    except asyncio.CancelledError:
        if is_over and task.uncancel() <= cancelled:
            raise _TooSlow from None
        raise
    finally:
        timer.cancel()


class PacedClient:
    """The `receive` and `send` of one request, which fail where its client falls behind.

    Only time in which the client is waited for counts.
    """

    __slots__ = (
        "_behind",
        "_is_given_up",
        "_is_received",
        "_pace",
        "_receive",
        "_send",
        "_task",
        "_to_read",
        "_to_send",
        "waits_since",
    )

    def __init__(self, receive: Receive, send: Send, pace: Pace) -> None:
        self._receive = receive
        self._send = send
        self._pace = pace
        self._is_received = False
        self._behind = False
        self._is_given_up = False
        self._task: asyncio.Task[Any] | None = None
        self.waits_since = inf
        """When the client began to be waited for to read, by the event loop's clock; infinite: it is not."""
        self._to_send = pace.stall
        """Seconds that are left for the next part of the body."""
        self._to_read = pace.stall + _BUFFERED / pace.rate
        """Seconds that are left for what was sent last to be read."""

    async def receive(self) -> Message:
        """Receive a message; after the body, however long it takes.

        Raises:
            RequestTimeout: the client sends too slowly.
        """
        if self._is_received:
            return await self._receive()
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            message = await _within(self._to_send, self._receive(), loop)
        except _TooSlow:
            rate, stall = self._pace
            raise RequestTimeout(
                f"The request body arrives at less than {rate:,} bytes a second, or not for {stall:g} s.",
                headers=[(b"connection", b"close")],
            ) from None
        self._is_received = message["type"] != "http.request" or not message.get("more_body", False)
        left = self._to_send - (loop.time() - began)
        self._to_send = min(left + len(message.get("body", b"")) / self._pace.rate, self._pace.stall)
        return message

    async def send(self, message: Message) -> None:
        """Send a message.

        Raises:
            ClientDisconnected: the client reads too slowly; it is given up, and the server closes its connection.
        """
        if self._behind:
            raise ClientDisconnected
        loop = asyncio.get_running_loop()
        rate, stall = self._pace
        # A server waits for what was sent before, or for this: both are in its buffers.
        self._to_read = min(self._to_read, stall + _BUFFERED / rate) + len(message.get("body", b"")) / rate
        began = self.waits_since = loop.time()
        self._task = task = asyncio.current_task(loop)
        try:
            await _within(self._to_read, self._send(message), loop)
        except _TooSlow:
            self._behind = True
            raise ClientDisconnected from None
        except asyncio.CancelledError:
            if not self._is_given_up or task is None:
                raise
            task.uncancel()
            self._behind = True
            raise ClientDisconnected from None
        finally:
            self.waits_since = inf
        self._to_read -= loop.time() - began

    def give_up(self) -> None:
        """Stop waiting for the client to read, as if its time was over."""
        if self._task is not None and self.waits_since < inf and not self._is_given_up:
            self._is_given_up = True
            self._task.cancel()


class PacedClients(set[PacedClient]):
    """The clients of all requests at work.

    A server's buffers hide whether a client reads slowly or not at all, so a stalled one is waited for as long as its
    buffers may take to empty; but only while no other request waits.

    Args:
        stall: seconds without a sign of reading, after which a client gives way to others.
    """

    def __init__(self, stall: float) -> None:
        super().__init__()
        self._stall = stall
        self._looked = -inf

    def make_room(self) -> None:
        """Give up those that have not read for too long. Call where there is no room, at any rate."""
        now = asyncio.get_running_loop().time()
        if now - self._looked >= _SECONDS_BETWEEN_LOOKS:
            self._looked = now
            for client in [each for each in self if now - each.waits_since > self._stall]:
                client.give_up()
