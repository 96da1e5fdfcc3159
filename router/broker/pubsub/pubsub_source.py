"""The pub/sub source: subscribes, notices every loss, comes back by itself and says for how long it was deaf; floor 4.

Pub/sub has no memory: what is published while nobody is subscribed is gone. So a gap is never hidden: it is logged when
it opens and when it closes, counted, and measured from the last byte before it to the last confirmation after it. Bytes
that waited in the socket while the router stood still belong to the gap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from router.broker.pubsub.subscriber import SUBSCRIBE, Subscriber, Subscriptions, Wanted
from router.broker.server import answers, client
from router.broker.server.client import SILENCE, TIMEOUT, Backoff, dial
from router.broker.server.link import cancelled
from router.contracts import Clock, Receiver, Sign, Source
from router.errors import ConfigError, Problem, RouterError, UnavailableError
from router.events import RawBatch, text

log = structlog.stdlib.get_logger(__name__)

TRIES_AT_ONCE = 5
"""Connections that may be opening at the same time: one that hangs does not hold up the next try."""


OVERTAKE_AFTER = 1.0
"""Seconds after which a try that hangs is overtaken."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How a source watches its connection; all in seconds."""

    ping_every: float = 1.0
    dead_after: float = SILENCE
    """A connection that brought no byte for so long is dead."""
    first_delay: float = 0.1
    """The first bound of the delay between tries; it doubles up to `longest_delay`, the delay is a random part of it."""
    longest_delay: float = 2.0
    open: float = TIMEOUT
    """How long one try may take."""
    stable: float = 1.0
    """A subscription that lasted so long lets the delays begin anew."""
    leave: float = 2.0
    """How long `stop` waits for what the server has sent before it unsubscribed us."""


