"""Adoption of items in flight of the version before 0.1.0, which used lists beside a list; floor 4.

Each router moved items to a list `processing`, and those enqueued in part to `handed`; the items of a router that died were in
`returned` and `returned-handed`. Remove this module once nobody updates from that version.
"""

from __future__ import annotations

from redis import exceptions as failures

from router.broker.lists.list_stream import PAYLOAD, ListStream
from router.broker.server import answers, keys
from router.broker.server.link import Link, Script, Word

OF_ALL = ("returned", "returned-handed", "counts", "consumers")
OF_EACH = ("lease", "processing", "handed", "settled")

# KEYS: the list, the stream, the hash of marks (the stream again where there is none), what all routers share, what each has.
# ARGV: the field, the beginning of the name of each mark (empty where there is none), then 1 for each router whose lease does
# not count, for its name is ours. Items go back into the list, the newest first. Those enqueued in part become entries that
# are marked as enqueued (`queue_scripts.APPEND_ENTRIES`). Answer: how many items.
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
    """Take over the items of routers of the old version that are gone, or have our name; return how many those were."""
    prefix, key, names = stream.prefix, stream.list, stream.names
    shared = [keys.beside(prefix, key, what) for what in OF_ALL]
    try:
        consumers = sorted(bytes(name).decode() for name in await link.call("SMEMBERS", shared[-1]))
        if not consumers:
            return 0
        own = [keys.beside(prefix, key, what, name) for name in consumers for what in OF_EACH]
        words: list[Word] = [PAYLOAD, stream.hand.mark(b"") if names.marks else ""]
        words += [int(name.partition("~")[0] == names.consumer) for name in consumers]
        return int(await link.script(ADOPT, [key, stream.key, names.marks or stream.key, *shared, *own], words))
    except failures.ResponseError as error:
        if answers.passes(error):
            raise
        return 0  # items that may not be read, or whose list has another type, stay
