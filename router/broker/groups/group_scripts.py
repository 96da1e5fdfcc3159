"""The scripts of consumer groups: each claims only what Redis lists as this router's, or counts what is gone; floor 4.

A plain XCLAIM does neither: it takes entries away from whoever has them, and from Redis 7.0 on it erases an entry that was
trimmed from the list of pending entries, so that nobody can count it any more.
"""

from __future__ import annotations

from router.broker.server.link import Script

LAST_ID = "18446744073709551615-18446744073709551614"
"""An id that nothing comes after. Not the very last one: that is how the server itself writes `>`."""

NOT_PENDING, OF_ANOTHER = b"02"
"""What `CLAIM` says of an entry that is not pending for us."""

# Ids are compared as text: their numbers have 64 bits, Lua's have 53.
_IDS = """
local function older(one, other)
  local a, b = string.match(one, '(%d+)-(%d+)')
  local c, d = string.match(other, '(%d+)-(%d+)')
  if a == c then a, c = b, d end
  if #a ~= #c then return #a < #c end
  return a < c
end
local function named(row)
  local fields = {}
  for i = 1, #row, 2 do fields[row[i]] = row[i + 1] end
  return fields
end
"""

# KEYS: the stream. ARGV: group, our consumer, the count of deliveries to give (-1: leave it), 1 to make pending again what
# is not, for how long (ms) nobody has touched it from now on, then ids. Renews what is pending for us. What was trimmed meanwhile stays as it is: after our death it must be
# counted. So the consumer itself is renewed too: a peer leaves the trimmed entries of one alone that is alive.
# Answer: for each id 1 (pending for us), 0 (not pending), 2 (pending for another consumer).
CLAIM = Script(
    _IDS
    + """
local oldest = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
local function trimmed(id) return not oldest or older(id, oldest[1]) end
local told = {}
for i = 6, #ARGV do
  local id, state = ARGV[i], '0'
  local row = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1)[1]
  if row and row[2] ~= ARGV[2] then
    state = '2'
  elseif row and trimmed(id) then
    state = '1'
  elseif row or ARGV[4] == '1' then
    local words = {KEYS[1], ARGV[1], ARGV[2], 0, id, 'IDLE', ARGV[5], 'JUSTID'}
    if ARGV[3] ~= '-1' then
      words[#words + 1] = 'RETRYCOUNT'
      words[#words + 1] = ARGV[3]
    end
    if not row then words[#words + 1] = 'FORCE' end
    if #redis.call('XCLAIM', unpack(words)) > 0 then state = '1' end
  end
  told[#told + 1] = state
end
redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', 1, 'STREAMS', KEYS[1], '"""
    + LAST_ID
    + """')
return table.concat(told)
"""
)

# KEYS: the stream. ARGV: group, our consumer, for how long (ms) nobody may have touched an entry, 1 to count one delivery
# more, then id, owner and count of each entry as XPENDING listed it. Delivers to us what is still so.
# Answer: those entries that the stream still holds, the ids of those that it does not. These are left as they are.
TAKE = Script("""
local found, gone = {}, {}
for i = 5, #ARGV, 3 do
  local id = ARGV[i]
  local row = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1)[1]
  if row and row[2] == ARGV[i + 1] and row[4] == tonumber(ARGV[i + 2]) and row[3] >= tonumber(ARGV[3]) then
    local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
    if entry then
      redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id, 'RETRYCOUNT', row[4] + ARGV[4], 'JUSTID')
      found[#found + 1] = entry
    else
      gone[#gone + 1] = id
    end
  end
end
return {found, gone}
""")

# KEYS: the stream. ARGV: group, our consumer, milliseconds, 1 where the group was made just now: then what is gone is not
# its loss; then whether `entries-read` can be trusted: 1 yes, 0 no, '' that is to be found out where it matters; how many
# entries may be looked through to see how much the group has not read yet.
# The server counts the entries ever added (`entries-added`) and those that the group has read (`entries-read`). Where the
# group has read all, or nothing of what is left, or little is left to be read, the difference is what was trimmed or
# deleted before it was read. Then the group's count is set forward by that, so that it is told once, whoever looks. Redis
# 7.0 would count it as unread for ever.
# Redis 7.0 forgets `entries-read` when it is restarted from its append-only file, and on a replica: there an XREADGROUP is
# written as XCLAIM, and the count falls back to what XGROUP SETID said last. Entries that were read would seem trimmed.
# Answer: nothing where there is no group; else where the group is, the oldest pending entry, whether others read, what the
# server counts as added, what was missed, what it counted as read and what it does now, whether the group has read nothing
# of what is left though it has not read all, the oldest entry, the newest that was deleted, whether the count was compared
# with the stream, whether it differed and can't be trusted, whether it differed and nothing was done, as it is to be found
# out whether it can. What is not known is false.
LOOK = Script(
    _IDS
    + """
local group
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
if groups.err and not string.find(groups.err, 'no such key', 1, true) then return groups end
for _, row in ipairs(groups) do
  local each = named(row)
  if each.name == ARGV[1] then group = each end
end
if not group then return {} end
local stream = named(redis.call('XINFO', 'STREAM', KEYS[1]))
local peers = 0
for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local consumer = named(row)
  if consumer.name ~= ARGV[2] and (consumer.pending > 0 or consumer.idle < tonumber(ARGV[3])) then peers = 1 end
end
local last, added, read = group['last-delivered-id'], stream['entries-added'], group['entries-read']
local first = stream['first-entry'] and stream['first-entry'][1]
local behind = older(last, stream['last-generated-id'])
local gap = behind and (not first or older(last, first))
local missed, counted, compared, doubt, ask = 0, read, 0, 0, 0
local unread = gap and stream.length or not behind and 0
local most = tonumber(ARGV[6])
if added and not unread and most > 0 and not older(last, stream['max-deleted-entry-id']) then
  local left = #redis.call('XRANGE', KEYS[1], '(' .. last, '+', 'COUNT', most)
  unread = left < most and left
end
if added and unread then
  counted, compared = added - unread, 1
  if counted ~= read and ARGV[4] ~= '1' then
    if ARGV[5] == '' then ask = 1
    elseif ARGV[5] == '0' then doubt = 1
    elseif read and counted > read then missed = counted - read
    end
  end
  if counted ~= read and ask == 0 then
    redis.call('XGROUP', 'SETID', KEYS[1], ARGV[1], last, 'ENTRIESREAD', counted)
  end
end
local lowest = redis.call('XPENDING', KEYS[1], ARGV[1])[2]
return {
  last, lowest, peers, added or false, missed, read or false, counted or false, gap and 1 or 0, first or false,
  stream['max-deleted-entry-id'] or false, compared, doubt, ask,
}
"""
)

# KEYS: the stream. ARGV: group, our consumer, milliseconds. Deletes the consumers that nobody has heard of for so long and
# that have nothing pending: deleting one deletes its pending entries, so both must be one step.
SWEEP = Script(
    _IDS
    + """
local deleted = 0
for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local consumer = named(row)
  if consumer.name ~= ARGV[2] and consumer.pending == 0 and consumer.idle >= tonumber(ARGV[3]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer.name)
    deleted = deleted + 1
  end
end
return deleted
"""
)
