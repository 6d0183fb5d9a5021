"""What a Redis may have forgotten, in Lua, and what a process remembers of it.

A lease in Redis is only as good as Redis's memory. A server that has restarted, perhaps from an old snapshot, or a
replica that was promoted may not know of a lease; one that evicts keys may have dropped it; and while one hung, none
could be renewed. Any script that calls ``trust`` notices, and it counts for the length of one lease. In that time every
process that is alive renews all that it holds, with all that it says. Until then nothing is sent that Redis does not
know of, and no silent process is taken for dead.

A Redis that no process has seen before is most likely a new one, so it counts for two seconds only: who holds something
looks every second whether Redis has forgotten it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Final, Generic, TypeVar

from imagegate.stores.redis_client import Script

SERVER_KEY: Final = "{imagegate}:server"
"""A hash: which server it was last, its count of evicted keys, and when something happened to its memory."""

TRUST: Final = """
-- The time now, and until when to be careful. `restarted`: this server may know less than its predecessor; `thinned`:
-- it has evicted keys; `hung`: no lease could be renewed. All in milliseconds of the server's clock. `memory` is a
-- name of what it remembers, as `known` is of what the process that asks has seen; empty: it has seen none. The last
-- value is whether anything can be written: not where memory is full, or on a replica.
local function trust(key, lease, known)
  local clock = redis.call('TIME')
  local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
  local function info(section, field)
    local text = redis.pcall('INFO', section)  -- not everybody may ask
    return type(text) == 'string' and string.match(text, field .. ':(%w+)') or '?'
  end
  local run, evicted = info('server', 'run_id'), info('stats', 'evicted_keys')
  local last = redis.pcall('HMGET', key, 'memory', 'run', 'evicted', 'seen', 'restarted', 'thinned', 'hung', 'made')
  if last.err then  -- no hash
    redis.pcall('DEL', key)
    last = {}
  end
  local function time(text)
    local found = tonumber(text or '')
    return found == found and found or nil  -- 'nan' is read as a number
  end
  local memory, made = last[1], time(last[8])
  local seen, restarted, thinned, hung = time(last[4]), time(last[5]), time(last[6]), time(last[7])
  if not (memory and made and seen and restarted and thinned and hung) then
    local shorter = known == '' and math.max(0, lease - 2000) or 0
    memory, made, seen = run .. '/' .. now, now, now
    restarted, thinned, hung = now - shorter, now - shorter, now
  elseif last[2] ~= run then
    memory, made, restarted, thinned = run .. '/' .. now, now, now, now
  elseif last[3] ~= evicted then
    thinned = now
  end
  if known ~= '' and known ~= memory then  -- there was another one, so this one is not new
    restarted, thinned = math.max(restarted, made), math.max(thinned, made)
  end
  if now - seen > lease / 2 then hung = now end  -- with a third of a lease before it, this may be a whole one
  restarted, thinned, hung = math.min(restarted, now), math.min(thinned, now), math.min(hung, now)
  local written = redis.pcall('HSET', key, 'memory', memory, 'run', run, 'evicted', evicted, 'seen', now,
    'restarted', restarted, 'thinned', thinned, 'hung', hung, 'made', made)
  local careful = {restarted = restarted + lease, thinned = thinned + lease, hung = hung + lease}
  return now, careful, {memory, memory .. '/' .. thinned}, type(written) == 'number'
end
"""

REPAIR: Final = """
-- Remove what stands in place of a hash: what is to be written counts more than what nothing can read.
local function repair(key)
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', key) end
end
"""

# KEYS server; ARGV lease, known. What it remembers, and the same with the time of the last eviction.
LOOK: Final = Script(TRUST + "local now, careful, memory = trust(KEYS[1], ARGV[1], ARGV[2]) return memory")

# The policy by which this server evicts keys; empty: it evicts none, or does not say.
POLICY: Final = Script("""
local text = redis.pcall('INFO', 'memory')
if type(text) ~= 'string' or string.match(text, 'maxmemory:(%d+)') == '0' then return '' end
local policy = string.match(text, 'maxmemory_policy:([%w-]+)')
return policy ~= 'noeviction' and policy or ''
""")

T = TypeVar("T")


class Recent(Generic[T]):
    """The newest items that a process has written, so that it can write them again where Redis has lost them.

    Args:
        count: of items at most.
        size: bytes of items at most.
    """

    def __init__(self, *, count: int = 10_000, size: int = 16 * 1024**2) -> None:
        self._count = count
        self._room = size
        self._items: OrderedDict[str, tuple[float, int, T]] = OrderedDict()

    def add(self, key: str, item: T, *, size: int, ttl: float) -> None:
        """Remember an item of `size` bytes for `ttl` seconds."""
        self.forget(key)
        self._items[key] = time.monotonic() + ttl, size, item
        self._room -= size
        while self._room < 0 or len(self._items) > self._count:
            self.forget(next(iter(self._items)))

    def forget(self, key: str) -> None:
        """Forget an item, if it is known."""
        _, size, _ = self._items.pop(key, (0.0, 0, None))
        self._room += size

    def get(self, key: str) -> T | None:
        """Return an item that has not expired."""
        expires, _, item = self._items.get(key, (0.0, 0, None))
        return item if expires > time.monotonic() else None

    def __iter__(self) -> Iterator[tuple[str, T, float]]:
        """Yield key, item and the seconds that it is still good for, of all that have not expired."""
        now = time.monotonic()
        for key, (expires, _, item) in tuple(self._items.items()):
            if expires > now:
                yield key, item, expires - now
            else:
                self.forget(key)


class Memory:
    """What Redis was last seen to remember: as `LOOK` and a renewal find it."""

    def __init__(self) -> None:
        self.known = b""
        self._renewed = b""

    def has_changed(self, found: Sequence[bytes]) -> bool:
        """Return whether something may have been forgotten since the last renewal."""
        return found[1] != self._renewed

    def renewed(self, found: Sequence[bytes]) -> bool:
        """Note what a renewal has found; True: it is another server than before."""
        is_new = found[0] != self.known
        self.known, self._renewed = found
        return is_new
