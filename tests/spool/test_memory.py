"""The memory that requests may hold: counted to the byte, given back once, and never waited for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegate.errors import Overloaded
from imagegate.spool.memory import FLOOR, Memory, RequestMemory, Share

MIB = 1024 * 1024


def test_a_request_holds_its_floor_from_the_beginning():
    memory = Memory(MIB)
    held = memory.reserve()
    assert memory.held == FLOOR
    assert held.try_take(FLOOR)  # is its own already
    assert memory.held == FLOOR
    held.take(1)
    assert memory.held == FLOOR + 1
    held.give_back(FLOOR + 1)
    assert memory.held == FLOOR
    held.close()
    assert memory.held == 0


def test_what_finds_no_room_takes_nothing():
    memory = Memory(4 * FLOOR)
    held, other = memory.reserve(), memory.reserve()
    with pytest.raises(Overloaded) as caught:
        held.take(4 * FLOOR)
    assert (caught.value.status, caught.value.headers) == (503, [(b"retry-after", b"1")])
    assert memory.held == 2 * FLOOR
    assert held.try_take(3 * FLOOR)  # its floor and what is free
    assert not other.try_take(FLOOR + 1)
    with pytest.raises(Overloaded):
        memory.reserve()


def test_large_requests_leave_room_for_small_ones():
    memory = Memory(8 * MIB)
    large = memory.reserve(6 * MIB)
    with pytest.raises(Overloaded):
        memory.reserve(MIB + 1)
    small = memory.reserve(MIB)
    assert not small.try_take(1), "it would be large"
    large.close()
    assert small.try_take(MIB)


def test_the_last_holder_gives_it_back_and_nobody_does_so_twice():
    memory = Memory(MIB)
    held = memory.reserve(FLOOR * 2)
    held.retain()
    held.close()
    assert memory.held == FLOOR * 2
    held.close()
    assert memory.held == 0
    held.close()
    held.give_back(FLOOR * 2)
    assert not held.try_take(FLOOR * 3), "it has ended"
    assert memory.held == 0


def test_a_share_takes_no_more_than_its_own():
    memory = Memory(8 * MIB)
    share = Share(memory, MIB)
    assert share.try_take(MIB)
    assert not share.try_take(1)
    share.give_back(1)
    assert share.try_take(1)
    assert memory.held == MIB
    held = memory.reserve(5 * MIB)
    share.give_back(MIB)
    assert memory.held == 5 * MIB
    assert share.try_take(MIB)
    assert not Share(memory, MIB).try_take(1), "requests come first"
    held.close()


_STEPS = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from(["take", "give", "retain", "close"]), st.integers(0, 3 * MIB)),
    max_size=60,
)


@given(_STEPS)
def test_whatever_is_taken_and_given_back_the_sum_is_right(steps: list[tuple[int, str, int]]) -> None:
    memory = Memory(8 * MIB)
    reservations: list[RequestMemory] = []
    used: dict[int, int] = {}
    for place, step, size in steps:
        while len(reservations) <= place:
            reservations.append(memory.reserve())
        held = reservations[place]
        if step == "take" and held.try_take(size):
            used[place] = used.get(place, 0) + size
        elif step == "give":
            held.give_back(used.pop(place, 0))
        elif step == "retain":
            held.retain()
            held.close()
        assert sum(max(used.get(at, 0), FLOOR) for at in range(len(reservations))) == memory.held <= memory.total
    for held in reservations:
        held.close()
    assert memory.held == 0
