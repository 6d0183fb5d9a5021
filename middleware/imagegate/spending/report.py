"""Figures of a ledger, as clients and operators are shown them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imagegate.access.principal import Limits
from imagegate.spending.ledger import Balance, Balances, Reservation
from imagegate.spending.money import amount


def figures(period: str, balance: Balance | None, limit: float | None = None) -> dict[str, Any]:
    """Return what was spent in a day or a month."""
    found = balance or Balance()
    shown: dict[str, Any] = {
        "period": period,
        "spent": amount(found.settled),
        "reserved": amount(found.reserved),
        "held": amount(found.held),
        "requests": found.requests,
        "images": found.images,
        "limit": limit,
    }
    if limit is not None:
        shown["left"] = max(0.0, round(limit - amount(found.bound), 9))
    return shown


def usage_document(
    name: str, account: str, limits: Limits, balances: Balances, periods: tuple[str, str], currency: str
) -> dict[str, Any]:
    """Return the figures of one account: what ``GET /v1/usage`` answers."""
    day, month = periods
    return {
        "object": "usage",
        "name": name,
        "currency": currency,
        "day": figures(day, balances.get((account, day)), limits.spend_per_day),
        "month": figures(month, balances.get((account, month)), limits.spend_per_month),
        "limits": {field: getattr(limits, field) for field in limits.__struct_fields__},
    }


def all_figures(balances: Balances, period: str) -> list[dict[str, Any]]:
    """Return the figures of every account in a period, the dearest first."""
    rows = [{"account": account, **figures(each, balance)} for (account, each), balance in balances.items()]
    return sorted((row for row in rows if row["period"] == period), key=lambda row: (-row["spent"], row["account"]))


def held_document(reservation: Reservation) -> Mapping[str, Any]:
    """Return what an operator is shown of a reservation that is held."""
    return {
        "id": reservation.id,
        "accounts": list(reservation.accounts),
        "model": reservation.model,
        "request_id": reservation.request_id,
        "created": reservation.created,
        "held": amount(reservation.held),
        "settled": amount(reservation.settled),
    }
