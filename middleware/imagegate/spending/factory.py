"""Opens what limits and budgets need from a configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from imagegate.access.principal import NO_LIMITS
from imagegate.config.price_table import PriceTable
from imagegate.config.schema import Config, SpendingConfig
from imagegate.routing.catalog import Catalog
from imagegate.spending.ledger import Ledger
from imagegate.spending.memory import MemoryLedger, MemoryRates
from imagegate.spending.rates import Rates
from imagegate.spending.redis import RedisRates
from imagegate.spending.service import Spending
from imagegate.spending.sql import SQLLedger
from imagegate.stores.redis_client import RedisClient
from imagegate.telemetry.hooks import Hooks

MEMORY: Final = "memory://"


def is_needed(config: Config, *, has_source: bool) -> bool:
    """Return whether anything can be limited or is to be counted.

    Args:
        has_source: principals may come from elsewhere than the configuration, and have limits.
    """
    access = config.access
    has_limits = any(each.limits != NO_LIMITS or each.groups for each in access.principals.values())
    return (
        has_source
        or bool(access.store)
        or has_limits
        or access.limits != NO_LIMITS
        or config.spending != SpendingConfig()
    )


def open_ledger(config: Config) -> Ledger:
    """Return the ledger of a configuration; nothing is connected to yet. Raises `ConfigError`."""
    spending = config.spending
    return MemoryLedger() if spending.ledger == MEMORY else SQLLedger(spending.ledger, lease=spending.lease)


def open_spending(
    config: Config,
    *,
    catalog: Catalog,
    prices: PriceTable,
    pays: Callable[[str], bool],
    hooks: Hooks,
    before: Spending | None = None,
    replaced: Spending | None = None,
) -> Spending:
    """Return the limits and budgets of a configuration.

    Args:
        before: of an event loop that has ended; what it counted in memory is kept.
        replaced: of the configuration before, in this event loop, whose ledger and counts go on.

    Raises:
        ConfigError: a package is not installed.
    """
    spending = config.spending
    rates: Rates
    if replaced is not None:
        rates = replaced.rates
    elif (address := spending.rates or config.tasks.store) == MEMORY:
        known = before.rates if before is not None else None
        rates = known if isinstance(known, MemoryRates) else MemoryRates()
    else:
        rates = RedisRates(RedisClient(address), lease=spending.lease)
    if replaced is not None:
        ledger = replaced.ledger
    else:
        ledger = before.ledger if before is not None and not before.ledger.is_shared else open_ledger(config)
    return Spending(
        rates=rates,
        ledger=ledger,
        catalog=catalog,
        price_of=prices.find,
        pays=pays,
        hooks=hooks,
        gateway=config.access.limits,
        fallback=spending.reserve,
        lease=spending.lease,
        max_images=config.limits.images,
    )
