"""The store of dead letters in Redis: reads letters in pages, removes letters, moves letters to the replay stream; floor 4.

`dead_letter_writer` writes dead letters; `engine.dead_letters.replays` reads the replay stream.
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
"""The largest number of letters that one command reads."""

GROUP = "event-router"
"""The consumer group of the routers on the replay stream."""

_TEXTS = frozenset(
    {
        *(b"id", b"event_id", b"reason", b"detail", b"source", b"channel", b"received_at", b"failed_at"),
        *(b"pattern", b"route", b"sink", b"address", b"key"),
    }
)
"""The fields of a letter that have strings as values."""

_NEWEST = 1
"""The newest value of the field `version` that this router can read. Newer routers may write a higher value."""

# Removes dead letters. KEYS: the stream of dead letters. ARGV: entry ids. Answer: for each id 1 if its letter was
# removed, else 0.
_REMOVE = Script("""
local gone = {}
for i, entry in ipairs(ARGV) do gone[i] = redis.call('XDEL', KEYS[1], entry) end
return gone
""")

# Moves dead letters to the replay stream. KEYS: the stream of dead letters; the replay stream. ARGV: entry ids.
# Answer: for each id 1 if the letter was moved, 0 if it no longer exists.
# One step adds a letter to the replay stream and removes it from the stream of dead letters, so the script is
# idempotent. The first XDEL removes nothing, and is only a test: if the user has no permission for XDEL, the script
# fails before it adds anything.
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
    """A dead letter and its entry in the stream."""

    entry: str
    """The id of the letter's entry in the stream."""
    letter: DeadLetter
    newer: bool
    """True if a newer router wrote the letter, so that this router can't interpret it."""
    unreadable: bool
    """True if the entry was not written by a router: a field is missing or has an impossible value."""


class LetterStore(PlainLink):
    """The dead letters under one key prefix. The constructor raises `ConfigError` for an invalid URL."""

    def __init__(self, url: str, *, prefix: str = "event-router", client_name: str = "event-router-dlq") -> None:
        super().__init__(client.server(url, client_name=client_name), patience=30.0)
        self._dead = keys.dead(prefix)
        self._replay = keys.replay(prefix)

    async def pages(self, *, newest: bool = False) -> AsyncIterator[list[Kept]]:
        """Yield all letters in pages of up to `PAGE` letters: the oldest first, or the newest first if `newest` is True."""
        command, begin, end = ("XREVRANGE", "+", "-") if newest else ("XRANGE", "-", "+")
        while True:
            found = await self.call(command, self._dead, begin, end, "COUNT", PAGE)
            if found:
                yield [_kept(entry, fields) for entry, fields in found]
            if len(found) < PAGE:
                return
            begin = f"({found[-1][0].decode()}"

    async def find(self, name: str) -> Kept | None:
        """Return the newest letter with the id or entry id `name`.

        If no letter has this id, return the newest letter of the event with the id `name`. Return None if that event
        has no letter either.
        """
        of_event: Kept | None = None
        async for page in self.pages(newest=True):
            for kept in page:
                if name in (kept.letter.id, kept.entry):
                    return kept
                if name == kept.letter.event_id and of_event is None:
                    of_event = kept
        return of_event

    async def remove(self, entries: Sequence[str]) -> list[bool]:
        """Remove the letters with these entry ids; return for each id whether the letter still existed."""
        return [bool(gone) for gone in await self.script(_REMOVE, [self._dead], entries)]

    async def replay(self, entries: Sequence[str]) -> list[bool]:
        """Move the letters with these entry ids to the replay stream. Returns for each id whether the letter still
        existed.
        """
        return [bool(moved) for moved in await self.script(_MOVE, [self._dead, self._replay], entries)]

    @property
    def replay_key(self) -> str:
        """The key of the stream in which letters wait to be replayed."""
        return self._replay

    async def waiting(self) -> int:
        """Return the number of letters in the replay stream. These letters wait for a router, or are not acknowledged
        yet.
        """
        return int(await self.call("XLEN", self._replay))

    async def untaken(self) -> int:
        """Return the number of letters in the replay stream that no router has read yet.

        The result is at most 1,000.
        """
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
    letter = letter_of(found)
    return Kept(entry.decode(), letter, newer(found), unreadable(found, letter))


def newer(fields: Mapping[bytes, bytes]) -> bool:
    """Return whether a router newer than this one wrote the letter."""
    version = _number(fields.get(b"version", b"1"))
    return version is None or version > _NEWEST


def unreadable(fields: Mapping[bytes, bytes], letter: DeadLetter) -> bool:
    """Return True if another program that uses the same Redis wrote these fields. A router never writes such fields.

    `letter` is the result of `letter_of` for these fields.
    """
    if newer(fields):
        return False
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
    """Return the number that these digits stand for; None if `digits` is not one to nine decimal digits.

    The length is limited because `int` raises an error for more than 4,300 digits.
    """
    return int(digits) if digits.isdigit() and len(digits) < 10 else None


def letter_of(fields: Mapping[bytes, bytes]) -> DeadLetter:
    """Return the letter that the fields of a stream entry describe. Missing fields become empty."""
    text = {name: value.decode("utf-8", "backslashreplace") for name, value in fields.items() if name in _TEXTS}
    return DeadLetter(
        id=text.get(b"id", ""),
        event_id=text.get(b"event_id", ""),
        reason=text.get(b"reason", ""),
        detail=text.get(b"detail", ""),
        source=text.get(b"source", ""),
        channel=text.get(b"channel", ""),
        received_at=text.get(b"received_at", ""),
        failed_at=text.get(b"failed_at", ""),
        payload=fields.get(b"payload", b""),
        pattern=text.get(b"pattern"),
        headers=_headers(fields.get(b"headers")),
        route=text.get(b"route"),
        sink=text.get(b"sink"),
        address=text.get(b"address"),
        key=text.get(b"key"),
        attempts=_number(fields.get(b"attempts", b"0")) or 0,
        fallback=fields.get(b"fallback") == b"1",
    )


def _headers(raw: bytes | None) -> dict[str, str] | None:
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw, type=dict[str, str])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
