"""What the parts of a Redis queue share: names, limits, times, when it ends, and its health; floor 4."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

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
"""Entries that one command reads or settles at most."""

MAX_DELIVERIES = 5
"""How often a delivery is taken, alone in hand the last time, before it is given up as poison."""

MOVES = 100
"""Retries that one script call moves back, or puts off, at most."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds; tests are quicker."""

    block: float = 5.0
    """How long a read waits for entries."""
    unblock: float = 0.5
    """How long a read may still wait that `CLIENT UNBLOCK` was to end: it may be forbidden."""
    tick: float = 1.0
    """How long the books may be behind, and a peer's retry late."""
    claim: float = 5.0
    """Between two looks for what a dead peer left."""
    linger: float = 1.0
    """How long the end still takes what stands in the queue already."""
    alone: float = 30.0
    """How long others may take to finish what they have in hand, so that a suspicious delivery is alone."""
    first_delay: float = 0.1
    longest_delay: float = 2.0


@dataclass(frozen=True, slots=True)
class QueueHost:
    """What all Redis queues of one router share."""

    server: Server
    prefix: str
    consumer: str
    """The router's name in each group, the same after a restart."""
    clock: Clock
    isolation: CrashIsolation
    rounds: QueueRounds
    told: Outage
    """The outage that the log tells of, so that ten queues of one server do not tell of one outage ten times."""


class QueueKeys(NamedTuple):
    """The keys of one queue."""

    stream: str
    later: str
    books: str

    @classmethod
    def of(cls, prefix: str, sink: str) -> QueueKeys:
        """Return those of a sink."""
        return cls(keys.queue(prefix, sink), keys.later(prefix, sink), keys.books(prefix, sink))


class Ending:
    """Whether a queue takes no more but what stands in Redis already, and since when."""

    def __init__(self, clock: Clock, linger: float) -> None:
        self.begun = False
        self._clock = clock
        self._linger = linger
        self._at = 0.0

    def begin(self, *, at_once: bool = False) -> None:
        """Take no more; `at_once` not even what stands in Redis already. Only the first call counts."""
        if not self.begun:
            self.begun, self._at = True, float("-inf") if at_once else self._clock.monotonic()

    @property
    def lingered(self) -> bool:
        """Whether what stands in Redis has had its time too."""
        return self.begun and self._clock.monotonic() - self._at > self._linger


class QueueContext:
    """What the parts of one queue know of it. Its `health` has a task for each of its connections' uses."""

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
            host.told,
            begins=partial(log.warning, "queues in Redis can't be used; trying on"),
            ends=partial(log.info, "queues in Redis are used again"),
            delays=(timing.first_delay, timing.longest_delay),
        )
        self.log = log.bind(sink=sink)
