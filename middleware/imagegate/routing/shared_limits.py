"""Limits and breakers of upstreams that processes and machines share, in Redis.

A permit is a lease, so that those of a process that was killed end by themselves. A request takes permit and rate-limit
slot in one round trip. Breakers share their state within a second. Where Redis cannot be reached, each process
goes on with its own share: the limit divided by the processes that were there last.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from math import ceil
from typing import Any, Final, NamedTuple
from uuid import uuid4

from imagegate.asgi.background import Background, repeat, stop
from imagegate.logger import get_logger
from imagegate.routing.circuit_breaker import Breaker
from imagegate.routing.rate_limit import RateLimit
from imagegate.stores.redis_client import RedisClient, RedisFailed, Script
from imagegate.telemetry.hooks import BreakerState

_NOW: Final = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
"""
# KEYS permits, slots; ARGV id, lease, most in flight, most a minute, longest wait. Whether both were taken, and the
# milliseconds until the slot; without a slot in time until the next one, without a permit -1.
_TAKE: Final = Script(
    _NOW
    + """
local id, lease, most, rate, longest = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
if most >= 0 then
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
  if redis.call('ZCARD', KEYS[1]) >= most then return {0, -1} end
end
local slot = now
if rate >= 0 then
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - 60000)
  local last = redis.call('ZRANGE', KEYS[2], -1, -1, 'WITHSCORES')[2]
  if last then slot = math.max(slot, tonumber(last)) end
  local first = redis.call('ZRANGE', KEYS[2], -rate, -rate, 'WITHSCORES')[2]
  if first and redis.call('ZCARD', KEYS[2]) >= rate then slot = math.max(slot, tonumber(first) + 60000) end
  if slot - now > longest then return {0, slot - now} end
  redis.call('ZADD', KEYS[2], slot, id)
  redis.call('PEXPIRE', KEYS[2], slot - now + 61000)
end
if most >= 0 then
  redis.call('ZADD', KEYS[1], now + lease, id)
  redis.call('PEXPIRE', KEYS[1], lease * 2)
end
return {1, slot - now}
"""
)
# KEYS permits, slots; ARGV id, whether the slot was not used.
_LEAVE: Final = Script("""
redis.call('ZREM', KEYS[1], ARGV[1])
if ARGV[2] == '1' then redis.call('ZREM', KEYS[2], ARGV[1]) end
""")
# KEYS permits; ARGV lease, ids.
_RENEW: Final = Script(
    _NOW
    + """
for place = 2, #ARGV do redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[place]) end
redis.call('PEXPIRE', KEYS[1], ARGV[1] * 2)
"""
)
# KEYS processes, breakers; ARGV process, lease, then upstream and milliseconds that its breaker stays open, 0: closed.
# The number of processes, then upstream and milliseconds of every breaker: 0 closed, less a pause that is over.
_LOOK: Final = Script(
    _NOW
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2] * 2)
for place = 3, #ARGV, 2 do
  local left = tonumber(ARGV[place + 1])
  redis.call('HSET', KEYS[2], ARGV[place], left > 0 and now + left or 0)
  redis.call('PEXPIRE', KEYS[2], 86400000)
