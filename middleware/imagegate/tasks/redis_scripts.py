"""The Lua scripts of tasks in Redis; each runs whole or not at all."""

from __future__ import annotations

from typing import Final

from imagegate.stores.redis_client import Script
from imagegate.stores.redis_memory import REPAIR, TRUST

UNKNOWN: Final = -1
"""What `RENEW` says of a task that Redis has forgotten,"""
OUTDATED: Final = -2
"""and of one of which it knows an older record."""

# Lua: `hold` puts a task into the stream and makes this process the holder of its entry, in one step. As every entry
# is read where it is added, the group never has any without a holder.
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
local function is_over(state) return state == 'completed' or state == 'failed' end
"""

# KEYS task, stream, server; ARGV group, holder, number, state, record, milliseconds, version, lease, known, whether it
# is new, whether the provider is noted. 0: another process's. Of a task that is not new, another process may know more.
ADD: Final = Script(
    _HOLD
    + TRUST
    + """
local holder = redis.call('HGET', KEYS[1], 'holder')
if holder then return holder == ARGV[2] and 1 or 0 end
local now, careful = trust(KEYS[3], ARGV[8], ARGV[9])
hold(KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3])
redis.call('HSET', KEYS[1], 'state', ARGV[4], 'record', ARGV[5], 'version', ARGV[7], 'added', now,
  'from', ARGV[10] == '1' and 0 or math.max(careful.restarted, careful.thinned), 'noted', ARGV[11])
if ARGV[4] == 'sent' then redis.call('HSET', KEYS[1], 'sender', ARGV[2]) end
redis.call('PEXPIRE', KEYS[1], ARGV[6])
return 1
"""
)

# KEYS task, server; ARGV holder, lease, known. -1: there is no such task, 0: it is another process's or over, 1: sent;
# and the milliseconds to wait before.
SENT: Final = Script(
    TRUST
    + """
local found = redis.pcall('HMGET', KEYS[1], 'state', 'holder', 'from', 'added')
if found.err then return {0, 0} end
local state, holder, from, added = unpack(found)
if not state then return {-1, 0} end
if holder ~= ARGV[1] then return {0, 0} end
if state ~= 'queued' then return {state == 'sent' and 1 or 0, 0} end
local now, careful = trust(KEYS[2], ARGV[2], ARGV[3])
local due = tonumber(from) or 0
if (tonumber(added) or 0) < careful.restarted - ARGV[2] then due = math.max(due, careful.restarted) end
if now < due then return {1, due - now} end
redis.call('HSET', KEYS[1], 'state', 'sent', 'sender', ARGV[1])
return {1, 0}
"""
)

# KEYS task; ARGV holder, record, version.
NOTE: Final = Script("""
if redis.call('HGET', KEYS[1], 'holder') == ARGV[1] then
  redis.call('HSET', KEYS[1], 'record', ARGV[2], 'version', ARGV[3], 'noted', 1)
end
return 1
""")

# KEYS task, stream; ARGV group, holder, state, record, milliseconds, whether it stays held, version, whether its end is
# not known. A picture counts more than another process's plan to ask for it, and what the process knows that has sent
# the request (`sender`) more than what another one has made of its silence.
FINISH: Final = Script(
    _HOLD
    + REPAIR
    + """
repair(KEYS[1])
local state, holder, sender, unknown = unpack(redis.call('HMGET', KEYS[1], 'state', 'holder', 'sender', 'unknown'))
local is_other = state and holder ~= ARGV[2]
local knows = is_other and sender == ARGV[2] and ARGV[8] == '0' and (state == 'sent' or unknown == '1')
if is_other and not knows and (is_over(state) or ARGV[3] ~= 'completed') then return 0 end
if is_over(state) and state ~= ARGV[3] and not knows then return 0 end
redis.call('HSET', KEYS[1], 'state', ARGV[3], 'holder', ARGV[2], 'record', ARGV[4], 'version', ARGV[7],
  'unknown', ARGV[8])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
if ARGV[6] == '0' then let_go(KEYS[1], KEYS[2], ARGV[1]) end
return 1
"""
)

# KEYS task, stream; ARGV group, holder.
DISCARD: Final = Script(
    _HOLD
    + """
