"""Lua scripts that move waiting deliveries to another queue or to the dead letters; floor 4.

MOVE and BURY remove a delivery, add it at its destination and update the books in one step. If the process is killed,
no delivery is lost or duplicated. Items that no longer exist are skipped, so the scripts are idempotent. Entries in
flight at a live router are not changed.

ARGV of MOVE and BURY: the group; the idle time in milliseconds after which an entry may be taken; then the arguments
that are described at each script.

Answer of MOVE and BURY: a number for each item, in order: 1 moved, 0 gone, 2 in flight, 3 no room. The script ends at
the first item without room.
"""

from __future__ import annotations

from router.broker.server.link import Script

# `kept` returns whether a pending entry must stay, because its router may be alive. A router renews its entries in
# flight. At a graceful shutdown, the router sets the delivery count of the remaining entries to 0 and their idle time
# to the limit. So an entry is free in two cases. (1) The entry was idle for the idle time, and its delivery count is 0.
# (2) Both the entry and its consumer were idle for the idle time. The consumer is checked too, because its router may
# use a longer idle time than this script, and so renew the entry less often.
_IN_FLIGHT = """
local group, idle = ARGV[1], tonumber(ARGV[2])
local function named(row)
  local fields = {}
  for i = 1, #row, 2 do fields[row[i]] = row[i + 1] end
  return fields
end
local grouped, silent = false, {}
if redis.call('EXISTS', KEYS[1]) == 1 then
  for _, row in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    if named(row).name == group then grouped = true end
  end
end
if grouped then
  for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], group)) do
    local consumer = named(row)
    silent[consumer.name] = consumer.idle
  end
end
local function kept(p)
  return p[3] < idle or (p[4] > 0 and (silent[p[2]] or idle) < idle)
end
local function in_flight(id)
  local p = grouped and redis.call('XPENDING', KEYS[1], group, id, id, 1)[1]
  return p and kept(p)
end
"""

# `find` returns the size of an item's record, and the due time of the item (nil for an entry of the stream). `remove`
# deletes the item.
_ITEMS = """
local later = ARGV[3] == 'later'
local function size_of(words)
  return later and #words - string.find(words, ' ', 1, true) or #words
end
local function find(item)
  if later then
    local due = redis.call('ZSCORE', KEYS[2], item)
    return due and size_of(item), due
  end
  local entry = redis.call('XRANGE', KEYS[1], item, item)[1]
  return entry and #entry[2][2]
end
local function remove(item)
  if later then
    redis.call('ZREM', KEYS[2], item)
  else
    if grouped then redis.call('XACK', KEYS[1], group, item) end
    redis.call('XDEL', KEYS[1], item)
  end
end
"""

# The scripts read all keys before their first write, so that a key of a wrong type makes the whole script fail. The
# first writes change nothing: they fail early if the user has no permission for these commands. Moves need no
# additional memory, so they must work even if Redis is out of memory. Redis allows this: a script with a removal as its
# first write may add data afterwards.
_TRY = """
redis.call('XDEL', KEYS[1], '0-1')
redis.call('ZREM', KEYS[2], '')
if grouped then redis.call('XACK', KEYS[1], group, '0-1') end
redis.call('HINCRBY', KEYS[3], 'bytes', 0)
"""

