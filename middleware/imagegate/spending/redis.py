"""Limits of requests and images that processes share, in Redis: one round trip for a request.

A request counts against all its accounts or against none. Requests at a time are leases, so that those of a process
that was killed end by themselves. Where Redis cannot be reached, each process counts for itself until it can.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final
from uuid import uuid4

from imagegate.asgi.background import Background
from imagegate.logger import get_logger
from imagegate.spending.accounts import Account
from imagegate.spending.memory import MemoryRates
from imagegate.spending.rates import NOT_COUNTED, Admission, RateLimited
from imagegate.spending.windows import ORDER, Use, has_rates, reset_of
from imagegate.stores.redis_client import RedisClient, RedisFailed, Script

_ADMIT: Final = Script("""
-- KEYS: counts and leases of each account, and what was told of this request; ARGV: id, images, lease, and five limits
-- for each account, -1 for none. Asked again after a reply that was lost, it counts nothing twice.
local before = redis.call('GET', KEYS[#KEYS])
if before then return cjson.decode(before) end
local accounts = (#KEYS - 1) / 2
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local minute, day = math.floor(now / 60000), math.floor(now / 86400000)
-- As in memory: a clock that is set back a little, as that of another server may be, begins no window anew.
local function has_passed(window, known)
  return not known or window > tonumber(known) or window < tonumber(known) - 1
end
local id, images, lease = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local steps = {1, 1, images, 1, images}
local found = {}
for place = 1, accounts do
  local key, leases = KEYS[place * 2 - 1], KEYS[place * 2]
  local known = redis.call('HMGET', key, 'minute', 'day', 'rm', 'im', 'rd', 'id')
  local is_new = has_passed(minute, known[1])
  local is_next = has_passed(day, known[2])
  local used = {0, is_new and 0 or tonumber(known[3]), is_new and 0 or tonumber(known[4]),
    is_next and 0 or tonumber(known[5]), is_next and 0 or tonumber(known[6]),
    is_new and minute or known[1], is_next and day or known[2]}
  if tonumber(ARGV[place * 5 - 1]) >= 0 then
    redis.call('ZREMRANGEBYSCORE', leases, '-inf', now)
    used[1] = redis.call('ZCARD', leases)
  end
  for limit = 1, 5 do
    local most = tonumber(ARGV[place * 5 - 2 + limit])
    if most >= 0 and used[limit] + steps[limit] > most then return {1, now, place, limit, used[limit]} end
  end
  found[place] = used
end
local told = {0, now}
for place = 1, accounts do
  local key, leases, used = KEYS[place * 2 - 1], KEYS[place * 2], found[place]
  for limit = 1, 5 do
    used[limit] = used[limit] + steps[limit]
    told[#told + 1] = used[limit]
  end
  redis.call('HSET', key, 'minute', used[6], 'day', used[7], 'rm', used[2], 'im', used[3], 'rd', used[4], 'id', used[5])
  redis.call('PEXPIRE', key, 90000000)
  if tonumber(ARGV[place * 5 - 1]) >= 0 then
    redis.call('ZADD', leases, now + lease, id)
    redis.call('PEXPIRE', leases, lease * 2)
  end
end
redis.call('SET', KEYS[#KEYS], cjson.encode(told), 'PX', 30000)
return told
""")
_LEAVE: Final = Script("for _, key in ipairs(KEYS) do redis.call('ZREM', key, unpack(ARGV)) end")
# KEYS leases of an account; ARGV lease, ids.
_RENEW: Final = Script("""
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
for place = 2, #ARGV do redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[place]) end
redis.call('PEXPIRE', KEYS[1], ARGV[1] * 2)
""")
_PAUSE: Final = 5.0
"""Seconds for which Redis is not asked again after it could not be reached."""
_AT_A_TIME: Final = 1000


class RedisRates:
    """Counts requests and images of accounts in Redis.

    Args:
        redis: where; closed with this.
        lease: seconds after which the requests at a time of a process that was killed end.
    """

    def __init__(self, redis: RedisClient, *, lease: float) -> None:
        self._redis = redis
        self._lease = round(lease * 1000)
        self._own = MemoryRates()
        self._held: dict[str, Sequence[str]] = {}
        """Requests at a time of this process: id -> the keys of their leases."""
        self._away_until = 0.0
        self._later = Background()

    async def admit(self, accounts: Sequence[Account], images: int) -> Admission:
        """Count a request against all accounts, or against none. Raises `RateLimited`."""
        limited = [account for account in accounts if has_rates(account.limits)]
        if not limited:
            return NOT_COUNTED
        if time.monotonic() < self._away_until:
            return self._own.count(limited, images)
        id_ = uuid4().hex
        keys = [key for account in limited for key in (_counts(account.id), _leases(account.id))]
        limits = [_most(account, name) for account in limited for name in ORDER]
        leases = [_leases(account.id) for account in limited if account.limits.in_flight is not None]
        try:
            told = await self._redis.run(_ADMIT, [*keys, _told(id_)], id_, images, self._lease, *limits)
        except asyncio.CancelledError:  # it may have been counted all the same
            self._leave_later(id_, leases)
            raise
        except RedisFailed as error:
            self._leave_later(id_, leases)
            self._note_away(error)
            return self._own.count(limited, images)
        now = told[1] / 1000
        if told[0] == 1:
            account, name = limited[told[2] - 1], ORDER[told[3] - 1]
            raise RateLimited(Use(account.id, name, _most(account, name), told[4], reset_of(name, now)), account)
        used = iter(told[2:])
        uses = [
            Use(account.id, name, most, count, reset_of(name, now))
            for account in limited
            for name, count in zip(ORDER, used, strict=False)
            if (most := getattr(account.limits, name)) is not None
        ]
        if leases:
            self._held[id_] = leases
        return Admission(id_, (), uses)

    async def leave(self, admission: Admission) -> None:
        """Count a request as ended."""
        if not admission.id:
            self._own.uncount(admission)
        elif keys := self._held.pop(admission.id, None):
            await self._end(keys, admission.id)

    def _leave_later(self, id_: str, leases: Sequence[str]) -> None:
        """Count a request as ended of which it is not known whether it was counted."""
        if leases:
            self._later.start(self._end(leases, id_))

    async def _end(self, keys: Sequence[str], *ids: str) -> None:
        with suppress(RedisFailed):  # then the lease ends it
            await self._redis.run(_LEAVE, keys, *ids)

    async def maintain(self) -> None:
        """Renew the leases of the requests at a time."""
        by_key: dict[str, list[str]] = {}
        for id_, keys in self._held.items():
            for key in keys:
                by_key.setdefault(key, []).append(id_)
        with suppress(RedisFailed):
            for key, ids in by_key.items():
                for start in range(0, len(ids), _AT_A_TIME):
                    some = ids[start : start + _AT_A_TIME]
                    await self._redis.run(_RENEW, [key], self._lease, *some, for_lease=True)
                    # Connections are several: an end may have overtaken the renewal, which has begun it anew.
                    if ended := [id_ for id_ in some if id_ not in self._held]:
                        await self._redis.run(_LEAVE, [key], *ended)

    def _note_away(self, error: RedisFailed) -> None:
        if time.monotonic() >= self._away_until:
            get_logger().warning("Redis is away: each process counts requests and images for itself", error=str(error))
        self._away_until = time.monotonic() + _PAUSE

    async def aclose(self) -> None:
        await self._later.finish(0)
        await self._redis.aclose()


def _most(account: Account, name: str) -> int:
    most: int | None = getattr(account.limits, name)
    return -1 if most is None else most


def _counts(account: str) -> str:
    return f"{{imagegate}}:rate:{account}"


def _told(id_: str) -> str:
    return f"{{imagegate}}:told:{id_}"


def _leases(account: str) -> str:
    return f"{{imagegate}}:busy:{account}"
