"""Requests and images by time, and at a time: what is counted, refused and told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegate.access.principal import Limits, Principal
from imagegate.spending.accounts import Account, accounts_of
from imagegate.spending.memory import MemoryRates
from imagegate.spending.rates import NOT_COUNTED, Admission, RateLimited, TooManyAccounts, rate_headers
from imagegate.spending.windows import ORDER, Use


class Clock:
    def __init__(self) -> None:
        self.now = 86400.0 * 20_000 + 30

    def __call__(self) -> float:
        return self.now


def account(name: str = "key:a", /, **limits: int) -> Account:
    return Account(name, Limits(**limits))


def test_whose_limits_count() -> None:
    team, whole = Limits(in_flight=2), Limits(requests_per_day=5)
    principal = Principal(id="a", limits=Limits(in_flight=1), groups={"x": team, "b": Limits()})
    assert [each.id for each in accounts_of(principal, whole)] == ["key:a", "group:x", "group:b", "gateway"]
    assert [(each.kind, each.name) for each in accounts_of(None, whole)] == [("gateway", "")]


@pytest.mark.parametrize(
    ("limits", "images", "admitted", "limit", "reset"),
    [
        ({"requests_per_minute": 3}, 2, 3, "requests_per_minute", 30),
        ({"images_per_minute": 5}, 2, 2, "images_per_minute", 30),
        ({"requests_per_day": 2, "requests_per_minute": 9}, 1, 2, "requests_per_day", 86370),
        ({"images_per_day": 4}, 4, 1, "images_per_day", 86370),
        ({"in_flight": 2}, 1, 2, "in_flight", 1),
        ({"requests_per_minute": 0}, 1, 0, "requests_per_minute", 30),
    ],
)
def test_a_limit(limits: dict[str, int], images: int, admitted: int, limit: str, reset: float) -> None:
    clock = Clock()
    rates, mine = MemoryRates(clock), account(**limits)
    for _ in range(admitted):
        rates.count([mine], images)
    with pytest.raises(RateLimited) as refused:
        rates.count([mine], images)
    assert (refused.value.use.limit, refused.value.use.reset) == (limit, reset)
    assert (refused.value.status, refused.value.code) == (429, "rate_limit_exceeded")
    headers = dict(refused.value.headers)
    assert headers[b"retry-after"] == str(round(reset)).encode()
    assert (b"x-should-retry" in headers) == (reset > 60)
    clock.now += 86400
    if admitted and limit != "in_flight":
        rates.count([mine], images)


def test_against_all_accounts_or_none() -> None:
    rates = MemoryRates(Clock())
    mine, team = account(requests_per_minute=9, in_flight=9), account("group:b", images_per_minute=3)
    admission = asyncio.run(rates.admit([mine, team], 3))
    with pytest.raises(RateLimited):
        rates.count([mine, team], 1)
    assert rates.count([mine], 1).uses == [
        Use("key:a", "in_flight", 9, 2, 1.0),
        Use("key:a", "requests_per_minute", 9, 2, 30.0),
    ]
    asyncio.run(rates.leave(admission))
    assert rates.count([mine], 1).uses[0].used == 2


def test_headers_tell_of_the_limit_that_is_nearest() -> None:
    uses = [
        Use("key:a", "requests_per_day", 100, 99, 4000.0),
        Use("key:a", "requests_per_minute", 10, 2, 12.2),
        Use("gateway", "images_per_minute", 8, 9, 59.0),
        Use("gateway", "in_flight", 8, 1, 1.0),
    ]
    assert dict(rate_headers(uses)) == {
        b"x-ratelimit-limit-requests": b"100",
        b"x-ratelimit-remaining-requests": b"1",
        b"x-ratelimit-reset-requests": b"1h6m40s",
        b"x-ratelimit-limit-images": b"8",
        b"x-ratelimit-remaining-images": b"0",
        b"x-ratelimit-reset-images": b"59s",
    }
    assert rate_headers([]) == []
    assert [use.is_near for use in uses] == [True, False, True, False]


@given(
    st.lists(st.tuples(st.integers(1, 4), st.sampled_from([0, 1, 61, 86401]), st.booleans()), max_size=30),
    st.fixed_dictionaries({name: st.integers(0, 6) for name in ORDER}),
)
def test_no_limit_is_ever_exceeded(steps: list[tuple[int, int, bool]], limits: dict[str, int]) -> None:
    """In no minute, no day and at no time, whatever the order of requests and ends."""
    clock = Clock()
    rates, mine = MemoryRates(clock), account(**limits)
    admitted: list[tuple[float, int]] = []
    running = []
    for images, pause, ends in steps:
        clock.now += pause
        try:
            running.append(rates.count([mine], images))
            admitted.append((clock.now, images))
        except RateLimited:
            pass
        assert len(running) <= limits["in_flight"]
        if ends and running:
            rates.uncount(running.pop())
    in_one: Callable[[float], list[int]] = lambda seconds: [  # noqa: E731
        sum(each for at, each in admitted if at // seconds == window)
        for window in {at // seconds for at, _ in admitted}
    ]
    assert all(total <= limits["images_per_minute"] for total in in_one(60))
    assert all(total <= limits["images_per_day"] for total in in_one(86400))


def test_what_binds_no_more_is_forgotten_and_nothing_else() -> None:
    """However many principals there are, none gets more than its limit."""
    clock = Clock()
    rates = MemoryRates(clock)
    kept = rates.count([account("key:kept", in_flight=1)], 1)
    daily = [account(f"key:day-{number}", requests_per_day=1) for number in range(12_000)]
    for each in daily:
        rates.uncount(rates.count([each], 1))
        rates.uncount(rates.count([account(f"{each.id}-minute", images_per_minute=1)], 1))
        assert rates.count([account(f"{each.id}-free")], 1) == NOT_COUNTED
    for each in daily:
        with pytest.raises(RateLimited):
            rates.count([each], 1)
    assert len(vars(rates)["_counts"]) == 24_001
    clock.now += 60
    for number in range(20_000):
        rates.uncount(rates.count([account(f"key:new-{number}", in_flight=1)], 1))
    assert len(vars(rates)["_counts"]) < 40_000
    for each in (*daily, account("key:kept", in_flight=1)):
        with pytest.raises(RateLimited):
            rates.count([each], 1)
    clock.now += 86400
    for number in range(40_000):
        rates.uncount(rates.count([account(f"key:next-{number}", in_flight=1)], 1))
    assert len(vars(rates)["_counts"]) < 40_000
    with pytest.raises(RateLimited):
        rates.count([account("key:kept", in_flight=1)], 1)
    rates.uncount(kept)
    rates.count([account("key:kept", in_flight=1)], 1)


def test_where_there_is_no_room_a_new_account_is_refused() -> None:
    """To forget another one would lift its limit."""
    clock = Clock()
    rates = MemoryRates(clock, most=3)
    accounts = [account(f"key:{number}", requests_per_minute=1) for number in range(5)]
    for each in accounts[:3]:
        rates.count([each], 1)
        rates.uncount(Admission("", (each.id,), ()))
    for each in accounts[3:]:
        with pytest.raises(TooManyAccounts) as refused:
            rates.count([each], 1)
        assert (refused.value.status, refused.value.code) == (503, "limits_unavailable")
    with pytest.raises(RateLimited):
        rates.count(accounts[:1], 1)
    clock.now += 60
    rates.count([accounts[4]], 1)


@pytest.mark.parametrize("back", [40.0, 86400.0 * 0.9])
def test_a_clock_that_is_set_back_gives_nothing_back(back: float) -> None:
    clock = Clock()
    rates = MemoryRates(clock)
    mine = account(requests_per_day=1)
    rates.count([mine], 1)
    for step in (-back, back, -back):
        clock.now += step
        with pytest.raises(RateLimited):
            rates.count([mine], 1)
    clock.now -= 86400 * 400  # it was wrong before, and the limit is not in force for a year
    rates.count([mine], 1)
