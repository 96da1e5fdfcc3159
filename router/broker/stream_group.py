"""The consumer group of a stream source: making it, finding it again when it is lost, taking entries over; floor 4."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from enum import StrEnum
from typing import Any

from redis import exceptions as failures

from router.broker.link import Link, Script, Word
from router.broker.stream_entries import Stream
from router.core import claims
from router.core.claims import Pending

PAGE = 500
"""Entries asked for at once."""

LAST_ID = b"18446744073709551615-18446744073709551614"
"""An id that nothing comes after. Not the very last one: that is how the server itself writes `>`."""

Entry = tuple[bytes, list[bytes]]
"""An entry as it stands in a stream: its id; field, value, field, value …"""

# KEYS: the stream. ARGV: group, our consumer, milliseconds. Deletes the consumers that nobody has heard of for so long and
# that have nothing pending: deleting one deletes its pending entries, so both must be one step.
SWEEP = Script("""
local deleted = 0
for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local consumer = {}
  for i = 1, #row, 2 do consumer[row[i]] = row[i + 1] end
  if consumer.name ~= ARGV[2] and consumer.pending == 0 and consumer.idle >= tonumber(ARGV[3]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer.name)
    deleted = deleted + 1
  end
end
return deleted
""")


class Loss(StrEnum):
    """What was lost while the source ran."""

    STREAM = "the stream"
    GROUP = "the consumer group"


class Refused(Exception):  # noqa: N818  # it is told as a ConfigError
    """The server's user may not send a command, or the key holds something else than a stream."""

    def __init__(self, command: str, stream: str, answer: str) -> None:
        super().__init__(f"refuses {command} on the stream {stream!r}: {answer}")


