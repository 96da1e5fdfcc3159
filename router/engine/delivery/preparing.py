"""The preparation of a delivery before its attempt: expiry, conditions, lookups, templates, `deliver`; floor 5."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

import msgspec

from router.contracts import Clock
from router.core.delivery.preparation import overriding_route, too_late
from router.core.lookups.finding import NoRecordError
from router.core.rendering import OptionsTemplate, Rendered
from router.core.rendering.sandbox.lookup_records import NO_RECORDS, Records
from router.engine.delivery.delivery_log import about
from router.engine.delivery.delivery_mode import DeliveryMode
from router.engine.delivery.gate import Destination
from router.engine.delivery.outcomes import Outcomes
from router.engine.lookups.lookup_set import NO_LOOKUPS, LookupSet
from router.errors import AddressError, Reason, TemplateError, TransientError
from router.events import Event

if TYPE_CHECKING:
    from router.core.rendering.expressions import Expiry, Expression


class Send(msgspec.Struct, frozen=True, gc=False):
    """The decision to attempt a delivery with these options."""

    options: Any


class Suppressed(msgspec.Struct, frozen=True):
    """The decision not to attempt a delivery, for a reason in `errors.SUPPRESSED`."""

    reason: Reason


class Dead(msgspec.Struct, frozen=True):
    """The decision to give up a delivery before its attempt, because the attempt can't be made or would be too late."""

    reason: Reason
    detail: str
    told: str | None = None
    """The text for the log if `detail` quotes the event; None if `detail` itself may be logged."""


class Postponed(msgspec.Struct, frozen=True):
    """The decision to prepare a delivery again later, because a lookup fails now."""

    error: TransientError


class Shown(msgspec.Struct, frozen=True):
    """The result of printing a delivery.

    It was printed for the `refused` addresses. It may be sent to the `allowed` addresses.
    """

    allowed: list[str]
    refused: list[str]


Prepared = Send | Suppressed | Dead | Shown | Postponed

Verdict = Suppressed | Dead | Postponed
"""A decision about a delivery that makes it unnecessary to render the options."""


