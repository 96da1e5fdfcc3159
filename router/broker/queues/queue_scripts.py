"""The Lua scripts of the Redis queues. Each script changes a queue and its books in one step, and is idempotent; floor 4.

A delivery waits as an entry of the sink's stream. A delayed delivery is a member of the sink's sorted set until it is
due. The books count each delivery as accepted when it arrives, and under its outcome when it is settled. So the books
have as many unsettled deliveries as the stream and the sorted set have members together. A difference means that
another program removed or added entries. The field `d` of an entry holds the packed delivery, called the *record*.
"""

from __future__ import annotations

from router.broker.server.link import Script

_GUARD = """
local guard = redis.call('GET', KEYS[1])
if guard then
  local last, told = string.match(guard, '^(%d+):(.*)$')
  if tonumber(last) >= tonumber(ARGV[1]) then return told end
end
"""

_OPEN_QUEUES = """
local queues, at = {}, 2
for k = 2, #KEYS - 1, 3 do
  local q = {stream = KEYS[k], books = KEYS[k + 2], accepted = 0, bytes = 0, full = 0}
  q.events_left = tonumber(ARGV[at]) - redis.call('XLEN', q.stream) - redis.call('ZCARD', KEYS[k + 1])
  q.bytes_left = tonumber(ARGV[at + 1]) - tonumber(redis.call('HGET', q.books, 'bytes') or '0')
  q.drops = ARGV[at + 2] == '1'
  q.outage = tonumber(ARGV[at + 3])
  queues[#queues + 1] = q
  at = at + 4
end
"""

_CLOSE_QUEUES = """
for _, q in ipairs(queues) do
  local accepted = q.accepted + q.full + q.outage
  if accepted > 0 then redis.call('HINCRBY', q.books, 'accepted', accepted) end
  if q.bytes > 0 then redis.call('HINCRBY', q.books, 'bytes', q.bytes) end
  if q.full > 0 then redis.call('HINCRBY', q.books, 'dropped:full', q.full) end
  if q.outage > 0 then redis.call('HINCRBY', q.books, 'dropped:outage', q.outage) end
end
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. told, 'EX', 86400)
return told
"""

# Appends records to queues.
# KEYS: the guard; stream, sorted set and books of each queue; the hash of marks.
# ARGV[1]: the batch number.
# Then four values for each queue. (1) The limit in events. (2) The limit in bytes. (3) A value that only APPEND_ENTRIES
# uses. (4) The number of deliveries that were dropped because of an outage and are not in the books yet.
# Then for each queue: the number of its records, and the records.
# The scripts read all keys before the first write, so that a key of a wrong type makes the whole script fail. The SET
# is the first write, because a server that is out of memory refuses a script only at its first write.
# Answer: for each queue the number of records that were appended. There was no room for the remaining records.
APPEND = Script(
    _GUARD
    + _OPEN_QUEUES
    + """
redis.call('SET', KEYS[1], (ARGV[1] - 1) .. ':', 'EX', 86400)
local kept = {}
for k, q in ipairs(queues) do
  local n = tonumber(ARGV[at])
  local i, last = at + 1, at + n
  while i <= last do
    local size = #ARGV[i]
    if q.accepted >= q.events_left or q.bytes + size > q.bytes_left then break end
    redis.call('XADD', q.stream, '*', 'd', ARGV[i])
    q.accepted = q.accepted + 1
    q.bytes = q.bytes + size
    i = i + 1
  end
  q.full = last - i + 1
  kept[k] = q.accepted
  at = last + 1
end
local told = table.concat(kept, ' ')
"""
    + _CLOSE_QUEUES
)

