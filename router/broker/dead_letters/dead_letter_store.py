"""The dead letters that stand in Redis: read in pages, removed, sent on to be replayed; floor 4.

Whoever writes them is in `dead_letters`, whoever takes what is to be replayed in `replays`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from router.broker.server import client, keys
from router.broker.server.link import PlainLink, Script
from router.core.accounts.dead_letter_filter import moment_of
from router.core.ids import portable
from router.events import DeadLetter

PAGE = 500
"""Letters that one command reads."""

GROUP = "event-router"
"""The consumer group of the routers on the stream of what is to be replayed."""

_NEWEST = 1
"""The version of a letter that this router knows."""

# KEYS: the dead letters. ARGV: entries. Sent twice it removes once.
_REMOVE = Script("""
local gone = {}
for i, entry in ipairs(ARGV) do gone[i] = redis.call('XDEL', KEYS[1], entry) end
return gone
""")

# KEYS: the dead letters, what is to be replayed. ARGV: entries. A letter leaves the one stream as it enters the other,
# and what has left is not found again: sent twice it moves once. The first XDEL takes nothing; it fails early where
# removing is not allowed, while nothing has been added yet.
_MOVE = Script("""
redis.call('XDEL', KEYS[1], '0-1')
local moved = {}
for i, entry in ipairs(ARGV) do
  local found = redis.call('XRANGE', KEYS[1], entry, entry)[1]
  if found then
    redis.call('XADD', KEYS[2], '*', unpack(found[2]))
    redis.call('XDEL', KEYS[1], entry)
    moved[i] = 1
  else
    moved[i] = 0
  end
end
return moved
""")


class Kept(NamedTuple):
    """A letter and where it stands."""

    entry: str
    """The id of its entry in the stream."""
    letter: DeadLetter
    newer: bool
    """Whether a newer router wrote it: this one does not know what it means."""
    unreadable: bool
    """Whether it is no letter of a router: something that stands in its fields can't be."""


class LetterStore(PlainLink):
    """Reads and moves the dead letters of the routers under one prefix. Raises `ConfigError` for a URL that isn't one."""

    def __init__(self, url: str, *, prefix: str = "event-router", client_name: str = "event-router-dlq") -> None:
        super().__init__(client.server(url, client_name=client_name), patience=30.0)
        self._dead = keys.dead(prefix)
        self._replay = keys.replay(prefix)

    async def pages(self, *, newest: bool = False) -> AsyncIterator[list[Kept]]:
        """All letters, page by page; the oldest first, or the newest."""
        command, begin, end = ("XREVRANGE", "+", "-") if newest else ("XRANGE", "-", "+")
        while True:
            found = await self.call(command, self._dead, begin, end, "COUNT", PAGE)
            if found:
                yield [_kept(entry, fields) for entry, fields in found]
            if len(found) < PAGE:
                return
            begin = f"({found[-1][0].decode()}"

    async def find(self, name: str) -> Kept | None:
        """The letter with this id (the newest of several), or with this entry id, or of this event."""
        of_event: Kept | None = None
        async for page in self.pages(newest=True):
            for kept in page:
                if name in (kept.letter.id, kept.entry):
                    return kept
                if name == kept.letter.event_id and of_event is None:
                    of_event = kept
        return of_event

    async def remove(self, entries: Sequence[str]) -> list[bool]:
        """Remove letters; says of each whether it was still there."""
        return [bool(gone) for gone in await self.script(_REMOVE, [self._dead], entries)]

    async def replay(self, entries: Sequence[str]) -> list[bool]:
        """Move letters to where the routers take them from; says of each whether it was still there."""
        return [bool(moved) for moved in await self.script(_MOVE, [self._dead, self._replay], entries)]

    @property
    def replay_key(self) -> str:
        """The key of the stream in which letters wait to be replayed."""
        return self._replay

    async def waiting(self) -> int:
        """Return the number of letters that are to be replayed and have not been dealt with."""
        return int(await self.call("XLEN", self._replay))

    async def untaken(self) -> int:
        """Return the number of letters that are to be replayed and that no router has taken."""
        if not await self.waiting():
            return 0
        groups = await self.call("XINFO", "GROUPS", self._replay)
        last = next(
            (_pairs(group)[b"last-delivered-id"] for group in groups if _pairs(group)[b"name"] == GROUP.encode()), b"-"
        )
        begin = "-" if last == b"-" else f"({last.decode()}"
        return len(await self.call("XRANGE", self._replay, begin, "+", "COUNT", 1000))


def _pairs(answer: Sequence[Any]) -> dict[bytes, Any]:
    return dict(zip(answer[::2], answer[1::2], strict=True))


def _kept(entry: bytes, fields: Sequence[bytes]) -> Kept:
    found = _pairs(fields)
    return Kept(entry.decode(), letter_of(found), newer(found), unreadable(found))


def newer(fields: Mapping[bytes, bytes]) -> bool:
    """Return whether a router newer than this one wrote the letter."""
    version = _number(fields.get(b"version", b"1"))
    return version is None or version > _NEWEST


def unreadable(fields: Mapping[bytes, bytes]) -> bool:
    """Return whether this is no letter, of no router: whoever shares the Redis may have put it there."""
    if newer(fields):
        return False
    letter = letter_of(fields)
    return (
        b"payload" not in fields
        or portable(letter.event_id) != letter.event_id
        or not letter.reason.isidentifier()
        or not (letter.source and letter.channel)
        or _number(fields.get(b"attempts", b"0")) is None
        or (letter.headers is None and b"headers" in fields)
        or moment_of(letter.received_at) is None
        or moment_of(letter.failed_at) is None
    )


def _number(digits: bytes) -> int | None:
    """A number of at most nine digits; None for anything else: Python takes no number of more than 4,300."""
    return int(digits) if digits.isdigit() and len(digits) < 10 else None


def letter_of(fields: Mapping[bytes, bytes]) -> DeadLetter:
    """The letter that an entry of the stream holds; what is missing in it is empty."""

    def said(name: str) -> str | None:
        value = fields.get(name.encode())
        return None if value is None else value.decode("utf-8", "backslashreplace")

    return DeadLetter(
        id=said("id") or "",
        event_id=said("event_id") or "",
        reason=said("reason") or "",
        detail=said("detail") or "",
        source=said("source") or "",
        channel=said("channel") or "",
        received_at=said("received_at") or "",
        failed_at=said("failed_at") or "",
        payload=fields.get(b"payload", b""),
        pattern=said("pattern"),
        headers=_headers(fields.get(b"headers")),
        route=said("route"),
        sink=said("sink"),
        address=said("address"),
        key=said("key"),
        attempts=_number(fields.get(b"attempts", b"0")) or 0,
    )


def _headers(raw: bytes | None) -> dict[str, str] | None:
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw, type=dict[str, str])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