class Group:
    """Commands about one group and our consumer in it; raises redis-py's errors.

    `idle` is after how many seconds entries are taken over. Times of the server are its own.
    """

    def __init__(self, link: Link, group: str, consumer: str, *, start: str, idle: float) -> None:
        self._link = link
        self._group = group
        self._consumer = consumer
        self._start = "$" if start == "new" else "0"
        self._idle = max(1, int(idle * 1000))

    async def probe(self, stream: Stream) -> None:
        """Send every command that will be needed, in a form that changes nothing. Raises `Refused`."""
        key, group, consumer = stream.key, self._group, self._consumer
        far = 2**53
        await self._tried(stream, *self._reading_nothing(stream))
        for words in (
            ("XACK", key, group, "0-0"),
            ("XPENDING", key, group),
            ("XCLAIM", key, group, consumer, far, "0-0", "JUSTID"),
            ("XAUTOCLAIM", key, group, consumer, far, LAST_ID, "COUNT", 1, "JUSTID"),
            ("XRANGE", key, LAST_ID, LAST_ID),
            ("XINFO", "STREAM", key),
            ("XINFO", "GROUPS", key),
            ("XINFO", "CONSUMERS", key, group),
        ):
            await self._tried(stream, *words)

    async def try_reading(self, stream: Stream) -> None:
        """Send a read that brings nothing: a server that answers the questions about a group may yet refuse to read."""
        await self._link.call(*self._reading_nothing(stream))

    def _reading_nothing(self, stream: Stream) -> tuple[Word, ...]:
        return ("XREADGROUP", "GROUP", self._group, self._consumer, "COUNT", 1, "STREAMS", stream.key, LAST_ID)

    async def make(self, stream: Stream) -> None:
        """Make the group where it is not there, and the stream with it. Raises `Refused`."""
        try:
            await self._tried(stream, "XGROUP", "CREATE", stream.key, self._group, self._start, "MKSTREAM")
        except failures.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
        stream.known = True
        found = await self._last_delivered(stream)
        if found is not None:
            stream.last = stream.group_last = found
        stream.added = (await self._about(stream) or {}).get(b"entries-added")

    async def _tried(self, stream: Stream, *words: Word) -> Any:
        try:
            return await self._link.call(*words)
        except failures.NoPermissionError as error:
            raise Refused(str(words[0]), stream.name, str(error)) from error
        except failures.ResponseError as error:
            if str(error).startswith("WRONGTYPE"):
                raise Refused(str(words[0]), stream.name, "the key holds something that is no stream") from error
            raise

    async def heal(self, stream: Stream) -> Loss | None:
        """Make the group anew where it is lost; returns what was lost, None when all is there.

        What is in hand stays ours: it is pending in the new group too, or that brings it again.
        """
        lost = None
        if await self._last_delivered(stream) is None:
            lost = await self._make_anew(stream)
        if lost is Loss.GROUP or (stream.group_lost and lost is None):
            begins = await self._last_delivered(stream)
            if begins is not None:
                stream.resumed(begins)
        stream.group_lost = False
        while stream.orphans:
            chunk = stream.orphans[:PAGE]
            await self._link.call("XCLAIM", stream.key, self._group, self._consumer, 0, *chunk, "FORCE", "JUSTID")
            stream.adopted(len(chunk))
        return lost

    async def _make_anew(self, stream: Stream) -> Loss:
        about = await self._about(stream)
        lost = Loss.GROUP
        if about is None or claims.is_new(
            stream.last,
            stream.added,
            newest=about[b"last-generated-id"],
            added_now=about.get(b"entries-added"),
        ):
            lost = Loss.STREAM
            stream.forget()
        after = b"0" if lost is Loss.STREAM else self._resume(stream)
        try:
            await self._link.call("XGROUP", "CREATE", stream.key, self._group, after, "MKSTREAM")
        except failures.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):  # another router was quicker
                raise
        stream.added = None if about is None else about.get(b"entries-added")
        return lost

    @staticmethod
    def _resume(stream: Stream) -> bytes:
        """After which id a group that was lost goes on.

        What was delivered to us is over or in our hand. Where there are others nobody knows what they had in hand: from
        the oldest entry that was pending at the last look, or that we have.
        """
        if not stream.peers:
            return stream.last
        return claims.resume_after(stream.group_last, [*stream.hand(), *filter(None, [stream.lowest])])

    async def _last_delivered(self, stream: Stream) -> bytes | None:
        """The last id delivered to the group, None when there is no group."""
        for row in await self._rows("GROUPS", stream.key):
            if row[b"name"] == self._group.encode():
                found: bytes = row[b"last-delivered-id"]
                return found
        return None

    async def _rows(self, *words: Word) -> list[dict[bytes, Any]]:
        try:
            rows = await self._link.call("XINFO", *words)
        except failures.ResponseError as error:
            if _is_gone(error):
                return []
            raise
        return [_named(row) for row in rows]

    async def _about(self, stream: Stream) -> dict[bytes, Any] | None:
        """What the server says of the stream, None when there is none."""
        try:
            return _named(await self._link.call("XINFO", "STREAM", stream.key))
        except failures.ResponseError as error:
            if _is_gone(error):
                return None
            raise

    async def look(self, stream: Stream) -> None:
        """Remember what would have to be known if the group were lost: the oldest pending entry, whether others read."""
        last = await self._last_delivered(stream)
        about = await self._about(stream)
        summary = await self._link.call("XPENDING", stream.key, self._group)
        consumers = await self._rows("CONSUMERS", stream.key, self._group)
        if last is None or about is None:
            return  # it is gone meanwhile: the next read will say so
        stream.group_last, stream.added, stream.lowest = last, about.get(b"entries-added"), summary[1]
        ours = self._consumer.encode()
        stream.peers = any(row[b"name"] != ours and (row[b"pending"] or row[b"idle"] < self._idle) for row in consumers)

    async def pending(self, stream: Stream) -> AsyncIterator[list[Pending]]:
        """Our own pending entries that are not in hand, page by page."""
        start = "-"
        while True:
            hand = stream.hand()  # what is acknowledged while the answer is on its way may still stand in it
            rows = await self._link.call("XPENDING", stream.key, self._group, start, "+", PAGE, self._consumer)
            hand |= stream.hand()
            yield [Pending(row[0], row[3]) for row in rows if row[0] not in hand]
            if len(rows) < PAGE:
                return
            start = f"({rows[-1][0].decode()}"

    async def take(
        self, stream: Stream, ids: Sequence[bytes], count: int | None = None
    ) -> tuple[list[Entry], list[bytes]]:
        """Deliver pending entries to us once more, which raises the count of each, or sets it to `count`.

        Returns those that the stream still holds, and the ids of those that it does not.
        """
        counted: tuple[Word, ...] = () if count is None else ("RETRYCOUNT", count)
        reply = await self._link.call("XCLAIM", stream.key, self._group, self._consumer, 0, *ids, *counted)
        found = [(entry[0], entry[1]) for entry in reply if entry is not None and entry[1] is not None]
        there = {entry[0] for entry in found}
        missing = [one for one in ids if one not in there]
        return found, [one for one in missing if not await self._link.call("XRANGE", stream.key, one, one)]

    async def read(self, stream: Stream, entry_id: bytes) -> Entry | None:
        """One entry as it stands in the stream, None when it was trimmed."""
        rows = await self._link.call("XRANGE", stream.key, entry_id, entry_id)
        return (rows[0][0], rows[0][1]) if rows else None

    async def take_over(self, stream: Stream, most: int) -> tuple[int, int]:
        """Make entries ours that nobody has touched for `idle`, at most `most`; their count stays as it is.

        Returns how many there are, and how many were trimmed: those are off the books.
        """
        cursor, taken, trimmed = b"0-0", 0, 0
        while taken < most:
            count = min(PAGE, most - taken)
            reply = await self._link.call(
                "XAUTOCLAIM", stream.key, self._group, self._consumer, self._idle, cursor, "COUNT", count, "JUSTID"
            )
            taken += len(reply[1])
            trimmed += len(reply[2]) if len(reply) > 2 else 0  # Redis 6.2 has no third element
            cursor = reply[0]
            if cursor == b"0-0":
                break
        return taken, trimmed

    async def sweep(self, stream: Stream) -> int:
        """Delete the consumers of routers long gone that left nothing pending; returns how many."""
        words = (self._group, self._consumer, self._idle)
        return int(await self._link.script(SWEEP, [stream.name], words))


def _is_gone(error: failures.ResponseError) -> bool:
    text = str(error)
    return text.startswith("NOGROUP") or "no such key" in text.lower()


def _named(row: list[Any]) -> dict[bytes, Any]:
    return dict(zip(row[::2], row[1::2], strict=True))
