"""Lua scripts of the Redis store: each atomically reads and writes the keys of one run.

Writes are charged to the run's tenant. A tenant that exceeds its quota loses its own ended runs,
oldest first, in the same script.

The key of a run is a hash with the fields `record`, `fence` and, while it has an owner, `owner` and
`until` (expiry of the lease, server time in ms). The lease is a field and not a separate key: under
memory pressure `volatile-ttl` evicts the keys with the shortest TTL first, which would be the
leases. Every script that writes a key sets its TTL.
"""

from __future__ import annotations

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

QUOTA_EXCEEDED = -1
RUN_OVERHEAD = 512
"""Bytes that are charged for every run."""
ENTRY_OVERHEAD = 64
"""Bytes that are charged for every node and every entry of an event log."""
EVICTION_SCAN = 512
"""Runs that one write looks at for eviction: more than a tenant has in progress."""

_QUOTA = (
    _NOW
    + f"""
-- The quota of a tenant. `usage` has the size of each run by the prefix of its keys, and 'total';
-- `written` has the same prefixes by the time of the last write, and `created` by that of their
-- creation. A run that has expired is found when its room is needed.
local base = string.sub(KEYS[1], 1, -6)
local function created_of(written) return string.sub(written, 1, -8) .. 'created' end
local function used(usage) return tonumber(redis.call('HGET', usage, 'total') or '0') end
-- Evict ended runs other than this one, oldest first, until `bytes` more fit.
local function make_room(usage, written, quota, bytes)
  if redis.call('EXISTS', written) == 0 then redis.call('DEL', usage) end
  if used(usage) + bytes <= quota then return true end
  for _, other in ipairs(redis.call('ZRANGE', written, 0, {EVICTION_SCAN - 1})) do
    local run = other .. 'state'
    local lost = redis.call('HEXISTS', run, 'record') == 0
    if other ~= base and (lost or redis.call('HEXISTS', run, 'ended') == 1) then
      redis.call('UNLINK', other .. 'nodes', other .. 'events')
      if not lost then redis.call('UNLINK', run) end
      redis.call('HINCRBY', usage, 'total', -(redis.call('HGET', usage, other) or 0))
      redis.call('HDEL', usage, other)
      redis.call('ZREM', written, other)
      redis.call('ZREM', created_of(written), other)
      if used(usage) + bytes <= quota then return true end
    end
  end
  return false
end
local function charge(usage, written, bytes, ttl)
  redis.call('HINCRBY', usage, base, bytes)
  redis.call('HINCRBY', usage, 'total', bytes)
  redis.call('ZADD', written, now, base)
  redis.call('PEXPIRE', usage, ttl)
  redis.call('PEXPIRE', written, ttl)
end
"""
)

PUT_RUN = (
    _QUOTA
    + f"""
-- KEYS: run, usage, written. ARGV: record, fence, ttl in ms, "1" if the run has ended, quota, time
-- of creation. Returns 0 if the fence is stale, and {QUOTA_EXCEEDED} if the run is new and exceeds
-- the quota.
local fence = tonumber(redis.call('HGET', KEYS[1], 'fence') or '0')
if tonumber(ARGV[2]) < fence then return 0 end
local had = redis.call('HSTRLEN', KEYS[1], 'record')
local bytes = #ARGV[1] - had
if had == 0 then bytes = bytes + {RUN_OVERHEAD} end
local fits = make_room(KEYS[2], KEYS[3], tonumber(ARGV[5]), bytes)
if had == 0 and not fits then return {QUOTA_EXCEEDED} end
redis.call('HSET', KEYS[1], 'record', ARGV[1], 'fence', ARGV[2])
if ARGV[4] == '1' then redis.call('HSET', KEYS[1], 'ended', 1)
else redis.call('HDEL', KEYS[1], 'ended') end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
charge(KEYS[2], KEYS[3], bytes, ARGV[3])
-- A run that was taken over keeps its place.
redis.call('ZADD', created_of(KEYS[3]), 'NX', ARGV[6], base)
redis.call('PEXPIRE', created_of(KEYS[3]), ARGV[3])
return 1
"""
)

