"""The rate limit: it holds in every minute, and gives nothing away."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from imagegate.routing.rate_limit import MINUTE, RateLimit

STEPS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.5, 7.0, 59.5, 60.0, 200.0]), st.sampled_from([0.0, 10.0, 500.0]), st.booleans()),
    max_size=60,
)


@given(STEPS, st.integers(1, 5))
def test_no_minute_has_more(steps: list[tuple[float, float, bool]], per_minute: int) -> None:
    """However requests come, wait and are given back: any 60 seconds hold `per_minute` turns at most, in order."""
    limit, now = RateLimit(per_minute), 0.0
    turns: list[float] = []
    for seconds, max_wait, is_given_back in steps:
        now += seconds
        promised = limit.next_slot(now)
        slot = limit.take(now, max_wait=max_wait)
        assert (slot is None) is (promised - now > max_wait)
        if slot is None:
            continue
        assert now <= slot == promised <= now + max_wait
        if is_given_back:
            limit.give_back(slot)
        else:
            turns.append(slot)
    assert turns == sorted(turns)
    for first, beyond in zip(turns, turns[per_minute:], strict=False):
        assert beyond - first >= MINUTE


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.5, 7.0, 59.5]), st.lists(st.integers(0, 9), max_size=3)), max_size=40),
    st.integers(1, 4),
)
@example([(0.0, [])] * 7 + [(0.0, [1, 1])] + [(0.0, [])] * 2 + [(0.0, [0])], 2)
def test_slots_may_be_given_back_late(steps: list[tuple[float, list[int]]], per_minute: int) -> None:
    """Also where later ones were given out meanwhile, those that are kept break no minute."""
    limit, now = RateLimit(per_minute), 0.0
    turns: list[float] = []
    for seconds, given_back in steps:
        now += seconds
        for place in given_back:
            if place < len(turns):
                limit.give_back(turns.pop(-1 - place))
        slot = limit.take(now, max_wait=500.0)
        if slot is not None:
            turns = sorted([*turns, slot])
    for first, beyond in zip(turns, turns[per_minute:], strict=False):
        assert beyond - first >= MINUTE


@given(st.integers(1, 20), st.floats(0, 1e6))
def test_nobody_waits_for_what_is_free(per_minute: int, now: float) -> None:
    """As many as the limit go at once, and the next one a minute after the first."""
    limit = RateLimit(per_minute)
    assert [now] * per_minute == [limit.take(now, max_wait=0) for _ in range(per_minute)]
    assert limit.take(now, max_wait=0) is None
    assert limit.take(now, max_wait=MINUTE + 1) == now + MINUTE


def test_a_turn_that_is_given_back_is_free_again() -> None:
    """A request that was never sent leaves its slot to another one."""
    limit = RateLimit(2)
    first = limit.take(0, max_wait=0)
    limit.take(1, max_wait=0)
    assert first is not None
    limit.give_back(first)
    assert limit.take(2, max_wait=0) == 2
    limit.give_back(55)  # which nobody has taken
    assert limit.take(3, max_wait=0) is None


def test_it_forgets_what_is_over() -> None:
    """A minute later everything is as at the beginning, and nothing is kept."""
    limit = RateLimit(1)
    for minute in range(1000):
        assert limit.take(minute * 61.0, max_wait=0) is not None
    assert len(limit._slots) <= 2
