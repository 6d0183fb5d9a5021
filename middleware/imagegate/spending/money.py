"""Amounts of money as whole numbers, so that sums are exact. Pure."""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from typing import Final

NANO: Final = 10**9
"""A unit of the currency in nanos, in which the ledger counts."""
MOST: Final = 9 * 10**18
"""Nanos that a database's integer can hold."""


@lru_cache(1024)
def nanos(amount: float) -> int:
    """Return an amount in nanos, rounded up: what is reserved and settled is never less than what was billed."""
    return MOST if amount >= MOST / NANO else ceil(round(amount * NANO, 3))


def amount(nanos: int) -> float:
    """Return nanos as an amount of the currency."""
    return nanos / NANO
