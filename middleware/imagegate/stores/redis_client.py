"""The one module that names the Redis client: scripts, which run whole or not at all, and what their failures mean."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from imagegate.errors import ConfigError

_CONNECTIONS: Final = 32
_CONNECTIONS_FOR_LEASES: Final = 2
"""Beside the others, so that leases are renewed in time however many requests wait for Redis."""
_SECONDS_TO_CONNECT: Final = 3.0
_SECONDS_TO_ANSWER: Final = 5.0
_RETRIES: Final = 3


class RedisFailed(Exception):
    """Redis cannot be reached, or refused; what it was to do may be done or not. The text names no host."""


class Script:
    """A Lua script; its first keys are `KEYS`."""

    def __init__(self, source: str) -> None:
        self.source = source


class RedisClient:
    """Connections to one Redis, made when they are first needed.

    Args:
        url: ``redis://[:password@]host:port/db``, or ``rediss://``.

    Raises:
        ConfigError: the package is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            import redis.asyncio
            from redis.asyncio.retry import Retry
            from redis.backoff import ExponentialBackoff
            from redis.exceptions import ConnectionError as NotConnected
            from redis.exceptions import RedisError
            from redis.exceptions import TimeoutError as NotAnswered
        except ImportError:
            raise ConfigError("redis:// needs the package redis: pip install 'imagegate[redis]'") from None

        def connections(count: int) -> Any:
            pool = redis.asyncio.BlockingConnectionPool.from_url(
                url,
                max_connections=count,
                timeout=_SECONDS_TO_ANSWER,
                socket_connect_timeout=_SECONDS_TO_CONNECT,
                socket_timeout=_SECONDS_TO_ANSWER,
                # A connection that broke while idle is only noticed by the next command. Every script may be
                # run again.
                retry=Retry(ExponentialBackoff(cap=0.4, base=0.05), _RETRIES),
                retry_on_error=[NotConnected, NotAnswered],  # redis-py 5 retries nothing that is not named
            )
            return redis.asyncio.Redis.from_pool(pool)

        self._redis = connections(_CONNECTIONS)
        self._for_leases = connections(_CONNECTIONS_FOR_LEASES)
        self._errors: tuple[type[Exception], ...] = (RedisError, OSError, TimeoutError)
        self._scripts: dict[str, Any] = {}

    async def run(
        self, script: Script, keys: Sequence[str], *arguments: str | bytes | int, for_lease: bool = False
    ) -> Any:
        """Run a script. Raises `RedisFailed`.

        Args:
            for_lease: on a connection that is kept free for such scripts.
        """
        registered = self._scripts.get(script.source)
        if registered is None:
            registered = self._scripts[script.source] = self._redis.register_script(script.source)
        cancellations = _cancellations()
        try:
            return await registered(keys=keys, args=arguments, client=self._for_leases if for_lease else None)
        except self._errors as error:
            raise RedisFailed(type(error).__name__) from error
        finally:
            # redis-py sends with `asyncio.wait_for`, which on Python 3.11 loses a cancellation that comes at its end.
            if _cancellations() > cancellations:
                raise asyncio.CancelledError

    async def aclose(self) -> None:
        await self._for_leases.aclose()
        await self._redis.aclose()


def _cancellations() -> int:
    """Return how often the cancellation of the current task was requested."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def is_redis_url(address: str) -> bool:
    """Return whether an address of the configuration is ``redis[s]://[:password@]host[:port][/db]``."""
    try:
        parts = urlsplit(address)
        parts.port  # noqa: B018 - raises where it is no number
    except ValueError:
        return False
    return (
        parts.scheme in ("redis", "rediss")
        and bool(parts.hostname)
        and bool(re.fullmatch(r"(/[0-9]{0,4})?", parts.path))
    )
