"""What a list source keeps in Redis, and the scripts that move items from list to list; floor 4.

An item is always in exactly one list: the source's, a consumer's processing list, or `returned`, where the items of a
consumer that is gone wait to be taken again. It leaves only when it is settled. An item whose deliveries to Redis queues
stand there, while others of its deliveries are open, is in a list beside those: `handed`, and after a death
`returned-handed`. So where it stands says what must not be done again, however many equal ones there are. All names lie in
the cluster slot of the source's list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from router.broker.server import client, keys
from router.broker.server.client import Server
from router.broker.server.link import Link, Script, Word

BLOCK = 1.0
"""Seconds that one wait for an item takes at most."""

MOST_BYTES = 8 * 1024**2
"""Bytes that one script call takes at most, and an item more."""

FEW = 10
"""Items in hand at the same time, once a process that had one of them in hand has died."""

ALONE = 2
"""Deaths after which an item is taken alone."""

REMEMBERED = 7 * 86400
"""Seconds that the count of an item's deaths is kept at least."""

# All lists are read from the right, where `LPUSH` leaves the oldest item. KEYS: the source's list, returned, processing,
# counts, handed, returned-handed, settled. ARGV: room, in hand, deaths from which an item is taken alone, few, bytes, how
# many deaths make an item a suspect (one more, and it is guilty), what is done with a suspect (`Suspects`).
# Returns how many items stood in processing and handed, how many were handed over from processing, whether an item waits:
# 1 until less is in hand, 2 a suspect; what is wrong with the source's list, then each item, its count, and whether it
# stands in handed.
TAKE = Script(
    """
local reply = {
  redis.call('LLEN', KEYS[3]) + redis.call('LLEN', KEYS[5]), tonumber(redis.call('HGET', KEYS[7], 'gone') or '0'), 0, ''
}
local room, held, bytes = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[5])
local function took(item, count, handed)
  reply[#reply + 1] = item
  reply[#reply + 1] = count
  reply[#reply + 1] = handed
  held, room, bytes = held + 1, room - 1, bytes - #item
end
local function again(from, to, handed)
  while room > 0 and bytes > 0 do
    local item = redis.call('LINDEX', from, -1)
    if not item then return true end
    local count = tonumber(redis.call('HGET', KEYS[4], redis.sha1hex(item))) or 0
    if count > 0 then
      local most = tonumber(ARGV[4])
      if count >= tonumber(ARGV[3]) then most = 1 end
      if held >= most then
        reply[3] = 1
        return false
      end
      if count == tonumber(ARGV[6]) and ARGV[7] == 'wait' then
        reply[3] = 2
        return false
      end
      if count == tonumber(ARGV[6]) and ARGV[7] == 'lower' then
        count = redis.call('HINCRBY', KEYS[4], redis.sha1hex(item), -1)
      end
      room = math.min(room, most - held)
    end
    redis.call('LMOVE', from, to, 'RIGHT', 'LEFT')
    took(item, count, handed)
  end
  return true
end
if not again(KEYS[6], KEYS[5], 1) or not again(KEYS[2], KEYS[3], 0) then return reply end
while room > 0 and bytes > 0 do
  local item = redis.pcall('LMOVE', KEYS[1], KEYS[3], 'RIGHT', 'LEFT')
  if not item then break end
  if type(item) == 'table' then
    reply[4] = item.err
    break
  end
  took(item, 0, 0)
end
return reply
"""
)

# KEYS: processing, settled, returned, counts, handed, returned-handed. ARGV: the process, batch number, how many of the
# items stand in processing, those items, then those that stand in handed. Sent again after a lost answer, the batch is
# found under its number and removes nothing more: an equal item may still be in hand. What a peer has put back meanwhile is
# removed there. The number is written last, as only the first write of a script is refused for want of memory.
REMOVE = Script(
    """
local me = ARGV[1] .. ':' .. ARGV[2] .. ':'
local last = redis.call('HGET', KEYS[2], 'batch') or ''
if string.sub(last, 1, #me) == me then return tonumber(string.sub(last, #me + 1)) end
local counted = redis.call('EXISTS', KEYS[4]) == 1
local removed, plain = 0, 3 + ARGV[3]
for i = 4, #ARGV do
  local from, back = KEYS[1], KEYS[3]
  if i > plain then from, back = KEYS[5], KEYS[6] end
  local found = redis.call('LREM', from, -1, ARGV[i])
  if found == 0 then redis.call('LREM', back, -1, ARGV[i]) end
  removed = removed + found
  if counted then redis.call('HDEL', KEYS[4], redis.sha1hex(ARGV[i])) end
end
redis.call('HSET', KEYS[2], 'batch', me .. removed)
return removed
"""
)

