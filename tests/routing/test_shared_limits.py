"""Limits and breakers of upstreams that several processes share, in a real Redis; each `Process` stands for one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from tests.waiting import async_until
from tests.wire.keeping_support import Redis, redis_server

from imagegate.errors import ImagegateError, UpstreamRefused, UpstreamUnavailable, UpstreamUnreachable
from imagegate.routing.circuit_breaker import Breaker
from imagegate.routing.limiter import UpstreamLimiter
from imagegate.routing.shared_limits import SharedLimits
from imagegate.stores.redis_client import RedisClient
from imagegate.telemetry.progress import Progress

pytestmark = [pytest.mark.redis, pytest.mark.server]


class Process:
    """One process's limiter of an upstream."""

    def __init__(
        self, redis: Redis, name: str, lease: float, pause: float, failures: int, **limits: int | None
    ) -> None:
        self.heard: list[tuple[str, str]] = []
        self.shared = SharedLimits(
            RedisClient(redis.url), lease=lease, changed=lambda upstream, state: self.heard.append((upstream, state))
        )
        self.breaker = Breaker(failures=failures, pause=pause)
        self.limiter = UpstreamLimiter(
            self.breaker,
            max_in_flight=limits.get("max_in_flight"),
            requests_per_minute=limits.get("requests_per_minute"),
        )
        self.limiter.share(self.shared, name)

    async def ask(self, work: Callable[[], Awaitable[None]] | None = None, *, queue_timeout: float = 0.0) -> None:
        async def done() -> None:
            if work is not None:
                await work()

        await self.limiter.run(done, Progress("generations"), queue_timeout=queue_timeout, until=None)

    async def fails(self, error: ImagegateError) -> None:
        async def work() -> None:
            raise error

        with suppress(type(error)):
            await self.ask(work)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with redis_server(tmp_path_factory.mktemp("limits")) as server:
        yield server


@asynccontextmanager
async def processes(
    redis: Redis, name: str, *, lease: float = 30.0, pause: float = 30.0, failures: int = 0, **limits: int | None
) -> AsyncGenerator[tuple[Process, Process]]:
    both = (
        Process(redis, name, lease, pause, failures, **limits),
        Process(redis, name, lease, pause, failures, **limits),
    )
    try:
        yield both
    finally:
        for each in both:
            await each.shared.aclose()


def test_at_most_so_many_at_a_time_in_all_processes(redis: Redis) -> None:
    """Whatever waits gets its turn, and no request is lost."""

    async def scenario() -> None:
        async with processes(redis, "busy", max_in_flight=3) as both:
            running = most = done = 0

            async def work() -> None:
                nonlocal running, most, done
                running += 1
                most = max(most, running)
                await asyncio.sleep(0.01)
                running -= 1
                done += 1

            await asyncio.gather(*(both[place % 2].ask(work, queue_timeout=20) for place in range(24)))
            assert (most, done) == (3, 24)
            release = asyncio.Event()

            async def held() -> None:
                await release.wait()

            tasks = [asyncio.create_task(both[0].ask(held)) for _ in range(3)]
            while len(vars(both[0].limiter)["_shared"].held) < 3:
                await asyncio.sleep(0.01)
            with pytest.raises(UpstreamUnavailable, match="concurrency limit"):
                await both[1].ask()
            tasks[0].cancel()
            with suppress(asyncio.CancelledError):
                await tasks[0]
            await both[1].ask()
            release.set()
            await asyncio.gather(*tasks[1:])

    asyncio.run(scenario())


def test_so_many_a_minute_in_all_processes(redis: Redis) -> None:
    """What was not sent gives its slot back; a queue that is too long is told when there is room."""

    async def scenario() -> None:
        async with processes(redis, "rated", requests_per_minute=3) as (one, other):
            await one.ask()
            await other.fails(UpstreamUnreachable("refused"))
            await other.ask()
            await one.ask()
            with pytest.raises(UpstreamUnavailable, match="rate limit") as refused:
                await other.ask(queue_timeout=1.0)
            assert 50 < (refused.value.retry_after or 0) <= 60

    asyncio.run(scenario())


def test_permits_of_a_dead_process_are_free_again(redis: Redis) -> None:
    async def scenario() -> None:
        async with processes(redis, "leased", lease=3, max_in_flight=1) as (dead, living):
            shared = vars(dead.limiter)["_shared"]
            assert await shared.take(0.0)
            with pytest.raises(UpstreamUnavailable):
                await living.ask()
            await vars(SharedLimits)["_renew"](dead.shared)  # it still lives
            with pytest.raises(UpstreamUnavailable):
                await living.ask()
            await living.ask(queue_timeout=10)

    asyncio.run(scenario())


def test_each_has_its_own_share_while_redis_is_away(tmp_path: Path) -> None:
    with redis_server(tmp_path) as redis:

        async def scenario() -> None:
            async with processes(redis, "share", max_in_flight=4, requests_per_minute=6) as (one, other):
                for process in (one, other, one):
                    await process.shared.look()
                assert one.shared.processes == 2
                redis.stop()
                release = asyncio.Event()

                async def held() -> None:
                    await release.wait()

                tasks = [asyncio.create_task(one.ask(held)) for _ in range(2)]
                while vars(vars(one.limiter)["_shared"])["_own_in_flight"] < 2:
                    await asyncio.sleep(0.01)
                with pytest.raises(UpstreamUnavailable, match="concurrency limit"):
                    await one.ask()
                release.set()
                await asyncio.gather(*tasks)
                await one.fails(UpstreamUnreachable("not sent"))
                await one.ask()
                with pytest.raises(UpstreamUnavailable, match="rate limit"):
                    await one.ask()
                redis.start()
                await one.shared.look()
                assert not one.shared.is_away
                for _ in range(6):
                    await one.ask()

        asyncio.run(scenario())


def test_breakers_follow_each_other(redis: Redis) -> None:
    """One opens for all; one process asks when the pause is over, and closes it for all."""

    async def scenario() -> None:
        async with processes(redis, "broken", pause=3, failures=1) as (one, other):
            await one.fails(UpstreamRefused("down", status=500))
            assert one.breaker.state == "open"
            await one.shared.look()
            await other.shared.look()
            assert other.heard == [("broken", "open")]
            with pytest.raises(UpstreamUnavailable, match="circuit breaker"):
                await other.ask()
            begun, release = asyncio.Event(), asyncio.Event()

            async def probe() -> None:
                begun.set()
                await release.wait()

            probing = None
            while not begun.is_set():
                if probing is None or probing.done():
                    probing = asyncio.create_task(other.ask(probe))
                await asyncio.sleep(0.02)
            with pytest.raises(UpstreamUnavailable, match="circuit breaker"):
                await one.ask()
            release.set()
            assert probing is not None
            await probing
            await other.shared.look()
            await one.shared.look()
            assert (one.breaker.state, other.breaker.state) == ("closed", "closed")
            assert one.heard == [("broken", "closed")]
            await one.ask()

    asyncio.run(scenario())


def test_news_are_told_at_once(redis: Redis) -> None:
    """By the loop that runs in a gateway."""

    async def scenario() -> None:
        async with processes(redis, "looped", failures=1) as (one, other):
            one.shared.start()
            other.shared.start()
            await one.fails(UpstreamRefused("down", status=500))
            await async_until(lambda: other.breaker.state == "open")

    asyncio.run(scenario())
