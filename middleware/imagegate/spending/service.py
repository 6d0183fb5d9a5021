"""Admits requests within their limits, and settles what they have cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import uuid4

import msgspec

from imagegate.access.principal import NO_LIMITS, Limits, Principal
from imagegate.asgi.background import repeat, stop
from imagegate.logger import get_logger
from imagegate.protocol.messages import Exchange
from imagegate.routing.catalog import Catalog
from imagegate.routing.fan_out import check_n
from imagegate.spending.accounts import Account, accounts_of, key_account
from imagegate.spending.costs import NOTHING, Outcome, Pays, PriceOf, charge, most_cost, outcome_of
from imagegate.spending.ledger import (
    InsufficientQuota,
    Ledger,
    LedgerUnavailable,
    Reservation,
    TakenUp,
    TaskReservation,
    day_of,
)
from imagegate.spending.rates import NOT_COUNTED, Admission, RateLimited, Rates
from imagegate.spending.report import all_figures
from imagegate.telemetry.hooks import Hooks
from imagegate.telemetry.progress import Progress

_MOST_SHOWN: Final = 200
"""Accounts that the console lists."""


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """A request that was admitted, and what was reserved for it."""

    admission: Admission
    reservation: Reservation | None
    """None: none of its accounts has a budget."""
    principal: Principal | None
    accounts: tuple[str, ...]
    created: float
    images: int
    calls: int
    """POSTs of the exchange before it was admitted."""
    made: int
    """Images of the exchange before."""


class Spending:
    """Limits and budgets of one gateway.

    Args:
        rates: counts requests and images.
        ledger: keeps what is spent.
        gateway: limits of all requests together.
        catalog: knows the candidates for a model.
        price_of: returns the price of a model at an upstream.
        pays: returns whether the gateway has a key of its own for an upstream.
        fallback: the most that an image costs of a model whose price does not say; 0: such a model has no budget.
        hooks: hear of limits that are near or reached.
        lease: seconds without a sign of life after which what a process had reserved is held.
        max_images: maximum `n` of a request, unless the contract allows more.
    """

    def __init__(
        self,
        *,
        rates: Rates,
        ledger: Ledger,
        catalog: Catalog,
        price_of: PriceOf,
        pays: Pays,
        hooks: Hooks,
        gateway: Limits = NO_LIMITS,
        fallback: float = 0.0,
        lease: float = 30.0,
        max_images: int = 10,
    ) -> None:
        self.rates = rates
        self.ledger = ledger
        self.gateway = gateway
        self._catalog = catalog
        self._price_of = price_of
        self._pays = pays
        self._hooks = hooks
        self._fallback = fallback
        self._lease = lease
        self._max_images = max_images
        self._loops: tuple[asyncio.Task[None], ...] = ()

    def accounts_of(self, principal: Principal | None) -> tuple[Account, ...]:
        """Return whose limits a request of `principal` counts against."""
        return accounts_of(principal, self.gateway)

    def has_budget(self, principal: Principal | None) -> bool:
        """Return whether money is limited for a principal."""
        return any(account.has_budget for account in self.accounts_of(principal))

    async def admit(self, exchange: Exchange, progress: Progress, *, task: TaskReservation | None = None) -> Spent:
        """Count a request, and reserve the most that it can cost.

        Args:
            task: whose request it is; one that is done again is counted and reserved for once.

        Raises:
            RateLimited: a limit of requests or images is reached.
            InsufficientQuota: it does not fit a budget.
            LedgerUnavailable: the ledger cannot be asked.
            RequestError: what it can cost is not known.
        """
        request, principal, created = exchange.request, progress.principal, time.time()
        targets = self._catalog.resolve(request.model)
        accounts = self.accounts_of(principal)
        names = tuple(account.id for account in accounts)
        images = max([request.n, *(target.most_images(request) for target in targets)])
        # What no candidate can do is refused before it is counted.
        check_n(exchange, targets, self._max_images)
        has_budget, most = any(account.has_budget for account in accounts), 0
        if has_budget:
            most = most_cost(request, targets, self._price_of, self._payer_for(principal), self._fallback)
        admission = NOT_COUNTED if task is not None and task.is_again else await self._count(accounts, images)
        reservation: Reservation | None = None
        try:
            if has_budget or task is not None:
                reservation = Reservation(
                    id=task.id if task is not None else uuid4().hex,
                    accounts=names,
                    amount=most,
                    images=images,
                    created=created,
                    model=request.model,
                    request_id=progress.request_id,
                )
                try:
                    takes_up = task is None or task.is_again
                    reservation = await self.ledger.reserve(reservation, accounts, takes_up=takes_up)
                except LedgerUnavailable as error:
                    if has_budget or isinstance(error, TakenUp):
                        raise
                    reservation = None
        except BaseException as error:
            if isinstance(error, InsufficientQuota):
                self._hooks.limit_reached(error.account.id, f"spend_per_{error.period}")
            await self.rates.leave(admission)
            raise
        return Spent(
            admission=admission,
            reservation=reservation,
            principal=principal,
            accounts=names,
            created=created,
            images=request.n,
            calls=len(progress.calls),
            made=progress.images_made,
        )

    async def _count(self, accounts: Sequence[Account], images: int) -> Admission:
        try:
            admission = await self.rates.admit(accounts, images)
        except RateLimited as error:
            self._hooks.limit_reached(error.use.account, error.use.limit)
            raise
        for use in admission.uses:
            if use.is_near:
                self._hooks.limit_near(use.account, use.limit)
        return admission

    async def end(self, spent: Spent, progress: Progress) -> None:
        """Settle, release or hold what was reserved, by how the request has ended."""
        # First: a client that sends one request at a time may send the next one, whatever the ledger takes.
        await self.rates.leave(spent.admission)
        reservation, calls = spent.reservation, progress.calls[spent.calls :]
        made = progress.images_made - spent.made
        outcome = outcome_of(
            reservation.amount if reservation else 0,
            spent.images,
            calls=calls,
            made=made,
            usage=progress.usage,
            price=self._price_of(progress.upstream, progress.upstream_model),
            fields=progress.sent_fields,
            sizes=(progress.provider_sizes or progress.sizes_made)[spent.made :],
            references=progress.all_references(),
            pays=self._payer_for(spent.principal),
        )
        images = made
        if progress.is_handed_over:  # no process sees the end of a task that the client asks the provider for
            images = sum(call.images for call in calls if call.outcome == "ok")
        try:
            if reservation is not None:
                await self.ledger.end(reservation.id, outcome, images=images)
                if outcome.held:
                    get_logger().warning("money is held: the provider may have charged", reservation=reservation.id)
            else:
                await self.ledger.note(spent.accounts, spent.created, outcome.settled, images)
        except LedgerUnavailable:
            get_logger().warning("a request could not be counted in the ledger")

    async def settle_task(
        self,
        reservation_id: str,
        upstream: str,
        model: str,
        *,
        images: int,
        usage: Mapping[str, Any] | None,
        fields: Mapping[str, Any],
        references: Sequence[int] = (),
        is_free: bool = False,
    ) -> None:
        """Settle what was reserved for a task, perhaps by another process, by the provider's own word.

        Args:
            model: as the provider calls it.
            images: that were made.
            usage: of the provider's reply.
            fields: of the request that was sent.
            references: pixels of each reference and mask; 0: not known.
            is_free: the client pays.
        """
        price = self._price_of(upstream, model)

        def settlement(reservation: Reservation) -> Outcome:
            if is_free:
                return NOTHING
            settled = charge(reservation.amount, images, usage, price, fields, references=references)
            return Outcome(settled, 0)

        await self.ledger.end(reservation_id, settlement, images=images, is_holder=False)

    async def release_task(self, reservation_id: str) -> None:
        """Release what was reserved for a task, perhaps by another process, of which nothing was charged."""
        await self.ledger.end(reservation_id, NOTHING, is_holder=False)

    async def hold_task(self, reservation_id: str) -> None:
        """Hold what was reserved for a task, perhaps by another process, whose end is not known."""
        await self.ledger.end(reservation_id, _held, is_holder=False)

    def _payer_for(self, principal: Principal | None) -> Pays:
        own = principal.upstream_keys if principal is not None else {}
        return (lambda upstream: upstream not in own and self._pays(upstream)) if own else self._pays

    async def month(self, currency: str, principal_id: str | None) -> dict[str, Any]:
        """Return the figures of this month: of one principal, or of everybody.

        Args:
            currency: of the prices.
            principal_id: None: everybody.

        Raises:
            LedgerUnavailable: the ledger cannot be asked.
        """
        period = day_of(time.time())[:7]
        accounts = () if principal_id is None else (key_account(principal_id),)
        balances = await self.ledger.balances([period], accounts)
        return {"currency": currency, "period": period, "accounts": all_figures(balances, period)[:_MOST_SHOWN]}

    def start(self) -> None:
        """Begin to tell that this process lives, and to look for what dead ones have reserved."""
        if all(loop.done() for loop in self._loops):
            self._loops = tuple(
                asyncio.create_task(repeat(work, pause=self._lease / 3, on_error=_log))
                for work in (self._maintain_ledger, self.rates.maintain)
            )

    async def _maintain_ledger(self) -> None:
        for reservation in await self.ledger.maintain():
            if reservation.held:
                get_logger().warning("money is held: the process that reserved it has died", reservation=reservation.id)

    async def stop(self) -> None:
        """Stop the maintenance of the ledger, which another service has taken over."""
        await stop(*self._loops)
        self._loops = ()

    async def aclose(self) -> None:
        """Let go of everything, after the last request has ended."""
        await self.stop()
        await self.rates.aclose()
        await self.ledger.aclose()


def _held(reservation: Reservation) -> Outcome:
    if reservation.state == "reserved":
        return Outcome(0, reservation.amount)
    return Outcome(reservation.settled, reservation.held)


def _log(error: Exception) -> None:
    get_logger().error("maintenance of limits failed", error=type(error).__name__)
