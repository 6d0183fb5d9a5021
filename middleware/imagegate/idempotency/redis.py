"""Kept answers in Redis, shared by processes, which join each other's calls.

A slot is a hash ``{imagegate}:key:SLOT``. As long as nothing was sent it expires with its holder's lease, so that a
dead process leaves the key free. Once something was sent it stays, and names the time until which its holder is
considered alive; after that the response is an uncertain error. A renewal says all of this again, so what Redis has
forgotten is known again within a third of a lease; until then no other process sends (`imagegate.stores.redis_memory`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

import msgspec

from imagegate.idempotency.base import Claim, ReplaysUnavailable, Slot
from imagegate.idempotency.keys import RECORD_VERSION, KeptReply, KeyReused
from imagegate.idempotency.outcomes import interrupted, no_longer_kept
from imagegate.logger import get_logger
from imagegate.stores.redis_client import RedisClient, RedisFailed, Script
from imagegate.stores.redis_memory import LOOK, POLICY, REPAIR, SERVER_KEY, TRUST, Memory, Recent

_PREFIX: Final = "{imagegate}:key:"
_RENEWED_AT_ONCE: Final = 500
_RESTORED_AT_ONCE: Final = 50
_LONGEST_SLEEP: Final = 1.0
_DECODER: Final = msgspec.json.Decoder(KeptReply)

# KEYS slot, server; ARGV fingerprint, holder, lease, known. `from`: until then what Redis does not know may turn up.
_CLAIM: Final = (
    TRUST
    + """
local function claim(print, holder, careful, lease)
  local from = math.max(careful.restarted, careful.thinned)
  redis.call('HSET', KEYS[1], 'fingerprint', print, 'state', 'held', 'holder', holder, 'from', from)
  redis.call('PEXPIRE', KEYS[1], lease)
  return from
end
"""
)
_BEGIN: Final = Script(
    _CLAIM
    + """
local found = redis.pcall('HMGET', KEYS[1], 'fingerprint', 'state', 'holder', 'until', 'from')
if found.err then return {'damaged'} end
local print, state, holder, until_, from = unpack(found)
if state and print ~= ARGV[1] then return {'reused'} end
if state == 'done' then return {'done', unpack(redis.call('HMGET', KEYS[1], 'reply', 'version'))} end
local now, careful, _, is_written = trust(KEYS[2], ARGV[3], ARGV[4])
if not state then
  state, holder, from = 'held', ARGV[2], claim(ARGV[1], ARGV[2], careful, ARGV[3])
end
if state == 'held' then
  if holder ~= ARGV[2] then return {'elsewhere'} end
  return {now < (tonumber(from) or 0) and 'unsure' or 'mine'}
end
-- Nothing can be renewed, or ended, while nothing is written: after a lease it is of no use to wait for that.
if not is_written and now > (tonumber(until_) or 0) + ARGV[3] then return {'stuck'} end
if now < math.max(tonumber(until_) or 0, careful.restarted, careful.hung) then return {'elsewhere'} end
return {'interrupted'}
"""
)

# KEYS slot, server; ARGV fingerprint, holder, lease, known, expiry. Milliseconds to wait, 0: sent, -1: another call's.
_SENT: Final = Script(
    _CLAIM
    + """
local found = redis.pcall('HMGET', KEYS[1], 'state', 'holder', 'from')
if found.err then return -1 end
local state, holder, from = unpack(found)
if state and (holder ~= ARGV[2] or state == 'done') then return -1 end
local now, careful = trust(KEYS[2], ARGV[3], ARGV[4])
if not state then from = claim(ARGV[1], ARGV[2], careful, ARGV[3]) end
local due = math.max(tonumber(from) or 0, careful.restarted)
if state ~= 'sent' and now < due then return due - now end
redis.call('HSET', KEYS[1], 'fingerprint', ARGV[1], 'state', 'sent', 'holder', ARGV[2], 'until', now + ARGV[3])
redis.call('PEXPIRE', KEYS[1], math.max(ARGV[5], ARGV[3]))
return 0
"""
)

# KEYS slot; ARGV fingerprint, holder, answer, expiry, version. A holder of the slot alone has not sent anything.
_FINISH: Final = Script(
    REPAIR
    + """
