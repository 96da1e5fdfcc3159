"""The writer of dead letters: accepts letters without waiting, and appends them in batches to a bounded stream; floor 4.

A stream entry has the field `version` (1) and a field for each attribute of `DeadLetter`, under the same name. `headers`
is written as a JSON object, `payload` as raw bytes, and a true `fallback` as 1. Attributes that are None or False are left
out.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
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
"""The name of the writer in errors and task names."""

VERSION = b"1"
BATCH = 500
"""The largest number of letters in one script call."""

BATCH_BYTES = 1024**2
"""The largest number of bytes in one script call. A larger letter is sent alone."""

OVERHEAD = 1024
"""Estimated bytes of memory for a waiting letter, without its payload, detail, channel and headers."""

LOG_EVERY = 60.0
"""The minimum number of seconds between two log lines of one `Tally`."""

EXPIRY_EVERY = 60.0
"""Seconds between two removals of letters that are too old. A tenth of the age limit applies instead if it is shorter."""

# Appends dead letters to the stream, and removes the letters that exceed the limits.
# KEYS: the stream; the writer's guard.
# ARGV: the batch number; the largest number of letters; the largest age in milliseconds. Then for each letter: the
# number of its words, and its words (field, value, …).
# Answer: the number of letters removed because the stream was full; the number of letters removed because of their age.
# The server's clock measures the age, because the entry ids come from this clock too. The guard holds the number and
# the answer of the last batch. If the answer was lost, the writer sends the batch again, and the script must not append
# it twice. SET and XTRIM come before the first XADD: if the user has no permission for one of them, the script fails
# before it appends anything. SET comes before XTRIM, so that a server that is out of memory refuses the script: such a
# server checks only the first write of a script, and allows an XTRIM. A batch without letters writes only if a letter
# is too old.
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


class Bounds(msgspec.Struct, frozen=True):
    """The bounds of the stream of dead letters, and of the letters that wait in memory.

    `max_events` is the largest number of letters in the stream, and `max_age` their largest age in seconds.
    `buffer_bytes` is the largest total size of the waiting letters.
    """

    max_events: int = 100_000
    max_age: float = 30 * 86400.0
    buffer_bytes: int = 64 * 1024**2


class Tally:
    """A counter that logs its growth.

    The first growth is logged at once. Later growth is summed up, and logged at most once a minute.
    """

    def __init__(self, clock: Clock, message: str) -> None:
        self.count = 0
        self._clock = clock
        self._message = message
        self._logged = 0
        self._logged_at = float("-inf")

    def add(self, number: int) -> None:
        """Add `number` to the count, and log it if a line is due."""
        self.count += number
        if self._clock.monotonic() - self._logged_at >= LOG_EVERY:
            self.log()

    def log(self) -> None:
        """Log the growth since the last line, if there is any."""
        if self.count > self._logged:
            log.error(self._message, letters=self.count - self._logged, in_all=self.count)
            self._logged, self._logged_at = self.count, self._clock.monotonic()


class DeadLetterWriter:
    """Appends dead letters to the stream `{prefix}:dead`, which holds the newest `max_events` for `max_age` seconds.

    While Redis refuses writes, up to `buffer_bytes` of letters wait in memory. Further letters are dropped and counted
    (reason `outage`). `connect_timeout` is the time limit of `start` in seconds (None: no limit). `waiting` is called
    with the reason after each failed attempt to connect. The constructor raises `ConfigError` for an invalid URL.
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
        no_redis = partial(log.warning, "Redis has not been reached yet; the router keeps trying", **limit)
        delays = first_delay, longest_delay
        self._starting = Health(server.shown, Outage(clock), begins=no_redis, delays=delays)
        self._health = Health(server.shown, Outage(clock), begins=self._log_begin, ends=self._log_end, delays=delays)
        self._outbox = Outbox(NAME, server, APPEND, self, self._health)
        self._expiry = Repeating(f"{NAME}: expiry", self._remove_old, EXPIRY_EVERY)
        self._keys = keys.dead(prefix), keys.dead_batch(prefix, os.urandom(8).hex())
        self._connect_timeout = connect_timeout
        self._tell_waiting = waiting
        self._letters: deque[DeadLetter] = deque()
        self._batch: list[DeadLetter] = []
        self._buffer = Buffer(0)
        self.written = 0
        """The number of letters appended to the stream."""
        self._evictions = Tally(clock, "dead letters evicted: the stream is full, so its oldest entries were removed")
        self._expiries = Tally(clock, "dead letters evicted: they are older than dead_letters.max_age")
        self._drops = Tally(clock, "dead letters dropped: redis.outage_buffer is full of letters that wait for Redis")
        self.configure(bounds or Bounds())

    def configure(self, bounds: Bounds) -> None:
        """Replace the bounds. The new bounds apply from the next batch on."""
        self._bounds = bounds
        self._buffer.limit = bounds.buffer_bytes
        self._expiry.every = min(EXPIRY_EVERY, bounds.max_age / 10)

    @property
    def reason(self) -> str | None:
        """The reason why letters can't be written; None while they can be written."""
        return self._starting.reason or self._health.reason

    @property
    def evicted(self) -> int:
        """The number of letters evicted because the stream was full."""
        return self._evictions.count

    @property
    def expired(self) -> int:
        """The number of letters evicted because of their age."""
        return self._expiries.count

    @property
    def dropped(self) -> int:
        """The number of letters dropped because the outage buffer was full."""
        return self._drops.count

    @property
    def waiting(self) -> int:
        """The number of letters that are not in Redis yet."""
        return len(self._letters) + len(self._batch)

    def add(self, letters: Sequence[DeadLetter]) -> None:
        """Queue these letters for writing. Never waits, never raises."""
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
        """Connect to Redis and start writing.

        Raises `UnavailableError` if the server does not answer within `connect_timeout` seconds, and `ConfigError` if
        the server refuses the login.
        """
        await reach(
            self._outbox.link.open, self._starting, who=NAME, within=self._connect_timeout, waiting=self._tell_waiting
        )
        self._outbox.start()
        self._expiry.start()

    async def drain(self, timeout: float) -> int:  # noqa: ASYNC109  # returns a number instead of raising
        """Write the waiting letters, for `timeout` seconds at most, and stop; return the number of letters left."""
        await self._expiry.close()
        await self._outbox.drain(timeout)
        for tally in (self._evictions, self._expiries, self._drops):
            tally.log()
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
        """Send a batch without letters, which removes the letters that are too old.

        An outage is not reported here, because no letter waits to be written, and the next call removes the old
        letters. But an error that an operator must remedy, such as a missing permission, is reported here at once, and
        not only when a letter can't be written.
        """
        try:
            self._count(await self._outbox.once(self._batch_of([])))
        except Exception as error:  # noqa: BLE001  # after any error the next call tries again
            if isinstance(client.explain(error, self._health.address), ConfigError):
                self._health.failed(error, NAME)
        else:
            self._health.succeeded(NAME)

    def _count(self, evicted: list[int]) -> None:
        """Count the letters that a batch evicted.

        `evicted` holds the number evicted by `max_events`, then the number by `max_age`.
        """
        for tally, number in zip((self._evictions, self._expiries), map(int, evicted), strict=True):
            if number:
                tally.add(number)

    def _log_begin(self, **fields: object) -> None:
        log.error("dead letters can't be written; they wait in memory", waiting=self.waiting, **fields)

    def _log_end(self, **fields: object) -> None:
        log.warning("dead letters are written again", waiting=self.waiting, dropped=self.dropped, **fields)
        self._drops.log()


def _size(letter: DeadLetter) -> int:
    """Return an estimate of the bytes of memory that a waiting letter takes."""
    headers = sum(len(name) + len(value) + 100 for name, value in letter.headers.items()) if letter.headers else 0
    return len(letter.payload) + len(letter.detail) + len(letter.channel) + headers + OVERHEAD


def words_of(letter: DeadLetter) -> list[Word]:
    """Return a letter as the words of its stream entry: field, value, field, value …"""
    words: list[Word] = ["version", VERSION]
    for name in _FIELDS:
        value = getattr(letter, name)
        if value is True:
            words += (name, b"1")
        elif value is not None and value is not False:
            words += (name, msgspec.json.encode(value) if isinstance(value, Mapping) else value)
    return words


def _words(letters: Sequence[DeadLetter]) -> list[Word]:
    """Return the script's arguments for letters. Invalid Unicode (a lone surrogate) is backslash-escaped."""
    arguments: list[Word] = []
    for letter in letters:
        words = words_of(letter)
        arguments.append(len(words))
        arguments += [word.encode("utf-8", "backslashreplace") if isinstance(word, str) else word for word in words]
    return arguments
