"""Adoption of items that a router of a version before 0.1.0 had in flight; floor 4.

That version stored items in flight in other lists, beside the list of the source. Each router had two lists:
`processing`, and `handed` for items with some of their deliveries enqueued already. The items of routers that had died
were in the lists `returned` and `returned-handed`. This module can be removed once nobody updates from that version.
"""

from __future__ import annotations

from redis import exceptions as failures

from router.broker.lists.list_stream import PAYLOAD, ListStream
from router.broker.server import answers, keys
from router.broker.server.link import Link, Script, Word

OF_ALL = ("returned", "returned-handed", "counts", "consumers")
OF_EACH = ("lease", "processing", "handed", "settled")

# Moves the items of dead routers back into the list, the newest first. Items with some deliveries enqueued already
# become entries of the stream and get a mark (see `queue_scripts.APPEND_ENTRIES`).
# KEYS: the list; the stream; the hash of marks (the stream again if there are no marks); the keys in `OF_ALL`. Then for
# each old router: the keys in `OF_EACH`.
# ARGV[1]: the field of an entry that holds the item.
# ARGV[2]: the prefix of each mark; '' if there are no marks.
# Then for each old router: 1 if it had the name of this router, else 0. If it is 1, the lease is ignored.
# Answer: the number of adopted items.
ADOPT = Script("""
local number, live = 0, false
local function back(from)
  while redis.call('LMOVE', from, KEYS[1], 'LEFT', 'RIGHT') do number = number + 1 end
end
local function mark(from)
  if ARGV[2] == '' then return back(from) end
  while redis.call('LINDEX', from, -1) do
    local id = redis.call('XADD', KEYS[2], '*', ARGV[1], redis.call('LINDEX', from, -1))
    redis.call('HSET', KEYS[3], ARGV[2] .. id, 1)
    redis.call('RPOP', from)
    number = number + 1
  end
end
mark(KEYS[5])
for i = 3, #ARGV do
  local lease, processing, handed, settled = unpack(KEYS, 4 * i - 4, 4 * i - 1)
  if ARGV[i] == '0' and redis.call('EXISTS', lease) == 1 then
    live = true
  else
    mark(handed)
    back(processing)
    redis.call('DEL', lease, settled)
  end
end
back(KEYS[4])
if not live then redis.call('DEL', KEYS[6], KEYS[7]) end
return number
""")


async def adopt(link: Link, stream: ListStream) -> int:
    """Adopt the items of old routers that are dead or have the name of this router; return the number of adopted items."""
    prefix, key, names = stream.prefix, stream.list, stream.names
    shared = [keys.beside(prefix, key, what) for what in OF_ALL]
    try:
        consumers = sorted(bytes(name).decode() for name in await link.call("SMEMBERS", shared[-1]))
        if not consumers:
            return 0
        own = [keys.beside(prefix, key, what, name) for name in consumers for what in OF_EACH]
        words: list[Word] = [PAYLOAD, stream.in_flight.mark(b"") if names.marks else ""]
        words += [int(name.partition("~")[0] == names.consumer) for name in consumers]
        return int(await link.script(ADOPT, [key, stream.key, names.marks or stream.key, *shared, *own], words))
    except failures.ResponseError as error:
        if answers.is_temporary(error):
            raise
        return 0  # the items stay: this user has no permission to read them, or a key has the wrong type
