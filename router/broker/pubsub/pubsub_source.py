"""The pub/sub source: subscribes, notices every loss of the subscription, resubscribes, and measures the gaps; floor 4.

Redis does not store messages for absent subscribers. So each gap is counted, and logged when it begins and when it
ends. A gap lasts from the last byte of the old connection until the new connection has confirmed all subscriptions. If
the process was suspended, the whole suspension counts as part of the gap, even if bytes waited in the socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import msgspec
import structlog

from router.broker.pubsub.dialer import Dialer
from router.broker.pubsub.gaps import Gaps
from router.broker.pubsub.read_ahead import ReadAhead
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

READ_AHEAD = 256 * 1024**2
"""The default of `max_read_ahead`, in bytes."""

PATIENCE = 30.0
"""The default time in seconds that `stop` allows for processing the bytes that were read ahead."""


class Timing(msgspec.Struct, frozen=True):
    """The intervals and limits of a source's connection, in seconds."""

    ping_every: float = 1.0
    """The time between two PINGs."""
    dead_after: float = SILENCE
    """The time without a byte after which a connection counts as dead."""
    first_delay: float = 0.1
    """The upper limit of the first delay between attempts.

    The limit doubles with each attempt, up to `longest_delay`. Each delay is a random time below its limit.
    """
    longest_delay: float = 2.0
    open: float = TIMEOUT
    """The time allowed for one attempt to connect."""
    stable: float = 1.0
    """The time that a subscription must last so that the delays begin with `first_delay` again."""
    leave: float = 2.0
    """The time that `stop` allows for the server's answer to the unsubscription, which follows the last messages."""


