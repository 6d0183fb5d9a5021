"""A rate limit that holds in every minute, not only on average. Pure: time is passed in."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

MINUTE: Final = 60.0


class RateLimit:
    """At most `per_minute` requests in any 60 seconds, however the provider divides its minutes.

    Turns are given out ahead of time, in order.
    """

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._turns: list[float] = []

    def next_turn(self, now: float) -> float:
        """When the next request may go."""
        earliest = self._turns[-self._per_minute] + MINUTE if len(self._turns) >= self._per_minute else now
        # Never before one that was given out: where turns between were given back, it has a minute of its own.
        return max(now, earliest, self._turns[-1] if self._turns else now)

    def take(self, now: float, *, patience: float) -> float | None:
        """A turn: when the request may go. None where that is more than `patience` seconds away.

        `now` must not go back.
        """
        turn = self.next_turn(now)
        if turn - now > patience:
            return None
        del self._turns[: bisect_left(self._turns, now - MINUTE)]
        self._turns.append(turn)
        return turn

    def give_back(self, turn: float) -> None:
        """A turn of which nothing was made. Those that were given out after it stay where they are."""
        place = bisect_left(self._turns, turn)
        if place < len(self._turns) and self._turns[place] == turn:
            del self._turns[place]
