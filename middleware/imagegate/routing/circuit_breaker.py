"""A circuit breaker: an upstream that keeps failing is left alone for a while. Pure: time is passed in."""

from __future__ import annotations

from imagegate.telemetry.hooks import BreakerState


class Breaker:
    """Opens on failures in a row, lets one probe through after a pause, and closes when that succeeds.

    Who asks the upstream takes a permit first and gives it back with what it learnt. Permits from before a change of
    state have nothing more to say: what was sent to an upstream that has failed since does not close its breaker.

    Args:
        failures: in a row, that open it; 0: it stays closed.
        pause: seconds until a probe.
    """

    def __init__(self, *, failures: int, pause: float) -> None:
        self._failures = failures
        self._pause = pause
        self._state: BreakerState = "closed"
        self._in_a_row = 0
        self._probe_from = 0.0
        self._probing = False
        self._changes = 0

    @property
    def state(self) -> BreakerState:
        return self._state

    def is_shut(self, now: float) -> bool:
        """Whether nobody may pass: it is open and the pause is not over, or a probe is at work."""
        if self._state == "open":
            return now < self._probe_from
        return self._state == "half_open" and self._probing

    def seconds_left(self, now: float) -> float:
        """Until it is worth asking again; a second where a probe is at work, which may end at any time."""
        return self._probe_from - now if self._state == "open" else 1.0

    def enter(self, now: float) -> int | None:
        """A permit to ask the upstream, to be given back by `leave`; None: nobody may pass."""
        if self.is_shut(now):
            return None
        if self._state == "open":
            self._become("half_open")
        self._probing = self._state == "half_open"
        return self._changes

    def leave(self, permit: int, *, worked: bool | None, now: float) -> None:
        """Gives a permit back.

        Args:
            worked: whether the upstream did; None: that was not learnt, because the client left for example.
        """
        if permit != self._changes:
            return
        self._probing = False
        if worked is None:
            return
        self._in_a_row = 0 if worked else self._in_a_row + 1
        if self._state == "half_open" and worked:
            self._become("closed")
        elif self._state == "half_open" or 0 < self._failures <= self._in_a_row:
            self._probe_from = now + self._pause
            self._become("open")

    def _become(self, state: BreakerState) -> None:
        self._state = state
        self._in_a_row = 0
        self._changes += 1
