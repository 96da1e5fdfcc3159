"""Pushes items in flight back into their list at a graceful shutdown; floor 4."""

from __future__ import annotations

from redis import exceptions as failures

from router.broker.groups.group_stream import GiveBack, reset_delivery_counts
from router.broker.groups.in_flight import InFlight
from router.broker.lists.list_stream import PAYLOAD, ListStream
from router.broker.server import answers
from router.broker.server.link import Link, Script, Word
from router.core.delivery import claims

TOGETHER = 100
"""The maximum number of items that one script call pushes back."""

# Pushes items back to the right end of their list, where the next router takes them first. The items in `landing` are
# newer than the items in flight, so they are pushed back first.
# KEYS: the stream; the list; landing; the hash of marks, if there is one.
# ARGV: the group; our consumer; the field of an entry that holds the item; the prefix of each mark. Then the ids of
# the entries, the newest first.
# In three cases, an entry is not pushed back. (1) The entry is pending for another router. (2) The entry was in flight
# when a router died: its delivery count is over 1. (3) Some of its deliveries are in Redis queues already: the entry
# has a mark.
# Answer: the number of items that were pushed back.
PUSH_BACK = Script("""
while redis.call('LMOVE', KEYS[3], KEYS[2], 'LEFT', 'RIGHT') do end
local number = 0
for i = 5, #ARGV do
  local id = ARGV[i]
  local row = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1)[1]
  local marked = KEYS[4] and redis.call('HEXISTS', KEYS[4], ARGV[4] .. id) == 1
  if row and row[2] == ARGV[2] and row[4] <= 1 and not marked then
    local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
    if entry and #entry[2] == 2 and entry[2][1] == ARGV[3] then
      redis.call('RPUSH', KEYS[2], entry[2][2])
      redis.call('XACK', KEYS[1], ARGV[1], id)
      redis.call('XDEL', KEYS[1], id)
      number = number + 1
    end
  end
end
return number
""")


def pushing_back(streams: list[ListStream]) -> GiveBack:
    """Return the function that releases the items in flight of these lists at a graceful shutdown."""
    by_key = {stream.key: stream for stream in streams}

    async def give_back(link: Link, in_flight: InFlight) -> None:
        """Push the items back into their list, in order. Reset the delivery counts of items that can't be pushed back."""
        stream = by_key[in_flight.names.key]
        key, group, consumer, marks, _ = in_flight.names
        where: list[str | bytes] = [key, stream.list, stream.landing, *([marks] if marks else [])]
        ids = sorted(in_flight.open(), key=claims.parse, reverse=True)
        try:
            for first in range(0, len(ids), TOGETHER):
                words: list[Word] = [group, consumer, PAYLOAD, in_flight.mark(b""), *ids[first : first + TOGETHER]]
                await link.script(PUSH_BACK, where, words)
        except failures.ResponseError as error:
            if not answers.error_text(error).startswith("WRONGTYPE"):
                raise
        await reset_delivery_counts(link, in_flight)

    return give_back
