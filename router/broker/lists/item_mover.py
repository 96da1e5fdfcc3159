"""Moves items from lists into the streams beside them, and waits for items; floor 4.

An item is always in one of three places: in its list, in the list `landing`, or in the stream. In the stream the item
is a pending entry of the router that moved it. `BLMOVE` waits for an item. It can't write to a stream, so it moves the
item to `landing`. The next move by any router takes the item from `landing`. So no item is lost if a router dies
between the two moves, or if an answer of Redis is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from redis import exceptions as failures
from structlog.stdlib import BoundLogger

from router.broker.groups.group import Refused
from router.broker.groups.group_scripts import LAST_ID
from router.broker.groups.group_stream import Stream
from router.broker.lists.adoption import adopt
from router.broker.lists.list_stream import PAYLOAD, ListStream
from router.broker.server import answers, client
from router.broker.server.client import Server
from router.broker.server.link import Link, Script, Word, cancelled
from router.events import text

BLOCK = 1.0
"""The maximum number of seconds that one BLMOVE waits for an item."""

MOST_BYTES = 8 * 1024**2
"""The total size in bytes at which one script call stops moving items. The last item may exceed this size."""

# Moves items from `landing`, then from the list, into the stream, and reads them as new entries of the group.
# KEYS: the list, landing, the stream.
# ARGV[1]: the group.
# ARGV[2]: our consumer.
# ARGV[3]: the largest number of items.
# ARGV[4]: the total size in bytes at which the script stops moving items.
# ARGV[5]: the field of an entry that holds the item.
# Items are taken from the right end of the list. If producers use LPUSH, the oldest item is there. XADD comes before
# RPOP: Redis does not roll scripts back, so a refused XADD after an RPOP would lose the item. If the group was created
# again, the read returns older entries of the stream first.
# Answer: the server's error for the list, or ''; 1 if the list may have more items; the entries.
MOVE = Script(
    """
local room, bytes = tonumber(ARGV[3]), tonumber(ARGV[4])
local function move(from)
  while room > 0 and bytes > 0 do
    local item = redis.pcall('LINDEX', from, -1)
    if not item then return '' end
    if type(item) == 'table' then return item.err end
    redis.call('XADD', KEYS[3], '*', ARGV[5], item)
    redis.call('RPOP', from)
    room, bytes = room - 1, bytes - #item
  end
  return ''
end
local fault = move(KEYS[2])
if fault ~= '' then return redis.error_reply(fault) end
fault = move(KEYS[1])
local more = (room <= 0 or bytes <= 0) and 1 or 0
local read = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', ARGV[3], 'STREAMS', KEYS[3], '>')
return {fault, more, read and read[1][2] or {}}
"""
)

# Checks the user's permissions: calls every command that the scripts use, in a form that changes nothing. For example,
# RPUSH on a stream and XADD with the id 0-0 always fail.
# KEYS: the list; landing; the stream, which exists. ARGV: the field of an entry that holds the item; the group; our consumer.
# Answer: the name and the error of each command that failed.
PROBE = Script(
    """