class Preparing:
    """The preparation of one sink's deliveries.

    `templates` has the compiled options by route. `only_if` has the conditions of deliveries by route. In both
    mappings, the key None is for all other routes. `expires` has the time limit of deliveries by route. `lookups`
    fetches the records that templates and conditions use. `mode` prints the deliveries that must not be sent because of
    the option `deliver`; None means that all deliveries may be sent.
    """

    def __init__(
        self,
        templates: Mapping[str | None, OptionsTemplate],
        expires: Mapping[str, Expiry],
        only_if: Mapping[str | None, Expression],
        lookups: LookupSet = NO_LOOKUPS,
        *,
        outcomes: Outcomes,
        mode: DeliveryMode | None,
        clock: Clock,
    ) -> None:
        self._outcomes = outcomes
        self._mode = mode
        self.prints = mode is not None
        """True if `deliver` may print a delivery instead of sending it."""
        self._clock = clock
        self.looks_up = False
        """True if some deliveries need records. Then `look_up` must be called before `prepare`."""
        self._parted = False  # True if a delivery may be for a single address
        self._templates: Mapping[str | None, OptionsTemplate] = {}
        self.removed_overrides: frozenset[str] = frozenset()
        """The routes that overrode options in an earlier configuration, but not in the current one. Deliveries of these
        routes must not use the sink's own templates.
        """
        self.shared: Any = None
        """The options of all deliveries, if they are the same for every route, event, address and time; else None."""
        self.use(templates, expires, only_if, lookups)

    def use(
        self,
        templates: Mapping[str | None, OptionsTemplate],
        expires: Mapping[str, Expiry],
        only_if: Mapping[str | None, Expression],
        lookups: LookupSet = NO_LOOKUPS,
        gone: AbstractSet[str] = frozenset(),
    ) -> None:
        """Replace the templates, time limits, conditions and lookups.

        Afterwards, `removed_overrides` has the routes that overrode options before, and the routes in `gone`. Routes
        that override options now are left out.
        """
        self.removed_overrides = frozenset((self.overriding | self.removed_overrides | gone) - templates.keys())
        self._templates = templates
        self._expires = expires
        self._only_if = only_if
        self._lookups = lookups
        self._named = {route: template.names & lookups.names for route, template in templates.items()}
        names = set(self._named.values())
        self._named_by_all = names.pop() if len(names) == 1 else None
        """The lookups that the templates of every delivery use; None if they differ by route."""
        self.looks_up = any(self._named.values()) or any(one.names & lookups.names for one in only_if.values())
        # A delivery may have been split by this process, by an earlier process with this queue, or before a replay.
        self._parted |= any(template.fields.addresses for template in templates.values())
        alike = self._mode is None and not expires and not only_if and not self.removed_overrides and not self._parted
        self.shared = _shared(templates.values()) if alike else None

    def parted(self) -> None:
        """Record that from now on a delivery may be for a single address."""
        self._parted = True
        self.shared = None

    @property
    def overriding(self) -> frozenset[str]:
        """The routes that override options of the sink."""
        own = self._templates.get(None)
        return frozenset(route for route, template in self._templates.items() if route and template is not own)

    def order_key(self, event: Event) -> str | None:
        """Return the key of a delivery from the sink's options.

        Return None if the delivery has no key, or if the key can't be rendered.
        """
        try:
            return self._template(event).order_key(event, self._clock.now())
        except Exception:  # noqa: BLE001  # the same error makes the delivery a dead letter when it is prepared
            return None

    def destination(self, event: Event, options: Any) -> Destination:
        """Return the destination of a delivery with these options."""
        template = self._template(event)
        addresses = template.recipients(options) if event.address is None else (event.address,)
        return Destination(addresses, literal=not template.templated_address)

    async def look_up(self, events: Sequence[Event]) -> list[Records | Verdict]:
        """Return, for each delivery, its records, or a decision that makes rendering unnecessary.

        The conditions are evaluated first. The records for the templates are fetched afterwards, because a suppressed
        delivery does not need them.
        """
        found: list[Records | Verdict]
        if self._named_by_all and not (self._only_if or self._expires or self.removed_overrides):
            answers = await self._lookups.find(events, [self._named_by_all] * len(events), self._clock.now())
            return [_failed(answer) if isinstance(answer, Exception) else answer for answer in answers]
        found = [self._early(event) or NO_RECORDS for event in events]
        if self._only_if:
            conditions = [self._condition(event) for event in events]
            names = [one.names & self._lookups.names if one else frozenset() for one in conditions]
            await self._find(events, found, names)
            for place, condition in enumerate(conditions):
                records = found[place]
                if condition is not None and not isinstance(records, Verdict):
                    found[place] = self._held(condition, events[place], records) or records
        await self._find(events, found, [self._named_by(event) for event in events])
        return found

    async def _find(
        self, events: Sequence[Event], found: list[Records | Verdict], named: Sequence[frozenset[str]]
    ) -> None:
        """Fetch the records of the lookups in `named` for each delivery.

        Put the records, or a decision about the delivery, into `found`.
        """
        places = [place for place, names in enumerate(named) if names and not isinstance(found[place], Verdict)]
        if not places:
            return
        answers = await self._lookups.find(
            [events[place] for place in places], [named[place] for place in places], self._clock.now()
        )
        for place, answer in zip(places, answers, strict=True):
            before = found[place]
            if isinstance(answer, Exception):
                found[place] = _failed(answer)
            elif not isinstance(before, Verdict):
                found[place] = {**before, **answer} if before else answer

    async def prepare(self, event: Event, found: Records | Verdict | None = None) -> Prepared:
        """Return the decision about a delivery.

        `found` is the result of `look_up`; None if no delivery needs records. If the option `deliver` does not allow
        the delivery to be sent, the delivery is printed.
        """
        decided, rendered = self._decided(event, found)
        mode = self._mode
        if mode is None:
            return decided
        try:
            if isinstance(decided, Suppressed):
                await mode.nobody(event, decided.reason)
            elif rendered is not None:
                parted = await mode.part(event, rendered, mail=self._template(event).mail)
                if parted is not None:
                    return Shown(*parted)
        except TemplateError as error:
            return Dead(Reason.TEMPLATE, str(error), error.told)
        except AddressError as error:
            return Dead(Reason.ADDRESS, str(error), error.told)
        return decided

    def prepare_to_send(self, event: Event, found: Records | Verdict | None = None) -> Prepared:
        """Return the decision about a delivery as `prepare` does, but without waiting.

        Call this method only if `prints` is False.
        """
        return self._decided(event, found)[0]

    def _decided(self, event: Event, found: Records | Verdict | None) -> tuple[Prepared, Rendered | None]:
        """Return the decision about a delivery, and its rendered options if it may be sent."""
        try:
            verdict = self._judged(event) if found is None else found
            # Usually `verdict` has the records of the delivery. The check of the exact type is fast.
            if type(verdict) is not dict and isinstance(verdict, Verdict):
                return verdict, None
            return self._rendered(event, verdict)
        except TemplateError as error:
            return Dead(Reason.TEMPLATE, str(error), error.told), None
        except AddressError as error:
            return Dead(Reason.ADDRESS, str(error), error.told), None

    def _judged(self, event: Event) -> Records | Verdict:
        """Return the decision about a delivery that needs no lookups.

        `NO_RECORDS` means that the options must be rendered.
        """
        early = self._early(event)
        condition = self._condition(event) if self._only_if and early is None else None
        held = None if condition is None else self._held(condition, event, NO_RECORDS)
        return early or held or NO_RECORDS

    def _early(self, event: Event) -> Dead | None:
        """Return the decision to give up a delivery because it is orphaned or expired; None for all other deliveries."""
        if self.removed_overrides and overriding_route(event) in self.removed_overrides:
            return Dead(
                Reason.ORPHANED,
                f"the route {event.route} overrode options of this sink, but was removed or does not override them now",
            )
        try:
            return self._late(event) if self._expires else None
        except TemplateError as error:
            return Dead(Reason.TEMPLATE, str(error), error.told)

    def _condition(self, event: Event) -> Expression | None:
        return self._only_if.get(overriding_route(event)) or self._only_if.get(None)

    def _template(self, event: Event) -> OptionsTemplate:
        return self._templates.get(overriding_route(event)) or self._templates[None]

    def _named_by(self, event: Event) -> frozenset[str]:
        if self._named_by_all is not None:
            return self._named_by_all
        named = self._named.get(overriding_route(event))
        return self._named[None] if named is None else named

    def _held(self, condition: Expression, event: Event, records: Records) -> Suppressed | Dead | None:
        """Return the decision about a delivery by its `only_if`; None if `only_if` is true.

        If `only_if` is false, the delivery is suppressed. If its evaluation fails, the delivery is given up.
        """
        try:
            return None if condition.holds(event, self._clock.now(), records) else Suppressed(Reason.ONLY_IF)
        except TemplateError as error:
            return Dead(Reason.TEMPLATE, str(error), error.told)

    def _late(self, event: Event) -> Dead | None:
        expiry = self._expires.get(event.route)
        late = None if expiry is None else too_late(expiry, event, self._clock.now())
        return None if late is None else Dead(Reason.EXPIRED, late)

    def _rendered(self, event: Event, records: Records) -> tuple[Prepared, Rendered | None]:
        template = self._template(event)
        if template.static is not None and event.address is None and self._mode is None:
            return Send(template.static), None
        if self.looks_up and not self._named_by(event) <= records.keys():
            return Postponed(TransientError("a reload changed the lookups while the delivery was prepared")), None
        rendered = template.render(event, self._clock.now(), records)
        if rendered.suppressed:
            return Suppressed(rendered.suppressed), None
        if rendered.degraded:
            self._outcomes.book.degraded += 1
            message = "a text could not be rendered: the event's JSON line is sent instead"
            self._outcomes.notes.say(message, event.route, error=rendered.degraded, **about(event))
        return Send(rendered.options), rendered


def _failed(error: NoRecordError | TemplateError | TransientError) -> Verdict:
    """Return the decision about a delivery whose records could not be fetched."""
    if isinstance(error, TransientError):
        return Postponed(error)
    if isinstance(error, NoRecordError):
        return Suppressed(Reason.LOOKUP) if error.suppresses else Dead(Reason.LOOKUP, str(error), error.told)
    return Dead(Reason.TEMPLATE, str(error), error.told)


def _shared(templates: Iterable[OptionsTemplate]) -> Any:
    options = [template.static for template in templates]
    return options[0] if options and all(one is not None and one == options[0] for one in options) else None
