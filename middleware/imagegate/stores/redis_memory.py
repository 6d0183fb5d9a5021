"""What a Redis may have forgotten, in Lua, and what a process remembers of it.

A lease in Redis is only as good as Redis's memory. A server that has restarted, perhaps from an old snapshot, or a
replica that was promoted may not know of a lease; one that evicts keys may have dropped it; and while one hung, none
could be renewed. Any script that calls ``trust`` notices, and it counts for the length of one lease. In that time every
process that is alive renews all that it holds, with all that it says. Until then nothing is sent that Redis does not
know of, and no silent process is taken for dead.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final, Generic, TypeVar

SERVER_KEY: Final = "{imagegate}:server"
"""A hash: which server it was last, its count of evicted keys, and when something happened to its memory."""

TRUST: Final = """
-- The time now, and until when to be careful. `restarted`: this server may know less than its predecessor; `thinned`:
-- it has evicted keys; `hung`: nobody could renew anything. All in milliseconds of the server's clock.
local function trust(key, lease)
  local clock = redis.call('TIME')
  local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
  local function told(section, field)
    local text = redis.pcall('INFO', section)  -- not everybody may ask
    return type(text) == 'string' and string.match(text, field .. ':(%w+)') or '?'
  end
  local run, evicted = told('server', 'run_id'), told('stats', 'evicted_keys')
  local last = redis.call('HMGET', key, 'run', 'evicted', 'seen', 'restarted', 'thinned', 'hung')
  local seen, restarted, thinned, hung = tonumber(last[3]), tonumber(last[4]), tonumber(last[5]), tonumber(last[6])
  if last[1] ~= run or not seen then restarted = now end
  if last[2] ~= evicted or not seen then thinned = now end
  if not seen or now - seen > tonumber(lease) then hung = now end
  restarted, thinned, hung = math.min(restarted, now), math.min(thinned, now), math.min(hung, now)
  redis.pcall('HSET', key, 'run', run, 'evicted', evicted, 'seen', now,
    'restarted', restarted, 'thinned', thinned, 'hung', hung)
  return now, {restarted = restarted + lease, thinned = thinned + lease, hung = hung + lease}
end
local function marker(careful) return careful.restarted .. '/' .. careful.thinned end
"""

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
