"""The state that the parts of a Redis queue share: names, limits, times, shutdown, health; floor 4."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import msgspec
import structlog

from router.broker.groups.crash_isolation import CrashIsolation
from router.broker.groups.in_flight import Names
from router.broker.queues.parts.queue_rounds import QueueRounds
from router.broker.server import keys
from router.broker.server.client import Server
from router.broker.server.health import Health
from router.broker.server.outage import Outage
from router.contracts import Clock

log = structlog.stdlib.get_logger(__name__)

GROUP = "event-router"
"""The consumer group of every queue."""

MOST = 500
"""The largest number of entries that one command reads or settles."""

MAX_DELIVERIES = 5
"""The delivery count at which an entry is poison: the process crashed during an attempt with no other delivery in
flight."""

MOVES = 100
"""The largest number of retries that one script call returns to the stream or defers."""


class Timing(msgspec.Struct, frozen=True):
    """The times of a Redis queue, in seconds. Tests use shorter times."""

    block: float = 10.0
    """The time that a read waits for entries. `CLIENT UNBLOCK` ends a read earlier if necessary."""
    unblock: float = 0.5
    """The time that `CLIENT UNBLOCK` has to end a blocking read. If the server refuses the command, the connection is
    closed after this time."""
    tick: float = 1.0
    """The time between two requests for the books. Within this time, this router notices a due retry that a peer has
    added."""
    claim: float = 5.0
    """The time between two checks for entries of dead peers."""
    linger: float = 1.0
    """The maximum time for which a shutdown still reads due deliveries from Redis."""
    alone: float = 30.0
    """The maximum time that a suspect waits for all other deliveries to finish."""
    first_delay: float = 0.1
    longest_delay: float = 2.0


class QueueHost(msgspec.Struct, frozen=True):
    """The objects that all Redis queues of one router share."""

    server: Server
    prefix: str
    consumer: str
    """The name of this router in each group. It stays the same after a restart."""
    clock: Clock
    isolation: CrashIsolation
    rounds: QueueRounds
    outage: Outage
    """The outage that all queues of the server share, so that an outage is logged only once."""


class QueueKeys(NamedTuple):
    """The keys of one queue."""

    stream: str
    later: str
    books: str

    @classmethod
    def of(cls, prefix: str, sink: str) -> QueueKeys:
        """Return the keys of a sink's queue."""
        return cls(keys.queue(prefix, sink), keys.later(prefix, sink), keys.books(prefix, sink))


class Ending:
    """The shutdown of a queue.

    After `begin`, the queue still reads due deliveries for `linger` seconds at most, but does not wait for new
    deliveries.
    """

    def __init__(self, clock: Clock, linger: float) -> None:
        self.begun = False
        self._clock = clock
        self._linger = linger
        self._at = 0.0

    def begin(self, *, at_once: bool = False) -> None:
        """Begin the shutdown. If `at_once` is True, the queue reads nothing more. Only the first call has an effect."""
        if not self.begun:
            self.begun, self._at = True, float("-inf") if at_once else self._clock.monotonic()

    @property
    def lingered(self) -> bool:
        """True once the linger time is over."""
        return self.begun and self._clock.monotonic() - self._at > self._linger


class QueueContext:
    """The shared state of one queue. The tasks `read`, `settle` and `keep` report their attempts to `health`."""

    def __init__(self, sink: str, host: QueueHost, timing: Timing) -> None:
        self.sink = sink
        self.keys = QueueKeys.of(host.prefix, sink)
        self.names = Names(self.keys.stream.encode(), GROUP, host.consumer)
        self.clock = host.clock
        self.rounds = host.rounds
        self.timing = timing
        self.ending = Ending(host.clock, timing.linger)
        self.health = Health(
            host.server.shown,
            host.outage,
            begins=partial(log.warning, "queues in Redis can't be used; the router keeps trying"),
            ends=partial(log.info, "queues in Redis are used again"),
            delays=(timing.first_delay, timing.longest_delay),
        )
        self.log = log.bind(sink=sink)