class PubSubSource:
    """A source that subscribes to channels and patterns of one server.

    `names` are exact channel names; `globs` are patterns, in the order of the configuration. From `start` on, `receiver` is
    called once for each chunk that is read from the socket, and must not block. `connect_timeout` is the time limit of `start`
    in seconds (None: no limit). `waiting` is called with the reason after each failed attempt. The constructor raises
    `ConfigError` for an invalid URL.

    By default, at most 256 MiB are read ahead; `limit_read_ahead` changes this limit. When the limit is reached, the
    source stops reading, and the server stores the messages that it can't send.
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
        """True while every subscription is confirmed."""
        self.reason: str | None = "not started"
        """The reason why the source is not up; None while it is up."""
        self._server = client.server(url, client_name=client_name, database=False)
        self._subscriptions = Subscriptions(names, globs)
        self._deliver = partial(receiver.receive, name)
        self._clock = clock
        self._connect_timeout = connect_timeout
        self._waiting = waiting
        self._timing = timing or Timing()
        self._log = log.bind(source=name, address=self._server.shown)
        self._gaps = Gaps(clock, self._log)
        begins = partial(self._log.warning, "the source is not subscribed; the router keeps trying")
        delays = self._timing.first_delay, self._timing.longest_delay
        self._health = Health(self._server.shown, Outage(clock), begins=begins, delays=delays)
        self._backoff = self._health.backoff()
        self._dialer = Dialer(self._open, self._failed, self._backoff, clock)
        self.read_ahead = ReadAhead(READ_AHEAD, self._log)
        """The bytes that were read from the server and are not processed yet."""
        self._following: Subscriptions | None = None
        self._subscriber: Subscriber | None = None
        self._task: asyncio.Task[None] | None = None
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
        """The total length in seconds of all gaps that have ended."""
        return self._gaps.seconds

    @property
    def duplicates(self) -> int:
        """The number of dropped copies of events.

        Redis sends one copy for each subscription that matches the event's channel.
        """
        return self._subscriptions.duplicates

    @property
    def last_byte(self) -> float | None:
        """The time (`clock.monotonic`, seconds) of the last byte; None before the first connection."""
        return None if self._subscriber is None else self._subscriber.last_byte

    def signs(self) -> list[Sign]:
        """Implements `contracts.Source`."""
        if self._task is None:
            return []
        return [
            Sign(
                f"source {self.name}",
                "no byte is received, and the router does not try to connect",
                max(self._dialer.tried, self.last_byte or 0.0),
            )
        ]

    def replace(self, other: Source) -> None:
        """Do nothing, because a subscription has no entries in flight."""

    async def start(self) -> None:
        """Connect and subscribe; return when the server has confirmed every name and every glob.

        From then on a task watches the connection and reconnects, until `stop` is called. Raises `UnavailableError` if
        the server does not answer within `connect_timeout` seconds, and `ConfigError` if the server refuses the login
        or a subscription.
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
        self._assess()
        self._task = asyncio.create_task(self._stay_subscribed(), name=f"source {self.name}")

    async def run(self) -> None:
        """Wait until `stop` is called. Cancelling this coroutine stops the source."""
        task = self._task
        if task is None:
            raise RuntimeError("call start() first")
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            await self.stop()
            raise
        if not task.cancelled():
            task.result()

    async def stop(self, patience: float = PATIENCE) -> None:
        """Unsubscribe; return when every event that was published before was passed to the receiver.

        `patience` is the number of seconds allowed for processing the bytes that were read ahead. Messages that are
        left after this time are counted in `read_ahead.lost`, and their number is logged. A second call can shorten the
        patience of the first call.
        """
        over = self.read_ahead.finish_within(patience)
        task, self._task = self._task, None
        self._started = False
        if self._subscriber is not None:
            await self._subscriber.leave(self._timing.leave, over)
        if task is not None:
            await cancelled([task])
        await self.read_ahead.emptied()
        self.read_ahead.discard()
        self._gaps.end(back=False)
        self.up, self.reason = False, "stopped"

    async def close(self) -> None:
        """Do nothing, because a subscription has no entries to acknowledge."""

    # The following methods change the configuration without a gap. After `prepare`, call either `switch` or `give_up`.

    def limit_read_ahead(self, size: int) -> None:
        """Change `max_read_ahead` to `size` bytes.

        Bytes that wait already are not dropped, even if they exceed the new limit.
        """
        self.read_ahead.configure(size)

    async def prepare(self, names: Sequence[str], globs: Sequence[str]) -> None:
        """Add the new subscriptions of another configuration. Their messages are dropped until `switch` is called.

        Raises `UnavailableError` if the source is not connected or the server does not answer, and `ConfigError` if the
        server refuses a subscription. After an error the source has its old subscriptions.
        """
        following = Subscriptions(names, globs)
        subscriber = self._subscriber
        if subscriber is None or subscriber.lost.done():
            raise UnavailableError(f"source {self.name} is not connected: {self.reason}")
        added = [wanted for wanted in following.wanted if wanted not in self._subscriptions.wanted]
        if added:
            subscriber.commands.subscribe(added)
            await subscriber.answered(self._timing.dead_after)
        if why := _unanswered(subscriber):
            raise UnavailableError(f"source {self.name}: {self._server.shown}: {why}")
        found = ((wanted, subscriber.commands.refused.pop(wanted, None)) for wanted in added)
        refused = {wanted: answer for wanted, answer in found if answer is not None}
        if refused:
            subscriber.commands.unsubscribe(wanted for wanted in added if wanted not in refused)
            raise ConfigError(self._refusals(refused))
        self._following = following

    def switch(self) -> None:
        """Replace the current subscriptions by the subscriptions of `prepare`.

        No event of a subscription that stays is missed or received twice.
        """
        following, self._following = self._following, None
        if following is None:
            return
        self._subscriptions = following  # a new connection requests these subscriptions
        subscriber = self._subscriber
        if subscriber is None or subscriber.lost.done():
            return
        subscriber.commands.switch(following)
        for unwanted in subscriber.commands.refused.keys() - set(following.wanted):
            del subscriber.commands.refused[unwanted]
        if subscriber.commands.answered.done():
            self._assess()

    def give_up(self) -> None:
        """Roll back `prepare`: unsubscribe from the added names and globs."""
        following, self._following = self._following, None
        subscriber = self._subscriber
        if following is not None and subscriber is not None and not subscriber.lost.done():
            added = [wanted for wanted in following.wanted if wanted not in self._subscriptions.wanted]
            subscriber.commands.unsubscribe(added)

    async def _stay_subscribed(self) -> None:
        """Watch the connection, and subscribe again after each loss."""
        while True:
            assert self._subscriber is not None
            subscriber, since = self._subscriber, self._clock.monotonic()
            retries = asyncio.create_task(self._retry_refused(subscriber))
            try:
                why = await subscriber.watch(self._timing.ping_every, self._timing.dead_after)
            finally:
                retries.cancel()
                await subscriber.close()
            self._log_crash(subscriber)
            if self._task is None:
                return
            if self._clock.monotonic() - since >= self._timing.stable:
                self._backoff.reset()
            self.up, self.reason = False, why
            self._gaps.begin(why, subscriber.complete_until)
            await asyncio.sleep(self._backoff.next())
            await self._subscribe()
            self._assess()

    async def _subscribe(self) -> None:
        """Connect and request every subscription. Repeat both until each subscription has a final answer."""
        while True:
            subscriber = await self._dialer.connect()
            try:
                subscriber.commands.subscribe(subscriber.commands.subscriptions.wanted)
                await subscriber.answered(self._timing.dead_after)
                why = _unanswered(subscriber)
                if why is None and subscriber.commands.refused and not self._started:
                    raise ConfigError(self._refusals(subscriber.commands.refused))
            except BaseException:
                await subscriber.close()
                raise
            if subscriber.commands.subscriptions is not self._subscriptions:  # `switch` was called during the wait
                await subscriber.close()
                continue
            self._subscriber = subscriber
            if why is None:
                return
            await subscriber.close()
            self._log_crash(subscriber)
            self._failed(UnavailableError(f"{self._server.shown}: {why}"))
            await asyncio.sleep(self._backoff.next())

    def _refusals(self, refused: Mapping[Wanted, str]) -> list[Problem]:
        """Return a problem for each refused subscription."""
        path = f"sources.{self.name}"
        return [Problem(_refusal(self.address, wanted, answer), path=path) for wanted, answer in refused.items()]

    def _assess(self) -> None:
        """Set `up` and `reason` according to the answers of the server to all subscriptions."""
        assert self._subscriber is not None
        refused = self._subscriber.commands.refused.items()
        reason = "; ".join(_refusal(self.address, wanted, answer) for wanted, answer in refused) or None
        if reason is None:
            self._health.succeeded()
            self._gaps.end(back=True)
        elif reason != self.reason:
            message = "Redis refused a subscription; the router repeats the request until Redis accepts it"
            self._log.error(message, reason=reason)
        self.up, self.reason = reason is None, reason

    async def _retry_refused(self, subscriber: Subscriber) -> None:
        """Request the refused subscriptions at intervals, until the server accepts them or the connection is lost."""
        while subscriber.commands.refused and not subscriber.lost.done():
            await asyncio.sleep(self._timing.longest_delay)
            subscriber.commands.subscribe(tuple(subscriber.commands.refused))
            await subscriber.answered(self._timing.dead_after)
            if subscriber.commands.answered.done():
                self._assess()

    async def _open(self) -> Subscriber:
        """Make one attempt to connect and log in; return the connection."""
        async with asyncio.timeout(self._timing.open):
            connection = await dial(self._server)
        try:
            return Subscriber(connection, self._subscriptions, self._deliver, self._clock, self.read_ahead)
        except BaseException:
            await client.close(connection)
            raise

    def _failed(self, error: BaseException) -> None:
        """Record why an attempt to connect failed.

        During `start`, raise a `ConfigError` if an operator must remedy the cause.
        """
        failure = client.explain(error, self.address)
        if isinstance(failure, ConfigError) and not self._started:
            raise failure
        self._health.failed(error)
        self.reason = str(failure)
        if self._waiting is not None:
            self._waiting(self.reason)

    def _log_crash(self, subscriber: Subscriber) -> None:
        """Log the exception if the receiver has raised one.

        The source then reconnects, because a fault in one source must not end the others.
        """
        if subscriber.crash is not None:
            message = (
                "received events could not be processed, because of a fault in the router; the source subscribes again"
            )
            self._log.critical(message, exc_info=subscriber.crash)


def _refusal(address: str, wanted: Wanted, answer: str) -> str:
    kind = "channel" if wanted[0] == SUBSCRIBE else "pattern"
    return f"{address} refuses the {kind} {text(wanted[1])!r}: {answer}"


def _unanswered(subscriber: Subscriber) -> str | None:
    """Return the reason why a subscribed connection can't be used; None if every subscription has a final answer."""
    if subscriber.lost.done():
        return subscriber.lost.result()
    if not subscriber.commands.answered.done():
        behind = "; messages that were read ahead must be processed first" if subscriber.behind else ""
        return f"no answer to SUBSCRIBE in time{behind}"
    return next((answer for answer in subscriber.commands.refused.values() if answers.is_temporary(answer)), None)
