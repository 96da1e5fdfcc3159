"""What stands between a delivery in hand and the call of its sink: is it too late, what is sent, to whom; floor 5."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Any

import msgspec

from router.contracts import Clock
from router.core.rendering import OptionsTemplate
from router.core.rendering.expressions import Expiry, Expression
from router.engine.delivery.delivery_log import about
from router.engine.delivery.delivery_mode import DeliveryMode
from router.engine.delivery.gate import Destination
from router.engine.delivery.outcomes import Outcomes
from router.errors import AddressError, Reason, TemplateError
from router.events import Event, timestamp


class Send(msgspec.Struct, frozen=True, gc=False):
    """To be sent with these options."""

    options: Any


class Suppressed(msgspec.Struct, frozen=True):
    """A delivery that nobody is to get."""

    reason: Reason


class Dead(msgspec.Struct, frozen=True):
    """A delivery that can't be made, or no more."""

    reason: Reason
    detail: str
    told: str | None = None
    """What the log may say where the detail quotes the event."""


class Shown(msgspec.Struct, frozen=True):
    """A delivery that was printed and not sent, but for the addresses that are `allowed`; `refused` are the others."""

    allowed: list[str]
    refused: list[str]


Prepared = Send | Suppressed | Dead | Shown

Pair = tuple[Event, Any]
"""A delivery with its rendered options."""


class Preparing:
    """The preparation of one sink's deliveries.

    `templates` gives the compiled options by route, and by None for any other route; `only_if`, in the same way, the
    conditions of a delivery. `expires` says until when the deliveries of a route are worth making. `mode` holds back what
    `deliver: print` must not send.
    """

    def __init__(
        self,
        templates: Mapping[str | None, OptionsTemplate],
        expires: Mapping[str, Expiry],
        only_if: Mapping[str | None, Expression],
        *,
        outcomes: Outcomes,
        mode: DeliveryMode | None,
        clock: Clock,
    ) -> None:
        self._outcomes = outcomes
        self._mode = mode
        self._clock = clock
        self._parted = False  # whether a delivery may be for one address alone
        self._templates: Mapping[str | None, OptionsTemplate] = {}
        self.gone: frozenset[str] = frozenset()
        """Routes that had options of their own and are no more: what they sent is not for the sink's own templates."""
        self.shared: Any = None
        """The one options object of all deliveries; None where routes, events, addresses or time make a difference."""
        self.use(templates, expires, only_if)

    def use(
        self,
        templates: Mapping[str | None, OptionsTemplate],
        expires: Mapping[str, Expiry],
        only_if: Mapping[str | None, Expression],
        gone: AbstractSet[str] = frozenset(),
    ) -> None:
        """Render by these templates, and ask these conditions, from now on.

        Routes that had templates of their own before, or are in `gone`, and have none now are gone.
        """
        self.gone = frozenset((self.overriding | self.gone | gone) - templates.keys())
        self._templates = templates
        self._expires = expires
        self._only_if = only_if
        self._decided = self._conditional if only_if else self._rendered
        # A delivery may have been split here, or earlier, by whoever queued it or had it replayed.
        self._parted |= any(template.fields.addresses for template in templates.values())
        alike = self._mode is None and not expires and not only_if and not self.gone and not self._parted
        self.shared = _shared(templates.values()) if alike else None

    def parted(self) -> None:
        """Note that from now on a delivery may be for one address alone."""
        self._parted = True
        self.shared = None

    @property
    def overriding(self) -> frozenset[str]:
        """The routes that have options of their own."""
        own = self._templates.get(None)
        return frozenset(route for route, template in self._templates.items() if route and template is not own)

    def destination(self, event: Event, options: Any) -> Destination:
        """Return where a delivery with these options goes."""
        template = self._templates.get(event.route) or self._templates[None]
        addresses = template.recipients(options) if event.address is None else (event.address,)
        return Destination(addresses, literal=not template.templated_address)

    async def prepare(self, event: Event) -> Prepared:
        """Return what is to become of a delivery now."""
        if event.route in self.gone:
            return Dead(Reason.ORPHANED, f"the route {event.route} had options of its own and is gone")
        try:
            late = self._late(event)
            return late or await self._decided(event)
        except TemplateError as error:
            return Dead(Reason.TEMPLATE, str(error), error.told)
        except AddressError as error:
            return Dead(Reason.ADDRESS, str(error), error.told)

    def _late(self, event: Event) -> Dead | None:
        expiry = self._expires.get(event.route)
        now = self._clock.now()
        until = None if expiry is None else expiry.at(event, now)
        if until is None or now < until:
            return None
        return Dead(Reason.EXPIRED, f"it was to be delivered before {timestamp(datetime.fromtimestamp(until, UTC))}")

    async def _conditional(self, event: Event) -> Prepared:
        """Render a delivery where its `only_if` holds. Raises `TemplateError` where that can't be evaluated."""
        condition = self._only_if.get(event.route) or self._only_if.get(None)
        if condition is None or condition.holds(event, self._clock.now()):
            return await self._rendered(event)
        if self._mode is not None:
            await self._mode.nobody(event, Reason.ONLY_IF)
        return Suppressed(Reason.ONLY_IF)

    async def _rendered(self, event: Event) -> Prepared:
        template = self._templates.get(event.route) or self._templates[None]
        if template.static is not None and event.address is None and self._mode is None:
            return Send(template.static)
        rendered = template.render(event, self._clock.now())
        if rendered.suppressed:
            if self._mode is not None:
                await self._mode.nobody(event, rendered.suppressed)
            return Suppressed(rendered.suppressed)
        if rendered.degraded:
            self._outcomes.book.degraded += 1
            message = "a text could not be rendered: the JSON line is sent instead"
            self._outcomes.notes.say(message, event.route, error=rendered.degraded, **about(event))
        if self._mode is not None:
            parted = await self._mode.part(event, rendered, mail=template.mail)
            if parted is not None:
                return Shown(*parted)
        return Send(rendered.options)


def _shared(templates: Iterable[OptionsTemplate]) -> Any:
    options = [template.static for template in templates]
    return options[0] if options and all(one is not None and one == options[0] for one in options) else None