# KEYS: processing, returned, counts, lease, consumers, settled, handed, returned-handed. ARGV: how often an item may end a
# process, seconds that is remembered, the consumer if it is a peer: then nothing happens while it holds its lease. Only
# what was alone in hand is counted beyond the most; equal items share one count, which goes up once. That the items of a
# peer were put back is written down for a day: should it live after all, it knows that what it misses is not lost. Returns
# how many items were put back, or -1.
RECOVER = Script(
    """
local peer = ARGV[3] ~= ''
if peer and redis.call('EXISTS', KEYS[4]) == 1 then return -1 end
local number = redis.call('LLEN', KEYS[1]) + redis.call('LLEN', KEYS[7])
local seen = {}
local function back(from, to)
  for _ = 1, redis.call('LLEN', from) do
    local item = redis.call('LINDEX', from, 0)
    local name = redis.sha1hex(item)
    if not seen[name] then
      seen[name] = true
      local count = tonumber(redis.call('HGET', KEYS[3], name)) or 0
      if number == 1 or count < tonumber(ARGV[1]) then redis.call('HINCRBY', KEYS[3], name, 1) end
    end
    redis.call('LMOVE', from, to, 'LEFT', 'RIGHT')
  end
end
back(KEYS[1], KEYS[2])
back(KEYS[7], KEYS[8])
if number > 0 then redis.call('EXPIRE', KEYS[3], ARGV[2]) end
redis.call('DEL', KEYS[6])
if peer then
  redis.call('SREM', KEYS[5], ARGV[3])
  if number > 0 then
    redis.call('HSET', KEYS[6], 'returned', number)
    redis.call('EXPIRE', KEYS[6], 86400)
  end
end
return number
"""
)

# KEYS: processing, returned, handed, returned-handed, settled. ARGV: how much of what is in hand stands in handed, and how
# much may be on its way there; then those, these, and the rest. What stands in processing and handed beyond that came by
# an answer that was lost: it is put back. One of the rest may have begun its way to handed since we were asked. Returns how
# many items stand there now, those handed over from there included.
RECONCILE = Script(
    """
local stand, either, rest = {}, {}, {}
local first, second = 2 + ARGV[1], 2 + ARGV[1] + ARGV[2]
for i = 3, #ARGV do
  local held = rest
  if i <= first then held = stand elseif i <= second then held = either end
  held[ARGV[i]] = (held[ARGV[i]] or 0) + 1
end
local function look(list, back, first, second, third)
  for _ = 1, redis.call('LLEN', list) do
    local item = redis.call('LINDEX', list, 0)
    local held = first
    if (held[item] or 0) == 0 then held = second end
    if (held[item] or 0) == 0 then held = third end
    if (held[item] or 0) > 0 then
      held[item] = held[item] - 1
      redis.call('LMOVE', list, list, 'LEFT', 'RIGHT')
    else
      redis.call('LMOVE', list, back, 'LEFT', 'RIGHT')
    end
  end
  return redis.call('LLEN', list)
end
local kept = look(KEYS[3], KEYS[4], stand, either, rest) + look(KEYS[1], KEYS[2], rest, either, {})
return kept + tonumber(redis.call('HGET', KEYS[5], 'gone') or '0')
"""
)

# KEYS: processing, source, returned, counts, lease, consumers, settled, handed, returned-handed. ARGV: the consumer.
# Everything in hand goes back in its order, to the source's list where that can take it and nothing has to be remembered
# of the item. Returns how much that was.
LEAVE = Script(
    """
local number = redis.call('LLEN', KEYS[1]) + redis.call('LLEN', KEYS[8])
local kind = redis.call('TYPE', KEYS[2]).ok
for _ = 1, redis.call('LLEN', KEYS[1]) do
  local target = KEYS[2]
  if kind ~= 'list' and kind ~= 'none' then target = KEYS[3] end
  if redis.call('HEXISTS', KEYS[4], redis.sha1hex(redis.call('LINDEX', KEYS[1], 0))) == 1 then target = KEYS[3] end
  redis.call('LMOVE', KEYS[1], target, 'LEFT', 'RIGHT')
end
for _ = 1, redis.call('LLEN', KEYS[8]) do redis.call('LMOVE', KEYS[8], KEYS[9], 'LEFT', 'RIGHT') end
redis.call('DEL', KEYS[5], KEYS[7])
redis.call('SREM', KEYS[6], ARGV[1])
return number
"""
)