# Appends the deliveries of stream entries or list items, and acknowledges these entries, in one step.
# A *way* is a pair of a route and a queue, by which a delivery of an entry reaches its sink.
# KEYS: as for APPEND.
# ARGV[1]: the batch number.
# Then four values for each queue. (1) The limit in events. (2) The limit in bytes. (3) 1 if the queue drops deliveries
# when it is full, 0 if it pauses the source. (4) 0, because only APPEND uses this value.
# Then the number of ways.
# Then for each way: the number of its queue, and the name of the way.
# Then for each entry: five words, the number of its deliveries, and the deliveries. The five words are those of
# `contracts.Removal`, and describe the change of the entry ('' for no change). A delivery is the number of its way, and
# its record.
#
# The deliveries of an entry that is pending for another router are not appended. If our consumer is the only consumer
# of the group, XACK alone shows that the entry is ours. Redis may no longer know an entry, because the entry was
# trimmed, or because its group or stream is gone. The deliveries of such an entry are appended, because this router has
# read the entry. The batch ends at the first entry that needs room in a full queue which pauses its sources.
#
# A mark prevents that a delivery is appended twice. A mark is a field of the hash of marks. Each entry that is enqueued
# and not acknowledged has a mark. The value of a mark contains the names of the ways that were appended, each between
# spaces. After a change of the configuration an entry may have other ways. Then the script appends only ways that are
# not in the mark, and adds their names to the mark. A mark that does not begin with a space was written by an older
# version and stands for all ways. An entry that Redis no longer knows gets a mark too. So its deliveries are appended
# only once.
#
# Answer: the number of entries processed, the number of the full queue that ended the batch (0: none), and notes. In
# the notes, entries and deliveries are numbered from 1.
# Note `entry/other`: the entry is pending for another router.
# Note `entry/gone`: Redis no longer knows the entry.
# Note `entry/full/delivery`: the delivery was dropped, because its queue is full.
# Note `entry/before/delivery`: the delivery was appended before.
APPEND_ENTRIES = Script(
    _GUARD
    + _OPEN_QUEUES
    + """
local marks = KEYS[#KEYS]
local marked = redis.call('HLEN', marks) > 0
local ways = {}
for i = at + 1, at + 2 * ARGV[at], 2 do
  ways[#ways + 1] = {queue = queues[tonumber(ARGV[i])], number = tonumber(ARGV[i]), name = ' ' .. ARGV[i + 1] .. ' '}
end
at = at + 2 * ARGV[at] + 1
local alone = {}
local function is_alone(key, group, owner)
  local name = key .. ' ' .. group
  if alone[name] == nil then
    local rows = redis.pcall('XINFO', 'CONSUMERS', key, group)
    alone[name] = not rows.err and #rows == 1 and rows[1][2] == owner
  end
  return alone[name]
end
local function named(value, way)
  return string.sub(value, 1, 1) ~= ' ' or string.find(value, way.name, 1, true) ~= nil
end
local done, stuck, said, started = 0, 0, {}, false
while at <= #ARGV do
  local kind, key, group, item, owner = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local n, first = tonumber(ARGV[at + 5]), at + 6
  local mark = kind ~= '' and key .. ' ' .. group .. ' ' .. item
  local before = mark and marked and redis.call('HGET', marks, mark)
  at = first + 2 * n
  local sums = {}
  for i = first, at - 1, 2 do
    local way = ways[tonumber(ARGV[i])]
    if not (before and named(before, way)) then
      local q, sum = way.queue, sums[way.number] or {0, 0}
      sum = {sum[1] + 1, sum[2] + #ARGV[i + 1]}
      sums[way.number] = sum
      if not q.drops and (q.accepted + sum[1] > q.events_left or q.bytes + sum[2] > q.bytes_left) then
        stuck = way.number
      end
    end
  end
  if stuck > 0 then break end
  if not started then
    redis.call('SET', KEYS[1], (ARGV[1] - 1) .. ':', 'EX', 86400)
    started = true
  end
  done = done + 1
  local other = false
  if mark then
    local over = kind ~= 'mark'
    local acked = over and is_alone(key, group, owner) and redis.call('XACK', key, group, item) == 1
    local row = not acked and redis.pcall('XPENDING', key, group, item, item, 1)[1]
    if not acked and not row then said[#said + 1] = done .. '/gone' end
    if row and row[2] ~= owner then
      other = true
    elseif acked or (row and over) then
      if not acked then redis.call('XACK', key, group, item) end
      if kind == 'xdel' then redis.call('XDEL', key, item) end
      if before then redis.call('HDEL', marks, mark) end
    else
      local names = before or ' '
      for i = first, at - 1, 2 do
        local way = ways[tonumber(ARGV[i])]
        if not named(names, way) then names = names .. string.sub(way.name, 2) end
      end
      if names ~= before then redis.call('HSET', marks, mark, names) end
      marked = true
    end
  end
  if other then
    said[#said + 1] = done .. '/other'
  else
    for i = first, at - 1, 2 do
      local way, size, place = ways[tonumber(ARGV[i])], #ARGV[i + 1], (i - first) / 2 + 1
      local q = way.queue
      if before and named(before, way) then
        said[#said + 1] = done .. '/before/' .. place
      elseif q.accepted + 1 > q.events_left or q.bytes + size > q.bytes_left then
        q.full = q.full + 1
        said[#said + 1] = done .. '/full/' .. place
      else
        redis.call('XADD', q.stream, '*', 'd', ARGV[i + 1])
        q.accepted = q.accepted + 1
        q.bytes = q.bytes + size
      end
    end
  end
end
local told = done .. ' ' .. stuck .. ' ' .. table.concat(said, ' ')
if done == 0 then return told end
"""
    + _CLOSE_QUEUES
)

