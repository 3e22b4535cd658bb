"""Lua scripts of the Redis store: each atomically reads and writes the keys of one run.

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

PUT_RUN = """
-- ARGV: record, fence, ttl in ms. Returns 0 if the fence is stale.
local fence = tonumber(redis.call('HGET', KEYS[1], 'fence') or '0')
if tonumber(ARGV[2]) < fence then return 0 end
redis.call('HSET', KEYS[1], 'record', ARGV[1], 'fence', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""

PUT_NODE = """
-- KEYS: run, nodes. ARGV: fence, number, record, ttl in ms. Returns 0 if the fence is stale.
local fence = tonumber(redis.call('HGET', KEYS[1], 'fence') or '0')
if tonumber(ARGV[1]) < fence then return 0 end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return 1
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

APPEND_EVENTS = """
-- KEYS: run, event log. ARGV: fence, id, events, ttl in ms, maximum entries, and the id at which
-- the log must end, or an empty string. Returns 0 if the fence is stale or the log ends at another
-- id. A log that already contains the id is not changed.
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
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], ARGV[2], 'events', ARGV[3])
end
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return 1
"""

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
