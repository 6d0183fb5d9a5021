"""How much a run measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

ENDLESS: Final = 1_000_000


@dataclass(frozen=True)
class Form:
    rounds: int
    seconds: float
    """Of one measurement."""
    small_seconds: float
    """Of one measurement of W1, which wrk makes."""
    connections: tuple[int, ...]
    """Of W1."""
    requests: int
    """At most in one measurement of the others."""
    rates: tuple[int, ...]
    """Requests a second that are offered."""
    rate_rounds: int
    rate_seconds: float
    at_once: dict[int, int]
    """W4: requests -> rounds."""
    tasks: int
    """W5."""
    mixes: int
    """W7: times that the mixed traffic is sent."""
    mounts: int
    """W6: rounds."""
    starts: int


FORMS: Final = {
    "smallest": Form(1, 30, 0.2, (1,), 1, (20,), 1, 0.3, {1: 1}, 1, 2, 1, 1),
    "short": Form(3, 0.7, 1, (16, 64, 512), ENDLESS, (300, 1000, 2000), 1, 4, {500: 2, 2000: 2}, 1000, 4, 100, 3),
    "long": Form(9, 4, 4, (16, 64, 512), ENDLESS, (300, 1000, 2000), 3, 20, {500: 5, 2000: 5}, 1000, 60, 400, 9),
}
