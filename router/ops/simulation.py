"""The simulation of one message under a configuration: every decision of the router, without sending; floor 4.

`event-router explain` shows the result. The simulation uses the same code as the daemon for the verdict, the delivery
rules and the templates.
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
from router.core.conditions.route_checks import Asked, RouteVerdict, Step, checks, distance
from router.core.decoding import SourceFormat
from router.core.delivery.preparation import AllowedAddresses, Refused, Rules, overriding_route, prepare, shown
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

_BOOT = "explain"  # marks the event ids of simulations: ids of a running router have a random word at this place


class Ending(StrEnum):
    """The result of a simulated message."""

    UNREAD = "unread"
    """No source reads the channel, so the router never receives the message."""
    REJECTED = "rejected"
    UNMATCHED = "unmatched"
    ROUTED = "routed"


class Message(msgspec.Struct, frozen=True):
    """A message as it would come from Redis.

    If `source` is None, the first source that reads the channel is used. If `id` is None, an id is generated. If the
    source reads an id from the payload or envelope, this id replaces `id`. `received_at` and `now` are seconds since
    the epoch. Deliveries are made at `now`; None means `received_at`.
    """

    channel: bytes
    raw: bytes
    received_at: float
    source: str | None = None
    headers: Mapping[str, str] | None = None
    id: str | None = None
    now: float | None = None


class SchemaVerdict(msgspec.Struct, frozen=True):
    """The result of validating a payload with the schema of its channel.

    `file` and `mode` are None if the channel has no schema. `valid` is None if the payload was not validated.
    """

    file: str | None
    mode: str | None
    valid: bool | None
    violations: tuple[Violation, ...]


_NO_SCHEMA = SchemaVerdict(None, None, None, ())


class SimulatedDelivery(msgspec.Struct, frozen=True):
    """A delivery of the simulated message.

    - `merged`: the later routes with a delivery to the same sink that was merged into this delivery
    - `refused`: the reason why the delivery is not attempted, or None
    - `prints`: True if `deliver` prints the delivery, or a part of it, instead of sending it
    - `printed`: the addresses of `to` that are printed
    - `rendered`: the sink's options as plain values, without secrets
    - `text`: the message for people; if `previews` is True, the sink's preview of the data that it would send
    - `degraded`: the error of a text that could not be rendered, and was replaced by the JSON line of the event
    - `keys`: the keys of the message, such as `thread`, by option
    - `unsure`: the parts of the result that depend on lookups which were not fetched
    """

    route: str
    sink: str
    type: str
    merged: tuple[str, ...] = ()
    to: tuple[str, ...] = ()
    refused: Refused | None = None
    rendered: Mapping[str, Any] | None = None
    text: str = ""
    previews: bool = False
    degraded: str | None = None
    keys: Mapping[str, str] = {}
    prints: bool = False
    printed: tuple[str, ...] = ()
    unsure: str = ""

    @property
    def delivers(self) -> bool:
        """True if the delivery is sent, or printed by `deliver: print`."""
        return self.refused is None

    @property
    def suppressed(self) -> Reason | None:
        """The reason why the delivery is suppressed; None if it is not suppressed."""
        return self.refused.reason if self.refused is not None and self.refused.suppressed else None

    @property
    def dead(self) -> Reason | None:
        """The reason for which the delivery becomes a dead letter before any attempt; None without such a reason."""
        return self.refused.reason if self.refused is not None and not self.refused.suppressed else None


class Simulation(msgspec.Struct, frozen=True):
    """The result of simulating one message.

    `came` is the event before decoding. `event` is the event after decoding, with the id, headers and data of its
    envelope. `verdict` is None if no source reads the channel; then `detail` contains the reason. `routes` are in the
    order of the configuration, and empty for a rejected message.
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
        """The rejection; None if the message is not rejected."""
        return self.verdict if isinstance(self.verdict, Rejected) else None

    @property
    def delivers(self) -> bool:
        """True if at least one delivery is sent or printed."""
        return any(delivery.delivers for delivery in self.deliveries)

    @property
    def nearest(self) -> RouteVerdict | None:
        """The route that came nearest to taking an unmatched event.

        None if the message has another result than `unmatched`, or if there are no routes.
        """
        return None if self.ending != Ending.UNMATCHED else min(self.routes, key=distance, default=None)


