"""The producers of numbered events. Each producer knows which of its events Redis has accepted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.faults.recorder import LIST, MILLION, PUBSUB, STREAM, payload
from tests.support.redis import RedisServer

CHUNK = 500
"""The maximum number of events in one command or pipeline."""

ENTRY_TIME = 1_700_000_000_000
"""The first part of the ids of entries, in milliseconds.

The producer sets the ids, so that Redis adds an event only once, even if the event is sent twice.
"""

# KEYS: the list, and its counter. ARGV: the number of the first item, and the items. Pushes the items that were not
# pushed before.
PUSH = """
local first, next = tonumber(ARGV[1]), tonumber(redis.call('GET', KEYS[2]) or ARGV[1])
for i = 2 + next - first, #ARGV do redis.call('LPUSH', KEYS[1], ARGV[i]) end
if first + #ARGV - 1 > next then redis.call('SET', KEYS[2], first + #ARGV - 1) end
"""


def numbers(kind: int, events: int, first: int = 0) -> range:
    """Return the numbers of `events` events of a kind, beginning with the number `first`."""
    return range(kind * MILLION + first, kind * MILLION + first + events)


class Flow:
    """A thread that sends events of one kind to Redis. While Redis is unavailable, the thread tries again.

    `rate` is in events per second. With None, the thread sends as fast as it can.
    """

    def __init__(self, kind: int, server: RedisServer, key: str, events: range, rate: float | None = None) -> None:
        self.kind = kind
        self.events = events
        self.sent = 0
        """The number of events that Redis has accepted."""
        self.heard: list[int] = []
        """The numbers of the pub/sub events that had a subscriber when they were published."""
        self.unanswered = 0
        """The number of pub/sub events whose publishing got no answer. A subscriber may have received them."""
        self._server = server
        self._key = key
        self._rate = rate
        self._stopped = threading.Event()
        self._send: Callable[[redis.Redis, range], None] = {STREAM: self._add, LIST: self._push, PUBSUB: self._publish}[
            kind
        ]
        self._thread = threading.Thread(target=self._run, name=f"flow into {key}", daemon=True)

    def start(self) -> Flow:
        """Start the thread, and return this object."""
        self._thread.start()
        return self

    def wait(self, seconds: float = 300) -> Flow:
        """Wait until all events are sent, at most this number of seconds, and return this object."""
        self._thread.join(seconds)
        assert not self._thread.is_alive(), f"{self.sent} of {len(self.events)} could be sent to {self._key}"
        return self

    def stop(self) -> None:
        """Stop sending. `events` then contains only the events that were sent."""
        self._stopped.set()
        self._thread.join(60)
        self.events = self.events[: self.sent]

    def channel(self, number: int) -> str:
        """Return the channel of a pub/sub event. `key` may name several channels, separated by spaces."""
        channels = self._key.split(" ")
        return channels[number % len(channels)]

    @property
    def running(self) -> bool:
        """True while there are events to send."""
        return self._thread.is_alive()

    def _run(self) -> None:
        began = time.monotonic()
        # redis-py must not repeat a command whose answer was lost: this thread decides what is sent again.
        with self._server.client(socket_timeout=60, retry=Retry(NoBackoff(), 0)) as client:
            while self.sent < len(self.events) and not self._stopped.is_set():
                most = CHUNK
                if self._rate is not None:
                    most = min(most, int((time.monotonic() - began) * self._rate) - self.sent)
                if most <= 0:
                    time.sleep(0.01)
                    continue
                part = self.events[self.sent : self.sent + most]
                try:
                    self._send(client, part)
                except (redis.ConnectionError, redis.TimeoutError, redis.ResponseError):
                    time.sleep(0.05)
                    if self.kind != PUBSUB:
                        continue
                    self.unanswered += len(part)  # not repeated, because a subscriber may have received them
                self.sent += len(part)

    def _add(self, client: redis.Redis, part: range) -> None:
        # A transaction adds all events or none. If Redis refused the first event and accepted the others, the id of the
        # first event would be too small at the next try, and this producer would regard the event as already added.
        pipeline = client.pipeline(transaction=True)
        for number in part:
            pipeline.xadd(self._key, {"payload": payload(number)}, id=f"{ENTRY_TIME}-{number + 1}")
        for answer in pipeline.execute(raise_on_error=False):
            if isinstance(answer, Exception) and "equal or smaller" not in str(answer):
                raise answer

    def _push(self, client: redis.Redis, part: range) -> None:
        client.eval(PUSH, 2, self._key, f"{self._key}:pushed", part.start, *map(payload, part))

    def _publish(self, client: redis.Redis, part: range) -> None:
        pipeline = client.pipeline(transaction=False)
        for number in part:
            pipeline.publish(self.channel(number), payload(number))
        answers = pipeline.execute()
        self.heard += [number for number, receivers in zip(part, answers, strict=True) if receivers]
