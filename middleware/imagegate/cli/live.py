"""``imagegate check --live``: whether what a configuration names can be reached, and takes what it is given."""

from __future__ import annotations

import asyncio

from imagegate.config.network import Clients
from imagegate.config.schema import Config
from imagegate.config.store_factory import open_store
from imagegate.errors import UpstreamError
from imagegate.http import Interrupted, NotSent
from imagegate.stores.redis_client import RedisClient, RedisFailed, Script
from imagegate.upstream.account import Account
from imagegate.wiring import accounts_of

_REFUSED = (401, 403)
_ALIVE = Script("return 1")


async def check_live(config: Config) -> bool:
    """Ask each upstream, the store and Redis, print what each says, and return whether all can be used.

    Nothing is paid for: upstreams are asked for their list of models.
    """
    clients = Clients(config)
    try:
        found = [await _check_upstream(account) for account in accounts_of(config, clients)]
    finally:
        await clients.aclose()
    found.append(await _check_store(config))
    if config.access.store:
        found.append(await asyncio.to_thread(_check_keys, config.access.store))
    addresses = dict.fromkeys((config.tasks.store, config.idempotency.store or config.tasks.store))
    found += [await _check_redis(address) for address in addresses if address != "memory://"]
    return all(found)


async def _check_upstream(account: Account) -> bool:
    name = f"upstreams.{account.name}"
    if not account.has_key:
        print(f"{name}: gets the clients' own keys, so there is none to try.")
        return True
    try:
        headers = await account.headers(None)
        response = await account.client.send(
            "GET", account.url(account.adapter.models_path), headers=headers, timeouts=account.timeouts
        )
        await response.aclose()
    except (NotSent, Interrupted, UpstreamError) as error:
        print(f"{name}: cannot be used: {error}")
        return False
    if response.status_code in _REFUSED:
        print(f"{name}: refuses the key ({response.status_code}).")
        return False
    said = (
        "takes the key"
        if response.status_code == 200
        else f"can be reached; whether it takes the key is open: it answered {response.status_code}"
    )
    print(f"{name}: {said}.")
    return True


def _check_keys(store: str) -> bool:
    from sqlalchemy.exc import SQLAlchemyError

    from imagegate.access.key_table import KeyTable  # needs an extra

    table = KeyTable.at(store)
    try:
        count = len(table.list())
    except (SQLAlchemyError, OSError) as error:
        reason = str(getattr(error, "orig", None) or error).strip()
        print(f"access.store: cannot be used: {reason}")
        return False
    finally:
        table.close()
    print(f"access.store: has {count} keys.")
    return True


async def _check_store(config: Config) -> bool:
    store = open_store(config.delivery)
    try:
        (await store.reserve(1)).release()
    except OSError as error:
        print(f"delivery.store: cannot be used: {error.strerror or error}")
        return False
    finally:
        await store.aclose()
    print("delivery.store: takes images.")
    return True


async def _check_redis(address: str) -> bool:
    client = RedisClient(address)
    try:
        await client.run(_ALIVE, ())
    except RedisFailed as error:
        print(f"Redis: cannot be used: {error}")
        return False
    finally:
        await client.aclose()
    print("Redis: can be used.")
    return True
