"""The one module that names the Redis client: scripts, which run whole or not at all, and what their failures mean."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from imagegate.errors import ConfigError

_CONNECTIONS: Final = 32
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
            from redis.exceptions import RedisError
        except ImportError:
            raise ConfigError("redis:// needs the package redis: pip install 'imagegate[redis]'") from None
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=_SECONDS_TO_ANSWER,
            socket_connect_timeout=_SECONDS_TO_CONNECT,
            socket_timeout=_SECONDS_TO_ANSWER,
            # A connection that broke while idle is only noticed by the next command. Every script may be
            # run again.
            retry=Retry(ExponentialBackoff(cap=0.4, base=0.05), _RETRIES),
        )
        self._redis: Any = redis.asyncio.Redis.from_pool(pool)
        self._errors: tuple[type[Exception], ...] = (RedisError, OSError, TimeoutError)
        self._scripts: dict[str, Any] = {}

    async def run(self, script: Script, keys: Sequence[str], *arguments: str | bytes | int) -> Any:
        """Run a script. Raises `RedisFailed`."""
        registered = self._scripts.get(script.source)
        if registered is None:
            registered = self._scripts[script.source] = self._redis.register_script(script.source)
        try:
            return await registered(keys=keys, args=arguments)
        except self._errors as error:
            raise RedisFailed(type(error).__name__) from error

    async def aclose(self) -> None:
        await self._redis.aclose()


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
