"""Requests and images that processes count together, in a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.wire.keeping_support import Redis, redis_server

from imagegate.access.principal import Limits
from imagegate.spending.accounts import Account
from imagegate.spending.rates import RateLimited
from imagegate.spending.redis import RedisRates
from imagegate.spending.windows import ORDER
from imagegate.stores.redis_client import RedisClient

pytestmark = [pytest.mark.redis, pytest.mark.server]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with redis_server(tmp_path_factory.mktemp("rates")) as server:
        yield server


@asynccontextmanager
async def opened(redis: Redis, *, count: int = 2, lease: float = 30.0) -> AsyncGenerator[list[RedisRates]]:
    """As many processes as a test wants."""
    rates = [RedisRates(RedisClient(redis.url), lease=lease) for _ in range(count)]
    try:
        yield rates
    finally:
        for each in rates:
            await each.aclose()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await scenario()

    asyncio.run(main())


def account(name: str, **limits: int) -> Account:
    return Account(f"key:{name}", Limits(**limits))


@pytest.mark.parametrize("name", ORDER)
def test_each_limit_is_shared(redis: Redis, name: str) -> None:
    """Of parallel requests of two processes as many are admitted as the limit says, and the others are told which."""

    async def scenario() -> None:
        async with opened(redis) as rates:
            mine = [account(f"shared-{name}", **{name: 7}), account("all", requests_per_day=10**6)]

            async def ask(place: int) -> str:
                try:
                    await rates[place % 2].admit(mine, 1)
                except RateLimited as error:
                    return error.use.limit
                return ""

            answers = await asyncio.gather(*(ask(place) for place in range(20)))
            assert (answers.count(""), answers.count(name)) == (7, 13)
            with pytest.raises(RateLimited) as refused:
                await rates[0].admit(mine, 1)
            assert (refused.value.use.used, refused.value.use.most) == (7, 7)

    run(scenario)


def test_against_all_accounts_or_none(redis: Redis) -> None:
    async def scenario() -> None:
        async with opened(redis) as rates:
            mine = account("one", images_per_minute=10, in_flight=5)
            team = Account("group:t", Limits(images_per_day=3))
            first = await rates[0].admit([mine, team], 2)
            assert {use.limit: use.used for use in first.uses} == {
                "in_flight": 1,
                "images_per_minute": 2,
                "images_per_day": 2,
            }
            with pytest.raises(RateLimited) as refused:
                await rates[1].admit([mine, team], 2)
            assert refused.value.use.account == "group:t"
            again = await rates[1].admit([mine, team], 1)
            assert {use.limit: use.used for use in again.uses}["images_per_minute"] == 3

    run(scenario)


def test_a_request_that_is_asked_for_twice_counts_once(redis: Redis) -> None:
    """The client asks again where the answer was lost."""

    async def scenario() -> None:
        async with opened(redis, count=1) as (rates,):
            mine = account("again", images_per_day=10, in_flight=1)
            ask = rates._redis.run

            async def twice(script: Any, *arguments: Any, **options: Any) -> Any:
                first = await ask(script, *arguments, **options)
                assert await ask(script, *arguments, **options) == first
                return first

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(rates._redis, "run", twice)
                first = await rates.admit([mine], 4)
            assert {use.limit: use.used for use in first.uses} == {"in_flight": 1, "images_per_day": 4}
            await rates.leave(first)
            second = await rates.admit([mine], 4)
            assert {use.limit: use.used for use in second.uses} == {"in_flight": 1, "images_per_day": 8}

    run(scenario)


def test_a_renewal_begins_nothing_anew(redis: Redis) -> None:
    """A request that ends while its lease is renewed, on another connection."""

    async def scenario() -> None:
        async with opened(redis, count=1) as (rates,):
            mine = account("crossing", in_flight=1)
            admission, ask = await rates.admit([mine], 1), rates._redis.run

            async def late(script: Any, *arguments: Any, **options: Any) -> Any:
                if options.get("for_lease"):
                    await rates.leave(admission)
                return await ask(script, *arguments, **options)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(rates._redis, "run", late)
                await rates.maintain()
            await rates.admit([mine], 1)

    run(scenario)


def test_a_request_whose_client_leaves_while_it_is_counted(redis: Redis) -> None:
    """It may have been counted all the same, and is over."""

    async def scenario() -> None:
        async with opened(redis, count=1) as (rates,):
            mine, ask = account("leaver", in_flight=1), rates._redis.run

            async def slow(script: Any, *arguments: Any, **options: Any) -> Any:
                found = await ask(script, *arguments, **options)
                await asyncio.sleep(60)
                return found

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(rates._redis, "run", slow)
                asking = asyncio.create_task(rates.admit([mine], 1))
                await asyncio.sleep(0.2)
                patch.setattr(rates._redis, "run", ask)
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
            for _ in range(1000):
                with suppress(RateLimited):
                    await rates.admit([mine], 1)
                    return
                await asyncio.sleep(0.02)
            raise AssertionError("its place was not given back")

    run(scenario)


def test_requests_at_a_time_end_with_their_request_or_their_process(redis: Redis) -> None:
    async def scenario() -> None:
        async with opened(redis, lease=3) as (living, dead):
            mine = account("leased", in_flight=2)
            first = await living.admit([mine], 1)
            await dead.admit([mine], 1)
            with pytest.raises(RateLimited):
                await living.admit([mine], 1)
            await living.leave(first)
            kept = await living.admit([mine], 1)
            admitted = None
            for _ in range(1000):  # the lease of the other process ends; our own is renewed
                await living.maintain()
                with suppress(RateLimited):
                    admitted = await living.admit([mine], 1)
                    break
                await asyncio.sleep(0.02)
            assert admitted is not None
            await living.maintain()
            with pytest.raises(RateLimited):
                await living.admit([mine], 1)
            await living.leave(kept)

    run(scenario)


def test_each_process_counts_for_itself_while_redis_is_away(tmp_path: Path) -> None:
    """Nobody is let through unlimited, nobody is refused for Redis's sake, and counting goes on when it is back."""
    with redis_server(tmp_path) as redis:

        async def scenario() -> None:
            async with opened(redis, count=1) as (rates,):
                mine = account("alone", requests_per_minute=2)
                await rates.admit([mine], 1)
                redis.stop()
                for _ in range(2):
                    await rates.leave(await rates.admit([mine], 1))
                with pytest.raises(RateLimited):
                    await rates.admit([mine], 1)
                await rates.maintain()
                redis.start()
                vars(rates)["_away_until"] = 0.0
                assert (await rates.admit([mine], 1)).uses[0].used == 1  # it has forgotten the minute

        run(scenario)


