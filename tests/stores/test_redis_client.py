"""The Redis client: a cancelled task ends, whatever its command has done."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import pytest
from tests.wire.keeping_support import Redis, redis_server

from imagegate.stores.redis_client import RedisClient, RedisFailed, Script

pytestmark = [pytest.mark.redis, pytest.mark.server]
ONE, WRONG = Script("return 1"), Script("return redis.call('NO SUCH COMMAND')")


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.mark.parametrize("script", [ONE, WRONG], ids=["answered", "refused"])
def test_a_cancellation_is_never_lost(redis: Redis, script: Script) -> None:
    """At no step of a command: a request whose client has left must not go on to the provider."""

    async def command(client: RedisClient) -> bool:
        """Whether the cancellation came, before the command or within it, and was lost."""
        with contextlib.suppress(RedisFailed):
            await client.run(script, ["a"])
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0

    async def scenario() -> None:
        client = RedisClient(redis.url)
        assert await client.run(ONE, ["a"]) == 1
        ended = 0
        for steps in range(60):
            task = asyncio.create_task(command(client))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            (result,) = await asyncio.gather(task, return_exceptions=True)
            assert result is False or isinstance(result, asyncio.CancelledError), f"after {steps} steps"
            ended += isinstance(result, asyncio.CancelledError)
        assert ended
        assert await client.run(ONE, ["a"]) == 1
        await client.aclose()

    asyncio.run(scenario())