if redis.call('HGET', KEYS[1], 'holder') == ARGV[2] then
  let_go(KEYS[1], KEYS[2], ARGV[1])
  redis.call('DEL', KEYS[1])
end
return 1
"""
)

# KEYS task, stream; ARGV group, record, milliseconds, whether a webhook is due, version. A task with a
# webhook due stays in the stream without a holder, so that a process takes it over to deliver it.
CANCEL: Final = Script(
    _HOLD
    + """
if redis.call('HGET', KEYS[1], 'state') ~= 'queued' then return 0 end
local entry, holder = unpack(redis.call('HMGET', KEYS[1], 'entry', 'holder'))
redis.call('HSET', KEYS[1], 'state', 'failed', 'record', ARGV[2], 'holder', '', 'version', ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
if ARGV[4] == '0' then
  let_go(KEYS[1], KEYS[2], ARGV[1])
elseif entry then
  redis.pcall('XCLAIM', KEYS[2], ARGV[1], holder, 0, entry, 'IDLE', 86400000, 'JUSTID')
end
return 1
"""
)

# KEYS task, server; ARGV lease, known. Record, state, version, and whether an unknown task may have been forgotten; of
# what is no hash an empty record.
GET: Final = Script(
    TRUST
    + """
local found = redis.pcall('HMGET', KEYS[1], 'record', 'state', 'version')
if found.err then return {'', '', false, 0} end
if found[1] then return {found[1], found[2], found[3], 0} end
local now, careful = trust(KEYS[2], ARGV[1], ARGV[2])
return {false, false, false, now < math.max(careful.restarted, careful.thinned) and 1 or 0}
"""
)

# KEYS stream, server, tasks; ARGV group, holder, lease, known, milliseconds, then for each task number, state, whether
# the provider is noted. As `LOOK`; then for each task 1: held, 0: not any more, UNKNOWN or OUTDATED.
RENEW: Final = Script(
    _HOLD
    + TRUST
    + """
local now, careful, memory = trust(KEYS[2], ARGV[3], ARGV[4])
local found, group, me = {memory}, ARGV[1], ARGV[2]
local function renew(key, number, mine, noted)
  local task = redis.pcall('HMGET', key, 'state', 'holder', 'entry', 'noted', 'sender', 'unknown')
  if task.err then return 1 end  -- no hash, which is to keep no other back; its end is written all the same
  local state, holder, entry, has_noted, sender, unknown = unpack(task)
  if not state then return -1 end
  if holder ~= me then
    -- Sent from here: only this process can know the end, whatever another one has made of its silence.
    if sender == me and (unknown == '1' or (state == 'sent' and has_noted ~= '1')) then return 1 end
    if state ~= 'queued' or (holder ~= '' and mine ~= 'sent') then return 0 end
    redis.call('HSET', key, 'holder', me)
  end
  if state == 'queued' and mine == 'sent' then redis.call('HSET', key, 'state', 'sent', 'sender', me) end
  if entry or not is_over(state) or is_over(mine) then
    local claimed = entry and redis.pcall('XCLAIM', KEYS[1], group, me, 0, entry, 'JUSTID') or {}
    if claimed.err or #claimed == 0 then hold(key, KEYS[1], group, me, number) end
  end
  if is_over(state) then return 1 end
  redis.call('PEXPIRE', key, ARGV[5])
  return noted == '1' and has_noted ~= '1' and -2 or 1
end
for i = 3, #KEYS do
  found[i - 1] = renew(KEYS[i], unpack(ARGV, i * 3 - 3, i * 3 - 1))
end
return found
"""
)

# KEYS stream, tasks; ARGV group, holder, version, then for each task state, record, milliseconds, whether it stays
# held. No record: it was discarded.
RESTORE: Final = Script(
    _HOLD
    + REPAIR
    + """
for i = 2, #KEYS do
  repair(KEYS[i])
  local mine, record, expiry, stays = unpack(ARGV, i * 4 - 4, i * 4 - 1)
  local state, holder = unpack(redis.call('HMGET', KEYS[i], 'state', 'holder'))
  local is_older = holder == ARGV[2] and not is_over(state)
  if record == '' then
    if is_older then
      let_go(KEYS[i], KEYS[1], ARGV[1])
      redis.call('DEL', KEYS[i])
    end
  elseif not state or is_older then
    redis.call('HSET', KEYS[i], 'state', mine, 'holder', ARGV[2], 'record', record, 'version', ARGV[3])
    redis.call('PEXPIRE', KEYS[i], expiry)
    if stays == '0' then let_go(KEYS[i], KEYS[1], ARGV[1]) end
  end
end
return 1
"""
)

# KEYS task, stream; ARGV group, holder.
RELEASE: Final = Script("""
local holder, entry, takes = unpack(redis.call('HMGET', KEYS[1], 'holder', 'entry', 'takes'))
if holder == ARGV[2] and entry then
  redis.call('HSET', KEYS[1], 'holder', '')
  -- It was given on in order: only processes that ended with it are counted.
  if (tonumber(takes) or 0) > 0 then redis.call('HINCRBY', KEYS[1], 'takes', -1) end
  redis.pcall('XCLAIM', KEYS[2], ARGV[1], ARGV[2], 0, entry, 'IDLE', 86400000, 'JUSTID')
end
return 1
""")

# KEYS stream, server; ARGV group, holder, milliseconds of silence, how many, prefix of tasks, version, where to begin,
# known.
# Where to go on; number, record, state, version and count of take-overs of each. What is of a newer version, or could
# not be read by this one, is another process's to take.
TAKE: Final = Script(
    TRUST
    + """
local now, careful = trust(KEYS[2], ARGV[3], ARGV[8])
if redis.call('EXISTS', KEYS[1]) == 0 or now < careful.restarted then return {'-'} end
local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1], 'IDLE', ARGV[3], ARGV[7], '+', 200)
if pending.err then return {'-'} end
local group, me, most, version = ARGV[1], ARGV[2], tonumber(ARGV[4]), tonumber(ARGV[6])
local found = {#pending == 200 and '(' .. pending[200][1] or '-'}
local function take(id)
  local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
  local number = entry and entry[2][2]
  local key = number and ARGV[5] .. number
  local task = key and redis.pcall('HMGET', key, 'record', 'state', 'holder', 'version', 'parked', 'takes') or {}
  if task.err or not task[1] then
    redis.call('XACK', KEYS[1], group, id)
    redis.call('XDEL', KEYS[1], id)
    if task.err then found[#found + 1] = {number, '', '', false, 0} end  -- no hash
    return
  end
  if (tonumber(task[5]) or 0) >= version then return end
  if (tonumber(task[4]) or 1) > version then  -- not ours to take, but to report
    redis.call('HSET', key, 'parked', version)
    found[#found + 1] = {number, task[1], task[2], task[4], 0}
    return
  end
  if task[3] ~= '' and now < careful.hung then return end
  redis.call('XCLAIM', KEYS[1], group, me, 0, id, 'JUSTID')
  local takes = math.max(0, math.min(tonumber(task[6]) or 0, 1000)) + 1
  redis.call('HSET', key, 'holder', me, 'entry', id, 'takes', takes)
  found[#found + 1] = {number, task[1], task[2], task[4], takes}
end
for _, each in ipairs(pending) do
  take(each[1])
  if #found > most then
    found[1] = '(' .. each[1]
    break
  end
end
return found
"""
)

# KEYS task; ARGV holder, version. It stays in the stream without a holder.
PARK: Final = Script("""
if redis.pcall('HGET', KEYS[1], 'holder') == ARGV[1] then
  redis.call('HSET', KEYS[1], 'holder', '', 'parked', ARGV[2])
  redis.call('HINCRBY', KEYS[1], 'takes', -1)
end
return 1
""")

# KEYS stream; ARGV group, holder. A consumer that holds nothing is of no use once its process has ended.
LEAVE: Final = Script("""
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2])
if pending.err or #pending > 0 then return 0 end
return redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
""")