# KEYS: counts. ARGV: the item.
FORGIVE = Script("return redis.call('HDEL', KEYS[1], redis.sha1hex(ARGV[1]))")


class Suspects(StrEnum):
    """What `take` does with an item that is found guilty if this process dies with it alone in hand."""

    WAIT = "wait"
    """It stays where it is."""
    TAKE = "take"
    """It is taken: nothing else can be to blame."""
    LOWER = "lower"
    """It is taken, with one death less counted: another delivery may be to blame."""


@dataclass(frozen=True, slots=True)
class Names:
    """The keys that go with one list, as one consumer uses them."""

    source: str
    processing: str
    handed: str
    """Items in hand whose deliveries to Redis queues stand there."""
    settled: str
    """What has left the consumer's lists: `batch` is its last removal (`<process>:<batch number>:<removed>`), `gone` how many
    items were handed over to Redis queues, `returned` how many another router has put back when the lease had run out."""
    lease: str
    returned: str
    returned_handed: str
    counts: str
    """How often an item was in hand when its process died, by its SHA-1."""
    consumers: str


def names(prefix: str, key: str, consumer: str) -> Names:
    """The names of the keys that go with the list `key`."""
    return Names(
        source=key,
        processing=keys.beside_list(prefix, key, "processing", consumer),
        handed=keys.beside_list(prefix, key, "handed", consumer),
        settled=keys.beside_list(prefix, key, "settled", consumer),
        lease=keys.beside_list(prefix, key, "lease", consumer),
        returned=keys.beside_list(prefix, key, "returned"),
        returned_handed=keys.beside_list(prefix, key, "returned-handed"),
        counts=keys.beside_list(prefix, key, "counts"),
        consumers=keys.beside_list(prefix, key, "consumers"),
    )


class Taken(NamedTuple):
    """What one call of `take` brought.

    `length` is how many items stood in the consumer's lists before, `gone` how many were handed over from there, ever.
    `held_back` tells that an item waits until less is in hand, or, where it is a `suspect`, until there is nothing else that
    may end the process. `fault` is what Redis has against the source's list, empty where nothing. `items` are the oldest
    first, with the deaths counted against each, and whether its deliveries to Redis queues stand there.
    """

    length: int
    gone: int
    held_back: bool
    suspect: bool
    fault: str
    items: list[tuple[bytes, int, bool]]

    @property
    def listed(self) -> int:
        """What a hand-over does not change."""
        return self.length + self.gone


class Waiter(Link):
    """A connection for `BLMOVE`, which knows its number on the server."""

    def __init__(self, server: Server, patience: float) -> None:
        super().__init__(server, patience)
        self.client_id: int | None = None
        """For `CLIENT UNBLOCK`; None where it may not be asked for."""
        self._known: object = None

    async def move(self, source: str, target: str, seconds: float) -> bytes | None:
        """Wait for an item and move it from the right end of one list to the left end of the other."""
        if self._connection is None or self._connection is not self._known or client.hung_up(self._connection):
            self.client_id = await self.courtesy("CLIENT", "ID")
            self._known = self._connection
        answer = await self.call("BLMOVE", source, target, "RIGHT", "LEFT", str(seconds))
        return None if answer is None else bytes(answer)