# Moves items from one queue to another.
# KEYS: stream, sorted set and books of the first queue; stream, sorted set and books of the second queue.
# ARGV[3]: `now` for entries of the stream, `later` for members of the sorted set.
# ARGV[4], ARGV[5]: the limits of the second queue, in events and in bytes.
# Then for each item: its entry id or its member, and its replacement in the second queue. The replacement is a record,
# or a member that gets the same due time.
MOVE = Script(
    _IN_FLIGHT
    + _ITEMS
    + """
local events_left = tonumber(ARGV[4]) - redis.call('XLEN', KEYS[4]) - redis.call('ZCARD', KEYS[5])
local bytes_left = tonumber(ARGV[5]) - tonumber(redis.call('HGET', KEYS[6], 'bytes') or '0')
"""
    + _TRY
    + """
redis.call('HINCRBY', KEYS[6], 'bytes', 0)
redis.call('ZADD', KEYS[5], 'XX', 0, '')
local told, moved, freed, taken = {}, 0, 0, 0
for i = 6, #ARGV, 2 do
  local item, new = ARGV[i], ARGV[i + 1]
  local size, due = find(item)
  if not size then
    told[#told + 1] = 0
  elseif not later and in_flight(item) then
    told[#told + 1] = 2
  elseif moved >= events_left or taken + size_of(new) > bytes_left then
    told[#told + 1] = 3
    break
  else
    if later then redis.call('ZADD', KEYS[5], due, new)
    else redis.call('XADD', KEYS[4], '*', 'd', new)
    end
    remove(item)
    moved, freed, taken = moved + 1, freed + size, taken + size_of(new)
    told[#told + 1] = 1
  end
end
if moved > 0 then
  redis.call('HINCRBY', KEYS[3], 'handed_over', moved)
  redis.call('HINCRBY', KEYS[3], 'bytes', -freed)
  redis.call('HINCRBY', KEYS[6], 'accepted', moved)
  redis.call('HINCRBY', KEYS[6], 'bytes', taken)
end
return told
"""
)

# Turns items into dead letters.
# KEYS: stream, sorted set and books of the queue; the stream of dead letters.
# ARGV[3]: `now` or `later`, as for MOVE.
# ARGV[4]: the largest number of dead letters.
# ARGV[5]: the name of the counter in the books.
# Then for each item: its entry id or its member, the number of words of its letter, and these words (field, value, …).
BURY = Script(
    _IN_FLIGHT
    + _ITEMS
    + """
local room = tonumber(ARGV[4]) - redis.call('XLEN', KEYS[4])
"""
    + _TRY
    + """
local told, moved, freed = {}, 0, 0
local i = 6
while i <= #ARGV do
  local item, words = ARGV[i], tonumber(ARGV[i + 1])
  local size = find(item)
  if not size then
    told[#told + 1] = 0
  elseif not later and in_flight(item) then
    told[#told + 1] = 2
  elseif moved >= room then
    told[#told + 1] = 3
    break
  else
    redis.call('XADD', KEYS[4], '*', unpack(ARGV, i + 2, i + 1 + words))
    remove(item)
    moved, freed = moved + 1, freed + size
    told[#told + 1] = 1
  end
  i = i + 2 + words
end
if moved > 0 then
  redis.call('HINCRBY', KEYS[3], ARGV[5], moved)
  redis.call('HINCRBY', KEYS[3], 'bytes', -freed)
end
return told
"""
)

# Returns the contents of a queue.
# KEYS: stream, sorted set.
# ARGV[1]: the group.
# ARGV[2]: the idle time, as for MOVE.
# ARGV[3]: the number of records to return from each key.
# ARGV[4]: the number of bytes to return of each record.
# Answer: six values.
# Value 1: the length of the stream.
# Value 2: the number of entries in flight.
# Value 3: the number of entries in flight at live routers.
# Value 4: the size of the sorted set.
# Value 5: the first bytes of the records.
# Value 6: the first member of the sorted set, and its score.
LOOK = Script(
    _IN_FLIGHT
    + """
local heads, most, size = {}, tonumber(ARGV[3]), tonumber(ARGV[4])
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', most)) do
  heads[#heads + 1] = string.sub(entry[2][2], 1, size)
end
for _, member in ipairs(redis.call('ZRANGE', KEYS[2], 0, most - 1)) do
  local first = (string.find(member, ' ', 1, true) or 0) + 1
  heads[#heads + 1] = string.sub(member, first, first + size - 1)
end
local pending, held, start = 0, 0, '-'
while grouped do
  local page = redis.call('XPENDING', KEYS[1], group, start, '+', 1000)
  pending = pending + #page
  for _, p in ipairs(page) do
    if kept(p) then held = held + 1 end
  end
  if #page < 1000 then break end
  start = '(' .. page[#page][1]
end
local length = redis.call('XLEN', KEYS[1])
pending = math.min(pending, length)
local first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
return {length, pending, math.min(held, pending), redis.call('ZCARD', KEYS[2]), heads, first}
"""
)