def test_what_has_no_limits_asks_nobody(redis: Redis) -> None:
    async def scenario() -> None:
        async with opened(redis, count=1) as (rates,):
            with redis.client() as client:
                before = client.info("stats")["total_commands_processed"]
                admission = await rates.admit([account("free"), Account("gateway", Limits(spend_per_day=1))], 1)
                await rates.leave(admission)
                assert client.info("stats")["total_commands_processed"] == before + 1

    run(scenario)


def test_one_round_trip_admits_a_request(redis: Redis) -> None:
    """Whatever limits how many accounts have; another one ends it where requests at a time are limited."""

    async def scenario() -> None:
        async with opened(redis, count=1) as (rates,):
            accounts = [account(f"trip-{place}", **dict.fromkeys(ORDER, 10**6)) for place in range(4)]
            bare = [account("bare", requests_per_day=10**6)]
            await rates.leave(await rates.admit(accounts, 1))  # the scripts are there
            with redis.client() as client:
                for each, commands in ((accounts, 2), (bare, 1)):
                    client.config_resetstat()
                    for _ in range(50):
                        await rates.leave(await rates.admit(each, 2))
                    calls = client.info("commandstats")
                    assert calls["cmdstat_evalsha"]["calls"] == 50 * commands
                    assert not {"cmdstat_eval", "cmdstat_multi", "cmdstat_ping", "cmdstat_hello"} & calls.keys()

    run(scenario)


def test_a_clock_that_is_set_back_gives_nothing_back(redis: Redis) -> None:
    """As that of a server that takes over; one that was far ahead does not keep the limit in force for years."""

    async def scenario() -> None:
        async with opened(redis, count=1) as (rates,):
            mine = [account("clock", requests_per_day=1)]
            await rates.admit(mine, 1)
            with redis.client() as client:
                for days, is_refused in ((1, True), (400, False)):  # ahead of now, by what is kept
                    name = "{imagegate}:rate:key:clock"
                    client.hset(name, mapping={"day": int(client.time()[0] // 86400) + days, "rd": 1})
                    if is_refused:
                        with pytest.raises(RateLimited):
                            await rates.admit(mine, 1)
                    else:
                        await rates.admit(mine, 1)

    run(scenario)
