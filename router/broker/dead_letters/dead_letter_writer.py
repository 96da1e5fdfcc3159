"""The writer of dead letters: takes them without waiting, appends them in batches to one bounded stream; floor 4.

An entry of the stream has the fields of `DeadLetter` by their names, `headers` as a JSON object, `payload` the raw bytes,
and `version` (1). A field that is None is left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import msgspec
import structlog
from redis import exceptions as failures

from router.broker.server import client, keys
from router.broker.server.client import Backoff
from router.broker.server.link import Link, Script, Word, cancelled
from router.broker.server.outage import Outage
from router.contracts import Clock
from router.errors import ConfigError, UnavailableError
from router.events import DeadLetter

log = structlog.stdlib.get_logger(__name__)

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
        max_events: int = 100_000,
        max_age: float = 30 * 86400.0,
        buffer_bytes: int = 64 * 1024**2,
        connect_timeout: float | None = 10.0,
        waiting: Callable[[str], None] | None = None,
        first_delay: float = 0.1,
        longest_delay: float = 5.0,
    ) -> None:
        self.written = 0
        """Letters that stand in the stream, or stood there."""
        self.waiting_bytes = 0
        """Bytes of memory that waiting letters take."""
        self._server = client.server(url, client_name=client_name)
        self._stream = keys.dead(prefix)
        self._guard = keys.dead_batch(prefix, os.urandom(8).hex())
        self.configure(max_events=max_events, max_age=max_age, buffer_bytes=buffer_bytes)
        self._clock = clock
        self._connect_timeout = connect_timeout
        self._tell_waiting = waiting
        self._backoff = Backoff(first_delay, longest_delay)
        self._letters: deque[DeadLetter] = deque()
        self._number = 0
        self._batch: list[DeadLetter] = []
        self._link = Link(self._server)
        self._outage = Outage(clock)
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._hurry = asyncio.Event()
        self._evictions = Tally(clock, "dead letters evicted: the stream is full, its oldest entries made room")
        self._expiries = Tally(clock, "dead letters evicted: they are older than dead_letters.max_age")
        self._drops = Tally(clock, "dead letters dropped: more wait for Redis than redis.outage_buffer holds")

    def configure(self, *, max_events: int, max_age: float, buffer_bytes: int) -> None:
        """Take other bounds from the next batch on; they mean what they mean to the class."""
        self._max_events = max_events
        self._max_age = int(max_age * 1000)
        self._look_every = min(LOOK_EVERY, max_age / 10)
        self._buffer_bytes = buffer_bytes

    @property
    def reason(self) -> str | None:
        """Why letters can't be written; None while they can."""
        return self._outage.reason

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

    def add(self, letters: Sequence[DeadLetter]) -> None:
        """Keep these letters; never waits, never raises."""
        dropped = 0
        for letter in letters:
            size = _size(letter)
            if self.waiting_bytes + size > self._buffer_bytes:
                dropped += 1
                continue
            self.waiting_bytes += size
            self._letters.append(letter)
        if dropped:
            self._drops.add(dropped)
        if self._letters:
            self._idle.clear()
            self._wake.set()

    async def start(self) -> None:
        """Reach Redis and begin to write.

        Raises `UnavailableError` when there is no server within `connect_timeout`, `ConfigError` for a refused login.
        """
        try:
            async with asyncio.timeout(self._connect_timeout):
                await self._reach()
        except TimeoutError as error:
            why = self.reason or f"{self._server.shown}: no answer in time"
            raise UnavailableError(f"{why} (dead letters, tried for {self._connect_timeout:g} s)") from error
        self._idle.clear()
        self._task = asyncio.create_task(self._run(), name="dead letters")

    async def drain(self, timeout: float) -> int:  # noqa: ASYNC109  # it returns what is left instead of raising
        """Write what waits, for `timeout` seconds at most, and end; returns how many letters are left unwritten."""
        self._hurry.set()
        if self._task is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout if self.waiting else 0):  # removing what is too old can wait
                    await self._idle.wait()
            await cancelled([self._task])
            self._task = None
        await self._link.close()
        self._evictions.tell()
        self._expiries.tell()
        self._drops.tell()
        return self.waiting

    async def _reach(self) -> None:
        while True:
            try:
                await self._link.open()
            except Exception as error:
                failure = client.explain(error, self._server.shown)
                if isinstance(failure, ConfigError):
                    raise failure from error
                reason = str(failure)
                if self._outage.failed(reason):
                    limit = {} if self._connect_timeout is None else {"seconds_at_most": self._connect_timeout}
                    log.warning("no Redis yet; trying on", reason=reason, **limit)
                if self._tell_waiting is not None:
                    self._tell_waiting(reason)
                await asyncio.sleep(self._backoff.next())
            else:
                self._outage.succeeded()
                self._backoff.reset()
                return

    async def _run(self) -> None:
        while True:
            if not self._wake.is_set():
                self._idle.clear()
                await self._remove_old()
            self._wake.clear()
            while self._take():
                await self._write()
            self._idle.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._look_every):
                    await self._wake.wait()

    def _take(self) -> bool:
        """Make the next batch; False when nothing waits."""
        size = 0
        while self._letters and len(self._batch) < BATCH:
            size += _size(self._letters[0])
            if self._batch and size > BATCH_BYTES:
                break
            self._batch.append(self._letters.popleft())
        return bool(self._batch)

    async def _remove_old(self) -> None:
        """Send a batch without letters: those that are too old go.

        No letter waits, so that Redis can't be used for now is no trouble: the next look removes them. That somebody has to
        do something, grant a right for example, is told before the first letter needs it.
        """
        try:
            evicted = await self._append(self._next_number(), [])
        except Exception as error:  # noqa: BLE001  # whatever it is, there is a next look
            failure = client.explain(error, self._server.shown)
            if isinstance(failure, ConfigError):
                self._refused(str(failure))
        else:
            self._accepted()
            self._count(evicted)

    async def _write(self) -> None:
        """Send the batch until Redis has it."""
        number, words = self._next_number(), _words(self._batch)
        for attempt in itertools.count():
            try:
                evicted = await self._append(number, words)
            except Exception as error:  # noqa: BLE001  # whatever it is, the letters wait and it is tried again
                if not attempt and isinstance(error, failures.ConnectionError | OSError):
                    continue  # a connection that ended since the last letter says nothing of the server as it is now
                self._refused(str(client.explain(error, self._server.shown)))
                await self._pause()
            else:
                break
        batch, self._batch = self._batch, []
        self.written += len(batch)
        self.waiting_bytes -= sum(map(_size, batch))
        self._accepted()
        for letter in batch:
            if letter.written is not None:
                letter.written()
        self._count(evicted)

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    async def _append(self, number: int, words: Sequence[Word]) -> tuple[int, int]:
        """Run the script; returns how many letters it evicted because there are too many, and because of their age."""
        bounds = (number, self._max_events, self._max_age)
        full, old = await self._link.script(APPEND, (self._stream, self._guard), (*bounds, *words))
        return int(full), int(old)

    def _count(self, evicted: tuple[int, int]) -> None:
        full, old = evicted
        if full:
            self._evictions.add(full)
        if old:
            self._expiries.add(old)

    async def _pause(self) -> None:
        """Wait before the next try; hardly at all once the router is ending."""
        delay = self._backoff.next()
        if self._hurry.is_set():
            await asyncio.sleep(min(delay, 0.1))
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._hurry.wait()

    def _refused(self, reason: str) -> None:
        if self._outage.failed(reason):
            log.error("dead letters can't be written; they wait in memory", reason=reason, waiting=self.waiting)

    def _accepted(self) -> None:
        seconds = self._outage.succeeded()
        if seconds is not None:
            message = "dead letters are written again"
            log.warning(message, outage_seconds=round(seconds, 3), waiting=self.waiting, dropped=self.dropped)
            self._drops.tell()
        self._backoff.reset()


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