repair(KEYS[1])
local state, holder = unpack(redis.call('HMGET', KEYS[1], 'state', 'holder'))
if state and holder ~= ARGV[2] and state ~= 'held' then return 0 end
redis.call('HSET', KEYS[1], 'fingerprint', ARGV[1], 'state', 'done', 'holder', ARGV[2], 'reply', ARGV[3],
  'version', ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
"""
)

# KEYS slot; ARGV holder.
_RELEASE: Final = Script("""
local state, holder = unpack(redis.pcall('HMGET', KEYS[1], 'state', 'holder'))
if holder == ARGV[1] and state ~= 'done' then redis.call('DEL', KEYS[1]) end
return 1
""")

# KEYS server, slots; ARGV lease, known, then for each slot fingerprint, holder, state, expiry. As `LOOK`.
_RENEW: Final = Script(
    TRUST
    + """
local now, careful, memory = trust(KEYS[1], ARGV[1], ARGV[2])
local lease = ARGV[1]
for i = 2, #KEYS do
  local print, me, mine, expiry = unpack(ARGV, i * 4 - 5, i * 4 - 2)
  local slot = redis.pcall('HMGET', KEYS[i], 'state', 'holder')
  local state, holder = unpack(slot)
  local is_ours = not state or holder == me or (mine == 'sent' and state == 'held')
  if is_ours and state ~= 'done' and not slot.err then  -- one that is no hash keeps no other back
    if state == 'sent' then mine = 'sent' end
    redis.call('HSET', KEYS[i], 'fingerprint', print, 'state', mine, 'holder', me)
    if mine == 'sent' then
      redis.call('HSET', KEYS[i], 'until', now + lease)
      redis.call('PEXPIRE', KEYS[i], math.max(expiry, lease))
    else
      if not state then redis.call('HSET', KEYS[i], 'from', math.max(careful.restarted, careful.thinned)) end
      redis.call('PEXPIRE', KEYS[i], lease)
    end
  end
end
return memory
"""
)

# KEYS slots; ARGV for each slot fingerprint, holder, answer, expiry, version. No answer: it was released.
_RESTORE: Final = Script(
    REPAIR
    + """
for i = 1, #KEYS do
  repair(KEYS[i])
  local print, holder, reply, expiry, version = unpack(ARGV, i * 5 - 4, i * 5)
  local state, known = unpack(redis.call('HMGET', KEYS[i], 'state', 'holder'))
  local is_older = known == holder and state ~= 'done'
  if reply == '' then
    if is_older then redis.call('DEL', KEYS[i]) end
  elseif not state or state == 'held' or is_older then
    redis.call('HSET', KEYS[i], 'fingerprint', print, 'state', 'done', 'holder', holder, 'reply', reply,
      'version', version)
    redis.call('PEXPIRE', KEYS[i], expiry)
  end
end
return 1
"""
)


class RedisReplays:
    """Keeps answers until they expire; their large bodies stand among the blobs, where all processes find them.

    Args:
        client: closed with the store.
        lease: seconds; a process that has not renewed for that long counts as dead.
        on_unreadable: is called for a reply that cannot be read; it stays in place.
    """

    inline_limit = 16 * 1024
    is_shared = True

    def __init__(
        self, client: RedisClient, *, lease: float, on_unreadable: Callable[[str], None] = lambda name: None
    ) -> None:
        self._client = client
        self._lease = int(lease * 1000)
        self._on_unreadable = on_unreadable
        self._recent = Recent[tuple[Claim, bytes]]()
        self._memory = Memory()

    async def begin(self, claim: Claim) -> KeptReply | Slot:
        arguments = (claim.fingerprint, claim.holder, self._lease, self._memory.known)
        found, *reply = await self._run(_BEGIN, [_PREFIX + claim.slot, SERVER_KEY], *arguments)
        if found == b"reused":
            raise KeyReused
        if found == b"done":
            return self._decoded(claim.slot, *reply)
        if found == b"stuck":
            raise ReplaysUnavailable
        if found == b"damaged":
            return self._unreadable(claim.slot)
        if found == b"interrupted":
            return interrupted()
        return "mine" if found == b"mine" else "unsure" if found == b"unsure" else "elsewhere"

    def _decoded(self, slot: str, reply: bytes, version: bytes | None) -> KeptReply:
        """Return a kept answer; one that cannot be read, as a newer gateway's, is one all the same."""
        try:
            if int(version or 1) <= RECORD_VERSION:
                return _DECODER.decode(reply)
        except (msgspec.DecodeError, ValueError, RecursionError):
            pass
        return self._unreadable(slot)

    def _unreadable(self, slot: str) -> KeptReply:
        self._on_unreadable(_PREFIX + slot)
        return no_longer_kept()

    async def mark_sent(self, claim: Claim) -> bool:
        keys = [_PREFIX + claim.slot, SERVER_KEY]
        while True:
            arguments = (claim.fingerprint, claim.holder, self._lease, self._memory.known, _milliseconds(claim.ttl))
            wait = await self._run(_SENT, keys, *arguments)
            if wait <= 0:
                return bool(wait == 0)
            await asyncio.sleep(min(wait / 1000, _LONGEST_SLEEP))

    async def finish(self, claim: Claim, reply: KeptReply) -> None:
        kept = msgspec.json.encode(reply)
        arguments = (claim.fingerprint, claim.holder, kept, _milliseconds(claim.ttl), RECORD_VERSION)
        if await self._run(_FINISH, [_PREFIX + claim.slot], *arguments):
            self._recent.add(claim.slot, (claim, kept), size=len(kept) + 512, ttl=claim.ttl)

    async def release(self, claim: Claim) -> None:
        await self._run(_RELEASE, [_PREFIX + claim.slot], claim.holder)
        self._recent.add(claim.slot, (claim, b""), size=512, ttl=claim.ttl)

    async def renew(self, claims: Collection[Claim]) -> None:
        waiting = list(claims)
        while True:
            part, waiting = waiting[:_RENEWED_AT_ONCE], waiting[_RENEWED_AT_ONCE:]
            found = await self._renew(part)
            if not waiting:
                break
        if self._memory.has_changed(found):
            await self._restore()
        if self._memory.renewed(found) and (policy := await self._run(POLICY, [SERVER_KEY], for_lease=True)):
            get_logger().warning("idempotency: Redis evicts answers, which are then paid again", policy=policy.decode())

    async def has_forgotten(self) -> bool:
        found = await self._run(LOOK, [SERVER_KEY], self._lease, self._memory.known, for_lease=True)
        return self._memory.has_changed(found)

    async def _renew(self, claims: Collection[Claim]) -> Sequence[bytes]:
        arguments: list[str | bytes | int] = [self._lease, self._memory.known]
        for claim in claims:
            arguments += (claim.fingerprint, claim.holder, "sent" if claim.sent else "held", _milliseconds(claim.ttl))
        keys = [SERVER_KEY, *(_PREFIX + claim.slot for claim in claims)]
        found: Sequence[bytes] = await self._run(_RENEW, keys, *arguments, for_lease=True)
        return found

    async def _restore(self) -> None:
        """Write again what this process has answered or released, and Redis may not know."""
        waiting = list(self._recent)
        while waiting:
            part, waiting = waiting[:_RESTORED_AT_ONCE], waiting[_RESTORED_AT_ONCE:]
            arguments: list[str | bytes | int] = []
            for _, (claim, kept), left in part:
                arguments += (claim.fingerprint, claim.holder, kept, _milliseconds(left), RECORD_VERSION)
            await self._run(_RESTORE, [_PREFIX + slot for slot, _, _ in part], *arguments, for_lease=True)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _run(
        self, script: Script, keys: list[str], *arguments: str | bytes | int, for_lease: bool = False
    ) -> Any:
        try:
            return await self._client.run(script, keys, *arguments, for_lease=for_lease)
        except RedisFailed as error:
            raise ReplaysUnavailable from error


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))
