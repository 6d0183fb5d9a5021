"""What is spent: reservations, their states, and what a ledger promises. Pure, but for the protocol of stores.

A reservation is made before anything is sent, and ends in one of three ways::

    reserved --> released   nothing was sent, or the provider refused
             --> settled    the provider answered: by its usage, or by the price
             --> held       it may have charged: the connection broke, the process died
    held     --> settled | released   by an operator, or when the provider's own word arrives
    released --> reserved   the same task is begun again, by another process
             --> settled | held       it turns out that something was sent after all

Every step names the reservation, and a step that has been taken is not taken twice. That nothing was spent is for the
process to say whose reservation it is: one that was suspended while another took its task up says so of a request that
is the other's by now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Literal, Protocol

import msgspec

from imagegate.errors import ImagegateError, Overloaded
from imagegate.spending.accounts import Account
from imagegate.spending.costs import Outcome
from imagegate.spending.money import amount, nanos

State = Literal["reserved", "held", "settled", "released"]


RESERVATION: Final = "imagegate.reservation"
"""Scope key of a `TaskReservation`."""


class TaskReservation(msgspec.Struct, frozen=True):
    """Under what money is reserved for work that may outlive its process."""

    id: str
    """The task's number."""
    is_again: bool = False
    """Whether another process has admitted it before, so that its requests and images are counted already."""


class Reservation(msgspec.Struct, frozen=True, kw_only=True):
    """Money put by for one request."""

    id: str
    accounts: tuple[str, ...]
    amount: int
    """Nanos."""
    images: int
    created: float
    """Unix time. It counts for that day and month, whenever it ends."""
    model: str = ""
    request_id: str = ""
    holder: str = ""
    """The process whose it is."""
    state: State = "reserved"
    settled: int = 0
    held: int = 0

    @property
    def day(self) -> str:
        """The day it counts for."""
        return day_of(self.created)

    @property
    def periods(self) -> tuple[str, str]:
        """Day and month."""
        return self.day, self.day[:7]

    def ended(self, outcome: Outcome, images: int = 0) -> Reservation:
        """Return it with its outcome; itself where it has ended for good.

        Images that cost nothing settle it too: they are counted once, also where it had been released before.
        """
        if self.state == "settled" or (self.state == "released" and not any(outcome) and not images):
            return self
        state: State = "held" if outcome.held else "settled" if outcome.settled or images else "released"
        return msgspec.structs.replace(self, state=state, settled=outcome.settled, held=outcome.held)

    def decided(self, settled: int) -> Reservation:
        """Return it with what was held settled as `settled` nanos."""
        if self.state != "held":
            return self
        total = self.settled + settled
        return msgspec.structs.replace(self, state="settled" if total else "released", settled=total, held=0)


Settlement = Outcome | Callable[[Reservation], Outcome]
"""What becomes of a reservation, or how that follows from it."""


class Balance(msgspec.Struct, kw_only=True):
    """What an account has spent in a day or month, in nanos, and what for."""

    settled: int = 0
    reserved: int = 0
    held: int = 0
    requests: int = 0
    images: int = 0

    @property
    def bound(self) -> int:
        """What counts against the budget."""
        return self.settled + self.reserved + self.held

    def add(self, step: Balance) -> None:
        """Count a step of a reservation."""
        self.settled += step.settled
        self.reserved += step.reserved
        self.held += step.held
        self.requests += step.requests
        self.images += step.images


def step_between(before: Reservation | None, after: Reservation, *, requests: int = 0, images: int = 0) -> Balance:
    """Return by how much a step of a reservation changes the balances that it is part of.

    Args:
        before: None: it is new.
        requests: that the step adds.
        images: likewise.
    """
    reserved = after.amount if after.state == "reserved" else 0
    if before is None:
        return Balance(settled=after.settled, reserved=reserved, held=after.held, requests=requests, images=images)
    reserved -= before.amount if before.state == "reserved" else 0
    return Balance(
        settled=after.settled - before.settled,
        reserved=reserved,
        held=after.held - before.held,
        requests=requests,
        images=images,
    )


Balances = Mapping[tuple[str, str], Balance]
"""By account and period."""


