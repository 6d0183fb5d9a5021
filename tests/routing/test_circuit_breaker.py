"""The circuit breaker as a state machine: whatever happens, and in whichever order."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, precondition, rule

from imagegate.routing.circuit_breaker import Breaker

FAILURES, PAUSE = 3, 10.0


class Request(NamedTuple):
    """One request that passed."""

    permit: int
    number: int


class AnyOrder(RuleBasedStateMachine):
    """Requests that begin and end in any order, and a model that only counts."""

    requests = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(failures=FAILURES, pause=PAUSE)
        self.now = 0.0
        self.opened_at: float | None = None
        self.in_a_row = 0
        self.begun = 0
        self.counting: set[int] = set()
        """Numbers of the requests whose end says something: those that passed in the present state."""

    @rule(seconds=st.sampled_from([0.0, 1.0, PAUSE - 1, PAUSE, PAUSE * 3]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=requests)
    def begin(self) -> Any:
        """Who may pass is exactly who should: all, nobody, or one probe."""
        is_rested = self.opened_at is not None and self.now >= self.opened_at + PAUSE
        may_pass = self.opened_at is None or (is_rested and not self.counting)
        assert may_pass is not self.breaker.is_shut(self.now)
        permit = self.breaker.enter(self.now)
        assert may_pass is (permit is not None)
        if permit is None:
            return multiple()
        assert self.breaker.state == ("closed" if self.opened_at is None else "half_open")
        self.begun += 1
        self.counting.add(self.begun)
        return Request(permit, self.begun)

    @rule(request=consumes(requests), worked=st.sampled_from([True, False, None]))
    def end(self, request: Request, worked: bool | None) -> None:
        before = self.breaker.state
        self.breaker.leave(request.permit, worked=worked, now=self.now)
        if request.number not in self.counting:
            assert before == self.breaker.state
            return
        self.counting.remove(request.number)
        if worked is None:
            assert before == self.breaker.state
            return
        self.in_a_row = 0 if worked else self.in_a_row + 1
        if self.opened_at is not None and worked:
            self.becomes(None)
        elif self.opened_at is not None or self.in_a_row == FAILURES:
            self.becomes(self.now)

    def becomes(self, opened_at: float | None) -> None:
        self.opened_at, self.in_a_row = opened_at, 0
        self.counting.clear()

    @invariant()
    def the_state_is_the_models(self) -> None:
        assert (self.opened_at is None) is (self.breaker.state == "closed")

    @precondition(lambda self: self.breaker.state == "open")
    @rule()
    def it_tells_when_to_come_again(self) -> None:
        left = self.breaker.seconds_left(self.now)
        assert left <= PAUSE
        assert not self.breaker.is_shut(self.now + left)
        assert left <= 0 or self.breaker.is_shut(self.now + left - 0.5)


TestAnyOrder = AnyOrder.TestCase


def fail(breaker: Breaker, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        permit = breaker.enter(now)
        assert permit is not None
        breaker.leave(permit, worked=False, now=now)


def test_failures_in_a_row_open_it() -> None:
    """A success in between begins the count anew."""
    breaker = Breaker(failures=3, pause=5)
    fail(breaker, 2)
    permit = breaker.enter(0)
    assert permit is not None
    breaker.leave(permit, worked=True, now=0)
    fail(breaker, 2)
    assert breaker.state == "closed"
    fail(breaker, 1)
    assert (breaker.state, breaker.enter(4.9)) == ("open", None)


def test_one_probe_decides() -> None:
    """While it is at work nobody else passes; its failure is another pause, its success the end."""
    breaker = Breaker(failures=1, pause=5)
    fail(breaker, 1)
    probe = breaker.enter(5)
    assert probe is not None
    assert (breaker.state, breaker.enter(6)) == ("half_open", None)
    breaker.leave(probe, worked=False, now=7)
    assert (breaker.state, breaker.enter(11.9)) == ("open", None)
    probe = breaker.enter(12)
    assert probe is not None
    breaker.leave(probe, worked=True, now=13)
    assert breaker.state == "closed"


def test_a_probe_that_learns_nothing_makes_room_for_another() -> None:
    """The client left before the answer came."""
    breaker = Breaker(failures=1, pause=5)
    fail(breaker, 1)
    probe = breaker.enter(5)
    assert probe is not None
    breaker.leave(probe, worked=None, now=6)
    assert (breaker.state, breaker.is_shut(6)) == ("half_open", False)
    assert breaker.enter(6) is not None


def test_old_news_do_not_close_it() -> None:
    """What was sent before it opened may still be answered well."""
    breaker = Breaker(failures=1, pause=5)
    old = breaker.enter(0)
    assert old is not None
    fail(breaker, 1)
    breaker.leave(old, worked=True, now=1)
    assert breaker.state == "open"


@pytest.mark.parametrize("times", [1, 50])
def test_none_never_opens(times: int) -> None:
    """`failures=0` turns it off."""
    breaker = Breaker(failures=0, pause=5)
    fail(breaker, times)
    assert breaker.state == "closed"