PUT_NODE = (
    _QUOTA
    + f"""
-- KEYS: run, nodes, usage, written. ARGV: fence, number, record, ttl in ms, quota. Returns 0 if
-- the fence is stale.
local fence = tonumber(redis.call('HGET', KEYS[1], 'fence') or '0')
if tonumber(ARGV[1]) < fence then return 0 end
local bytes = #ARGV[3] - redis.call('HSTRLEN', KEYS[2], ARGV[2])
if bytes == #ARGV[3] then bytes = bytes + {ENTRY_OVERHEAD} end
make_room(KEYS[3], KEYS[4], tonumber(ARGV[5]), bytes)
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
charge(KEYS[3], KEYS[4], bytes, ARGV[4])
return 1
"""
)

LIST_RUNS = """
-- KEYS: created. ARGV: prefix of the run before which to list or an empty string, maximum number.
-- Returns the records, newest run first. Runs that are gone are dropped.
local start = 0
if ARGV[1] ~= '' then
  local rank = redis.call('ZREVRANK', KEYS[1], ARGV[1])
  if not rank then return {} end
  start = rank + 1
end
local records = {}
while #records < tonumber(ARGV[2]) do
  local base = redis.call('ZREVRANGE', KEYS[1], start, start)[1]
  if not base then break end
  local record = redis.call('HGET', base .. 'state', 'record')
  if record then
    table.insert(records, record)
    start = start + 1
  else
    redis.call('ZREM', KEYS[1], base)
  end
end
return records
"""

APPEND_KV_EVENTS = """
-- ARGV: entry, maximum entries, ttl in ms.
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'entry', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""

ACQUIRE = (
    _NOW
    + """
-- ARGV: owner, lease in ms, ttl in ms, "1" to take it from a live owner. Returns the new fence, or
-- 0 if there is another owner.
local owner = redis.call('HGET', KEYS[1], 'owner')
local ends = tonumber(redis.call('HGET', KEYS[1], 'until') or '0')
if owner and owner ~= ARGV[1] and ends > now and ARGV[4] ~= '1' then return 0 end
-- Never below the clock: fences keep increasing even if the store has lost the last one.
local fence = math.max(tonumber(redis.call('HGET', KEYS[1], 'fence') or '0') + 1, now)
redis.call('HSET', KEYS[1], 'fence', fence, 'owner', ARGV[1], 'until', now + tonumber(ARGV[2]))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return fence
"""
)

EXTEND = (
    _NOW
    + """
-- ARGV: owner, fence, lease in ms, ttl in ms. Returns 0 if the ownership is lost. An expired lease
-- that was not acquired by another owner is still valid: the fence proves it.
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
if redis.call('HGET', KEYS[1], 'fence') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'until', now + tonumber(ARGV[3]))
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
"""
)

RELEASE = """
-- ARGV: owner, fence. The fence is kept, so that later ones are greater.
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
if redis.call('HGET', KEYS[1], 'fence') ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[1], 'owner', 'until')
return 1
"""

APPEND_EVENTS = (
    _QUOTA
    + f"""
-- KEYS: run, event log, usage, written. ARGV: fence, id, events, ttl in ms, maximum entries, the id
-- at which the log must end or an empty string, quota. Returns 0 if the fence is stale or the log
-- ends at another id. A log that already contains the id is not changed.
local fence = tonumber(redis.call('HGET', KEYS[1], 'fence') or '0')
if tonumber(ARGV[1]) < fence then return 0 end
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
local term, number = string.match(ARGV[2], '(%d+)-(%d+)')
local known = false
local ends = last and last[1] or '0-0'
if last then
  local last_term, last_number = string.match(last[1], '(%d+)-(%d+)')
  term, number = tonumber(term), tonumber(number)
  last_term, last_number = tonumber(last_term), tonumber(last_number)
  known = last_term > term or (last_term == term and last_number >= number)
end
if not known then
  if ARGV[6] ~= '' and ARGV[6] ~= ends then return 0 end
  local bytes = #ARGV[3] + {ENTRY_OVERHEAD}
  make_room(KEYS[3], KEYS[4], tonumber(ARGV[7]), bytes)
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], ARGV[2], 'events', ARGV[3])
  charge(KEYS[3], KEYS[4], bytes, ARGV[4])
end
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return 1
"""
)

NOTE_RUNNING = (
    _NOW
    + """
-- ARGV: run, lease in ms, ttl in ms. Records when the lease of a run expires.
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""
)

FIND_ORPHANS = (
    _NOW
    + """
-- ARGV: maximum number of runs. Runs whose leases have expired, longest expired first.
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
"""
)
