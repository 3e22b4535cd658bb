"""Lua scripts of the Redis store: each reads and writes the keys of one run in one atomic step.

A run's key is a hash with the fields `record`, `fence`, and, while it is owned, `owner` and
`until` (the lease's end, server time in ms). The lease is a field and not a key of its own: with
`volatile-ttl` a store short of memory would throw out the shortest-lived keys first, and those
would be the leases. Every script ends with the key's TTL set.
"""

from __future__ import annotations

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

PUT_RUN = """
-- ARGV: record, fence, ttl in ms. Returns 0 when the fence is stale.
local fence = tonumber(redis.call('HGET', KEYS[1], 'fence') or '0')
if tonumber(ARGV[2]) < fence then return 0 end
redis.call('HSET', KEYS[1], 'record', ARGV[1], 'fence', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""

PUT_NODE = """
-- ARGV: number, record, ttl in ms.
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""

APPEND_KV_EVENTS = """
-- ARGV: entry, most entries, ttl in ms.
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'entry', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""

ACQUIRE = (
    _NOW
    + """
-- ARGV: owner, lease in ms, ttl in ms, "1" to take it from a living owner. Returns the new fence, 0
-- when somebody else is the owner.
local owner = redis.call('HGET', KEYS[1], 'owner')
local ends = tonumber(redis.call('HGET', KEYS[1], 'until') or '0')
if owner and owner ~= ARGV[1] and ends > now and ARGV[4] ~= '1' then return 0 end
-- Never below the clock: fences go on rising even if the store has lost the last one.
local fence = math.max(tonumber(redis.call('HGET', KEYS[1], 'fence') or '0') + 1, now)
redis.call('HSET', KEYS[1], 'fence', fence, 'owner', ARGV[1], 'until', now + tonumber(ARGV[2]))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return fence
"""
)

EXTEND = (
    _NOW
    + """
-- ARGV: owner, fence, lease in ms, ttl in ms. Returns 0 when the ownership is lost. A lease that
-- ran out and that nobody has taken is still its owner's: the fence proves it.
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
if redis.call('HGET', KEYS[1], 'fence') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'until', now + tonumber(ARGV[3]))
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
"""
)

RELEASE = """
-- ARGV: owner, fence. The fence stays, so that later ones are greater.
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
if redis.call('HGET', KEYS[1], 'fence') ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[1], 'owner', 'until')
return 1
"""

APPEND_EVENTS = """
-- KEYS: run, event log. ARGV: fence, id, events, ttl in ms, most entries, and the id where the log
-- must end, or nothing. Returns 0 when the fence is stale or the log ends elsewhere. A log that is
-- as far already stays as it is.
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
-- ARGV: run, lease in ms, ttl in ms. Notes when a run will be without an owner.
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""
)

FIND_ORPHANS = (
    _NOW
    + """
-- ARGV: most runs. The runs whose owners' leases have run out, the one that waits longest first.
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
"""
)
