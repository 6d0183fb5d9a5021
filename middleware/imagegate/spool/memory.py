"""The memory that requests may hold: one budget for bodies, replies and captures."""

from __future__ import annotations

from typing import Final

from imagegate.errors import Overloaded
from imagegate.protocol.messages import HeldMemory

FLOOR: Final = 64 * 1024
"""Bytes that each request has from its beginning to its end, so that a small reply to it never lacks room."""
DEFAULT_TOTAL: Final = 256 * 1024**2
_SMALL: Final = 1024 * 1024
"""Bytes of a request that may use the last quarter of a budget: a few large ones must not keep out all others."""


class Memory:
    """Bytes that all requests of a gateway may hold in memory at a time.

    Requests do not wait for room: those that hold some while they wait would deadlock. A request that finds
    none is refused, and has paid for nothing.

    Args:
        total: bytes. Requests of more than a megabyte have three quarters of them.
    """

    def __init__(self, total: int = DEFAULT_TOTAL) -> None:
        self.total = total
        self.held = 0
        """Bytes that are reserved now."""

    def try_take(self, size: int, *, large: bool = False) -> bool:
        """Return whether `size` bytes were free, and take them; `give_back` must follow."""
        if self.held + size > (self.total - self.total // 4 if large else self.total):
            return False
        self.held += size
        return True

    def give_back(self, size: int) -> None:
        self.held -= size

    def reserve(self, size: int = 0) -> RequestMemory:
        """Return a request's part, with `size` bytes in use. `close` must follow. Raises `Overloaded`."""
        reserved = max(size, FLOOR)
        if not self.try_take(reserved, large=size > _SMALL):
            raise _no_room()
        return RequestMemory(self, size, reserved)


class RequestMemory(HeldMemory):
    """One request's part of a `Memory`, given back when its last holder has closed it."""

    __slots__ = ("_holders", "_memory", "_reserved", "_used")

    def __init__(self, memory: Memory, used: int, reserved: int) -> None:
        self._memory = memory
        self._used = used
        self._reserved = reserved
        self._holders = 1

    def take(self, size: int) -> None:
        if not self.try_take(size):
            raise _no_room()

    def try_take(self, size: int) -> bool:
        used = self._used + size
        if (missing := used - self._reserved) > 0:
            if self._holders < 1 or not self._memory.try_take(missing, large=used > _SMALL):
                return False
            self._reserved = used
        self._used = used
        return True

    def give_back(self, size: int) -> None:
        self._used -= size
        surplus = self._reserved - max(self._used, FLOOR)
        if self._holders > 0 and surplus > 0:
            self._reserved -= surplus
            self._memory.give_back(surplus)

    def retain(self) -> None:
        self._holders += 1

    def close(self) -> None:
        self._holders -= 1
        if self._holders == 0:
            self._memory.give_back(self._reserved)
            self._reserved = 0


class Share:
    """A part of a `Memory` for one purpose, so that it never takes all of it.

    Args:
        most: bytes.
    """

    def __init__(self, memory: Memory, most: int) -> None:
        self._memory = memory
        self._most = most
        self._held = 0

    def try_take(self, size: int) -> bool:
        """Take memory as `Memory.try_take` does; those who share it come after requests."""
        if self._held + size > self._most or not self._memory.try_take(size, large=True):
            return False
        self._held += size
        return True

    def give_back(self, size: int) -> None:
        self._held -= size
        self._memory.give_back(size)


def _no_room() -> Overloaded:
    return Overloaded(
        "The requests in flight hold as much memory as they may. Retry in a moment.",
        headers=[(b"retry-after", b"1")],
    )
