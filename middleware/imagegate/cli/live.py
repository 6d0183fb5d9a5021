"""What ``imagegate check --live`` and ``imagegate doctor`` find: whether what a configuration names can be used."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from email.utils import parsedate_to_datetime
from typing import Final, Literal, NamedTuple
from uuid import uuid4

from imagegate.config.network import Clients, foreign_client
from imagegate.config.schema import Config
from imagegate.config.store_factory import open_store
from imagegate.errors import ConfigError, UpstreamError
from imagegate.http import Interrupted, NotSent, Response
from imagegate.spending.factory import MEMORY
from imagegate.spending.ledger import LedgerUnavailable
from imagegate.spending.money import amount
from imagegate.stores.redis_client import RedisClient, RedisFailed, Script, is_redis_url
from imagegate.upstream.account import Account
from imagegate.wiring import accounts_of

_REFUSED: Final = (401, 403)
_ALIVE: Final = Script("return 1")
_DATABASE: Final = (
    "See that the database can be reached and written to; its tables are made by whoever needs them first."
)
_SKEW: Final = 30.0
"""Seconds that clocks may differ by: signed links, webhooks and requests to buckets are good for minutes."""


class Finding(NamedTuple):
    """One thing that was looked at."""

    name: str
    """Of the setting, or of what was looked at."""
    state: Literal["good", "warning", "bad"]
    text: str
    advice: str = ""
    """What to do about it."""


async def check_live(config: Config) -> bool:
    """Ask upstreams, stores, databases and Redis, print what each says, and return whether all can be used."""
    found = [finding async for finding in findings(config)]
    for finding in found:
        print(f"{finding.name}: {finding.text}.")
    return all(finding.state != "bad" for finding in found)


async def findings(config: Config) -> AsyncIterator[Finding]:
    """Yield what upstreams, stores, databases and Redis say. Nothing is paid for: upstreams list their models."""
    clients = Clients(config, foreign=foreign_client(config))
    try:
        for account in accounts_of(config, clients):
            async for finding in _of_upstream(account):
                yield finding
    finally:
        await clients.aclose()
    yield await _of_store(config)
    if config.access.store:
        yield await asyncio.to_thread(_of_keys, config.access.store)
    if config.spending.ledger != MEMORY:
        yield await asyncio.to_thread(_of_ledger, config.spending.ledger)
    addresses: dict[str, list[str]] = {}
    for name, address in (
        ("tasks.store", config.tasks.store),
        ("idempotency.store", config.idempotency.store),
        ("spending.rates", config.spending.rates),
    ):
        if is_redis_url(address):
            addresses.setdefault(address, []).append(name)
    for address, names in addresses.items():
        yield await _of_redis(address, names)


async def _of_upstream(account: Account) -> AsyncIterator[Finding]:
    name = f"upstreams.{account.name}"
    if not account.has_key:
        yield Finding(name, "good", "gets the clients' own keys, so there is none to try")
        return
    try:
        headers = await account.headers(None)
        asked = time.time()
        response = await account.client.send(
            "GET", account.url(account.adapter.models_path), headers=headers, timeouts=account.timeouts
        )
        await response.aclose()
    except (NotSent, Interrupted, UpstreamError) as error:
        advice = (
            "See that base_url is right, that its host can be looked up here, and whether a proxy leads out (proxy)."
        )
        yield Finding(name, "bad", f"cannot be used: {error}", advice)
        return
    status = response.status_code
    if status in _REFUSED:
        advice = "Make a new key in the provider's console, and see that it may make images."
        yield Finding(name, "bad", f"refuses the key ({status})", advice)
    elif status == 200:
        yield Finding(name, "good", "takes the key")
    else:
        yield Finding(name, "good", f"can be reached; whether it takes the key is open: it answered {status}")
    if abs(skew := _skew(response, asked)) > _SKEW:
        direction = "behind" if skew > 0 else "ahead"
        text = f"this machine's is {abs(skew):.0f} s {direction} of {account.name}'s"
        yield Finding(
            "clock", "warning", text, "Run a time service (NTP): links, webhooks and bucket requests are signed."
        )


def _of_keys(store: str) -> Finding:
    from sqlalchemy.exc import SQLAlchemyError

    from imagegate.access.key_table import KeyTable  # needs an extra

    table = KeyTable.at(store)
    try:
        count = len(table.list())
    except (SQLAlchemyError, OSError, ConfigError) as error:
        return Finding("access.store", "bad", f"cannot be used: {_reason(error)}", _DATABASE)
    finally:
        table.close()
    return Finding("access.store", "good", f"has {count} keys")


def _of_ledger(address: str) -> Finding:
    from sqlalchemy.exc import SQLAlchemyError

    from imagegate.spending.sql_statements import Statements  # needs an extra

    statements = Statements(address, holder=uuid4().hex, lease=30.0)
    try:
        held, _ = statements.run([lambda each, db: each.list_held(db, ""), lambda each, db: each.leave(db)])
    except (SQLAlchemyError, LedgerUnavailable) as error:
        return Finding("spending.ledger", "bad", f"cannot be used: {_reason(error.__cause__ or error)}", _DATABASE)
    finally:
        statements.close()
    if not held:
        return Finding("spending.ledger", "good", "can be written to; nothing is held")
    total = amount(sum(each.held for each in held))
    advice = "`imagegate spend held` lists it; `spend settle` and `spend release` decide, once the bill is known."
    return Finding(
        "spending.ledger", "warning", f"holds {total:.6g} for {len(held)} requests whose end is open", advice
    )


def _reason(error: BaseException) -> str:
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0]


def _skew(response: Response, asked: float) -> float:
    """Return by how many seconds the server's clock is ahead of ours; 0 where it does not say."""
    try:
        return parsedate_to_datetime(response.headers["date"]).timestamp() - asked
    except (KeyError, ValueError, TypeError):
        return 0.0


async def _of_store(config: Config) -> Finding:
    store = open_store(config.delivery)
    try:
        (await store.reserve(1)).release()
    except OSError as error:
        advice = "See that the directory can be written to, or that the bucket exists and its credentials may write."
        return Finding("delivery.store", "bad", f"cannot be used: {error.strerror or error}", advice)
    finally:
        await store.aclose()
    return Finding("delivery.store", "good", "takes images")


async def _of_redis(address: str, names: Sequence[str]) -> Finding:
    client = RedisClient(address)
    try:
        await client.run(_ALIVE, ())
    except RedisFailed as error:
        advice = f"See that it runs, and that {' and '.join(names)} has its address, database and password."
        return Finding("Redis", "bad", f"cannot be used: {error}", advice)
    finally:
        await client.aclose()
    return Finding("Redis", "good", "can be used")
