"""What each ledger promises: budgets are never exceeded, no step is taken twice, nothing is lost with its process."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.postgres import Postgres
from tests.waiting import async_until

from imagegate.access.principal import Limits
from imagegate.errors import ConfigError
from imagegate.spending import sql_statements
from imagegate.spending.accounts import Account
from imagegate.spending.costs import Outcome
from imagegate.spending.ledger import (
    Balance,
    InsufficientQuota,
    Ledger,
    LedgerUnavailable,
    NotDone,
    Reservation,
    TakenUp,
    day_of,
)
from imagegate.spending.memory import MemoryLedger
from imagegate.spending.money import nanos
from imagegate.spending.sql import SQLLedger
from imagegate.stores.schema import POSTGRES_OPTIONS

NOW = 1_790_000_000.0
DAY = day_of(NOW)
ACCOUNTS = (Account("key:a", Limits(spend_per_day=1.0)), Account("gateway", Limits(spend_per_month=50.0)))
NAMES = tuple(account.id for account in ACCOUNTS)


def reservation(name: str, amount: float = 0.25, now: float = NOW) -> Reservation:
    return Reservation(id=name, accounts=NAMES, amount=nanos(amount), images=2, created=now, model="m", request_id="r")


def run(open_: Callable[[], Ledger], work: Callable[[Any], Awaitable[None]]) -> None:
    async def scenario() -> None:
        ledger = open_()
        try:
            await work(ledger)
        finally:
            await ledger.aclose()

    asyncio.run(scenario())


async def balance(ledger: Ledger, account: str = "key:a", period: str = DAY) -> Balance:
    return (await ledger.balances([period])).get((account, period)) or Balance()


def test_parallel_requests_on_a_budget_for_four(opened: Callable[[], Ledger]) -> None:
    async def work(ledger: Ledger) -> None:
        made = await asyncio.gather(
            *(ledger.reserve(reservation(str(number)), ACCOUNTS) for number in range(20)), return_exceptions=True
        )
        assert sum(isinstance(each, Reservation) for each in made) == 4
        refused = [each for each in made if isinstance(each, InsufficientQuota)]
        assert len(refused) == 16
        assert (refused[0].status, refused[0].code) == (402, "insufficient_quota")
        assert "is 1, of which 0 is left; the request can cost 0.25" in refused[0].message
        assert (await balance(ledger)).reserved == (await balance(ledger, "gateway", DAY[:7])).reserved == nanos(1.0)
        await ledger.end("0", Outcome(nanos(0.1), 0), images=2)
        await ledger.end("1", Outcome(0, 0))
        await ledger.reserve(reservation("more", 0.4), ACCOUNTS)
        with pytest.raises(InsufficientQuota):
            await ledger.reserve(reservation("too much", 0.01), ACCOUNTS)
        tomorrow = reservation("tomorrow", 1.0, NOW + 86400)
        assert await ledger.reserve(tomorrow, ACCOUNTS)
        assert (await balance(ledger)).images == 2

    run(opened, work)


def test_no_step_is_taken_twice(opened: Callable[[], Ledger]) -> None:
    async def work(ledger: Ledger) -> None:
        for _ in range(2):  # taken up again
            assert (await ledger.reserve(reservation("a"), ACCOUNTS)).state == "reserved"
        assert (await balance(ledger)).reserved == nanos(0.25)
        for _ in range(2):
            ended = await ledger.end("a", Outcome(nanos(0.05), nanos(0.1)))
            assert ended is not None
            assert (ended.state, ended.settled, ended.held) == ("held", nanos(0.05), nanos(0.1))
        assert [each.id for each in await ledger.list_held("key:a")] == ["a"]
        assert not await ledger.list_held("key:b")
        for settled in (nanos(0.02), nanos(0.1), 0):
            decided = await ledger.decide("a", settled)
            assert decided is not None
            assert (decided.state, decided.settled, decided.held) == ("settled", nanos(0.07), 0)
        await ledger.end("a", Outcome(nanos(0.25), 0))
        found = await balance(ledger)
        assert (found.reserved, found.settled, found.held, found.requests) == (0, nanos(0.07), 0, 1)
        assert (await ledger.reserve(reservation("a"), ACCOUNTS)).state == "settled"
        assert await ledger.end("unknown", Outcome(1, 0)) is None
        assert await ledger.decide("unknown", 1) is None
        await ledger.note(NAMES, NOW, nanos(0.5), 3)
        found = await balance(ledger)
        assert (found.settled, found.requests, found.images) == (nanos(0.57), 2, 3)

    run(opened, work)


def test_a_task_that_is_begun_again_is_reserved_for_again(opened: Callable[[], Ledger]) -> None:
    """A process that ends before it has sent a task releases its money; the next one that does the task spends it."""

    async def work(ledger: Ledger) -> None:
        await ledger.reserve(reservation("task", 0.75), ACCOUNTS)
        await ledger.end("task", Outcome(0, 0))
        again = await ledger.reserve(reservation("task", 0.75), ACCOUNTS)
        assert again.state == "reserved"
        assert (await balance(ledger)).reserved == nanos(0.75)
        with pytest.raises(InsufficientQuota):
            await ledger.reserve(reservation("other", 0.5), ACCOUNTS)
        ended = await ledger.end("task", Outcome(nanos(0.7), 0), images=2)
        assert ended is not None
        assert (ended.state, ended.settled) == ("settled", nanos(0.7))
        found = await balance(ledger)
        assert (found.reserved, found.settled, found.requests, found.images) == (0, nanos(0.7), 1, 2)

    run(opened, work)


def test_a_released_task_is_held_to_the_budget_of_now(opened: Callable[[], Ledger]) -> None:
    async def work(ledger: Ledger) -> None:
        await ledger.reserve(reservation("task", 0.75), ACCOUNTS)
        await ledger.end("task", Outcome(0, 0))
        await ledger.reserve(reservation("other", 0.5), ACCOUNTS)
        with pytest.raises(InsufficientQuota):
            await ledger.reserve(reservation("task", 0.75), ACCOUNTS)

    run(opened, work)


@pytest.mark.parametrize("is_full", [False, True])
@pytest.mark.parametrize("state", ["reserved", "held", "released", "settled"])
def test_a_process_that_gave_a_task_up_releases_nothing(address: str, state: str, is_full: bool) -> None:
    """It was suspended, another process took the task up, and it says late that it has sent nothing."""

    async def work(suspended: Ledger) -> None:
        other = SQLLedger(address)
        await suspended.reserve(reservation("task", 0.5), ACCOUNTS)
        if state == "held":  # for want of a sign of life
            await other.end("task", Outcome(0, nanos(0.5)), is_holder=False)
        elif state == "released":
            await other.end("task", Outcome(0, 0), is_holder=False)
        if is_full and state != "released":  # the budget has no room for it a second time
            await other.reserve(reservation("rest", 0.5), ACCOUNTS)
        await other.reserve(reservation("task", 0.5), ACCOUNTS)
        if state == "settled":
            await other.end("task", Outcome(nanos(0.3), 0))
        before = await balance(other)
        await suspended.end("task", Outcome(0, 0))
        assert await balance(other) == before
        assert before.bound == nanos(0.3 if state == "settled" else 0.5) + nanos(0.5) * (
            is_full and state != "released"
        )
        if state != "settled":
            await other.end("task", Outcome(nanos(0.3), 0))
            assert (await balance(other)).settled == nanos(0.3)
        await other.aclose()

    run(lambda: SQLLedger(address), work)


def test_what_was_spent_counts_though_it_was_released(opened: Callable[[], Ledger]) -> None:
    async def work(ledger: Ledger) -> None:
        await ledger.reserve(reservation("a"), ACCOUNTS)
        await ledger.end("a", Outcome(0, 0))
        for _ in range(2):
            await ledger.end("a", Outcome(nanos(0.2), 0), images=1)
        found = await balance(ledger)
        assert (found.settled, found.reserved, found.images) == (nanos(0.2), 0, 1)

    run(opened, work)


def test_what_costs_nothing_fits_a_budget_that_is_exceeded(opened: Callable[[], Ledger]) -> None:
    """Its client pays the provider."""

    async def work(ledger: Ledger) -> None:
        await ledger.reserve(reservation("dear", 1.0), ACCOUNTS)
        await ledger.end("dear", Outcome(nanos(1.5), 0), images=2)
        with pytest.raises(InsufficientQuota):
            await ledger.reserve(reservation("next", 0.000_000_001), ACCOUNTS)
        assert (await ledger.reserve(reservation("free", 0.0), ACCOUNTS)).state == "reserved"

    run(opened, work)


def test_images_that_cost_nothing_are_counted_once(opened: Callable[[], Ledger]) -> None:
    """Also where their reservation had been released: its process seemed dead."""

    async def work(ledger: Ledger) -> None:
        for name, is_released in (("a", False), ("b", True)):
            await ledger.reserve(reservation(name, 0.0), ACCOUNTS)
            if is_released:
                await ledger.end(name, Outcome(0, 0))
            for _ in range(2):
                await ledger.end(name, Outcome(0, 0), images=2)
        assert await balance(ledger) == Balance(requests=2, images=4)

    run(opened, work)


def test_images_of_a_process_that_seemed_dead_are_counted(address: str) -> None:
    """It was slow; what it had reserved was nothing, because its client pays the provider."""

    async def scenario() -> None:
        slow, hasty = SQLLedger(address, lease=600), SQLLedger(address, lease=0.001)
        await slow.reserve(reservation("free", 0.0), ACCOUNTS)
        await asyncio.sleep(0.01)
        await hasty.maintain()
        await hasty.reserve(reservation("free", 0.0), ACCOUNTS)
        await slow.end("free", Outcome(0, 0), images=1)
        assert await balance(hasty) == Balance(requests=1, images=1)
        for ledger in (slow, hasty):
            await ledger.aclose()

    asyncio.run(scenario())


def test_a_process_takes_nothing_from_another_that_does_its_task(address: str) -> None:
    """It stalled before it reserved; meanwhile another one has taken the task over, and is paying for it."""

    async def work(stalled: Ledger) -> None:
        other = SQLLedger(address)
        await other.reserve(reservation("task", 0.5), ACCOUNTS)
        with pytest.raises(TakenUp):
            await stalled.reserve(reservation("task", 0.5), ACCOUNTS, takes_up=False)
        await stalled.maintain()
        assert (await balance(other)).reserved == nanos(0.5)
        await other.end("task", Outcome(nanos(0.4), 0), images=1)
        assert (await balance(other)).settled == nanos(0.4)
        await other.aclose()

    run(lambda: SQLLedger(address), work)


async def give_up_unheard(ledger: SQLLedger) -> None:
    """Reserve for a task, and release it while the database is away, so that the release is owed."""
    await ledger.reserve(reservation("task"), ACCOUNTS)
    works = vars(ledger)["_statements"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(works, "run", lambda _: (_ for _ in ()).throw(OSError))
        await ledger.end("task", Outcome(0, 0))


def test_a_reservation_made_anew_is_not_released_by_an_old_end(tmp_path: Path) -> None:
    """Ends that are owed are told while the same process begins the task again."""

    async def work(ledger: SQLLedger) -> None:
        await give_up_unheard(ledger)
        made, _ = await asyncio.gather(ledger.reserve(reservation("task"), ACCOUNTS), ledger.maintain())
        assert made.state == "reserved"
        assert (await balance(ledger)).reserved == nanos(0.25)

    run(lambda: SQLLedger(f"sqlite:///{tmp_path}/ledger.db"), work)


def test_an_old_release_is_not_said_again_of_a_task_that_has_begun_again(tmp_path: Path) -> None:
    """The database was away when a process gave a task up; by now the same process does it once more."""

    async def work(ledger: SQLLedger) -> None:
        await give_up_unheard(ledger)
        await ledger.reserve(reservation("task"), ACCOUNTS)
        await ledger.maintain()
        assert (await balance(ledger)).reserved == nanos(0.25)

    run(lambda: SQLLedger(f"sqlite:///{tmp_path}/ledger.db"), work)


def test_a_faulty_value_is_the_fault_of_its_own_request_only(address: str) -> None:
    """Requests share transactions, and must not be refused for one another."""

    async def work(ledger: Ledger) -> None:
        broken: Any = msgspec.structs.replace(reservation("broken"), model="m\ud800")
        unusual = msgspec.structs.replace(reservation("unusual"), model="upstream/\0")
        long = Account("key:" + "x" * 512, Limits(spend_per_day=1.0))
        made = await asyncio.gather(
            ledger.reserve(reservation("before"), ACCOUNTS),
            ledger.reserve(broken, ACCOUNTS),
            ledger.reserve(unusual, ACCOUNTS),
            ledger.reserve(reservation("after"), ACCOUNTS),
            ledger.reserve(msgspec.structs.replace(reservation("long"), accounts=(long.id,)), (long,)),
            return_exceptions=True,
        )
        assert [isinstance(each, Reservation) for each in made] == [True, False, True, True, True]
        assert isinstance(made[1], LedgerUnavailable)
        assert (await balance(ledger)).reserved == nanos(0.75)

    run(lambda: SQLLedger(address), work)


def test_days_that_have_passed_are_forgotten_without_budgets_too() -> None:
    async def work(ledger: Ledger) -> None:
        for day in range(3):
            await ledger.note(NAMES, NOW + day * 86400, 1, 1)
        assert (await balance(ledger)).requests == 0
        assert (await balance(ledger, period=day_of(NOW + 2 * 86400))).requests == 1

    run(MemoryLedger, work)


def test_the_providers_word_settles_what_was_held(opened: Callable[[], Ledger]) -> None:
    async def work(ledger: Ledger) -> None:
        await ledger.reserve(reservation("a"), ACCOUNTS)
        await ledger.end("a", Outcome(0, nanos(0.25)))
        assert (await balance(ledger)).held == nanos(0.25)
        ended = await ledger.end("a", Outcome(nanos(0.2), 0))
        assert ended is not None
        assert ended.state == "settled"
        released = await ledger.reserve(reservation("b"), ACCOUNTS)
        assert released.state == "reserved"
        await ledger.end("b", Outcome(0, nanos(0.25)))
        assert (await ledger.decide("b", 0) or released).state == "released"
        found = await balance(ledger)
        assert (found.bound, found.settled) == (nanos(0.2), nanos(0.2))

    run(opened, work)


steps = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "end", "decide"]),
        st.integers(0, 4),
        st.integers(0, nanos(0.4)),
        st.integers(0, nanos(0.4)),
    ),
    max_size=30,
)


@given(steps)
@settings(max_examples=60)
def test_balances_are_the_sum_of_the_reservations(steps: list[tuple[str, int, int, int]]) -> None:
    """Whatever the order of steps, and however often each is taken; and the budget is never exceeded by reserving."""

    async def scenario() -> None:
        ledger = MemoryLedger()
        known: dict[str, Reservation] = {}
        for kind, number, first, second in steps:
            name = str(number)
            made: Reservation | None = None
            if kind == "reserve":
                before = await balance(ledger)
                try:
                    made = await ledger.reserve(reservation(name, first / 1e9), ACCOUNTS)
                    if name not in known or known[name].state == "released":
                        assert before.bound + made.amount <= nanos(1.0)
                except InsufficientQuota:
                    continue
            elif kind == "end":
                made = await ledger.end(name, Outcome(first, second))
            else:
                made = await ledger.decide(name, first)
            assert (made is not None) == (kind == "reserve" or name in known)
            if made is not None:
                known[name] = made
        found = await balance(ledger)
        assert found.reserved == sum(each.amount for each in known.values() if each.state == "reserved")
        assert found.settled == sum(each.settled for each in known.values())
        assert found.held == sum(each.held for each in known.values())
        assert found.requests == len(known)

    asyncio.run(scenario())


def test_no_process_waits_for_another_for_ever(address: str) -> None:
    """New keys and groups, each in another order, in transactions that have several of them."""

    async def scenario() -> None:
        ledgers = [SQLLedger(address) for _ in range(6)]

        def asked(number: int) -> tuple[Account, ...]:
            names = [f"key:{number % 40}", f"group:{number % 9}", f"group:{number * 7 % 11}", "gateway"]
            return tuple(Account(name, Limits(spend_per_day=1000.0)) for name in dict.fromkeys(names))

        async def one(number: int) -> None:
            accounts, ledger = asked(number), ledgers[number % 6]
            if number >= 6:  # each knows the gateway's row before the others come
                await asyncio.sleep(random.random() / 5)
            names = tuple(account.id for account in accounts)
            made = Reservation(id=str(number), accounts=names, amount=5, images=1, created=NOW)
            await ledger.reserve(made, accounts)
            await ledger.end(str(number), Outcome(5, 0), images=1)

        await asyncio.gather(*(one(number) for number in range(6)))
        await asyncio.gather(*(one(number) for number in range(6, 120)), *(each.maintain() for each in ledgers))
        found = await balance(ledgers[0], "gateway")
        assert (found.settled, found.images, found.reserved) == (600, 120, 0)
        await asyncio.gather(*(ledger.aclose() for ledger in ledgers))

    asyncio.run(scenario())


def test_what_a_dead_process_had_reserved_is_held(address: str) -> None:
    """Found by the next one, even if it is the same machine's after kill -9; a living one's is left alone."""

    async def scenario() -> None:
        dead, living = SQLLedger(address, lease=600), SQLLedger(address, lease=600)
        await dead.reserve(reservation("dead"), ACCOUNTS)
        await living.reserve(reservation("living"), ACCOUNTS)
        assert await living.maintain() == []
        hasty = SQLLedger(address, lease=0.001)  # to which both have been silent for too long
        await asyncio.sleep(0.01)
        held = sorted(await hasty.maintain(), key=lambda each: each.id)
        assert [(each.id, each.state, each.held) for each in held] == [
            ("dead", "held", nanos(0.25)),
            ("living", "held", nanos(0.25)),
        ]
        assert await hasty.maintain() == []
        found = await balance(living)
        assert (found.reserved, found.held) == (0, nanos(0.5))
        # It was not dead, but slow: what it knows counts.
        ended = await dead.end("dead", Outcome(nanos(0.1), 0))
        assert ended is not None
        assert ended.state == "settled"
        await living.reserve(reservation("last"), ACCOUNTS)
        for ledger in (dead, hasty, living):
            await ledger.aclose()
        after = SQLLedger(address, lease=600)  # `living` has ended, and says so
        assert [each.id for each in await after.maintain()] == ["last"]
        await after.aclose()

    asyncio.run(scenario())


def test_a_ledger_that_cannot_be_reached_is_told_later(tmp_path: Path) -> None:
    """Nothing is reserved that may not be there, and an end is never lost as long as the process lives."""
    file = tmp_path / "ledger.db"

    async def scenario() -> None:
        ledger = SQLLedger(f"sqlite:///{file}", busy=0)
        await ledger.reserve(reservation("a"), ACCOUNTS)
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerUnavailable):
            await ledger.reserve(reservation("b"), ACCOUNTS)
        assert await ledger.end("a", Outcome(nanos(0.1), 0)) is None
        other.execute("ROLLBACK")
        other.close()
        await ledger.maintain()
        found = await balance(ledger)
        assert (found.reserved, found.settled, found.requests) == (0, nanos(0.1), 1)
        await ledger.aclose()

    asyncio.run(scenario())


@pytest.mark.server
def test_ten_processes_on_one_budget(address: str) -> None:
    """Exactly as many as it has room for, whichever of them asks, and however their transactions cross."""

    async def scenario() -> None:
        ledgers = [SQLLedger(address) for _ in range(10)]
        asked = (ledgers[number % 10].reserve(reservation(str(number), 0.01), ACCOUNTS) for number in range(300))
        made = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(each) for each in made if not isinstance(each, (Reservation, InsufficientQuota))] == []
        assert sum(isinstance(each, Reservation) for each in made) == 100
        outcomes = [Outcome(nanos(0.01), 0), Outcome(0, 0), Outcome(0, nanos(0.01))]
        ended = [each.id for each in made if isinstance(each, Reservation)]
        await asyncio.gather(
            *(
                ledgers[(place + 3) % 10].end(name, outcomes[place % 3], images=1, is_holder=False)
                for place, name in enumerate(ended)
            )
        )
        found = await balance(ledgers[0])
        assert (found.reserved, found.settled, found.held) == (0, nanos(0.34), nanos(0.33))
        await asyncio.gather(*(ledger.aclose() for ledger in ledgers))

    asyncio.run(scenario())


@pytest.mark.parametrize("wrong", ["mysql://a@b/c", "sqlite", "postgresql+nothing://a/b"])
def test_what_is_no_address(wrong: str) -> None:
    with pytest.raises(ConfigError, match="sqlite:///FILE or postgresql://"):
        SQLLedger(wrong)


def test_processes_that_begin_at_the_same_moment(tmp_path: Path) -> None:
    """Each switches a file that is not there yet to a write-ahead log; none fails because another one does."""
    barrier = threading.Barrier(4, timeout=10)

    def begin(number: int) -> None:
        engine = sql_statements._engine(f"sqlite:///{tmp_path}/{number}.db", 15)
        barrier.wait()
        with contextlib.closing(engine.raw_connection()):
            barrier.wait()
        engine.dispose()

    with ThreadPoolExecutor(4) as threads:
        for number in range(40):
            list(threads.map(begin, [number] * 4))


def test_a_slow_ledger_keeps_nobody_waiting(tmp_path: Path) -> None:
    """Another program has locked the file: whether a reservation is made is not known, or it is known not to be."""
    address = f"sqlite:///{tmp_path}/ledger.db"

    async def scenario() -> None:
        ledger = SQLLedger(address)
        await ledger.reserve(reservation("before"), ACCOUNTS)
        ledger.timeout = 0.2
        with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db")) as other:
            other.execute("BEGIN IMMEDIATE")
            slow = asyncio.create_task(ledger.reserve(reservation("slow"), ACCOUNTS))
            await asyncio.sleep(0.05)  # it is at work
            gone = asyncio.create_task(ledger.reserve(reservation("gone"), ACCOUNTS))
            late = [asyncio.create_task(ledger.reserve(reservation(f"late-{n}"), ACCOUNTS)) for n in range(5)]
            await asyncio.sleep(0)
            gone.cancel()
            found = await asyncio.gather(slow, gone, *late, return_exceptions=True)
            assert [type(each) for each in found] == [LedgerUnavailable, asyncio.CancelledError, *[NotDone] * 5]
            assert vars(ledger)["_owed"].keys() == {"slow", "gone"}
            other.rollback()
        ledger.timeout = 20.0
        await ledger.maintain()
        assert not vars(ledger)["_owed"]
        assert await balance(ledger) == Balance(reserved=nanos(0.25), requests=2)
        await ledger.aclose()

    asyncio.run(scenario())


def test_a_ledger_that_is_away_owes_nothing() -> None:
    """Of what was not made; else refused requests would fill the memory for as long as it is away."""

    async def scenario() -> None:
        ledger = SQLLedger("postgresql://someone@127.0.0.1:9/none")
        made = (ledger.reserve(reservation(str(number)), ACCOUNTS) for number in range(100))
        assert {type(each) for each in await asyncio.gather(*made, return_exceptions=True)} == {NotDone}
        assert not vars(ledger)["_owed"]
        await ledger.aclose()

    asyncio.run(scenario())


def test_a_sign_of_life_comes_before_ends_that_are_owed(tmp_path: Path) -> None:
    """And these are told many at a time, so that a process with many to tell is not taken for dead."""
    address = f"sqlite:///{tmp_path}/ledger.db"

    async def scenario() -> None:
        ledger = SQLLedger(address)
        await asyncio.gather(*(ledger.reserve(reservation(str(n), 0.001), ACCOUNTS) for n in range(200)))
        works = vars(ledger)["_statements"]
        true, batches = works.run, list[int]()

        def run_(work: Any) -> Any:
            batches.append(len(work))
            return true(work)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(works, "run", lambda _: (_ for _ in ()).throw(OSError))
            await asyncio.gather(*(ledger.end(str(n), Outcome(nanos(0.001), 0)) for n in range(200)))
            with pytest.raises(LedgerUnavailable):
                await ledger.maintain()
            patch.setattr(works, "run", run_)
            await ledger.maintain()
        assert batches == [1, 64, 64, 64, 8]
        assert await balance(ledger) == Balance(settled=nanos(0.2), requests=200)
        await ledger.aclose()

    asyncio.run(scenario())


@pytest.mark.postgres
def test_a_process_that_stops_within_a_transaction_keeps_no_other_waiting(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database ends its session after a while, and its turn with it."""
    limits = "-c statement_timeout=5s -c idle_in_transaction_session_timeout=200ms"
    monkeypatch.setattr(sql_statements, "POSTGRES_OPTIONS", {**POSTGRES_OPTIONS, "options": limits})
    address, begun, awake = postgres.new_database(), threading.Event(), threading.Event()

    async def scenario() -> None:
        stopped, other = SQLLedger(address), SQLLedger(address)
        await stopped.reserve(reservation("before"), ACCOUNTS)
        asleep = asyncio.create_task(vars(SQLLedger)["_do"](stopped, lambda *_: begun.set() or awake.wait(20)))
        await async_until(begun.is_set)
        made = await other.reserve(reservation("other"), ACCOUNTS)
        assert made.state == "reserved" and not awake.is_set()
        awake.set()
        with pytest.raises(LedgerUnavailable):
            await asleep
        assert (await stopped.reserve(reservation("after"), ACCOUNTS)).state == "reserved"
        await stopped.aclose()
        await other.aclose()

    asyncio.run(scenario())
