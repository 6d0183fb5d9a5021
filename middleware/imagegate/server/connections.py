"""All connections of a process: how many there may be, which of them wait for their client, and for how long."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterator
from itertools import chain
from time import perf_counter
from typing import Final, Protocol

from imagegate.config.schema import LimitsConfig
from imagegate.logger import get_logger
from imagegate.server.descriptors import connection_limit

_TICK: Final = 1.0
"""Seconds between two looks at what is overdue."""
_SECONDS_BETWEEN_LINES: Final = 10.0
_BEGUN_AT_ONCE: Final = 4
_SECONDS_OF_BEGINNING: Final = 0.002
"""Requests, and time for them, that begin in one turn of the event loop. uvloop accepts one connection in a turn: short
turns let newcomers in, however much the others have sent."""
READ: Final = 256 * 1024
"""Maximum bytes that are read of a body at a time."""


class Member(Protocol):
    """A connection, as the others see it."""

    held: int
    """Bytes that are counted for the head of the last request."""

    def go_on(self) -> None:
        """Take what had to wait."""

    def expire(self) -> None:
        """Close: the client has not sent in time what it is waited for."""

    def drop(self, reason: str) -> None:
        """Close at once, whatever is under way. `reason` is for the log."""

    def reads_in_time(self) -> bool:
        """Return whether the client has kept pace with reading since this was last asked."""
        ...


class Connections:
    """The connections of one process, and the buffer into which all of them read.

    A connection is at work while the application has a request of it to answer. Else it waits for its client; those are
    closed in time, and where there are too many, the one that has waited longest makes room: first of those that have
    never had a request answered, or whose answer is written and whose client goes on sending.
    """

    def __init__(self, limits: LimitsConfig) -> None:
        self.limits = limits
        self.closed: Counter[str] = Counter()
        """Connections that were closed before their time, by reason, since the last line of the log."""
        buffer = memoryview(bytearray(READ))
        self._large = buffer
        self._small = buffer[: limits.pipelined]
        self._limit = connection_limit(limits.connections)
        self._open: set[Member] = set()
        self._new: dict[Member, float] = {}
        self._kept: dict[Member, float] = {}
        self._writing: set[Member] = set()
        self._held = 0
        self._begun = 0
        self._turn_began = 0.0
        self._queue: deque[Member] = deque()
        self._is_serving_queue = False
        self._timer: asyncio.TimerHandle | None = None
        self._last_line = -_SECONDS_BETWEEN_LINES
        if self._limit < limits.connections:
            get_logger().warning("limits.connections is more than the descriptors allow", connections=self._limit)

    def __len__(self) -> int:
        return len(self._open)

    def buffer(self, size: int | None) -> memoryview:
        """Return room for `size` bytes at most; None: for a head. The next call returns the same room."""
        if size is None:
            return self._small
        return self._large if size >= READ else self._large[:size]

    def opened(self, member: Member) -> bool:
        """Count a new connection; return False where no other could be closed for it."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_TICK, self._tick)
        has_room = True
        while has_room and len(self._open) >= self._limit:
            has_room = self._evict()
        self._open.add(member)
        return has_room

    def forget(self, member: Member) -> None:
        """Count a connection no longer."""
        self._open.discard(member)
        self._writing.discard(member)
        self.works(member)

    def waits(self, member: Member, seconds: float, *, is_kept: bool = False) -> None:
        """Note that a connection waits for its client from now on, for so many seconds.

        Args:
            is_kept: whether a request of it was answered, and nothing of the next has arrived.
        """
        self.works(member)
        (self._kept if is_kept else self._new)[member] = asyncio.get_running_loop().time() + seconds

    def extend(self, member: Member, seconds: float, *, most: float, until: float) -> None:
        """Let a connection wait for longer, but neither for more than `most` seconds from now nor beyond `until`."""
        if member in self._new:
            latest = min(asyncio.get_running_loop().time() + most, until)
            self._new[member] = min(self._new[member] + seconds, latest)

    def works(self, member: Member) -> None:
        """Note that a connection no longer waits for its client."""
        if self._new.pop(member, None) is None:
            self._kept.pop(member, None)

    def writes(self, member: Member, *, is_blocked: bool) -> None:
        """Note whether a connection waits for its client to read."""
        if is_blocked:
            self._writing.add(member)
        else:
            self._writing.discard(member)

    def hold(self, member: Member, size: int) -> None:
        """Count bytes of a connection's head; a negative `size`: bytes that are released."""
        self._held += size
        while size > 0 and self._held > self.limits.heads:
            waiting = chain(self._new, self._kept)
            oldest = next((other for other in waiting if other.held and other is not member), None)
            if oldest is None:
                return
            oldest.drop("heads")

    def may_begin(self, member: Member) -> bool:
        """Return whether a request may begin in this turn of the event loop; if not, `Member.go_on` is called later."""
        if self._has_turn() and (self._is_serving_queue or not self._queue):
            if not self._begun:
                self._turn_began = perf_counter()
                asyncio.get_running_loop().call_soon(self._next_turn)
            self._begun += 1
            return True
        self.queue(member)
        return False

    def _has_turn(self) -> bool:
        if not self._begun:
            return True
        return self._begun < _BEGUN_AT_ONCE and perf_counter() - self._turn_began < _SECONDS_OF_BEGINNING

    def queue(self, member: Member) -> None:
        """Have `Member.go_on` called in a later turn of the event loop."""
        if not self._begun and not self._queue:
            asyncio.get_running_loop().call_soon(self._next_turn)
        self._queue.append(member)

    def _next_turn(self) -> None:
        self._begun = 0
        self._is_serving_queue = True
        for _ in range(len(self._queue)):
            if not self._has_turn():
                break
            self._queue.popleft().go_on()
        self._is_serving_queue = False
        if self._queue and not self._begun:
            asyncio.get_running_loop().call_soon(self._next_turn)

    def _evict(self) -> bool:
        oldest = next(iter(self._new), None) or next(iter(self._kept), None)
        if oldest is None:
            return False
        oldest.drop("connections")
        return True

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._timer = None
        for member in list(self._overdue(now)):
            member.expire()
        for member in list(self._writing):
            if not member.reads_in_time():
                member.drop("client_stall")
        self._tell(now)
        if self._open:
            self._timer = loop.call_later(_TICK, self._tick)

    def _overdue(self, now: float) -> Iterator[Member]:
        for waiting in (self._new, self._kept):
            yield from (member for member, end in waiting.items() if end <= now)

    def _tell(self, now: float) -> None:
        if self.closed and now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            get_logger().warning("connections closed by limits", **self.closed)
            self.closed.clear()
