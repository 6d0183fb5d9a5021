"""The record of one exchange that has ended: frozen, and the same for every hook."""

from __future__ import annotations

from typing import Literal

from imagegate.contracts.changes import Change
from imagegate.telemetry.exchange import ExchangeFacts, UpstreamCall

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
    """Of what was made, in `currency`; None: it is not known."""
    currency: str
