"""Requests in flight: how many there may be, how slow their clients may be, and that work ends with its client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from math import inf
from typing import Any, Final, NamedTuple

from starlette.types import Message, Receive, Send

from imagegate.asgi.helpers import ClientDisconnected, TooLate, within
from imagegate.errors import RequestTimeout

PERMIT: Final = "imagegate.permit"
"""Scope key of the `Permit` of a request, for work that goes on without its client."""
_WATCHED_AFTER: Final = 0.05
"""Seconds of work after which the client's connection is watched."""
_LONGEST_PAUSE: Final = 1.0
"""Maximum seconds between two calls of a `receive` that does not wait for the client to disconnect."""
_BUFFERED: Final = 2 * 1024 * 1024
"""Bytes that a server's socket may have to get rid of before it takes more, while its client reads all the time."""


class Permits:
    """As many permits as `count`."""

    def __init__(self, count: int, *, is_draining: bool = False) -> None:
        self.is_draining = is_draining
        """Whether no new requests are to be admitted."""
        self.left = count

    def take(self) -> Permit | None:
        """Return a permit that is held once; None: all are taken."""
        if self.left <= 0:
            return None
        self.left -= 1
        return Permit(self)


class Permit:
    """A place under the limit, counted until its last holder releases it."""

    __slots__ = ("_holders", "_permits")

    def __init__(self, permits: Permits) -> None:
        self._permits = permits
        self._holders = 1

    def hold(self) -> None:
        """Hold it once more."""
        self._holders += 1

    def release(self) -> None:
        """Hold it once less."""
        self._holders -= 1
        if not self._holders:
            self._permits.left += 1


class Pace(NamedTuple):
    """How slow a client may be."""

    rate: int
    """Bytes a second."""
    stall: float
    """Seconds by which it may fall behind."""


_SECONDS_BETWEEN_LOOKS: Final = 0.5
DEFAULT_PACE: Final = Pace(8192, 20.0)


class PacedClient:
    """The `receive` and `send` of one request, which fail where its client falls behind.

    Only time in which the client is waited for counts.
    """

    __slots__ = (
        "_behind",
        "_is_given_up",
        "_is_received",
        "_loop",
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
        self._loop = asyncio.get_running_loop()
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
        loop = self._loop
        began = loop.time()
        try:
            message = await within(self._to_send, self._receive(), loop)
        except TooLate:
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
        loop = self._loop
        rate, stall = self._pace
        # A server waits for what was sent before, or for this: both are in its buffers.
        self._to_read = min(self._to_read, stall + _BUFFERED / rate) + len(message.get("body", b"")) / rate
        began = self.waits_since = loop.time()
        self._task = task = asyncio.current_task(loop)
        try:
            await within(self._to_read, self._send(message), loop)
        except TooLate:
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


async def while_connected(work: Awaitable[None], receive: Receive, *, watched_after: float = _WATCHED_AFTER) -> None:
    """Await `work`, and cancel it when the client disconnects.

    Servers do not cancel handlers: after the body, the only ASGI message left is ``http.disconnect``.

    Args:
        work: to be awaited.
        receive: of the server.
        watched_after: seconds of work before the connection is watched; a watcher task is costly for short work.

    Raises:
        ClientDisconnected: the client disconnected before `work` was done.
    """
    loop = asyncio.get_running_loop()
    watch = _Watch(receive, loop)
    timer = loop.call_later(watched_after, watch.start)
    try:
        await work
    except asyncio.CancelledError:
        if watch.take_back() == 0:  # no other cancellation is pending
            raise ClientDisconnected from None
        raise
    finally:
        timer.cancel()
        watch.end()
        watch.take_back()  # `work` has swallowed the cancellation, which must not reach what follows


class _Watch:
    """Cancels the running task when the client disconnects."""

    __slots__ = ("_has_cancelled", "_receive", "_task", "_watcher")

    def __init__(self, receive: Receive, loop: asyncio.AbstractEventLoop) -> None:
        self._receive = receive
        self._task = asyncio.current_task(loop)
        self._watcher: asyncio.Task[None] | None = None
        self._has_cancelled = False

    def start(self) -> None:
        """Begin to watch the connection."""
        self._watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        pause = _WATCHED_AFTER
        while (await self._receive())["type"] != "http.disconnect":
            await asyncio.sleep(pause)  # a `receive` that returns at once must not keep the event loop busy
            pause = min(pause * 2, _LONGEST_PAUSE)
        if self._task is not None:
            self._has_cancelled = True
            self._task.cancel()

    def take_back(self) -> int | None:
        """Take back its cancellation, once; return how many others there are, None: it has not cancelled."""
        if not self._has_cancelled or self._task is None:
            return None
        self._has_cancelled = False
        return self._task.uncancel()

    def end(self) -> None:
        """Watch no more."""
        watcher, self._watcher = self._watcher, None  # which refers to this object
        if watcher is not None:
            watcher.cancel()
