"""Tasks in Redis, shared by processes: what a dead one had not yet sent is done by another.

A task is a hash with an expiry, ``{imagegate}:task:NUMBER``. Tasks at work also stand in the stream
``{imagegate}:tasks``: its consumer group knows which process holds each entry and since when it was silent, and
``XAUTOCLAIM`` hands over what a dead one held. The hash's ``holder`` decides, not the group: every step is a script
that compares it, so that a process that only seemed dead finds out before it sends anything.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from imagegate.stores.redis_client import RedisClient, RedisFailed, Script
from imagegate.stores.unavailable import StoreUnavailable
from imagegate.tasks.records import TaskRecord

_PREFIX: Final = "{imagegate}:task:"
_STREAM: Final = "{imagegate}:tasks"
_GROUP: Final = "imagegate"
_TAKEN_AT_ONCE: Final = 20
_RENEWED_AT_ONCE: Final = 500
_RUNNING_TTL: Final = 2
"""Times the expiry of tasks that are over: one at work must not vanish before it ends."""

_DECODER: Final = msgspec.json.Decoder(TaskRecord)

# Lua: `hold` puts a task into the stream and makes this process the holder of its entry, in one step. As every entry
# is read where it is added, the group never has any that nobody holds.
_HOLD: Final = """
local function hold(key, stream, group, holder, number)
  if redis.call('EXISTS', stream) == 0 then redis.call('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM') end
  local entry = redis.call('XADD', stream, '*', 'task', number)
  redis.call('XREADGROUP', 'GROUP', group, holder, 'COUNT', 1000, 'STREAMS', stream, '>')
  redis.call('HSET', key, 'holder', holder, 'entry', entry)
end
local function let_go(key, stream, group)
  local entry = redis.call('HGET', key, 'entry')
  if entry then
    redis.call('XACK', stream, group, entry)
    redis.call('XDEL', stream, entry)
    redis.call('HDEL', key, 'entry')
  end
end
"""

# KEYS task, stream; ARGV group, holder, number, state, record, milliseconds. 0: another process's.
_ADD: Final = Script(
    _HOLD
    + """
