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

"""Seconds between two looks at what is overdue."""
_SECONDS_BETWEEN_LINES: Final = 10.0
_BEGUN_AT_ONCE: Final = 16
_SECONDS_OF_BEGINNING: Final = 0.002
"""Requests, and time for them, that begin in one turn of the event loop."""
_BEGUN_AMONG_NEWCOMERS: Final = 1
"""Requests that begin in a turn after one in which a connection was accepted. uvloop accepts one in a turn: short turns
let newcomers in, however much the others have sent."""
_LATER_AT_ONCE: Final = 8
"""Connections whose work can wait that have their turn together."""
_SECONDS_TO_LATER_WORK: Final = 0.01
"""After which work that can wait has its turn, whatever else there is to do."""
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

    A connection is at work while it has a request that is to be answered. Else it waits for its client; those are
    closed in time, and where there are too many, the one that has waited longest makes room: first of those that have
    never had a request answered, or whose answer is written and whose client goes on sending.

    Args:
        tick: seconds between two looks at who is late.
    """

    def __init__(self, limits: LimitsConfig, *, tick: float = 1.0) -> None:
        self.limits = limits
        self._tick_seconds = tick
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
        self._most = _BEGUN_AT_ONCE
        self._has_newcomers = False
        self._known: deque[Member] = deque()
        self._queue: deque[Member] = deque()
        self._later: deque[Member] = deque()
        self._later_at = 0.0
        self._is_turn_set = False
        self._is_serving_queue = False
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        """When the timer is to run."""
        self._last_line = -_SECONDS_BETWEEN_LINES
        if self._limit < limits.connections:
            get_logger().warning("limits.connections is more than the descriptors allow", connections=self._limit)

    def __len__(self) -> int:
        return len(self._open)

    def buffer(self, size: int) -> memoryview:
        """Return room for `size` bytes at most. The next call returns the same room."""
        if size == self.limits.pipelined:
            return self._small
        return self._large if size >= READ else self._large[:size]

    def opened(self, member: Member) -> bool:
        """Count a new connection; return False where no other could be closed for it."""
        if self._timer is None:
            self._set_timer(asyncio.get_running_loop())
        has_room = True
        while has_room and len(self._open) >= self._limit:
            has_room = self._evict()
        self._open.add(member)
        self._has_newcomers = True
        self._set_turn()
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
        self._new.pop(member, None)  # those who have waited for longest come first
        self._kept.pop(member, None)
        (self._kept if is_kept else self._new)[member] = asyncio.get_running_loop().time() + seconds

    def extend(self, member: Member, seconds: float, *, most: float, until: float) -> None:
        """Let a connection wait for longer, but neither for more than `most` seconds from now nor beyond `until`."""
        if member in self._new:
            latest = min(asyncio.get_running_loop().time() + most, until)
            self._new[member] = min(self._new[member] + seconds, latest)

    def works(self, member: Member) -> None:
        """Note that a connection no longer waits for its client."""
        if self._kept.pop(member, None) is None:
            self._new.pop(member, None)

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

    def may_begin(self, member: Member, *, is_known: bool) -> bool:
        """Return whether a request may begin in this turn of the event loop; if not, `Member.go_on` is called later.

        Args:
            is_known: whether the connection has had a request answered. Those take turns with new ones, so that however
                many there are of either kind, the other does not wait for all of them.
        """
        if self._is_serving_queue or (not self._queue and not self._known and self._has_turn()):
            if not self._begun:
                self._turn_began = perf_counter()
                self._set_turn()
            self._begun += 1
            return True
        self.works(member)  # its client waits, not the gateway
        (self._known if is_known else self._queue).append(member)
        self._set_turn()
        return False

    def later(self, member: Member) -> None:
        """Have `Member.go_on` called when newcomers, and those who have waited for an answer, have had their turn."""
        self._later.append(member)
        self._set_turn()

    def _has_turn(self) -> bool:
        if not self._begun:
            return True
        return self._begun < self._most and perf_counter() - self._turn_began < _SECONDS_OF_BEGINNING

    def _set_turn(self) -> None:
        if not self._is_turn_set:
            self._is_turn_set = True
            asyncio.get_running_loop().call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._is_turn_set = False
        self._begun = 0
        has_newcomers, self._has_newcomers = self._has_newcomers, False
        self._most = _BEGUN_AMONG_NEWCOMERS if has_newcomers else _BEGUN_AT_ONCE
        self._is_serving_queue = True
        while (self._queue or self._known) and self._has_turn():
            for queue in (self._known, self._queue):
                if queue:
                    queue.popleft().go_on()
        is_busy = bool(has_newcomers or self._queue or self._known)
        if self._later:
            self._serve_later(is_busy=is_busy)
        self._is_serving_queue = False
        if is_busy or self._later:
            self._set_turn()

    def _serve_later(self, *, is_busy: bool) -> None:
        now = perf_counter()
        if is_busy and now - self._later_at < _SECONDS_TO_LATER_WORK:
            return
        self._later_at = now
        most = 1 if is_busy else min(len(self._later), _LATER_AT_ONCE)
        while most and self._has_turn():
            most -= 1
            self._later.popleft().go_on()

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
        if now - self._due > self._tick_seconds:
            self._forgive(now - self._due)
        for member in list(self._overdue(now)):
            member.expire()
        for member in list(self._writing):
            if not member.reads_in_time():
                member.drop("client_stall")
        self._report(now)
        if self._open:
            self._set_timer(loop)

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = loop.time() + self._tick_seconds
        self._timer = loop.call_later(self._tick_seconds, self._tick)

    def _forgive(self, seconds: float) -> None:
        """Give clients the time in which this process has not looked at what they have sent."""
        for waiting in (self._new, self._kept):
            for member in waiting:
                waiting[member] += seconds

    def _overdue(self, now: float) -> Iterator[Member]:
        for waiting in (self._new, self._kept):
            yield from (member for member, end in waiting.items() if end <= now)

    def _report(self, now: float) -> None:
        if self.closed and now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            get_logger().warning("connections closed by limits", **self.closed)
            self.closed.clear()
