"""What ``imagegate check --live`` and ``imagegate doctor`` find: whether what a configuration names can be used."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from typing import Final, Literal, NamedTuple

from imagegate.config.network import Clients
from imagegate.config.schema import Config
from imagegate.config.store_factory import open_store
from imagegate.errors import UpstreamError
from imagegate.http import Interrupted, NotSent, Response
from imagegate.stores.redis_client import RedisClient, RedisFailed, Script
from imagegate.upstream.account import Account
from imagegate.wiring import accounts_of

_REFUSED: Final = (401, 403)
_ALIVE: Final = Script("return 1")
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
    """Ask each upstream, the store and Redis, print what each says, and return whether all can be used."""
    found = [finding async for finding in findings(config)]
    for finding in found:
        print(f"{finding.name}: {finding.text}.")
    return all(finding.state != "bad" for finding in found)


async def findings(config: Config) -> AsyncIterator[Finding]:
    """Yield what upstreams, the store and Redis say. Nothing is paid for: upstreams are asked for their models."""
    clients = Clients(config)
    try:
        for account in accounts_of(config, clients):
            async for finding in _of_upstream(account):
                yield finding
    finally:
        await clients.aclose()
    yield await _of_store(config)
    if config.access.store:
        yield await asyncio.to_thread(_of_keys, config.access.store)
    addresses = dict.fromkeys((config.tasks.store, config.idempotency.store or config.tasks.store))
    for address in addresses:
        if address != "memory://":
            yield await _of_redis(address)


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
    except (SQLAlchemyError, OSError) as error:
        reason = str(getattr(error, "orig", None) or error).strip()
        advice = "`imagegate keys create` makes the tables; see that the database can be reached and written to."
        return Finding("access.store", "bad", f"cannot be used: {reason}", advice)
    finally:
        table.close()
    return Finding("access.store", "good", f"has {count} keys")


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


async def _of_redis(address: str) -> Finding:
    client = RedisClient(address)
    try:
        await client.run(_ALIVE, ())
    except RedisFailed as error:
        advice = "See that it runs, and that tasks.store has its address, database and password."
        return Finding("Redis", "bad", f"cannot be used: {error}", advice)
    finally:
        await client.aclose()
    return Finding("Redis", "good", "can be used")