class Simulator:
    """Simulates messages under one configuration. Every attempt is assumed to succeed, so no fallback is used.

    `given` returns the records of lookups. If `given` is None, each field of a lookup is shown as its name
    (`{{ user.email }}`), and an `only_if` that uses a lookup is assumed to be true. If `reasons` is False, the
    conditions of the routes are not listed. Evaluating all conditions takes longer than the rest of the simulation.
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
        """The keys of the records that `given` lacks, by lookup.

        Deliveries that need such a record are not simulated.
        """
        return {} if self._records is None else self._records.asked

    def simulate(self, message: Message) -> Simulation:
        """Simulate a message. Raises `KeyError` if the configuration has no source with the name in `message.source`."""
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
        return self._received(event, message.channel, SourceFormat.of(reader, source), now)

    def _received(self, came: Event, channel: bytes, source: SourceFormat, now: float) -> Simulation:
        """Simulate an event that a source has received: decode, validate, route and prepare its deliveries."""
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

    def replay(self, letter: DeadLetter, now: float) -> Simulation:
        """Simulate the replay of a dead letter: of its delivery, or of its event if the letter has no sink."""
        if letter.sink is None:
            return self.from_start(letter, now)
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

    def from_start(self, letter: DeadLetter, now: float) -> Simulation:
        """Simulate the event of a dead letter from the start, as if its source received it at `now`."""
        event = msgspec.structs.replace(delivery_of(letter), route="", sink="", address=None, _fallback=False)
        config = self._config.sources.get(letter.source)
        if config is None:
            return _unread(event, f"there is no source {letter.source!r} any more")
        source = SourceFormat.of(letter.source, config)
        if letter.sink is not None and source.format == events.CLOUDEVENTS:
            # The dead letter of a delivery contains only the data of the CloudEvents envelope, not the envelope itself.
            source = msgspec.structs.replace(source, format=format_of(letter, None) or events.TEXT)
        return self._received(event, letter.channel.encode("utf-8", "surrogateescape"), source, now)

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
        rules = self._rules(delivery)
        made = SimulatedDelivery(target.route, target.sink, self._loaded.types[target.sink].name, others)
        if self._records is not None:
            try:
                return self._made(made, delivery, prepare(delivery, rules, now, self._records.find), rules)
            except RecordNotGivenError:
                return made
        asks = rules.template.names if rules.only_if is None else rules.template.names | rules.only_if.names
        names = sorted(asks & self._loaded.lookups.keys())
        if not names:
            return self._made(made, delivery, prepare(delivery, rules, now), rules)
        return self._with_names(made, delivery, rules, now, names)

    def _with_names(
        self, made: SimulatedDelivery, delivery: Event, rules: Rules, now: float, names: list[str]
    ) -> SimulatedDelivery:
        """Return a delivery that shows the fields of lookups as their names, because no records are fetched."""
        one = len(names) == 1
        unsure = f"the lookup{'' if one else 's'} {', '.join(names)} {'is' if one else 'are'} not fetched"
        if rules.only_if is not None and rules.only_if.names & self._loaded.lookups.keys():
            rules = msgspec.structs.replace(rules, only_if=None)
            unsure += "; `only_if` uses a lookup, and is assumed to be true"
        named = NamedRecords(self._loaded.lookups)
        prepared = prepare(delivery, rules, now, named.find)
        if isinstance(prepared, Refused) and prepared.reason == Reason.ADDRESS:
            named = NamedRecords(self._loaded.lookups, mailboxes=True)
            prepared = prepare(delivery, rules, now, named.find)
        if isinstance(prepared, Refused) and prepared.decided_by in {Step.ADDRESS, Step.TEMPLATE}:
            why = self._redactor.text(str(named.named(prepared.detail)))
            return msgspec.structs.replace(made, unsure=f"{unsure}; without their records: {why}")
        found = self._made(made, delivery, prepared, rules)
        return msgspec.structs.replace(
            found,
            to=tuple(named.named(found.to)),
            printed=tuple(named.named(found.printed)),
            rendered=named.named(found.rendered),
            text=named.named(found.text),
            unsure=unsure,
        )

    def _made(
        self, made: SimulatedDelivery, event: Event, prepared: Rendered | Refused, rules: Rules
    ) -> SimulatedDelivery:
        """Return a delivery of `event` with its rendered options, or with the reason why it is not attempted."""
        if isinstance(prepared, Refused):
            refused = msgspec.structs.replace(prepared, detail=self._redactor.text(prepared.detail))
            return msgspec.structs.replace(made, refused=refused)
        local = self._loaded.types[made.sink].local
        parted = self._parted(prepared, mail=rules.template.mail, local=local)
        text = self._redactor.text(shown(prepared, event))
        return msgspec.structs.replace(
            made,
            to=prepared.addresses,
            rendered=self._redactor.value(plain_options(prepared.options)),
            text=text,
            previews=not prepared.text and bool(text),
            degraded=prepared.degraded and self._redactor.text(prepared.degraded),
            keys={name: self._redactor.text(key) for name, key in prepared.keys.items()},
            prints=parted is not None,
            printed=() if parted is None else tuple(parted[1]),
        )

    def _rules(self, delivery: Event) -> Rules:
        """Return the rules of a delivery. Rules of the route override rules of the sink."""
        loaded, own, of_route = self._loaded, (delivery.sink, None), (delivery.sink, overriding_route(delivery))
        return Rules(
            loaded.templates.get(of_route) or loaded.templates[own],
            loaded.expires.get(delivery.route),
            loaded.only_if.get(of_route) or loaded.only_if.get(own),
        )

    def _parted(self, rendered: Rendered, *, mail: bool, local: bool) -> tuple[list[str], list[str]] | None:
        """Return two lists: the addresses to send to, and the addresses to print; None if `deliver` changes nothing."""
        if local or self._config.deliver == "send":
            return None
        return self._allowed.split(rendered, mail=mail)


def _unread(event: Event, detail: str) -> Simulation:
    return Simulation(event, event, Ending.UNREAD, None, _NO_SCHEMA, detail=detail)


def _single(event: Event, delivery: SimulatedDelivery) -> Simulation:
    """Return the simulation of the replay of one delivery, which involves no schema and no routes."""
    return Simulation(event, event, Ending.ROUTED, None, _NO_SCHEMA, (), (delivery,))


def _refused(target: Target, reason: Reason, step: Step, detail: str) -> SimulatedDelivery:
    return SimulatedDelivery(target.route, target.sink, "", refused=Refused(reason, step, detail))


def is_made_up(event_id: str) -> bool:
    """Return whether an event id was generated by a simulation."""
    return f"-{_BOOT}-" in event_id


def _schema(plan: Plan, verdict: Verdict) -> SchemaVerdict:
    rule = plan.schema
    file, mode = (None, None) if rule is None else (rule.file, rule.mode)
    asked = rule is not None and rule.schema is not None
    if isinstance(verdict, Rejected) and verdict.reason != Reason.SCHEMA:
        return SchemaVerdict(file, mode, None, ())
    return SchemaVerdict(file, mode, not verdict.violations if asked else None, verdict.violations)
