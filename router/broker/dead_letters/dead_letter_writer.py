"""The writer of dead letters: takes them without waiting, appends them in batches to one bounded stream; floor 4.

An entry of the stream has the fields of `DeadLetter` by their names, `headers` as a JSON object, `payload` the raw bytes,
and `version` (1). A field that is None is left out.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec
import structlog

from router.broker.server import client, keys
from router.broker.server.health import Health, reach
from router.broker.server.link import Script, Word
from router.broker.server.outage import Outage
from router.broker.server.outbox import Batch, Buffer, Outbox
from router.broker.server.repeating import Repeating
from router.contracts import Clock
from router.errors import ConfigError
from router.events import DeadLetter

log = structlog.stdlib.get_logger(__name__)

NAME = "dead letters"
"""What errors and tasks call the writer."""

VERSION = b"1"
BATCH = 500
"""Letters that one script call appends at most."""

BATCH_BYTES = 1024**2
"""Bytes that one script call carries at most; a larger letter travels alone."""

OVERHEAD = 1024
"""Bytes that a waiting letter takes in memory beside its payload, detail and headers."""

TELL_EVERY = 60.0
"""Seconds between two log lines that count the same thing."""

LOOK_EVERY = 60.0
"""Seconds between two looks for letters that are too old, where no new ones come; a tenth of the age where that is less."""

# KEYS: the stream, the writer's guard. ARGV: batch number, most letters, longest age in milliseconds, then each letter:
# how many words, its fields and values. The age is measured by the server's clock, which made the ids of the entries.
# A batch whose answer was lost is sent again under its number: what the guard remembers is not appended twice. The SET
# and the trim before the first XADD fail early where they are not allowed, while nothing is appended yet; the SET stands
# first because a server that is out of memory refuses a script only at its first write, and a trim it never refuses.
# A batch without letters, sent now and then, writes only where a letter is too old.
APPEND = Script("""
local last, full, old = string.match(redis.call('GET', KEYS[2]) or '', '^(%d+):(%d+):(%d+)$')
if last and tonumber(last) >= tonumber(ARGV[1]) then return {tonumber(full), tonumber(old)} end
local now = redis.call('TIME')
local oldest = math.max(now[1] * 1000 + math.floor(now[2] / 1000) - ARGV[3], 0)
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
if #ARGV == 3 and not (first and tonumber(string.match(first[1], '^%d+')) < oldest) then return {0, 0} end
redis.call('SET', KEYS[2], (ARGV[1] - 1) .. ':0:0', 'EX', 86400)
old = redis.call('XTRIM', KEYS[1], 'MINID', '=', string.format('%.0f', oldest))
full = redis.call('XTRIM', KEYS[1], 'MAXLEN', '=', ARGV[2])
local i = 4
while i <= #ARGV do
  redis.call('XADD', KEYS[1], '*', unpack(ARGV, i + 1, i + ARGV[i]))
  i = i + 1 + ARGV[i]
end
full = full + redis.call('XTRIM', KEYS[1], 'MAXLEN', '=', ARGV[2])
redis.call('SET', KEYS[2], ARGV[1] .. ':' .. full .. ':' .. old, 'EX', 86400)
return {full, old}
""")

_FIELDS = tuple(name for name in DeadLetter.__struct_fields__ if name != "written")


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of the stream (letters, and seconds that each stays) and of what waits for Redis in memory (bytes)."""

    max_events: int = 100_000
    max_age: float = 30 * 86400.0
    buffer_bytes: int = 64 * 1024**2


class Tally:
    """Counts something and logs it: the first at once, the rest in sums, one line a minute at most."""

    def __init__(self, clock: Clock, message: str) -> None:
        self.count = 0
        self._clock = clock
        self._message = message
        self._told = 0
        self._told_at = float("-inf")

    def add(self, number: int) -> None:
        """Count `number` more."""
        self.count += number
        if self._clock.monotonic() - self._told_at >= TELL_EVERY:
            self.tell()

    def tell(self) -> None:
        """Log what has not been logged yet."""
        if self.count > self._told:
            log.error(self._message, letters=self.count - self._told, in_all=self.count)
            self._told, self._told_at = self.count, self._clock.monotonic()