def day_of(now: float) -> str:
    """Return the day of a Unix time, in UTC, such as ``2026-11-05``."""
    return _day(int(now // 86400))


@lru_cache(64)
def _day(number: int) -> str:
    return datetime.fromtimestamp(number * 86400, UTC).strftime("%Y-%m-%d")


def check(accounts: Iterable[Account], balances: Balances, reservation: Reservation) -> None:
    """Check that a reservation fits every budget, as one of nothing does. Raises `InsufficientQuota`."""
    if not reservation.amount:
        return
    day, month = reservation.periods
    for account in accounts:
        if not account.has_budget:
            continue
        limits = account.limits
        for period, limit, word in ((day, limits.spend_per_day, "day"), (month, limits.spend_per_month, "month")):
            if limit is None:
                continue
            balance = balances.get((account.id, period)) or Balance()
            if balance.bound + reservation.amount > nanos(limit):
                raise InsufficientQuota(account, word, balance, limit, reservation.amount)


class InsufficientQuota(ImagegateError):
    """The request can cost more than is left of a budget; nothing was sent.

    402, where OpenAI says 429: the official SDKs repeat a 429 by themselves, which no waiting of theirs mends.
    """

    status = 402
    type = "insufficient_quota"
    code = "insufficient_quota"

    def __init__(self, account: Account, period: str, balance: Balance, limit: float, asked: int) -> None:
        left = max(0.0, limit - amount(balance.bound))
        whose = {"key": "your key", "group": "your group"}.get(account.kind, "the gateway")
        super().__init__(
            f"The budget of {whose} for this {period} is {limit:g}, of which {left:.6g} is left; the request can cost "
            f"{amount(asked):.6g}. It was not sent."
        )
        self.account = account
        self.period = period

    @property
    def nothing_sent(self) -> bool:
        return True


class LedgerUnavailable(Overloaded):
    """The ledger cannot be reached, so a request with a budget is not sent."""

    code = "ledger_unavailable"

    def __init__(self) -> None:
        super().__init__(
            "The ledger of budgets cannot be reached, so nothing was sent. Retry later.",
            headers=[(b"retry-after", b"5")],
        )

    @property
    def nothing_sent(self) -> bool:
        return True


class NotDone(LedgerUnavailable):
    """As its base, and it is known that the ledger has not done what it was asked for."""


class TakenUp(LedgerUnavailable):
    """Another process has taken the task up, and its reservation with it; this one sends nothing of it any more."""


class Ledger(Protocol):
    """Keeps reservations. Each method raises `LedgerUnavailable` where it cannot."""

    is_shared: bool
    """Whether other processes see it."""

    async def reserve(
        self, reservation: Reservation, accounts: Sequence[Account], *, takes_up: bool = True
    ) -> Reservation:
        """Make a reservation, at once with the check of all budgets; one with the same id is taken up again.

        One that was released is made anew: its money was free for others meanwhile.

        Args:
            takes_up: whether this process does again what another one has begun.

        Raises:
            InsufficientQuota: it does not fit.
            TakenUp: another process has it, and `takes_up` is false.
        """
        ...

    async def end(
        self, reservation_id: str, outcome: Settlement, *, images: int = 0, is_holder: bool = True
    ) -> Reservation | None:
        """Settle, release or hold a reservation, with the images that were made; None: there is none.

        Args:
            is_holder: it is said by the process that has reserved it; that nothing was spent then counts only as long
                as no other process has taken the reservation up. False: by who knows the end, whoever reserved it.
        """
        ...

    async def decide(self, reservation_id: str, settled: int) -> Reservation | None:
        """Settle what is held as `settled` nanos; 0 releases it. None: there is no such reservation."""
        ...

    async def note(self, accounts: Sequence[str], created: float, settled: int, images: int) -> None:
        """Count a request that needed no reservation."""
        ...

    async def maintain(self) -> Sequence[Reservation]:
        """Tell that this process lives; hold what dead ones had reserved, and return that."""
        ...

    async def list_held(self, account: str = "") -> Sequence[Reservation]:
        """Return what is held, the oldest first."""
        ...

    async def balances(self, periods: Sequence[str], accounts: Sequence[str] = ()) -> Balances:
        """Return the balances of periods, of all accounts or of some."""
        ...

    async def aclose(self) -> None:
        """Let go of it."""
        ...