# Acknowledges and deletes settled entries, and counts their outcomes in the books.
# KEYS: stream, books.
# ARGV: the group. Then for each outcome: its counter, the number of entries, their total size in bytes, and their ids.
# Only entries that still exist are counted. So an entry is counted once, even if the call is repeated, or if a peer has
# settled the entry already.
SETTLE = Script("""
local i = 2
while i <= #ARGV do
  local counter, n, size = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, i + 3, i + 2 + n))
  local gone = redis.call('XDEL', KEYS[1], unpack(ARGV, i + 3, i + 2 + n))
  if gone > 0 then
    redis.call('HINCRBY', KEYS[2], counter, gone)
    redis.call('HINCRBY', KEYS[2], 'bytes', -math.floor(size * gone / n))
  end
  i = i + 3 + n
end
return 1
""")

# Replaces entries by delayed deliveries in the sorted set.
# KEYS: stream, sorted set, books.
# ARGV[1]: the group.
# Then for each entry: its id, its size in bytes, its counters, and the records that replace the entry.
# Counters are given as their number, and for each counter its name and the number to add.
# Records are given as their number, and for each record its delay in ms and the record itself.
# Each record becomes a member of the sorted set. The name of a member contains the id of the entry, the index of the
# record, and the delay. RESCHEDULE computes the latest possible due time from this delay.
DEFER = Script("""
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local i = 2
while i <= #ARGV do
  local id, bytes, counters = ARGV[i], -tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local first = i + 3
  local records = first + 2 * counters + 1
  local n = tonumber(ARGV[records - 1])
  i = records + 2 * n
  redis.call('XACK', KEYS[1], ARGV[1], id)
  if redis.call('XDEL', KEYS[1], id) == 1 then
    for r = records, i - 1, 2 do
      local name = id .. '/' .. (r - records) .. '/' .. ARGV[r]
      redis.call('ZADD', KEYS[2], string.format('%.0f', ms + ARGV[r]), name .. ' ' .. ARGV[r + 1])
      bytes = bytes + #ARGV[r + 1]
    end
    for c = first, records - 2, 2 do redis.call('HINCRBY', KEYS[3], ARGV[c], ARGV[c + 1]) end
    redis.call('HINCRBY', KEYS[3], 'bytes', bytes)
  end
end
return 1
""")

