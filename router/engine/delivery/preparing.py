"""The preparation of a delivery before its attempt: expiry, templates, addresses, `deliver`; floor 5."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec

from router.contracts import Clock
from router.core.delivery.preparation import too_late
from router.core.rendering import OptionsTemplate
from router.core.rendering.expressions import Expiry, Expression
from router.engine.delivery.delivery_log import about
from router.engine.delivery.delivery_mode import DeliveryMode
from router.engine.delivery.gate import Destination
from router.engine.delivery.outcomes import Outcomes
from router.errors import AddressError, Reason, TemplateError
from router.events import Event


class Send(msgspec.Struct, frozen=True, gc=False):
    """A delivery that is to be attempted with these options."""

    options: Any


class Suppressed(msgspec.Struct, frozen=True):
    """A delivery that is not to be attempted, for a reason of `errors.SUPPRESSED`."""

    reason: Reason


class Dead(msgspec.Struct, frozen=True):
    """A delivery that can't be attempted, or is too late."""

    reason: Reason
    detail: str
    told: str | None = None
    """A text for the log in place of `detail`, which quotes the event; None if `detail` is safe."""


class Shown(msgspec.Struct, frozen=True):
    """A delivery that was printed instead of sent. Its `allowed` addresses may be sent to, the `refused` ones not."""

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
        self._parted = False  # True if a delivery may be for a single address
        self._templates: Mapping[str | None, OptionsTemplate] = {}
        self.gone: frozenset[str] = frozenset()
        """The routes that overrode options and no longer do: their deliveries must not use the sink's own templates."""
        self.shared: Any = None
        """The options of all deliveries, if they are the same for every route, event, address and time; else None."""
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
        # A delivery may have been split by this process, by an earlier one that used the queue, or before a replay.
        self._parted |= any(template.fields.addresses for template in templates.values())
        alike = self._mode is None and not expires and not only_if and not self.gone and not self._parted
        self.shared = _shared(templates.values()) if alike else None

    def parted(self) -> None:
        """Note that from now on a delivery may be for a single address."""
        self._parted = True
        self.shared = None

    @property
    def overriding(self) -> frozenset[str]:
        """The routes that override options of the sink."""
        own = self._templates.get(None)
        return frozenset(route for route, template in self._templates.items() if route and template is not own)

    def destination(self, event: Event, options: Any) -> Destination:
        """Return the destination of a delivery with these options."""
        template = self._templates.get(event.route) or self._templates[None]
        addresses = template.recipients(options) if event.address is None else (event.address,)
        return Destination(addresses, literal=not template.templated_address)

    async def prepare(self, event: Event) -> Prepared:
        """Return how to go on with a delivery: send, suppress, give up, or settle as printed."""
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
        late = None if expiry is None else too_late(expiry, event, self._clock.now())
        return None if late is None else Dead(Reason.EXPIRED, late)

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