local told = {}
local function try(command, ...)
  local answer = redis.pcall(command, ...)
  if type(answer) == 'table' and answer.err then
    told[#told + 1] = command
    told[#told + 1] = answer.err
  end
end
try('LINDEX', KEYS[1], -1)
try('RPOP', KEYS[1], 0)
try('LMOVE', KEYS[2], KEYS[2], 'LEFT', 'LEFT')
try('XADD', KEYS[3], '0-0', ARGV[1], '')
try('XDEL', KEYS[3], '0-0')
try('XREADGROUP', 'GROUP', ARGV[2], ARGV[3], 'COUNT', 1, 'STREAMS', KEYS[3], '"""
    + LAST_ID
    + """')
if not redis.pcall('XINFO', 'STREAM', KEYS[3]).err then try('RPUSH', KEYS[3], '') end
return told
"""
)


class _List:
    """The state of one list of an `ItemMover`."""

    def __init__(self, stream: ListStream, link: Link) -> None:
        self.stream = stream
        self.link = link
        self.waiting: asyncio.Task[None] | None = None
        """The task that waits for items."""
        self.ready = True
        """True if the list may have items."""
        self.fault: str | None = None
        """The server's error for this list, or None."""
        self.again_at = 0.0


class ItemMover:
    """Implements `group_reader.New` for items of lists.

    `link` is the reader's connection. If a list can't be read, the mover tries this list again after `again` seconds,
    and goes on reading the other lists. If there are several lists, each list has its own connection for waiting. A
    wait may move one item to `landing` although there is no room for more items. The item stays in `landing` until
    there is room again.
    """

    def __init__(
        self,
        server: Server,
        link: Link,
        streams: Sequence[ListStream],
        *,
        again: float,
        now: Callable[[], float],
        log: BoundLogger,
    ) -> None:
        self._server = server
        self._link = link
        self._again = again
        self._now = now
        self._log = log
        self._alone = len(streams) == 1  # if there is only one list, the wait may block the reader's connection
        self._lists = [_List(each, link if self._alone else Link(server, client.TIMEOUT + BLOCK)) for each in streams]
        self._over = False
        self._woken = asyncio.Event()

    @property
    def fault(self) -> str | None:
        """The faults of lists that can't be read, or None. The mover goes on reading the other lists."""
        faults = [each.fault for each in self._lists if each.fault]
        return f"{self._server.shown}: {'; '.join(faults)}" if faults else None

    @property
    def since(self) -> float | None:
        """The time at which the command under way began (`time.monotonic`); None if no command is under way."""
        return min((each.link.since for each in self._lists if each.link.since is not None), default=None)

    async def prepare(self, stream: Stream) -> None:
        """Check the user's permissions, and adopt items of an older version. Raises `Refused` if a permission is missing."""
        found = self._list_of(stream)
        await self._probe(found)
        number = await adopt(self._link, found)
        if number:
            message = "this router has taken over items that an older version of the router had in flight"
            self._log.warning(message, key=found.list, number=number)

    async def try_reading(self, stream: Stream) -> None:
        """Check the permissions again, by commands that return no items."""
        try:
            await self._probe(self._list_of(stream))
        except Refused as error:
            raise failures.NoPermissionError(str(error)) from error

    def _list_of(self, stream: Stream) -> ListStream:
        (found,) = (each.stream for each in self._lists if each.stream is stream)
        return found

    async def _probe(self, stream: ListStream) -> None:
        """Send every command that will be needed, in a form that changes nothing.

        Raises `Refused` if a command is not allowed.
        """
        keys: list[str | bytes] = [stream.list, stream.landing, stream.key]
        words = [PAYLOAD, stream.names.group, stream.names.consumer]
        command = "EVAL"
        try:
            told = [text(word) for word in await self._link.script(PROBE, keys, words)]
            command = "BLMOVE"
            await self._link.call("BLMOVE", stream.landing, stream.landing, "RIGHT", "RIGHT", "0.001")
        except failures.NoPermissionError as error:
            raise Refused(command, stream.list, str(error), "list") from error
        for name, why in zip(told[::2], told[1::2], strict=True):
            if answers.is_denial(why):
                raise Refused(name, stream.list, answers.unwrapped_text(why), "list")

    async def read(self, room: int) -> list[Any]:
        """Move items into their streams and return them as entries. If there are no items, wait briefly and return nothing."""
        try:
            rows = await self._move(room)
            if not rows:
                await self._wait(room)
        except BaseException:
            await self.close()
            raise
        return rows

    async def end(self) -> None:
        """End the waiting for items."""
        self._over = True
        if self._alone and not self._lists[0].ready:
            await self._link.close()  # an item that BLMOVE moves at this moment stays in `landing`
        await self.close()

    async def close(self) -> None:
        """End the waits, and close their connections."""
        waits = [each.waiting for each in self._lists if each.waiting is not None]
        await cancelled(waits)
        for wait in waits:
            if not wait.cancelled():
                wait.exception()  # otherwise asyncio logs the error; if the error lasts, the next wait raises it again
        for each in self._lists:
            each.waiting, each.ready = None, True
            if each.link is not self._link:
                await each.link.close()
        self._woken.set()

    async def _move(self, room: int) -> list[Any]:
        rows: list[Any] = []
        for each in list(self._lists):
            if room <= 0:
                break
            if each.ready and self._now() >= each.again_at:
                entries = await self._move_from(each, room)
                room -= len(entries)
                if entries:
                    rows.append((each.stream.key, entries))
        # Move the first list to the end, so that the lists take turns at being first.
        self._lists.append(self._lists.pop(0))
        return rows

    async def _move_from(self, each: _List, room: int) -> list[Any]:
        stream = each.stream
        keys: list[str | bytes] = [stream.list, stream.landing, stream.key]
        words: list[Word] = [stream.names.group, stream.names.consumer, room, MOST_BYTES, PAYLOAD]
        fault, more, entries = await self._link.script(MOVE, keys, words)
        self._note_fault(each, answers.unwrapped_text(text(fault)))
        each.ready = bool(more or fault)
        return [(entry[0], entry[1]) for entry in entries]

    async def _wait(self, room: int) -> None:
        """Wait until a list may have items.

        At most `room` lists are waited for, because each wait may move an item to `landing`.
        """
        if self._alone and not self._over and not self._lists[0].ready:
            # Wait here and not in a task: to create a task and wait for its end takes several turns of the event loop.
            await self._wait_for(self._lists[0])
            self._lists[0].ready = True
            return
        now = self._now()
        room -= sum(each.waiting is not None for each in self._lists)
        for each in self._lists:
            if room > 0 and each.waiting is None and not each.ready and not self._over:
                each.waiting = asyncio.create_task(self._wait_for(each), name=f"wait for {each.stream.list}")
                room -= 1
        waits = [each.waiting for each in self._lists if each.waiting is not None]
        again = min((each.again_at - now for each in self._lists if each.again_at > now), default=None)
        if not waits:
            await self._pause(again)
            return
        done, _ = await asyncio.wait(waits, timeout=again, return_when=asyncio.FIRST_COMPLETED)
        for each in self._lists:
            if each.waiting in done:
                each.waiting, each.ready = None, True
        for task in done:
            if not task.cancelled():
                task.result()

    async def _wait_for(self, each: _List) -> None:
        stream = each.stream
        try:
            await each.link.call("BLMOVE", stream.list, stream.landing, "RIGHT", "LEFT", str(BLOCK))
        except failures.ResponseError as error:
            said = answers.error_text(error)
            if not said.startswith("WRONGTYPE"):
                raise
            self._note_fault(each, said)

    async def _pause(self, seconds: float | None) -> None:
        """Wait for this number of seconds (None: `BLOCK`), or until the end is requested."""
        if not self._over:
            self._woken.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BLOCK if seconds is None else seconds):
                    await self._woken.wait()

    def _note_fault(self, each: _List, fault: str) -> None:
        """Store the server's error for a list (empty: no error), and log it if it has changed."""
        if fault:
            fault = f"{fault} (the list {each.stream.list!r})"
            each.again_at = self._now() + self._again
            if fault != each.fault:
                self._log.error(
                    "a list can't be read; the router tries again, and goes on reading the other lists", reason=fault
                )
        elif each.fault:
            self._log.warning("the list can be read again", key=each.stream.list)
        each.fault = fault or None
