"""The record of one exchange that has ended: frozen, and the same for every hook."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any, Final, Literal, Protocol

from imagegate.contracts.changes import Change
from imagegate.protocol.prices import ModelPrice
from imagegate.telemetry.exchange import ExchangeFacts, UpstreamCall
from imagegate.telemetry.progress import Progress

OutcomeClass = Literal[
    "ok",
    "explained",
    "invalid",
    "denied",
    "overloaded",
    "moderated",
    "rejected",
    "not_sent",
    "uncertain",
    "storage_failed",
    "client_left",
    "internal",
]
"""What became of an exchange, in the one word that metrics, logs and the console share."""


# msgspec lets a subclass be frozen where its base is not; the checkers know only the rule of dataclasses.
class ExchangeRecord(ExchangeFacts, frozen=True, kw_only=True):  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    """One exchange that has ended."""

    status: int
    """HTTP status of the answer; 499 where the client left first."""
    seconds: float
    outcome_class: OutcomeClass
    calls: tuple[UpstreamCall, ...]
    """The POSTs that were sent upstream, one by one."""
    changes: tuple[Change, ...]
    cost: float | None
    """Of what was made, in `currency`; None: the configuration has no price for it."""
    currency: str


_OUTCOMES_BY_CODE: Final[Mapping[str, OutcomeClass]] = {
    "overloaded": "overloaded",
    "access_unavailable": "overloaded",
    "shutting_down": "overloaded",
    "spool_full": "overloaded",
    "no_room": "not_sent",
    "store_unavailable": "not_sent",
    "internal_error": "internal",
    "moderation_blocked": "moderated",
    "content_policy_violation": "moderated",
    "storage_failed": "storage_failed",
    "storage_full": "storage_failed",
    "image_fetch_failed": "storage_failed",
}

_OUTCOMES_BY_CALL: Final[Mapping[str, OutcomeClass]] = {
    "not_sent": "not_sent",
    "rejected": "rejected",
    "uncertain": "uncertain",
}


def classify(progress: Progress, status: int) -> OutcomeClass:
    """Decide the outcome of an exchange; no other place does."""
    if status == 499:
        return "client_left"
    if status < 400 and not progress.error_code:  # a stream may fail after its head
        return "explained" if progress.explained else "ok"
    if by_code := _OUTCOMES_BY_CODE.get(progress.error_code):
        return by_code
    if by_call := _OUTCOMES_BY_CALL.get(progress.outcome):
        return by_call
    if status in (401, 402, 403, 429):
        return "denied"
    return "invalid" if 400 <= status < 500 else "internal"


_facts: Final[Any] = attrgetter(*ExchangeFacts.__struct_fields__)
"""All facts of a `Progress`, in the order in which a record takes them, at the cost of one call."""


def finish(
    progress: Progress, *, status: int, seconds: float, cost: float | None = None, currency: str = ""
) -> ExchangeRecord:
    """Make the record of an exchange that has ended."""
    return ExchangeRecord(
        *_facts(progress),
        status=status,
        seconds=seconds,
        outcome_class=classify(progress, status),
        calls=tuple(progress.calls),
        changes=progress.changes,
        cost=cost,
        currency=currency if cost is not None else "",
    )


class Prices(Protocol):
    """Knows what models cost."""

    def find(self, upstream: str, model: str) -> ModelPrice | None:
        """Return the price of a model as its upstream calls it; None: none is known."""
        ...


def cost_of(progress: Progress, prices: Prices) -> float | None:
    """In the table's currency, for the images and tokens that the provider's replies name; None: no price is known."""
    if not (progress.images_made or progress.usage):
        return None
    price = prices.find(progress.upstream, progress.upstream_model)
    return None if price is None else price.cost(progress.images_made, progress.usage, progress.sent_fields)
