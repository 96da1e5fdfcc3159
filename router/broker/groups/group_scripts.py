"""The Lua scripts of consumer groups: they claim entries safely, and count entries that were trimmed; floor 4.

A plain XCLAIM is not safe, because it claims entries of live routers too. From Redis 7.0 on, XCLAIM also removes
trimmed entries from the pending list, so that the router could no longer count these entries.
"""

from __future__ import annotations

from router.broker.server.link import Script

LAST_ID = "18446744073709551615-18446744073709551614"
"""An id after which no entry can come, for reads that must return nothing. The largest possible id is greater by one,
but the server treats that id as `>`."""

NOT_PENDING, OF_ANOTHER = b"02"
"""Two answers of `CLAIM`: the entry is pending for no consumer; the entry is pending for another consumer."""

# `older` compares ids as text, because the numbers in an id have 64 bits, and Lua numbers have only 53 bits. `named`
# turns a row of XINFO into a table.
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

# Renews entries that are pending for our consumer.
# KEYS: the stream.
# ARGV[1]: the group.
# ARGV[2]: our consumer.
# ARGV[3]: the delivery count to set (-1: do not change the count).
# ARGV[4]: 1 to make entries pending again that are not pending, else 0.
# ARGV[5]: the idle time to set, in milliseconds.
# Then the ids of the entries.
# A trimmed entry is not changed, because XCLAIM would remove it from the pending list. If this router dies, another
# router must be able to count the entry. The read at the end resets the idle time of the consumer itself. So other
# routers see that the owner of trimmed entries is alive.
# Answer: one character for each id: 1 pending for our consumer, 0 not pending, 2 pending for another consumer.
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

# Claims entries for our consumer. An entry is claimed only if it is still idle, and if it still has the owner and the
# delivery count that XPENDING listed.
# KEYS: the stream.
# ARGV: the group; our consumer; the smallest idle time in milliseconds; 1 to raise the delivery count, else 0. Then for
# each entry: its id, its owner and its delivery count.
# Answer: the claimed entries; the ids of the entries that are no longer in the stream. Entries that are no longer in
# the stream stay pending.
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

# Returns the progress of a group, and counts entries that were trimmed or deleted before the group read them.
# KEYS: the stream.
# ARGV[1]: the group.
# ARGV[2]: our consumer.
# ARGV[3]: the idle time in milliseconds after which a consumer without pending entries is dead.
# ARGV[4]: 1 if the group was created just now, so that it has missed nothing; else 0.
# ARGV[5]: 1 if `entries-read` is correct, 0 if it is not correct, '' if this is unknown.
# ARGV[6]: the largest number of entries that the script may read in order to count the unread entries.
#
# The server counts the entries ever added (`entries-added`) and the entries that the group has read (`entries-read`).
# In three cases, the script knows the number of unread entries that are still in the stream. (1) The group has read all
# entries. (2) The group has read none of the entries that are left. (3) Only few unread entries are left. In these
# cases, added - unread - read is the number of entries that were lost unread. The script adds this number to
# `entries-read`. So each loss is counted once, whichever router calls the script. Otherwise Redis 7.0 would include the
# lost entries in `lag` for ever.
#
# On a replica, and after a restart from the append-only file, `entries-read` of Redis 7.0 is too low. Redis logs
# XREADGROUP as XCLAIM, so only the count set by the last XGROUP SETID is left. Then entries that were read would look
# lost. Therefore the caller passes whether the count is correct.
#
# Answer: an empty list if there is no group, else 13 values. An unknown value is false.
# Value 1: the last id delivered to the group.
# Value 2: the oldest pending entry.
# Value 3: 1 if other consumers read.
# Value 4: the number of entries ever added.
# Value 5: the number of entries lost unread.
# Value 6: `entries-read` before the call.
# Value 7: `entries-read` now.
# Value 8: 1 if entries were added after the last delivered entry, and all entries that are left are unread.
# Value 9: the oldest entry.
# Value 10: the newest deleted entry.
# Value 11: 1 if the counts could be compared.
# Value 12: 1 if the counts differ because `entries-read` is not correct.
# Value 13: 1 if the counts differ, and the caller must find out whether `entries-read` is correct. The script has
# changed nothing then.
PROGRESS = Script(
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

# Deletes consumers that have no pending entries and were idle for the given time. The check and the deletion must be
# one step. Otherwise XGROUP DELCONSUMER would also delete entries that became pending for the consumer after the check.
# KEYS: the stream. ARGV: the group; our consumer; the idle time in milliseconds. Answer: the number of deleted consumers.
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