class DeadLetterWriter:
    """Appends dead letters to the stream `{prefix}:dead`, which keeps the newest `max_events`, each for `max_age` seconds.

    While Redis refuses writes the letters wait in memory, `buffer_bytes` of them; what comes on top is dropped and
    counted (reason `outage`). `connect_timeout` is how long `start` tries to reach Redis, None for ever; `waiting` is told
    why, each time a try fails. Raises `ConfigError` for a URL that isn't one.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Clock,
        prefix: str = "event-router",
        client_name: str = "event-router",
        bounds: Bounds | None = None,
        connect_timeout: float | None = 10.0,
        waiting: Callable[[str], None] | None = None,
        first_delay: float = 0.1,
        longest_delay: float = 5.0,
    ) -> None:
        server = client.server(url, client_name=client_name)
        limit = {} if connect_timeout is None else {"seconds_at_most": connect_timeout}
        no_redis = partial(log.warning, "no Redis yet; trying on", **limit)
        delays = first_delay, longest_delay
        self._starting = Health(server.shown, Outage(clock), begins=no_redis, delays=delays)
        self._health = Health(server.shown, Outage(clock), begins=self._log_begin, ends=self._log_end, delays=delays)
        self._outbox = Outbox(NAME, server, APPEND, self, self._health)
        self._expiry = Repeating(f"{NAME}: expiry", self._remove_old, LOOK_EVERY)
        self._keys = keys.dead(prefix), keys.dead_batch(prefix, os.urandom(8).hex())
        self._connect_timeout = connect_timeout
        self._tell_waiting = waiting
        self._letters: deque[DeadLetter] = deque()
        self._batch: list[DeadLetter] = []
        self._buffer = Buffer(0)
        self.written = 0
        """Letters that stand in the stream, or stood there."""
        self._evictions = Tally(clock, "dead letters evicted: the stream is full, its oldest entries made room")
        self._expiries = Tally(clock, "dead letters evicted: they are older than dead_letters.max_age")
        self._drops = Tally(clock, "dead letters dropped: more wait for Redis than redis.outage_buffer holds")
        self.configure(bounds or Bounds())

    def configure(self, bounds: Bounds) -> None:
        """Take other bounds, from the next batch on."""
        self._bounds = bounds
        self._buffer.limit = bounds.buffer_bytes
        self._expiry.every = min(LOOK_EVERY, bounds.max_age / 10)

    @property
    def reason(self) -> str | None:
        """Why letters can't be written; None while they can."""
        return self._starting.reason or self._health.reason

    @property
    def evicted(self) -> int:
        """Letters that left the stream because it was full."""
        return self._evictions.count

    @property
    def expired(self) -> int:
        """Letters that left the stream because of their age."""
        return self._expiries.count

    @property
    def dropped(self) -> int:
        """Letters dropped because the outage buffer was full."""
        return self._drops.count

    @property
    def waiting(self) -> int:
        """Letters that are not in Redis yet."""
        return len(self._letters) + len(self._batch)

    @property
    def waiting_bytes(self) -> int:
        """Bytes of memory that waiting letters take."""
        return self._buffer.used

    def add(self, letters: Sequence[DeadLetter]) -> None:
        """Keep these letters; never waits, never raises."""
        dropped = 0
        for letter in letters:
            size = _size(letter)
            if self._buffer.used + size > self._buffer.limit:
                dropped += 1
                continue
            self._buffer.used += size
            self._letters.append(letter)
        if dropped:
            self._drops.add(dropped)
        if self._letters:
            self._outbox.wake()

    async def start(self) -> None:
        """Reach Redis and begin to write.

        Raises `UnavailableError` when there is no server within `connect_timeout`, `ConfigError` for a refused login.
        """
        await reach(
            self._outbox.link.open, self._starting, who=NAME, within=self._connect_timeout, waiting=self._tell_waiting
        )
        self._outbox.start()
        self._expiry.start()

    async def drain(self, timeout: float) -> int:  # noqa: ASYNC109  # it returns what is left instead of raising
        """Write what waits, for `timeout` seconds at most, and end; returns how many letters are left unwritten."""
        await self._expiry.close()
        await self._outbox.drain(timeout)
        for tally in (self._evictions, self._expiries, self._drops):
            tally.tell()
        return self.waiting

    def next_batch(self) -> Batch | None:
        """Implements `outbox.Cargo`."""
        size = 0
        while self._letters and len(self._batch) < BATCH:
            size += _size(self._letters[0])
            if self._batch and size > BATCH_BYTES:
                break
            self._batch.append(self._letters.popleft())
        return self._batch_of(self._batch) if self._batch else None

    def taken(self, answer: list[int]) -> bool:
        """Implements `outbox.Cargo`."""
        batch, self._batch = self._batch, []
        self.written += len(batch)
        self._buffer.used -= sum(map(_size, batch))
        self._count(answer)
        for letter in batch:
            if letter.written is not None:
                letter.written()
        return False

    def _batch_of(self, letters: Sequence[DeadLetter]) -> Batch:
        bounds = self._bounds
        return Batch(self._keys, (bounds.max_events, int(bounds.max_age * 1000), *_words(letters)))

    async def _remove_old(self) -> None:
        """Send a batch without letters: those that are too old go.

        No letter waits, so that Redis can't be used for now is no trouble: the next look removes them. That somebody has to
        do something, grant a right for example, is told before the first letter needs it.
        """
        try:
            self._count(await self._outbox.once(self._batch_of([])))
        except Exception as error:  # noqa: BLE001  # whatever it is, there is a next look
            if isinstance(client.explain(error, self._health.address), ConfigError):
                self._health.failed(error, NAME)
        else:
            self._health.succeeded(NAME)

    def _count(self, evicted: list[int]) -> None:
        """Count the letters that a batch evicted because there are too many, and because of their age."""
        for tally, number in zip((self._evictions, self._expiries), map(int, evicted), strict=True):
            if number:
                tally.add(number)

    def _log_begin(self, **fields: object) -> None:
        log.error("dead letters can't be written; they wait in memory", waiting=self.waiting, **fields)

    def _log_end(self, **fields: object) -> None:
        log.warning("dead letters are written again", waiting=self.waiting, dropped=self.dropped, **fields)
        self._drops.tell()


def _size(letter: DeadLetter) -> int:
    """About how many bytes of memory a waiting letter takes."""
    headers = sum(len(name) + len(value) + 100 for name, value in letter.headers.items()) if letter.headers else 0
    return len(letter.payload) + len(letter.detail) + len(letter.channel) + headers + OVERHEAD


def words_of(letter: DeadLetter) -> list[Word]:
    """The letter as it stands in the stream: field, value, field, value …"""
    words: list[Word] = ["version", VERSION]
    for name in _FIELDS:
        value = getattr(letter, name)
        if value is not None:
            words += (name, msgspec.json.encode(value) if isinstance(value, Mapping) else value)
    return words


def _words(letters: Sequence[DeadLetter]) -> list[Word]:
    """Return what the script is told of the letters. What is no valid Unicode (a lone surrogate) is backslash-escaped."""
    told: list[Word] = []
    for letter in letters:
        words = words_of(letter)
        told.append(len(words))
        told += [word.encode("utf-8", "backslashreplace") if isinstance(word, str) else word for word in words]
    return told