local holder = redis.call('HGET', KEYS[1], 'holder')
if holder then return holder == ARGV[2] and 1 or 0 end
hold(KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3])
redis.call('HSET', KEYS[1], 'state', ARGV[4], 'record', ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
return 1
"""
)

# KEYS task; ARGV holder. -1: there is no such task.
_SENT: Final = Script("""
local state, holder = unpack(redis.call('HMGET', KEYS[1], 'state', 'holder'))
if not state then return -1 end
if holder ~= ARGV[1] then return 0 end
if state == 'queued' then redis.call('HSET', KEYS[1], 'state', 'sent') end
return (state == 'queued' or state == 'sent') and 1 or 0
""")

# KEYS task; ARGV holder, record.
_NOTE: Final = Script("""
if redis.call('HGET', KEYS[1], 'holder') == ARGV[1] then redis.call('HSET', KEYS[1], 'record', ARGV[2]) end
return 1
""")

# KEYS task, stream; ARGV group, holder, state, record, milliseconds, whether it stays held.
_FINISH: Final = Script(
    _HOLD
    + """
local state, holder, record = unpack(redis.call('HMGET', KEYS[1], 'state', 'holder', 'record'))
if state and holder ~= ARGV[2] then return 0 end
if state == 'completed' or state == 'failed' then
  if state ~= ARGV[3] then return 0 end
end
redis.call('HSET', KEYS[1], 'state', ARGV[3], 'holder', ARGV[2], 'record', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
if ARGV[6] == '0' then let_go(KEYS[1], KEYS[2], ARGV[1]) end
return 1
"""
)

# KEYS task, stream; ARGV group, holder.
_DISCARD: Final = Script(
    _HOLD
    + """
if redis.call('HGET', KEYS[1], 'holder') == ARGV[2] then
  let_go(KEYS[1], KEYS[2], ARGV[1])
  redis.call('DEL', KEYS[1])
end
return 1
"""
)

# KEYS task, stream; ARGV group, record, milliseconds, whether somebody must still be told. A task that is to be told
# of stays in the stream, held by nobody, so that a process takes it over to do that.
_CANCEL: Final = Script(
    _HOLD
    + """
if redis.call('HGET', KEYS[1], 'state') ~= 'queued' then return 0 end
local entry, holder = unpack(redis.call('HMGET', KEYS[1], 'entry', 'holder'))
redis.call('HSET', KEYS[1], 'state', 'failed', 'record', ARGV[2], 'holder', '')
redis.call('PEXPIRE', KEYS[1], ARGV[3])
if ARGV[4] == '0' then
  let_go(KEYS[1], KEYS[2], ARGV[1])
elseif entry then
  redis.call('XCLAIM', KEYS[2], ARGV[1], holder, 0, entry, 'IDLE', 86400000, 'JUSTID')
end
return 1
"""
)

# KEYS task; no ARGV.
_GET: Final = Script("return redis.call('HMGET', KEYS[1], 'record', 'state')")

# KEYS stream, tasks; ARGV group, holder. For each task 1: held, 0: not any more, -1: unknown.
_RENEW: Final = Script("""
local found = {}
for i = 2, #KEYS do
  local holder, entry = unpack(redis.call('HMGET', KEYS[i], 'holder', 'entry'))
  if not holder then
    found[i - 1] = -1
  elseif holder ~= ARGV[2] then
    found[i - 1] = 0
  else
    if entry then redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, entry, 'JUSTID') end
    found[i - 1] = 1
  end
end
return found
""")

# KEYS task, stream; ARGV group, holder.
_RELEASE: Final = Script("""
local holder, entry = unpack(redis.call('HMGET', KEYS[1], 'holder', 'entry'))
if holder == ARGV[2] and entry then
  redis.call('HSET', KEYS[1], 'holder', '')
  redis.call('XCLAIM', KEYS[2], ARGV[1], ARGV[2], 0, entry, 'IDLE', 86400000, 'JUSTID')
end
return 1
""")

# KEYS stream; ARGV group, holder, milliseconds of silence, how many, prefix of tasks. Record and state of each.
_TAKE: Final = Script("""
if redis.call('EXISTS', KEYS[1]) == 0 then return {} end
local claimed = redis.pcall('XAUTOCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[3], '0-0', 'COUNT', ARGV[4])
if claimed.err then return {} end
local found = {}
for _, entry in ipairs(claimed[2]) do
  local key = ARGV[5] .. entry[2][2]
  local record, state = unpack(redis.call('HMGET', key, 'record', 'state'))
  if record then
    redis.call('HSET', key, 'holder', ARGV[2], 'entry', entry[1])
    local takes = redis.call('HINCRBY', key, 'takes', 1)
    found[#found + 1] = {record, state, takes}
  else
    redis.call('XACK', KEYS[1], ARGV[1], entry[1])
    redis.call('XDEL', KEYS[1], entry[1])
  end
end
return found
""")

# KEYS stream; ARGV group, holder. A consumer that holds nothing is of no use once its process has ended.
_LEAVE: Final = Script("""
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2])
if pending.err or #pending > 0 then return 0 end
return redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
""")


class RedisTaskStore:
    """Keeps tasks for `ttl` seconds.

    Args:
        client: closed with the store.
        lease: seconds; a process that has not renewed for so long is taken for dead.
    """

    is_shared = True

    def __init__(self, client: RedisClient, *, ttl: float, lease: float) -> None:
        self._client = client
        self._ttl = int(ttl * 1000)
        self._lease = int(lease * 1000)
        self._holder = secrets.token_hex(8)

    async def add(self, record: TaskRecord) -> None:
        keys = [_key(record), _STREAM]
        kept = msgspec.json.encode(record)
        ttl = self._ttl * _RUNNING_TTL
        await self._run(_ADD, keys, _GROUP, self._holder, record.number, record.state, kept, ttl)

    async def mark_sent(self, record: TaskRecord) -> bool:
        found = await self._run(_SENT, [_key(record)], self._holder)
        if found == -1:  # Redis has lost its memory; nobody else can have taken the task from there
            await self.add(record)
            found = await self._run(_SENT, [_key(record)], self._holder)
        return bool(found == 1)

    async def note(self, record: TaskRecord) -> None:
        await self._run(_NOTE, [_key(record)], self._holder, msgspec.json.encode(record))

    async def finish(self, record: TaskRecord) -> bool:
        kept = msgspec.json.encode(record)
        keys = [_key(record), _STREAM]
        stays = 1 if _is_to_be_told(record) else 0
        return bool(await self._run(_FINISH, keys, _GROUP, self._holder, record.state, kept, self._ttl, stays))

    async def discard(self, record: TaskRecord) -> None:
        await self._run(_DISCARD, [_key(record), _STREAM], _GROUP, self._holder)

    async def cancel(self, record: TaskRecord) -> bool:
        kept = msgspec.json.encode(record)
        stays = 1 if _is_to_be_told(record) else 0
        return bool(await self._run(_CANCEL, [_key(record), _STREAM], _GROUP, kept, self._ttl, stays))

    async def get(self, number: str) -> TaskRecord | None:
        record, state = await self._run(_GET, [_PREFIX + number])
        return _decode(record, state) if record else None

    async def renew(self, records: Sequence[TaskRecord]) -> Sequence[str]:
        lost: list[str] = []
        for start in range(0, len(records), _RENEWED_AT_ONCE):
            part = records[start : start + _RENEWED_AT_ONCE]
            keys = [_STREAM, *(_key(record) for record in part)]
            for record, held in zip(part, await self._run(_RENEW, keys, _GROUP, self._holder), strict=True):
                if held == -1:  # Redis has lost its memory
                    await self.add(record)
                elif not held:
                    lost.append(record.number)
        return lost

    async def release(self, record: TaskRecord) -> None:
        await self._run(_RELEASE, [_key(record), _STREAM], _GROUP, self._holder)

    async def abandoned(self) -> Sequence[TaskRecord]:
        arguments = (_GROUP, self._holder, self._lease, _TAKEN_AT_ONCE, _PREFIX)
        found = await self._run(_TAKE, [_STREAM], *arguments)
        return [_decode(record, state, takes=takes) for record, state, takes in found]

    async def aclose(self) -> None:
        try:
            await self._client.run(_LEAVE, [_STREAM], _GROUP, self._holder)
        except RedisFailed:
            pass  # it is only tidying up
        finally:
            await self._client.aclose()

    async def _run(self, script: Script, keys: Sequence[str], *arguments: str | bytes | int) -> Any:
        try:
            return await self._client.run(script, keys, *arguments)
        except RedisFailed as error:
            raise StoreUnavailable from error


def _is_to_be_told(record: TaskRecord) -> bool:
    return bool(record.callback_url) and not record.told


def _key(record: TaskRecord) -> str:
    return _PREFIX + record.number


def _decode(record: bytes, state: bytes, *, takes: int = 0) -> TaskRecord:
    """The state beside the record is the one that counts."""
    found = _DECODER.decode(record)
    return msgspec.structs.replace(found, state=state.decode(), takes=takes)