class ListStore:
    """The commands of one consumer of lists on one server. Raises redis-py's errors; nothing is tried twice here.

    `process` is a word that no other process has. Not for use by several tasks at once, but for `wait` and `unblock`.
    """

    def __init__(self, server: Server, *, consumer: str, process: str, prefix: str, max_deliveries: int) -> None:
        self._server = server
        self.consumer = consumer
        self._process = process
        self._prefix = prefix
        self._max_deliveries = max_deliveries
        self._alone = min(ALONE, max_deliveries)
        self._link = Link(server)
        self._waiting: dict[str, Waiter] = {}

    def names(self, key: str, consumer: str | None = None) -> Names:
        """The keys that go with a list, as this consumer, or another, uses them."""
        return names(self._prefix, key, consumer or self.consumer)

    @property
    def since(self) -> float | None:
        """Since when the command under way for the longest is (`time.monotonic`); None when none is."""
        return min(
            (link.since for link in (self._link, *self._waiting.values()) if link.since is not None), default=None
        )

    def most(self, deaths: int) -> int | None:
        """How many items may be in hand together with one that has ended so many processes; None when it has not."""
        if not deaths:
            return None
        return 1 if deaths >= self._alone else FEW

    async def take(self, at: Names, room: int, held: int, suspects: Suspects = Suspects.WAIT) -> Taken:
        """Move up to `room` items into the consumer's lists. `held` are in hand already and may end the process.

        `suspects` says what is done with one that this process must not die with beside anything else.
        """
        where = (at.source, at.returned, at.processing, at.counts, at.handed, at.returned_handed, at.settled)
        limits = (room, held, self._alone, FEW, MOST_BYTES, self._max_deliveries, suspects)
        length, gone, held_back, fault, *items = await self._link.script(TAKE, where, limits)
        triples = [(item, deaths, bool(handed)) for item, deaths, handed in zip(*[iter(items)] * 3, strict=True)]
        return Taken(length, gone, held_back > 0, held_back == 2, fault.decode("utf-8", "backslashreplace"), triples)

    async def wait(self, at: Names, seconds: float = BLOCK) -> bytes | None:
        """Wait for an item, on a connection of its own; None when none came."""
        waiter = self._waiting.setdefault(at.source, Waiter(self._server, client.TIMEOUT + BLOCK))
        return await waiter.move(at.source, at.processing, seconds)

    async def unblock(self, sources: Sequence[str]) -> None:
        """End waits for items early; where that fails they end by themselves within `BLOCK` seconds."""
        for source in sources:
            waiter = self._waiting.get(source)
            if waiter is not None and waiter.client_id is not None:
                await self._link.courtesy("CLIENT", "UNBLOCK", waiter.client_id)

    async def remove(self, at: Names, number: int, items: Sequence[bytes], handed: Sequence[bytes] = ()) -> int:
        """Remove settled items, one for each given; the same batch may be sent again under its number.

        `handed` are those that stand in the list of that name. Returns how many were still in the consumer's lists.
        """
        where = (at.processing, at.settled, at.returned, at.counts, at.handed, at.returned_handed)
        return int(await self._link.script(REMOVE, where, (self._process, number, len(items), *items, *handed)))

    async def recover(self, at: Names, peer: str = "") -> int:
        """Put back what was in hand when its consumer died: this one at its start, or a peer without a lease.

        Returns how many items that were, -1 when the peer holds its lease.
        """
        where = (
            at.processing,
            at.returned,
            at.counts,
            at.lease,
            at.consumers,
            at.settled,
            at.handed,
            at.returned_handed,
        )
        return int(await self._link.script(RECOVER, where, (self._max_deliveries, REMEMBERED, peer)))

    async def reconcile(
        self, at: Names, handed: Sequence[bytes], marking: Sequence[bytes], others: Sequence[bytes]
    ) -> int:
        """Put back what stands in the consumer's lists and is not in hand; returns what is `listed` now.

        In hand are those that stand in `handed`, those that may be on their way there, and the others.
        """
        where = (at.processing, at.returned, at.handed, at.returned_handed, at.settled)
        words: list[Word] = [len(handed), len(marking), *handed, *marking, *others]
        return int(await self._link.script(RECONCILE, where, words))

    async def forgive(self, at: Names, item: bytes) -> None:
        """Forget the deaths counted against an item."""
        await self._link.script(FORGIVE, (at.counts,), (item,))

    async def renew(self, at: Names, lease: float) -> str | None:
        """Hold the lease for so many seconds more; returns the process that held it before, None when nobody did."""
        await self._link.call("SADD", at.consumers, self.consumer)
        before = await self._link.call("SET", at.lease, self._process, "PX", int(lease * 1000), "GET")
        return None if before is None else bytes(before).decode("ascii", "backslashreplace")

    async def consumers(self, at: Names) -> list[str]:
        """Who takes items of the list, or has not been seen to end."""
        return sorted(bytes(member).decode() for member in await self._link.call("SMEMBERS", at.consumers))

    async def dead_peers(self, at: Names) -> list[str]:
        """The other consumers of the list that hold no lease."""
        peers = [name for name in await self.consumers(at) if name != self.consumer]
        return [peer for peer in peers if not await self._link.call("EXISTS", self.names(at.source, peer).lease)]

    async def leave(self, at: Names) -> int:
        """Put back everything in hand and give up the lease; returns how many items that were."""
        where = (
            at.processing,
            at.source,
            at.returned,
            at.counts,
            at.lease,
            at.consumers,
            at.settled,
            at.handed,
            at.returned_handed,
        )
        return int(await self._link.script(LEAVE, where, (self.consumer,)))

    async def close(self) -> None:
        """Close every connection."""
        for link in (self._link, *self._waiting.values()):
            await link.close()
