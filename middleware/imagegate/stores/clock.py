"""The clocks that stores look at: the module ``time``, or a test's own."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """What stores use of the module ``time``, which is one of these."""

    def time(self) -> float:
        """Return seconds since the epoch, as in links and in files' times."""
        ...

    def monotonic(self) -> float:
        """Return the seconds of a monotonic clock."""
        ...
