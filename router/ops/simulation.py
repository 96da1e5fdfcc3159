"""What becomes of one message under a configuration, decided without sending anything; floor 4.

`event-router explain` shows it. The verdict, the rules of a delivery and the templates are those of the daemon.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import msgspec

from router import events
from router.config.models import DeliverOnly
from router.core.accounts.dead_letter_filter import delivery_of, format_of
from router.core.conditions.route_checks import Asked, Check, Step, checks
from router.core.decoding import SourceFormat
from router.core.delivery.preparation import AllowedAddresses, Refused, Rules, prepare
from router.core.ids import Ids
from router.core.lookups.given_records import Given, GivenRecords, NamedRecords, RecordNotGivenError
from router.core.rendering import Rendered
from router.core.routing import Plan, Target, merged
from router.core.validation import Violation
from router.core.verdict import Rejected, Routed, Verdict, judge, opened
from router.core.wiring.readers import pattern_of, reader_of, reads
from router.errors import Reason
from router.events import DeadLetter, Event
from router.ops.loading import Loaded
from router.ops.loading.reading.problems import did_you_mean
from router.ops.redaction import Redactor, plain_options

_BOOT = "explain"  # stands in the ids that are made up, where those of a router have a word of its process


class Ending(StrEnum):
    """The ending of a simulated message: one closed set."""

    UNREAD = "unread"
    """No source reads the channel: the router never gets the message."""
    REJECTED = "rejected"
    UNMATCHED = "unmatched"
    ROUTED = "routed"


class Message(msgspec.Struct, frozen=True):
    """A message as it would come from Redis.

    Without a `source` it comes by the first one that reads the channel. Without an `id` it gets one like those of the
    router; a source that reads ids from payloads or envelopes overrides it. `received_at` and `now` are seconds since the
    epoch; a delivery is made at `now`, which is `received_at` if it is left out.
    """

    channel: bytes
    raw: bytes
    received_at: float
    source: str | None = None
    headers: Mapping[str, str] | None = None
    id: str | None = None
    now: float | None = None


class SchemaVerdict(msgspec.Struct, frozen=True):
    """What the schema of a channel says of a payload.

    `file` and `mode` are None where no schema is for the channel; `valid` is None where none was asked.
    """

    file: str | None
    mode: str | None
    valid: bool | None
    violations: tuple[Violation, ...]


_NO_SCHEMA = SchemaVerdict(None, None, None, ())


class RouteVerdict(msgspec.Struct, frozen=True):
    """Whether a route takes the event, and what each of its conditions says."""

    id: str
    matched: bool
    checks: tuple[Check, ...]

    @property
    def decided_by(self) -> Check | None:
        """The first condition that did not hold, None if the route takes the event."""
        return next((check for check in self.checks if not check.held), None)

    @property
    def held(self) -> int:
        """The number of conditions that held."""
        return sum(check.held for check in self.checks)


class SimulatedDelivery(msgspec.Struct, frozen=True):
    """A delivery that the message makes.

    `merged` are the later routes that it stands for. `refused` says why it is not attempted. Of `to`, the addresses in
    `printed` are printed because of `deliver`; a delivery without addresses is printed where `prints` is true. `rendered`
    has the sink's options as plain values, without secrets, `text` the message for people. `degraded` says why the JSON
    line stands in place of a text. `unsure` says what is not known of the delivery without the records of its lookups.
    """

    route: str
    sink: str
    type: str
    merged: tuple[str, ...] = ()
    to: tuple[str, ...] = ()
    refused: Refused | None = None
    rendered: Mapping[str, Any] | None = None
    text: str = ""
    degraded: str | None = None
    prints: bool = False
    printed: tuple[str, ...] = ()
    unsure: str = ""

    @property
    def delivers(self) -> bool:
        """True if the delivery is sent, or printed by `deliver: print`."""
        return self.refused is None

    @property
    def suppressed(self) -> Reason | None:
        """The reason why the delivery is suppressed, None if it is not."""
        return self.refused.reason if self.refused is not None and self.refused.suppressed else None

    @property
    def dead(self) -> Reason | None:
        """The reason of the dead letter that the delivery makes before any attempt, None if it makes none."""
        return self.refused.reason if self.refused is not None and not self.refused.suppressed else None


class Simulation(msgspec.Struct, frozen=True):
    """What becomes of one message.

    `came` is the event as it came; `event` has its payload and the id, headers and data of an envelope once the message was
    read. `verdict` is None for a
    channel that no source reads. `routes` are in the order of the configuration; none was asked about a message that is
    rejected. `detail` says why no source reads the message.
    """

    came: Event
    event: Event
    ending: Ending
    verdict: Verdict | None
    schema: SchemaVerdict
    routes: tuple[RouteVerdict, ...] = ()
    deliveries: tuple[SimulatedDelivery, ...] = ()
    detail: str = ""

    @property
    def rejected(self) -> Rejected | None:
        """The rejection, None if the message is not rejected."""
        return self.verdict if isinstance(self.verdict, Rejected) else None

    @property
    def delivers(self) -> bool:
        """True if at least one delivery is sent or printed."""
        return any(delivery.delivers for delivery in self.deliveries)

    @property
    def nearest(self) -> RouteVerdict | None:
        """The route that was nearest to taking an event that none took; None where there is none to name."""
        return None if self.ending != Ending.UNMATCHED else min(self.routes, key=_distance, default=None)


_STRUCTURAL = frozenset({Step.ENABLED, Step.SOURCE, Step.CHANNEL, Step.FINAL})


def _distance(route: RouteVerdict) -> tuple[int, int, int]:
    """Return how far a route was from taking the event: a wrong channel is farther than a clause of its payload."""
    failed = [check for check in route.checks if not check.held]
    return sum(check.step in _STRUCTURAL for check in failed), len(failed), -route.held


class Simulator:
    """Simulates messages under one configuration. Fallbacks are not taken: every attempt is assumed to succeed.

    `given` gives the records of lookups. Without it each field of a lookup appears as its name, `{{ user.email }}`, and an
    `only_if` that asks for one is taken for true. Without `reasons` the simulation says which routes took the event, but not
    why: the reasons cost more than all the rest.
    """

    def __init__(self, loaded: Loaded, given: Given | None = None, *, reasons: bool = True) -> None:
        self._loaded = loaded
        self._records = None if given is None else GivenRecords(loaded.lookups, given)
        self._reasons = reasons
        self._config = loaded.config
        self._routing = loaded.routing()
        self._redactor = Redactor(loaded.secrets)
        deliver = loaded.config.deliver
        self._allowed = AllowedAddresses(deliver.only if isinstance(deliver, DeliverOnly) else ())

    @property
    def asked(self) -> Mapping[str, Collection[str]]:
        """The keys of records that `given` did not know, by lookup. The deliveries that need them are not simulated."""
        return {} if self._records is None else self._records.asked

    def simulate(self, message: Message) -> Simulation:
        """Return what becomes of a message. Raises `KeyError` without a source of the name that it has."""
        reader = message.source or reader_of(self._config.sources, message.channel)
        source = None if reader is None else self._config.sources[reader]
        came = datetime.fromtimestamp(message.received_at, UTC)
        event = Event(
            message.id or Ids(_BOOT).next(message.received_at),
            reader or "",
            events.text(message.channel),
            None if source is None else pattern_of(source, message.channel),
            came,
            message.raw,
            headers=message.headers,
        )
        if reader is None or source is None or not reads(source, message.channel):
            return _unread(event, self._why_unread(message))
        now = message.received_at if message.now is None else message.now
        return self.again(event, message.channel, SourceFormat.of(reader, source), now)

    def again(self, came: Event, channel: bytes, source: SourceFormat, now: float) -> Simulation:
        """Return what becomes of a message that a source has brought, whose bytes nobody has read yet."""
        plan = self._routing.plan(came.source, channel)
        verdict = judge(came, source, plan, now)
        schema = _schema(plan, verdict)
        if isinstance(verdict, Rejected):
            return Simulation(came, came, Ending.REJECTED, verdict, schema)
        event = opened(came, verdict.message)
        if isinstance(verdict, Routed):
            ending = Ending.ROUTED
            deliveries = [(delivery.target, delivery.merged) for delivery in merged(verdict.because)]
        else:
            ending = Ending.UNMATCHED
            deliveries = [(target, ()) for target in verdict.deliveries]
        taken = {step.route for step in verdict.because} if isinstance(verdict, Routed) else set()
        return Simulation(
            came,
            event,
            ending,
            verdict,
            schema,
            self._routes(Asked(event, channel, now), taken),
            tuple(self._deliver(event, target, others, now) for target, others in deliveries),
        )

    def letter(self, letter: DeadLetter, now: float) -> Simulation:
        """Return what becomes of a dead letter that is replayed: a delivery is made again, an event goes the whole way."""
        if letter.sink is None:
            return self.whole(letter, now)
        event = delivery_of(letter)
        config = self._config.sources.get(letter.source)
        target = Target(letter.route or "", letter.sink)
        payload_format = format_of(letter, None if config is None else config.format)
        if not self._routing.knows(target.route, target.sink) or target.sink not in self._config.sinks:
            said = f"no route {target.route!r} leads to a sink {target.sink!r}"
            return _single(event, _refused(target, Reason.ORPHANED, Step.ORPHANED, said))
        if payload_format is None:
            said = "the payload can't be decoded"
            return _single(event, _refused(target, Reason.DECODE, Step.DECODE, said))
        event = msgspec.structs.replace(event, format=payload_format)
        return _single(event, self._deliver(event, target, (), now))

    def whole(self, letter: DeadLetter, now: float) -> Simulation:
        """Return what becomes of the event of a dead letter when it goes the whole way."""
        event = msgspec.structs.replace(delivery_of(letter), route="", sink="", address=None)
        config = self._config.sources.get(letter.source)
        if config is None:
            return _unread(event, f"there is no source {letter.source!r} any more")
        source = SourceFormat.of(letter.source, config)
        if letter.sink is not None and source.format == events.CLOUDEVENTS:
            # The letter of a delivery holds the data of an envelope, and no envelope.
            source = msgspec.structs.replace(source, format=format_of(letter, None) or events.TEXT)
        return self.again(event, letter.channel.encode("utf-8", "surrogateescape"), source, now)

    def _why_unread(self, message: Message) -> str:
        channel = events.text(message.channel)
        if message.source is not None:
            return f"the source {message.source} does not read the channel {channel!r}"
        known = (each for source in self._config.sources.values() for each in source.reads)
        return f"no source reads the channel {channel!r}{did_you_mean(channel, known)}"

    def _routes(self, asked: Asked, taken: set[str]) -> tuple[RouteVerdict, ...]:
        if not self._reasons:
            return tuple(RouteVerdict(route.id, route.id in taken, ()) for route in self._config.routes)
        found: list[RouteVerdict] = []
        stopped_by: str | None = None
        for route in self._config.routes:
            conditions = self._loaded.conditions.get(route.id)
            found.append(RouteVerdict(route.id, route.id in taken, checks(route, conditions, asked, stopped_by)))
            if route.final and route.id in taken:
                stopped_by = route.id
        return tuple(found)

    def _deliver(self, event: Event, target: Target, others: tuple[str, ...], now: float) -> SimulatedDelivery:
        delivery = msgspec.structs.replace(event, route=target.route, sink=target.sink)
        rules = self._rules(target)
        made = SimulatedDelivery(target.route, target.sink, self._loaded.types[target.sink].name, others)
        if self._records is not None:
            try:
                return self._made(made, prepare(delivery, rules, now, self._records.find), rules)
            except RecordNotGivenError:
                return made
        asks = rules.template.names if rules.only_if is None else rules.template.names | rules.only_if.names
        names = sorted(asks & self._loaded.lookups.keys())
        if not names:
            return self._made(made, prepare(delivery, rules, now), rules)
        return self._by_names(made, delivery, rules, now, names)

    def _by_names(
        self, made: SimulatedDelivery, delivery: Event, rules: Rules, now: float, names: list[str]
    ) -> SimulatedDelivery:
        """Return a delivery with the names of lookups' fields in place of their values."""
        unsure = f"the lookups {', '.join(names)} are not fetched"
        if rules.only_if is not None and rules.only_if.names & self._loaded.lookups.keys():
            rules = msgspec.structs.replace(rules, only_if=None)
            unsure += "; only_if, which asks for one, is taken for true"
        named = NamedRecords(self._loaded.lookups)
        prepared = prepare(delivery, rules, now, named.find)
        if isinstance(prepared, Refused) and prepared.reason == Reason.ADDRESS:
            named = NamedRecords(self._loaded.lookups, mailboxes=True)
            prepared = prepare(delivery, rules, now, named.find)
        if isinstance(prepared, Refused) and prepared.decided_by in {Step.ADDRESS, Step.TEMPLATE}:
            why = self._redactor.text(str(named.named(prepared.detail)))
            return msgspec.structs.replace(made, unsure=f"{unsure}, and without them: {why}")
        found = self._made(made, prepared, rules)
        return msgspec.structs.replace(
            found,
            to=tuple(named.named(found.to)),
            printed=tuple(named.named(found.printed)),
            rendered=named.named(found.rendered),
            text=named.named(found.text),
            unsure=unsure,
        )

    def _made(self, made: SimulatedDelivery, prepared: Rendered | Refused, rules: Rules) -> SimulatedDelivery:
        """Return a delivery with what became of it."""
        if isinstance(prepared, Refused):
            refused = msgspec.structs.replace(prepared, detail=self._redactor.text(prepared.detail))
            return msgspec.structs.replace(made, refused=refused)
        local = self._loaded.types[made.sink].local
        parted = self._parted(prepared, mail=rules.template.mail, local=local)
        return msgspec.structs.replace(
            made,
            to=prepared.addresses,
            rendered=self._redactor.value(plain_options(prepared.options)),
            text=self._redactor.text(prepared.text),
            degraded=prepared.degraded and self._redactor.text(prepared.degraded),
            prints=parted is not None,
            printed=() if parted is None else tuple(parted[1]),
        )

    def _rules(self, target: Target) -> Rules:
        """Return the rules of a delivery: those of its route, where the route overrides the sink's."""
        loaded, own, of_route = self._loaded, (target.sink, None), (target.sink, target.route)
        return Rules(
            loaded.templates.get(of_route) or loaded.templates[own],
            loaded.expires.get(target.route),
            loaded.only_if.get(of_route) or loaded.only_if.get(own),
        )

    def _parted(self, rendered: Rendered, *, mail: bool, local: bool) -> tuple[list[str], list[str]] | None:
        """Return the addresses that are sent to and those that are printed; None if the delivery is sent as it is."""
        if local or self._config.deliver == "send":
            return None
        return self._allowed.split(rendered, mail=mail)


def _unread(event: Event, detail: str) -> Simulation:
    return Simulation(event, event, Ending.UNREAD, None, _NO_SCHEMA, detail=detail)


def _single(event: Event, delivery: SimulatedDelivery) -> Simulation:
    """Return the simulation of a delivery that is made again: nothing else is decided."""
    return Simulation(event, event, Ending.ROUTED, None, _NO_SCHEMA, (), (delivery,))


def _refused(target: Target, reason: Reason, step: Step, detail: str) -> SimulatedDelivery:
    return SimulatedDelivery(target.route, target.sink, "", refused=Refused(reason, step, detail))


def is_made_up(event_id: str) -> bool:
    """Return whether an id was made by a simulation, rather than brought by the message."""
    return f"-{_BOOT}-" in event_id


def _schema(plan: Plan, verdict: Verdict) -> SchemaVerdict:
    rule = plan.schema
    file, mode = (None, None) if rule is None else (rule.file, rule.mode)
    asked = rule is not None and rule.schema is not None
    if isinstance(verdict, Rejected) and verdict.reason != Reason.SCHEMA:
        return SchemaVerdict(file, mode, None, ())
    return SchemaVerdict(file, mode, not verdict.violations if asked else None, verdict.violations)
