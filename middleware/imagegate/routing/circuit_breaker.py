"""Circuit breaker: rejects requests to an upstream that keeps failing. Pure: time is passed in."""

from __future__ import annotations

from imagegate.telemetry.hooks import BreakerState


class Breaker:
    """Opens on consecutive failures, admits one probe after a pause, and closes when the probe succeeds.

    A caller takes a permit before each request and returns it with the outcome. Permits issued before a change of state
    are ignored: a request sent before the breaker opened does not close it.

    Args:
        failures: number of consecutive failures that opens the breaker; 0: it never opens.
        pause: seconds from opening to the first probe.
    """

    def __init__(self, *, failures: int, pause: float) -> None:
        self._failures = failures
        self.pause = pause
        self.state: BreakerState = "closed"
        """Read by others, set here alone."""
        self.in_a_row = 0
        """Failures since the last success or change of state; where there are none, a closed breaker need not hear of
        another success."""
        self.permit = 0
        """What `enter` returns; a new one after each change of state."""
        self._probe_from = 0.0
        self._probing = False

    def is_shut(self, now: float) -> bool:
        """Return whether requests are rejected: the breaker is open within the pause, or a probe is running."""
        if self.state == "open":
            return now < self._probe_from
        return self.state == "half_open" and self._probing

    def seconds_left(self, now: float) -> float:
        """Return the seconds until the next probe; 1 while a probe is running."""
        return self._probe_from - now if self.state == "open" else 1.0

    def enter(self, now: float) -> int | None:
        """Return a permit for one request, to be returned by `leave`; None: the request is rejected."""
        if self.state == "closed":
            return self.permit
        if self.is_shut(now):
            return None
        if self.state == "open":
            self._become("half_open")
        self._probing = True
        return self.permit

    def leave(self, permit: int, *, worked: bool | None, now: float) -> None:
        """Return a permit with the outcome of its request.

        Args:
            permit: from `enter`.
            worked: whether the upstream worked; None: unknown, for example because the client disconnected.
            now: seconds of a monotonic clock.
        """
        if permit != self.permit:
            return
        self._probing = False
        if worked is None:
            return
        self.in_a_row = 0 if worked else self.in_a_row + 1
        if self.state == "half_open" and worked:
            self._become("closed")
        elif self.state == "half_open" or 0 < self._failures <= self.in_a_row:
            self._probe_from = now + self.pause
            self._become("open")

    def open_until(self, probe_from: float) -> None:
        """Open, because another process's breaker has.

        Args:
            probe_from: seconds of a monotonic clock, when its pause is over.
        """
        self._probe_from = probe_from
        self._become("open")

    def close(self) -> None:
        """Close, because another process's breaker has."""
        self._become("closed")

    def _become(self, state: BreakerState) -> None:
        self.state = state
        self.in_a_row = 0
        self.permit += 1