end
local told = {redis.call('ZCARD', KEYS[1])}
local known = redis.call('HGETALL', KEYS[2])
for place = 1, #known, 2 do
  local stays = tonumber(known[place + 1])
  told[#told + 1] = known[place]
  told[#told + 1] = stays == 0 and 0 or (stays > now and stays - now or -1)
end
return told
"""
)
# KEYS probe; ARGV milliseconds.
_PROBE: Final = Script("return redis.call('SET', KEYS[1], 1, 'NX', 'PX', ARGV[1]) and 1 or 0")
_PREFIX: Final = "{imagegate}:upstreams"
_PAUSE: Final = 1.0
"""Seconds between two looks, and for which a Redis that is away is not asked again."""
_POLL: Final = 0.05
"""Seconds between two tries to get a permit."""
_AT_A_TIME: Final = 1000


class Turn(NamedTuple):
    """A permit, with a slot of the rate limit."""

    id: str
    """Empty: of this process's own share."""
    delay: float
    """Seconds until the request may be sent."""
    slot: float = 0.0
    """Of the process's own share."""


class NotInTime(NamedTuple):
    """There was neither within the time."""

    limit: str
    seconds: float
    """Until one may be free."""


class SharedUpstream:
    """One upstream's limits.

    Args:
        all_of: all upstreams, which know Redis.
        max_in_flight: of all processes together; None: unlimited.
        requests_per_minute: likewise.
        breaker: this process's.
        clock: monotonic clock, in seconds.
    """

    def __init__(
        self,
        all_of: SharedLimits,
        name: str,
        breaker: Breaker,
        *,
        max_in_flight: int | None,
        requests_per_minute: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._all = all_of
        self.name = name
        self.breaker = breaker
        self._most = max_in_flight
        self._rate = requests_per_minute
        self._clock = clock
        self._keys = (f"{_PREFIX}:{name}:permits", f"{_PREFIX}:{name}:slots")
        self.held: set[str] = set()
        """Permits of this process, by id."""
        self._own_in_flight = 0
        self._own_rate: RateLimit | None = None

    @property
    def permits_key(self) -> str:
        return self._keys[0]

    async def take(self, max_wait: float) -> Turn | NotInTime:
        """Take a permit and a slot of the rate limit, both or neither, within `max_wait` seconds."""
        until = self._clock() + max_wait
        while True:
            left = max(0.0, until - self._clock())
            found = await self._take(left)
            if isinstance(found, Turn) or found.limit == "rate limit" or left <= 0:
                return found
            await asyncio.sleep(min(_POLL, left))

    async def _take(self, left: float) -> Turn | NotInTime:
        if self._all.is_away:
            return self._take_own(left)
        self._own_rate = None
        id_ = uuid4().hex
        most, rate = (-1 if limit is None else limit for limit in (self._most, self._rate))
        try:
            taken, wait = await self._all.redis.run(
                _TAKE, self._keys, id_, self._all.lease, most, rate, round(left * 1000)
            )
        except RedisFailed:
            self._all.note_away()
            return self._take_own(left)
        except asyncio.CancelledError:  # it may have been taken all the same
            self._all.run_later(self.leave(Turn(id_, 0.0), was_used=False))
            raise
        if taken:
            self.held.add(id_)
            return Turn(id_, wait / 1000)
        return NotInTime("concurrency limit", _PAUSE) if wait < 0 else NotInTime("rate limit", wait / 1000)

    def _take_own(self, left: float) -> Turn | NotInTime:
        """Take a part of this process's own share."""
        if self._most is not None and self._own_in_flight + len(self.held) >= self._share(self._most):
            return NotInTime("concurrency limit", _PAUSE)
        now = slot = self._clock()
        if self._rate is not None:
            if self._own_rate is None:
                self._own_rate = RateLimit(self._share(self._rate))
            taken = self._own_rate.take(now, max_wait=left)
            if taken is None:
                return NotInTime("rate limit", self._own_rate.next_slot(now) - now)
            slot = taken
        self._own_in_flight += 1
        return Turn("", slot - now, slot)

    def _share(self, limit: int) -> int:
        return max(1, limit // self._all.processes)

    async def leave(self, turn: Turn, *, was_used: bool) -> None:
        """Give the permit back, and the slot where nothing was sent."""
        if not turn.id:
            self._own_in_flight -= 1
            if self._own_rate is not None and not was_used:
                self._own_rate.give_back(turn.slot)
            return
        self.held.discard(turn.id)
        if self._most is not None or not was_used:
            with suppress(RedisFailed):  # then the lease ends it
                await self._all.redis.run(_LEAVE, self._keys, turn.id, int(not was_used))

    async def may_probe(self, pause: float) -> bool:
        """Return whether this process is the one that asks an upstream whose breaker was open."""
        key = f"{_PREFIX}:{self.name}:probe"
        try:
            return bool(await self._all.redis.run(_PROBE, [key], max(1, round(pause * 1000))))
        except RedisFailed:
            return True

    def note(self, state: BreakerState) -> None:
        """Tell the other processes of this one's breaker."""
        if state != "half_open":
            left = self.breaker.seconds_left(self._clock()) if state == "open" else 0.0
            self._all.tell(self.name, ceil(left * 1000))

    def adopt(self, left: int) -> BreakerState | None:
        """Follow another process's breaker; return the new state where it is another.

        Args:
            left: milliseconds that it stays open; 0: it is closed; less: its pause is over.
        """
        if left > 0 and self.breaker.state == "closed":
            self.breaker.open_until(self._clock() + left / 1000)
            return "open"
        if left == 0 and self.breaker.state == "open":
            self.breaker.close()
            return "closed"
        return None


class SharedLimits:
    """The limits of all upstreams in one Redis, for one event loop.

    Args:
        redis: closed with this.
        lease: seconds after which permits of a process that was killed are free.
        changed: called with each upstream's new state of the breaker that another process's led to.
    """

    def __init__(
        self,
        redis: RedisClient,
        *,
        lease: float,
        changed: Callable[[str, BreakerState], None] = lambda upstream, state: None,
    ) -> None:
        self.redis = redis
        self.lease = round(lease * 1000)
        self.processes = 1
        """That share the limits, as far as this one knows."""
        self._changed = changed
        self._process = uuid4().hex
        self._upstreams: dict[str, SharedUpstream] = {}
        self._news: dict[str, int] = {}
        self._has_news = asyncio.Event()
        self._away_until = 0.0
        self._was_away = False
        self._loops: tuple[asyncio.Task[None], ...] = ()
        self._later = Background()

    def add(
        self, name: str, breaker: Breaker, *, max_in_flight: int | None, requests_per_minute: int | None
    ) -> SharedUpstream:
        """Return the limits of an upstream."""
        shared = SharedUpstream(
            self, name, breaker, max_in_flight=max_in_flight, requests_per_minute=requests_per_minute
        )
        self._upstreams[name] = shared
        return shared

    @property
    def is_away(self) -> bool:
        """Whether Redis could not be reached a moment ago."""
        return time.monotonic() < self._away_until

    def note_away(self) -> None:
        """Note that Redis cannot be reached."""
        if not self._was_away:
            get_logger().warning(
                "Redis is away: this process goes on with its own share of the upstreams' limits",
                processes=self.processes,
            )
        self._was_away = True
        self._away_until = time.monotonic() + _PAUSE

    def tell(self, upstream: str, left: int) -> None:
        """Tell the other processes that a breaker stays open for `left` milliseconds; 0: that it is closed."""
        self._news[upstream] = left
        self._has_news.set()

    def run_later(self, work: Coroutine[Any, Any, None]) -> None:
        """Run what a cancelled request cannot wait for."""
        self._later.start(work)

    def start(self) -> None:
        """Begin to look; to be called where an event loop runs."""
        if all(loop.done() for loop in self._loops):
            self._loops = (
                asyncio.create_task(repeat(self._look, pause=0.0, on_error=_log)),
                asyncio.create_task(repeat(self._renew, pause=self.lease / 3000, on_error=_log)),
            )

    async def _look(self) -> None:
        await self.look()
        with suppress(TimeoutError):
            async with asyncio.timeout(_PAUSE):
                await self._has_news.wait()

    async def look(self) -> None:
        """Tell and hear of breakers, and of how many processes there are."""
        self._has_news.clear()
        news = dict(self._news)
        told = [word for upstream, left in news.items() for word in (upstream, left)]
        keys = (f"{_PREFIX}:processes", f"{_PREFIX}:breakers")
        try:
            found = await self.redis.run(_LOOK, keys, self._process, self.lease, *told, for_lease=True)
        except RedisFailed:
            self.note_away()
            return
        if self._was_away:
            self._was_away, self._away_until = False, 0.0
            get_logger().info("Redis is back: the upstreams' limits are shared again")
        for upstream, left in news.items():
            if self._news.get(upstream) == left:
                del self._news[upstream]
        self.processes = max(1, found[0])
        for place in range(1, len(found), 2):
            name = found[place].decode()
            shared = self._upstreams.get(name)
            if shared is not None and name not in self._news and (state := shared.adopt(found[place + 1])):
                self._changed(name, state)

    async def _renew(self) -> None:
        """Renew the permits of this process."""
        with suppress(RedisFailed):
            for shared in self._upstreams.values():
                ids = list(shared.held)
                for start in range(0, len(ids), _AT_A_TIME):
                    some = ids[start : start + _AT_A_TIME]
                    await self.redis.run(_RENEW, [shared.permits_key], self.lease, *some, for_lease=True)

    async def aclose(self) -> None:
        """Stop looking, and close the connections."""
        await stop(*self._loops)
        await self._later.finish(0)
        self._loops = ()
        await self.redis.aclose()


def _log(error: Exception) -> None:
    get_logger().error("maintenance of shared limits failed", error=type(error).__name__)
