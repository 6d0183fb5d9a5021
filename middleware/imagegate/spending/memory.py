"""Limits and ledger in the memory of one process, which forgets them when it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from imagegate.access.principal import Limits
from imagegate.logger import get_logger
from imagegate.spending.accounts import Account
from imagegate.spending.ledger import Balance, Balances, Reservation, Settlement, check, day_of, step_between
from imagegate.spending.rates import NOT_COUNTED, Admission, RateLimited, TooManyAccounts
from imagegate.spending.windows import Counts, has_rates

_MANY: Final = 10_000
"""Accounts beyond which those are looked for that can be forgotten."""
MOST_ACCOUNTS: Final = 500_000
"""With a limit that is used up in part; one more is refused, because to forget another one would lift its limit."""
_PAUSE: Final = 1.0
"""Seconds between two looks while there is no room."""
_MOST_RESERVATIONS: Final = 10_000
"""That have ended and are remembered, so that no step is taken twice."""


class MemoryRates:
    """Counts requests and images of accounts that have limits of them.

    What is counted is forgotten once no limit binds any more: with its minute or day, and never before.

    Args:
        clock: Unix time.
        most: accounts with a limit that binds.
    """

    def __init__(self, clock: Callable[[], float] = time.time, *, most: int = MOST_ACCOUNTS) -> None:
        self._clock = clock
        self._most = most
        self._counts: dict[str, tuple[Counts, Limits]] = {}
        self._many = min(_MANY, most)
        self._full_until = 0.0

    async def admit(self, accounts: Sequence[Account], images: int) -> Admission:
        """Count a request. Raises `RateLimited`."""
        return self.count(accounts, images)

    def count(self, accounts: Sequence[Account], images: int) -> Admission:
        """Count a request against all accounts, or against none. Raises `RateLimited`."""
        now = self._clock()
        found: list[tuple[Account, Counts]] = []
        for account in accounts:
            if not has_rates(account.limits):
                continue
            counts, limits = self._counts.get(account.id) or (None, None)
            if counts is None:
                self._make_room(now)
                counts = Counts()
            if limits is not account.limits:
                self._counts[account.id] = counts, account.limits
            counts.move_to(now)
            if refusal := counts.refusal(account.id, account.limits, images, now):
                raise RateLimited(refusal, account)
            found.append((account, counts))
        if not found:
            return NOT_COUNTED
        for _, counts in found:
            counts.add(images)
        uses = [use for account, counts in found for use in counts.uses(account.id, account.limits, now)]
        return Admission("", tuple(account.id for account, _ in found), uses)

    async def leave(self, admission: Admission) -> None:
        """Count a request as ended."""
        self.uncount(admission)

    def uncount(self, admission: Admission) -> None:
        """Count a request as ended."""
        for account in admission.accounts:
            if known := self._counts.get(account):
                known[0].in_flight = max(0, known[0].in_flight - 1)

    def _make_room(self, now: float) -> None:
        """Forget accounts without a limit that binds. Raises `TooManyAccounts`."""
        if len(self._counts) < self._many:
            return
        if self._full_until > now > self._full_until - 2 * _PAUSE:
            raise TooManyAccounts
        self._counts = {name: known for name, known in self._counts.items() if known[0].binds(known[1], now)}
        if len(self._counts) >= self._most:
            get_logger().error("limits: too many accounts to count in memory; count them in Redis (spending.rates)")
            self._full_until = now + _PAUSE
            raise TooManyAccounts
        self._many = min(self._most, max(_MANY, 2 * len(self._counts)))

    async def maintain(self) -> None:
        """Do nothing: what this process counts ends with it."""

    async def aclose(self) -> None:
        """Nothing is open."""


class MemoryLedger:
    """A ledger for one process."""

    is_shared = False

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._open: dict[str, Reservation] = {}
        self._ended: dict[str, Reservation] = {}
        self._balances: dict[tuple[str, str], Balance] = {}
        self._day = ""

    async def reserve(
        self, reservation: Reservation, accounts: Sequence[Account], *, takes_up: bool = True
    ) -> Reservation:
        known = self._open.get(reservation.id) or self._ended.get(reservation.id)
        if known is not None and known.state != "released":
            return known
        check(accounts, self._balances, reservation)
        self._forget_old(reservation.day)
        self._ended.pop(reservation.id, None)
        self._open[reservation.id] = reservation
        self._add(reservation, step_between(None, reservation, requests=0 if known else 1))
        return reservation

    async def end(
        self, reservation_id: str, outcome: Settlement, *, images: int = 0, is_holder: bool = True
    ) -> Reservation | None:
        before = self._open.get(reservation_id) or self._ended.get(reservation_id)
        if before is None:
            return None
        found = outcome(before) if callable(outcome) else outcome
        return self._move(before, before.ended(found, images), images)

    async def decide(self, reservation_id: str, settled: int) -> Reservation | None:
        before = self._open.get(reservation_id)
        return self._ended.get(reservation_id) if before is None else self._move(before, before.decided(settled), 0)

    def _move(self, before: Reservation, after: Reservation, images: int) -> Reservation:
        if after == before:
            return before
        self._add(after, step_between(before, after, images=images))
        self._open.pop(before.id, None)
        self._ended.pop(before.id, None)
        if after.state in ("reserved", "held"):
            self._open[after.id] = after
        else:
            self._ended[after.id] = after
            if len(self._ended) > _MOST_RESERVATIONS:
                del self._ended[next(iter(self._ended))]
        return after

    async def note(self, accounts: Sequence[str], created: float, settled: int, images: int) -> None:
        done = Reservation(
            id="", accounts=tuple(accounts), amount=0, images=images, created=created, state="settled", settled=settled
        )
        self._forget_old(done.day)
        self._add(done, step_between(None, done, requests=1, images=images))

    def _add(self, reservation: Reservation, step: Balance) -> None:
        for period in reservation.periods:
            for account in reservation.accounts:
                balance = self._balances.get((account, period))
                if balance is None:
                    balance = self._balances[account, period] = Balance()
                balance.add(step)

    def _forget_old(self, day: str) -> None:
        """Forget days and months that have passed, but for what is open in them."""
        if day <= self._day:
            return
        self._day = day
        kept = {period for reservation in self._open.values() for period in reservation.periods} | {day, day[:7]}
        self._balances = {key: balance for key, balance in self._balances.items() if key[1] in kept}

    async def maintain(self) -> Sequence[Reservation]:
        return ()

    async def list_held(self, account: str = "") -> Sequence[Reservation]:
        held = [each for each in self._open.values() if each.state == "held"]
        return [each for each in held if not account or account in each.accounts]

    async def balances(self, periods: Sequence[str], accounts: Sequence[str] = ()) -> Balances:
        return {
            key: msgspec.structs.replace(balance)  # as it is now, whatever is reserved later
            for key, balance in self._balances.items()
            if key[1] in periods and (not accounts or key[0] in accounts)
        }

    async def aclose(self) -> None:
        """Nothing is open."""


def today(clock: Callable[[], float] = time.time) -> tuple[str, str]:
    """Return this day and month."""
    day = day_of(clock())
    return day, day[:7]
