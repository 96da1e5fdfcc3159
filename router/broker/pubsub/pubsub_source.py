"""The pub/sub source: subscribes, notices every loss, comes back by itself and says for how long it was deaf; floor 4.

Pub/sub has no memory: what is published while nobody is subscribed is gone. So a gap is never hidden: it is logged when
it opens and when it closes, counted, and measured from the last byte before it to the last confirmation after it. Bytes
that waited in the socket while the router stood still belong to the gap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from router.broker.pubsub.dialer import Dialer
from router.broker.pubsub.gaps import Gaps
from router.broker.pubsub.subscriber import Subscriber
from router.broker.pubsub.subscriptions import SUBSCRIBE, Subscriptions, Wanted
from router.broker.server import answers, client
from router.broker.server.client import SILENCE, TIMEOUT, dial
from router.broker.server.health import Health
from router.broker.server.link import cancelled
from router.broker.server.outage import Outage
from router.contracts import Clock, Receiver, Sign, Source
from router.errors import ConfigError, Problem, UnavailableError
from router.events import text

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """The times by which a source watches its connection, in seconds."""

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
        self._server = client.server(url, client_name=client_name, database=False)
        self._subscriptions = Subscriptions(names, globs)
        self._deliver = partial(receiver.receive, name)
        self._clock = clock
        self._connect_timeout = connect_timeout
        self._waiting = waiting
        self._timing = timing or Timing()
        self._log = log.bind(source=name, address=self._server.shown)
        self._gaps = Gaps(clock, self._log)
        begins = partial(self._log.warning, "not subscribed; trying on")
        delays = self._timing.first_delay, self._timing.longest_delay
        self._health = Health(self._server.shown, Outage(clock), begins=begins, delays=delays)
        self._backoff = self._health.backoff()
        self._dialer = Dialer(self._open, self._note, self._backoff, clock)
        self._following: Subscriptions | None = None
        self._subscriber: Subscriber | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._started = False

    @property
    def address(self) -> str:
        """The server's address, without credentials."""
        return self._server.shown

    @property
    def gaps(self) -> int:
        """The number of times the subscription was lost."""
        return self._gaps.count

    @property
    def gap_seconds(self) -> float:
        """The seconds without the subscription, in all gaps that have ended."""
        return self._gaps.seconds

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
            Sign(
                f"source {self.name}",
                "nothing is heard and nothing tried",
                max(self._dialer.tried, self.last_byte or 0.0),
            )
        ]

    def succeed(self, other: Source) -> None:
        """Do nothing: a subscription has no entries in flight."""

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
        self._gaps.end(back=False)
        self.up, self.reason = False, "stopped"

    async def close(self) -> None:
        """Do nothing: a subscription has no entries to acknowledge."""

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
            subscriber.commands.subscribe(added)
            await subscriber.settled(self._timing.dead_after)
        if why := _unanswered(subscriber):
            raise UnavailableError(f"source {self.name}: {self._server.shown}: {why}")
        refused = {one: answer for one in added if (answer := subscriber.commands.refused.pop(one, None)) is not None}
        if refused:
            subscriber.commands.unsubscribe(one for one in added if one not in refused)
            problems = [Problem(_refusal(self.address, *one), path=f"sources.{self.name}") for one in refused.items()]
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
        subscriber.commands.switch(following)
        for one in subscriber.commands.refused.keys() - set(following.wanted):
            del subscriber.commands.refused[one]
        if subscriber.commands.answered.done():
            self._settle()

    def give_up(self) -> None:
        """Forget what `prepare` was told."""
        following, self._following = self._following, None
        subscriber = self._subscriber
        if following is not None and subscriber is not None and not subscriber.lost.done():
            subscriber.commands.unsubscribe([one for one in following.wanted if one not in self._subscriptions.wanted])

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
            self.up, self.reason = False, why
            self._gaps.begin(why, subscriber.complete_until)
            await asyncio.sleep(self._backoff.next())
            await self._subscribe()
            self._settle()

    async def _subscribe(self) -> None:
        """Connect and ask for every subscription, again and again until each has its answer."""
        while True:
            subscriber = await self._dialer.connect()
            try:
                subscriber.commands.subscribe(subscriber.commands.subscriptions.wanted)
                await subscriber.settled(self._timing.dead_after)
                why = _unanswered(subscriber)
                if why is None:
                    self._judge(subscriber)
            except BaseException:
                await subscriber.close()
                raise
            if subscriber.commands.subscriptions is not self._subscriptions:  # switched meanwhile
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
        if subscriber.commands.refused and not self._started:
            problems = [
                Problem(_refusal(self.address, *one), path=f"sources.{self.name}")
                for one in subscriber.commands.refused.items()
            ]
            raise ConfigError(problems)

    def _settle(self) -> None:
        """Take stock once the server has answered: up, or some subscription refused."""
        assert self._subscriber is not None
        refused = [_refusal(self.address, *one) for one in self._subscriber.commands.refused.items()]
        reason = "; ".join(refused) or None
        if reason is None:
            self._health.succeeded()
            self._gaps.end(back=True)
        elif reason != self.reason:
            self._log.error("a subscription was refused; asking again until it is allowed", reason=reason)
        self.up, self.reason = reason is None, reason

    async def _insist(self, subscriber: Subscriber) -> None:
        """Ask again for what was refused, while the other subscriptions go on."""
        while subscriber.commands.refused and not subscriber.lost.done():
            await asyncio.sleep(self._timing.longest_delay)
            subscriber.commands.subscribe(tuple(subscriber.commands.refused))
            await subscriber.settled(self._timing.dead_after)
            if subscriber.commands.answered.done():
                self._settle()

    async def _open(self) -> Subscriber:
        """Try once to connect and log in."""
        async with asyncio.timeout(self._timing.open):
            connection = await dial(self._server)
        try:
            return Subscriber(connection, self._subscriptions, self._deliver, self._clock)
        except BaseException:
            await client.close(connection)
            raise

    def _note(self, error: BaseException) -> None:
        """Keep why a try failed; raise it at the start where only a person can help."""
        failure = client.explain(error, self.address)
        if isinstance(failure, ConfigError) and not self._started:
            raise failure
        self._health.failed(error)
        self.reason = str(failure)
        if self._waiting is not None:
            self._waiting(self.reason)

    def _tell_crash(self, subscriber: Subscriber) -> None:
        """Log what the receiver raised. The connection is made anew: one source must not end the others."""
        if subscriber.crash is not None:
            message = "what was received could not be handed on, which is a fault of the router"
            self._log.critical(message, exc_info=subscriber.crash)


def _refusal(address: str, wanted: Wanted, answer: str) -> str:
    kind = "channel" if wanted[0] == SUBSCRIBE else "pattern"
    return f"{address} refuses the {kind} {text(wanted[1])!r}: {answer}"


def _unanswered(subscriber: Subscriber) -> str | None:
    """Why a new subscription does not stand, None when every part of it has a final answer."""
    if subscriber.lost.done():
        return subscriber.lost.result()
    if not subscriber.commands.answered.done():
        return "no answer to SUBSCRIBE in time"
    return next((answer for answer in subscriber.commands.refused.values() if answers.passes(answer)), None)
