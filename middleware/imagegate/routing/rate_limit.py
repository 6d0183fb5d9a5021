"""Sliding-window rate limit: holds in every 60 seconds, not only on average. Pure: time is passed in."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

MINUTE: Final = 60.0


class RateLimit:
    """Allows at most `per_minute` requests in any 60 seconds, wherever the provider's window begins.

    Slots are reserved ahead of time, in order.
    """

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._slots: list[float] = []

    def next_slot(self, now: float) -> float:
        """Return the time of the next free slot."""
        earliest = self._slots[-self._per_minute] + MINUTE if len(self._slots) >= self._per_minute else now
        # Never before a reserved slot: a slot released in between must not admit more than one minute allows.
        return max(now, earliest, self._slots[-1] if self._slots else now)

    def take(self, now: float, *, max_wait: float) -> float | None:
        """Reserve a slot.

        Args:
            now: seconds of a monotonic clock.
            max_wait: maximum seconds until the slot.

        Returns:
            The time at which the request may be sent; None: more than `max_wait` seconds away.
        """
        slot = self.next_slot(now)
        if slot - now > max_wait:
            return None
        del self._slots[: bisect_left(self._slots, now - MINUTE)]
        self._slots.append(slot)
        return slot

    def give_back(self, slot: float) -> None:
        """Release an unused slot. Later slots keep their times."""
        index = bisect_left(self._slots, slot)
        if index < len(self._slots) and self._slots[index] == slot:
            del self._slots[index]