# Does the periodic work of queues, in three steps.
# Step 1: move due deliveries back into the stream.
# Step 2: restore lost books. New books get an *epoch*, a random word. If the epoch has changed, the old books were lost
# together with the server's data. Then add the counters that this router read last. Only one router does so.
# Step 3: count lost deliveries. If the books have more unsettled deliveries than stream and sorted set together, the
# difference was lost.
#
# KEYS: stream, sorted set and books of each queue.
# ARGV[1]: the group.
# Then six values for each queue. (1) The largest number of deliveries to move. (2) The idle time in ms after which an
# entry belongs to a dead router (0: do not check). (3) The epoch of the books that this router read last ('': none).
# (4) A new epoch, for books that have no epoch. (5) The number of counters that this router read last. (6) The name and
# value of each counter.
# An empty queue needs only two commands, so that an idle router causes little load. All keys of a queue are read before
# the first write to the queue. If a queue can't be used, its row is an error. For example, a key may have a wrong type.
# The other queues are processed nevertheless.
#
# Answer: the server's time in ms, then a row for each queue.
# Value 1 of a row: the number of moved deliveries.
# Value 2 of a row: the time in ms until the next delayed delivery is due (-1: no delivery is delayed).
# Value 3 of a row: the number of deliveries in the stream and the sorted set together.
# Value 4 of a row: the number of deliveries in the sorted set.
# Value 5 of a row: the number of lost deliveries.
# Value 6 of a row: 1 if a dead router left entries, else 0.
# Value 7 of a row: the books.
TICK = Script("""
local group, at = ARGV[1], 2
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local sets = {}
for k = 2, #KEYS, 3 do sets[#sets + 1] = KEYS[k] end
local any_later = redis.call('EXISTS', unpack(sets)) > 0
local function read(key)
  local sum, found = 0, {}
  local books = redis.call('HGETALL', key)
  for i = 1, #books, 2 do
    local name = books[i]
    found[name] = books[i + 1]
    local number = string.match(books[i + 1], '^%-?%d+$') or 0  -- no number if another program wrote the field
    if name == 'accepted' then sum = sum + number
    elseif name ~= 'bytes' and name ~= 'epoch' and string.sub(name, 1, 4) ~= 'was:' then sum = sum - number
    end
  end
  return sum, books, found
end
local function tick(stream, later, key, moves, idle, known, fresh, first, last)
  local waiting, moved, next_due = redis.call('XLEN', stream), 0, nil
  local delayed = any_later and redis.call('ZCARD', later) or 0
  local expected, books, found = read(key)
  waiting = waiting + delayed
  if delayed > 0 then
    local due = redis.call('ZRANGEBYSCORE', later, '-inf', string.format('%.0f', ms), 'LIMIT', 0, moves)
    for _, member in ipairs(due) do
      redis.call('ZREM', later, member)
      redis.call('XADD', stream, '*', 'd', string.sub(member, (string.find(member, ' ', 1, true) or 0) + 1))
    end
    moved = #due
    delayed = delayed - moved
    next_due = redis.call('ZRANGE', later, 0, 0, 'WITHSCORES')[2]
  end
  local epoch = found.epoch or fresh
  local other = known ~= '' and known ~= epoch and redis.call('HSETNX', key, 'was:' .. known, 1) == 1
  if other then
    for i = first, last, 2 do redis.call('HINCRBY', key, ARGV[i], ARGV[i + 1]) end
  end
  if not found.epoch then redis.call('HSET', key, 'epoch', epoch) end
  if other or not found.epoch then expected, books, found = read(key) end
  local lost = expected - waiting
  local bytes = tonumber(found.bytes or '0')
  if lost > 0 then redis.call('HINCRBY', key, 'dropped:lost', lost)
  elseif lost < 0 then redis.call('HINCRBY', key, 'accepted', -lost)
  end
  if waiting == 0 and bytes ~= 0 then redis.call('HSET', key, 'bytes', 0)
  elseif lost > 0 then redis.call('HSET', key, 'bytes', string.format('%.0f', bytes * waiting / expected))
  end
  if lost ~= 0 then expected, books = read(key) end
  local left = 0
  if idle ~= '0' and waiting > delayed then
    local page = redis.pcall('XPENDING', stream, group, 'IDLE', idle, '-', '+', 1)
    if not page.err and #page > 0 then left = 1 end
  end
  return {moved, next_due and math.max(0, next_due - ms) or -1, waiting, delayed, lost, left, books}
end
local told = {ms}
for k = 1, #KEYS, 3 do
  local first = at + 5
  local last = first + 2 * ARGV[at + 4] - 1
  local done, row = pcall(
    tick, KEYS[k], KEYS[k + 1], KEYS[k + 2], ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], first, last
  )
  told[#told + 1] = done and row or {err = type(row) == 'table' and row.err or tostring(row)}
  at = last + 1
end
return told
""")

# Corrects the delivery times of pending entries after the server's clock was set back.
# KEYS: stream. ARGV: the group.
# After the clock was set back, a delivery time may be in the future. Until that time, Redis reports an idle time of 0
# for the entry, so no peer would claim the entry from a dead router. XCLAIM for the same owner sets the delivery time
# to now. If the group does not exist, no entry was delivered.
REDATE = Script("""
local start = '-'
while true do
  local page = redis.pcall('XPENDING', KEYS[1], ARGV[1], start, '+', 100)
  if page.err then return 0 end
  for _, p in ipairs(page) do
    if p[3] == 0 then
      redis.call('XCLAIM', KEYS[1], ARGV[1], p[2], 0, p[1], 'IDLE', 0, 'RETRYCOUNT', p[4], 'JUSTID')
    end
  end
  if #page < 100 then return 1 end
  start = '(' .. page[#page][1]
end
""")

# Corrects the due times of delayed deliveries after the server's clock was set back.
# KEYS: sorted set. ARGV: the rank of the first member to check; the number of members to check; a default delay in ms,
# for members of older routers, which have no delay in their names.
# If a member is due later than now plus its delay, it was added before the clock was set back. The due time of such a
# member becomes now plus its delay. So its rank can only decrease, and the next call skips no member.
# Answer: the number of members that were checked.
RESCHEDULE = Script("""
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local members = redis.call('ZRANGE', KEYS[1], ARGV[1], ARGV[1] + ARGV[2] - 1, 'WITHSCORES')
for i = 1, #members, 2 do
  local due = ms + (string.match(members[i], '^[^ /]+/%d+/(%d+) ') or ARGV[3])
  if tonumber(members[i + 1]) > due then redis.call('ZADD', KEYS[1], string.format('%.0f', due), members[i]) end
end
return #members / 2
""")
