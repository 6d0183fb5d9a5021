"""Whose limits a request counts against: its principal's, those of the principal's groups, and the gateway's. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from imagegate.access.principal import NO_LIMITS, Limits, Principal

GATEWAY: Final = "gateway"


class Account(msgspec.Struct, frozen=True):
    """One budget with its limits."""

    id: str
    """``key:alice``, ``group:designers``, ``gateway``; unique and lasting."""
    limits: Limits

    @property
    def kind(self) -> str:
        """``key``, ``group`` or ``gateway``."""
        return self.id.partition(":")[0]

    @property
    def name(self) -> str:
        """What it is called within its kind."""
        return self.id.partition(":")[2]

    @property
    def has_budget(self) -> bool:
        """Whether money is limited."""
        return self.limits.spend_per_day is not None or self.limits.spend_per_month is not None


def key_account(principal_id: str) -> str:
    """Return the id of a principal's own account."""
    return f"key:{principal_id}"


def accounts_of(principal: Principal | None, gateway: Limits = NO_LIMITS) -> tuple[Account, ...]:
    """Return the accounts that a request of `principal` counts against, its own first."""
    accounts = [Account(GATEWAY, gateway)]
    if principal is not None:
        accounts += [Account(f"group:{name}", limits) for name, limits in sorted(principal.groups.items())]
        accounts.append(Account(key_account(principal.id), principal.limits))
    return tuple(reversed(accounts))
