"""Kept answers in Redis, shared by processes, which join each other's calls.

A slot is a hash ``{imagegate}:key:SLOT``. As long as nothing was sent it expires with its holder's lease, so that a
dead process leaves the key free. Once something was sent it stays, and names the time until which its holder is
considered alive; after that the response is an uncertain error.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from typing import Any, Final

import msgspec

from imagegate.idempotency.base import ReplaysUnavailable, Slot
from imagegate.idempotency.keys import KeptReply, KeyReused
from imagegate.idempotency.outcomes import interrupted
from imagegate.stores.redis_client import RedisClient, RedisFailed, Script

_PREFIX: Final = "{imagegate}:key:"
_RENEWED_AT_ONCE: Final = 500
_DECODER: Final = msgspec.json.Decoder(KeptReply)

_NOW: Final = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
"""

# KEYS slot; ARGV fingerprint, holder, lease, answer for what a dead process had sent, expiry of answers.
_BEGIN: Final = Script(
    _NOW
    + """
local print, state, holder, until_, reply =
  unpack(redis.call('HMGET', KEYS[1], 'fingerprint', 'state', 'holder', 'until', 'reply'))
if not state then
  redis.call('HSET', KEYS[1], 'fingerprint', ARGV[1], 'state', 'held', 'holder', ARGV[2])
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return {'mine'}
end
if print ~= ARGV[1] then return {'reused'} end
if state == 'done' then return {'done', reply} end
if holder == ARGV[2] and state == 'held' then return {'mine'} end
if state == 'sent' and tonumber(until_) < now then
  redis.call('HSET', KEYS[1], 'state', 'done', 'reply', ARGV[4], 'holder', '')
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
  return {'done', ARGV[4]}
end
return {'elsewhere'}
"""
)

# KEYS slot; ARGV fingerprint, holder, lease, expiry. A slot that has vanished has no holder.
_SENT: Final = Script(
    _NOW
    + """
local state, holder = unpack(redis.call('HMGET', KEYS[1], 'state', 'holder'))
if state and (holder ~= ARGV[2] or state == 'done') then return 0 end
redis.call('HSET', KEYS[1], 'fingerprint', ARGV[1], 'state', 'sent', 'holder', ARGV[2], 'until', now + ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
"""
)

# KEYS slot; ARGV fingerprint, holder, answer, expiry.
_FINISH: Final = Script("""
local holder = redis.call('HGET', KEYS[1], 'holder')
if holder and holder ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'fingerprint', ARGV[1], 'state', 'done', 'holder', ARGV[2], 'reply', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
""")

# KEYS slot; ARGV holder.
_RELEASE: Final = Script("""
local state, holder = unpack(redis.call('HMGET', KEYS[1], 'state', 'holder'))
if holder == ARGV[1] and state ~= 'done' then redis.call('DEL', KEYS[1]) end
return 1
""")

# KEYS slots; ARGV holder, lease.
_RENEW: Final = Script(
    _NOW
    + """
for i = 1, #KEYS do
  local state, holder = unpack(redis.call('HMGET', KEYS[i], 'state', 'holder'))
  if holder == ARGV[1] then
    if state == 'held' then redis.call('PEXPIRE', KEYS[i], ARGV[2]) end
    if state == 'sent' then redis.call('HSET', KEYS[i], 'until', now + ARGV[2]) end
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
    """

    inline_limit = 16 * 1024

    def __init__(self, client: RedisClient, *, lease: float) -> None:
        self._client = client
        self._lease = int(lease * 1000)
        self._holder = secrets.token_hex(8)
        self._interrupted = msgspec.json.encode(interrupted())

    async def begin(self, slot: str, fingerprint: str, *, ttl: float) -> KeptReply | Slot:
        arguments = (fingerprint, self._holder, self._lease, self._interrupted, int(ttl * 1000))
        found, *reply = await self._run(_BEGIN, [_PREFIX + slot], *arguments)
        if found == b"reused":
            raise KeyReused
        if found == b"done":
            return _DECODER.decode(reply[0])
        return "mine" if found == b"mine" else "elsewhere"

    async def mark_sent(self, slot: str, fingerprint: str, *, ttl: float) -> bool:
        arguments = (fingerprint, self._holder, self._lease, int(ttl * 1000))
        return bool(await self._run(_SENT, [_PREFIX + slot], *arguments))

    async def finish(self, slot: str, fingerprint: str, reply: KeptReply, *, ttl: float) -> None:
        kept = msgspec.json.encode(reply)
        await self._run(_FINISH, [_PREFIX + slot], fingerprint, self._holder, kept, int(ttl * 1000))

    async def release(self, slot: str) -> None:
        await self._run(_RELEASE, [_PREFIX + slot], self._holder)

    async def renew(self, slots: Collection[str]) -> None:
        keys = [_PREFIX + slot for slot in slots]
        for start in range(0, len(keys), _RENEWED_AT_ONCE):
            await self._run(_RENEW, keys[start : start + _RENEWED_AT_ONCE], self._holder, self._lease)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _run(self, script: Script, keys: list[str], *arguments: str | bytes | int) -> Any:
        try:
            return await self._client.run(script, keys, *arguments)
        except RedisFailed as error:
            raise ReplaysUnavailable from error