class PubSubSource:
    """A source that subscribes to names and globs on one server.

    `names` are exact, `globs` in the order of the configuration. `receiver` is called from `start` on, once per chunk of
    the socket, and never waited for. `connect_timeout` is how long `start` tries, None for ever; `waiting` is told why,
    each time a try fails. Raises `ConfigError` for a URL that isn't one.
    """

    in_flight = 0
    trimmed = 0
    trimmed_exact = True
    possibly_repeated = 0

    def __init__(
        self,
        name: str,
        url: str,
        names: Sequence[str],
        globs: Sequence[str],
        *,
        receiver: Receiver,
        clock: Clock,
        client_name: str = "event-router",
        connect_timeout: float | None = 10.0,
        waiting: Callable[[str], None] | None = None,
        timing: Timing | None = None,
    ) -> None:
        self.name = name
        self.up = False
        """Whether every subscription is confirmed."""
        self.reason: str | None = "not started"
        """Why it is not up."""
        self.gaps = 0
        """How often the subscription was lost."""
        self.gap_seconds = 0.0
        """How long it was lost, in all gaps that have ended."""
        self._server = client.server(url, client_name=client_name, database=False)
        self._subscriptions = Subscriptions(names, globs)
        self._receiver = receiver
        self._clock = clock
        self._connect_timeout = connect_timeout
        self._waiting = waiting
        self._timing = timing or Timing()
        self._backoff = Backoff(self._timing.first_delay, self._timing.longest_delay)
        self._following: Subscriptions | None = None
        self._subscriber: Subscriber | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._tried = 0.0  # when something was last done for a connection
        self._started = False
        self._gap_began: float | None = None
        self._log = log.bind(source=name, address=self._server.shown)

    @property
    def address(self) -> str:
        """The server's address, without credentials."""
        return self._server.shown

    @property
    def duplicates(self) -> int:
        """Copies of events dropped because another subscription of this source brought the same event."""
        return self._subscriptions.duplicates

    @property
    def last_byte(self) -> float | None:
        """When the last byte came (`clock.monotonic`); None before the first connection."""
        return None if self._subscriber is None else self._subscriber.last_byte

    def signs(self) -> list[Sign]:
        """Implements `contracts.Source`."""
        if self._keeper is None:
            return []
        return [
            Sign(f"source {self.name}", "nothing is heard and nothing tried", max(self._tried, self.last_byte or 0.0))
        ]

    def succeed(self, other: Source) -> None:
        """Nothing has to be known: nobody waits for acknowledgements here."""

    async def start(self) -> None:
        """Connect and subscribe; returns when the server has confirmed every name and glob.

        From then on the connection is watched and healed, until `stop`. Raises `UnavailableError` when there is no
        server within `connect_timeout`, `ConfigError` for a refused login or subscription.
        """
        self.reason = f"{self._server.shown}: no answer yet"
        try:
            async with asyncio.timeout(self._connect_timeout):
                await self._subscribe()
        except TimeoutError as error:
            raise UnavailableError(
                f"{self.reason} (source {self.name}, tried for {self._connect_timeout:g} s)"
            ) from error
        self._started = True
        self._settle()
        self._keeper = asyncio.create_task(self._keep(), name=f"source {self.name}")

    async def run(self) -> None:
        """Return when `stop` has been called. Cancelling it stops the source."""
        keeper = self._keeper
        if keeper is None:
            raise RuntimeError("start() comes first")
        try:
            await asyncio.wait([keeper])
        except asyncio.CancelledError:
            await self.stop()
            raise
        if not keeper.cancelled():
            keeper.result()

    async def stop(self) -> None:
        """Unsubscribe; returns when everything published before that has been handed on."""
        keeper, self._keeper = self._keeper, None
        self._started = False
        if self._subscriber is not None:
            await self._subscriber.leave(self._timing.leave)
        if keeper is not None:
            await cancelled([keeper])
        self._end_gap()
        self.up, self.reason = False, "stopped"

    async def close(self) -> None:
        """Nothing is left to do: nobody waits for acknowledgements here."""

    # Another configuration, without a gap.

    async def prepare(self, names: Sequence[str], globs: Sequence[str]) -> None:
        """Subscribe to what comes new, beside what there is: what it brings is dropped until `switch`.

        Raises `UnavailableError` when the source is not connected, `ConfigError` for a refused subscription; then it is
        as it was.
        """
        following = Subscriptions(names, globs)
        subscriber = self._subscriber
        if subscriber is None or subscriber.lost.done():
            raise UnavailableError(f"source {self.name} is not connected: {self.reason}")
        added = [one for one in following.wanted if one not in self._subscriptions.wanted]
        if added:
            subscriber.subscribe(added)
            await subscriber.settled(self._timing.dead_after)
        if why := _unanswered(subscriber):
            raise UnavailableError(f"source {self.name}: {self._server.shown}: {why}")
        refused = {one: answer for one in added if (answer := subscriber.refused.pop(one, None)) is not None}
        if refused:
            subscriber.unsubscribe(one for one in added if one not in refused)
            problems = [Problem(self._refusal(*one), path=f"sources.{self.name}") for one in refused.items()]
            raise ConfigError(problems)
        self._following = following

    def switch(self) -> None:
        """Take from now on what `prepare` was told; nothing of what stays is missed or comes twice."""
        following, self._following = self._following, None
        if following is None:
            return
        self._subscriptions = following  # a connection that is made anew asks for these
        subscriber = self._subscriber
        if subscriber is None or subscriber.lost.done():
            return
        subscriber.switch(following)
        for one in subscriber.refused.keys() - set(following.wanted):
            del subscriber.refused[one]
        if subscriber.answered.done():
            self._settle()

    def give_up(self) -> None:
        """Forget what `prepare` was told."""
        following, self._following = self._following, None
        subscriber = self._subscriber
        if following is not None and subscriber is not None and not subscriber.lost.done():
            subscriber.unsubscribe([one for one in following.wanted if one not in self._subscriptions.wanted])

    async def _keep(self) -> None:
        """Watch the connection and come back after each loss."""
        while True:
            assert self._subscriber is not None
            subscriber, since = self._subscriber, self._clock.monotonic()
            insisting = asyncio.create_task(self._insist(subscriber))
            try:
                why = await subscriber.watch(self._timing.ping_every, self._timing.dead_after)
            finally:
                insisting.cancel()
                await subscriber.close()
            self._tell_crash(subscriber)
            if self._keeper is None:
                return
            if self._clock.monotonic() - since >= self._timing.stable:
                self._backoff.reset()
            self._lose(why, subscriber.complete_until)
            await asyncio.sleep(self._backoff.next())
            await self._subscribe()
            self._settle()

    async def _subscribe(self) -> None:
        """Connect and ask for every subscription, again and again until each has its answer."""
        while True:
            subscriber = await self._connect()
            try:
                subscriber.subscribe(subscriber.subscriptions.wanted)
                await subscriber.settled(self._timing.dead_after)
                why = _unanswered(subscriber)
                if why is None:
                    self._judge(subscriber)
            except BaseException:
                await subscriber.close()
                raise
            if subscriber.subscriptions is not self._subscriptions:  # switched meanwhile
                await subscriber.close()
                continue
            self._subscriber = subscriber
            if why is None:
                return
            await subscriber.close()
            self._tell_crash(subscriber)
            self._note(UnavailableError(f"{self._server.shown}: {why}"))
            await asyncio.sleep(self._backoff.next())

    def _judge(self, subscriber: Subscriber) -> None:
        """Raise `ConfigError` for refused subscriptions, at the start; later they are asked for again."""
        if subscriber.refused and not self._started:
            problems = [Problem(self._refusal(*one), path=f"sources.{self.name}") for one in subscriber.refused.items()]
            raise ConfigError(problems)

    def _refusal(self, wanted: Wanted, answer: str) -> str:
        kind = "channel" if wanted[0] == SUBSCRIBE else "pattern"
        return f"{self._server.shown} refuses the {kind} {text(wanted[1])!r}: {answer}"

    def _settle(self) -> None:
        """Take stock once the server has answered: up, or some subscription refused."""
        assert self._subscriber is not None
        refused = [self._refusal(*one) for one in self._subscriber.refused.items()]
        if not refused:
            self.up, self.reason = True, None
            self._end_gap()
            return
        reason = "; ".join(refused)
        if reason != self.reason:
            self._log.error("a subscription was refused; asking again until it is allowed", reason=reason)
        self.reason = reason

    async def _insist(self, subscriber: Subscriber) -> None:
        """Ask again for what was refused, while the other subscriptions go on."""
        while subscriber.refused and not subscriber.lost.done():
            await asyncio.sleep(self._timing.longest_delay)
            subscriber.subscribe(tuple(subscriber.refused))
            await subscriber.settled(self._timing.dead_after)
            if subscriber.answered.done():
                self._settle()

    async def _connect(self) -> Subscriber:
        """The first connection that opens. A try that hangs is overtaken by the next, not waited for."""
        tries: set[asyncio.Task[Subscriber]] = set()
        try:
            while True:
                if len(tries) < TRIES_AT_ONCE:
                    tries.add(asyncio.create_task(self._open()))
                opened = await self._first(tries, self._backoff.next())
                if opened is not None:
                    return opened
        finally:
            await _discard(tries)

    async def _open(self) -> Subscriber:
        """One try to connect and log in."""
        async with asyncio.timeout(self._timing.open):
            connection = await dial(self._server)
        try:
            return Subscriber(connection, self._subscriptions, self._deliver, self._clock)
        except BaseException:
            await client.close(connection)
            raise

    async def _first(self, tries: set[asyncio.Task[Subscriber]], pause: float) -> Subscriber | None:
        """Take the first success out of `tries`; None when it is time for another try."""
        now = self._clock.monotonic
        begun = now()
        while True:
            self._tried = now()
            left = begun + (max(pause, OVERTAKE_AFTER) if tries else pause) - now()
            if left <= 0:
                return None
            if not tries:
                await asyncio.sleep(left)
                continue
            done, _ = await asyncio.wait(tries, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                tries.discard(task)
                error = task.exception()
                if error is None:
                    tries.update(done - {task})
                    return task.result()
                self._note(client.explain(error, self._server.shown))

    def _deliver(self, batches: Sequence[RawBatch]) -> None:
        self._receiver.receive(self.name, batches)

    def _note(self, error: RouterError) -> None:
        """Keep why a try failed; raise it at the start where only a person can help."""
        if isinstance(error, ConfigError) and not self._started:
            raise error
        reason = str(error)
        if reason != self.reason:
            self._log.warning("not subscribed; trying on", reason=reason)
        self.reason = reason
        if self._waiting is not None:
            self._waiting(reason)

    def _tell_crash(self, subscriber: Subscriber) -> None:
        """Log what the receiver raised. The connection is made anew: one source must not end the others."""
        if subscriber.crash is not None:
            message = "what was received could not be handed on, which is a fault of the router"
            self._log.critical(message, exc_info=subscriber.crash)

    def _lose(self, why: str, complete_until: float) -> None:
        self.up, self.reason = False, why
        if self._gap_began is None:
            self.gaps += 1
            self._gap_began = complete_until
            self._log.warning("subscription lost; events published until it is back are missed", reason=why)

    def _end_gap(self) -> None:
        if self._gap_began is None:
            return
        seconds = self._clock.monotonic() - self._gap_began
        self._gap_began = None
        self.gap_seconds += seconds
        if self.up:
            self._log.warning("subscription is back", gap_seconds=round(seconds, 3), gaps=self.gaps)


def _unanswered(subscriber: Subscriber) -> str | None:
    """Why a new subscription does not stand, None when every part of it has a final answer."""
    if subscriber.lost.done():
        return subscriber.lost.result()
    if not subscriber.answered.done():
        return "no answer to SUBSCRIBE in time"
    return next((answer for answer in subscriber.refused.values() if answers.passes(answer)), None)


async def _discard(tries: set[asyncio.Task[Subscriber]]) -> None:
    """End tries that are no longer wanted, and close what they opened."""
    await cancelled(tries)
    for task in tries:
        if not task.cancelled() and task.exception() is None:
            await task.result().close()
