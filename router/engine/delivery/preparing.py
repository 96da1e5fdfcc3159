"""What stands between a delivery in hand and the call of its sink: is it too late, what is sent, to whom; floor 5."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Any

import msgspec

from router.contracts import Clock
from router.core.accounts.books import SinkBook
from router.core.rendering import OptionsTemplate
from router.core.rendering.expressions import Expiry
from router.engine.delivery.delivery_mode import DeliveryMode
from router.engine.delivery.pausing import Destination
from router.engine.log_limits import LogLimits
from router.errors import AddressError, Reason, TemplateError
from router.events import Event, timestamp


class Send(msgspec.Struct, frozen=True, gc=False):
    """To be sent with these options."""

    options: Any


class Suppressed(msgspec.Struct, frozen=True):
    """Nobody is to get it."""

    reason: Reason


class Dead(msgspec.Struct, frozen=True):
    """It can't be delivered, or no more."""

    reason: Reason
    detail: str
    told: str | None = None
    """What the log may say where the detail quotes the event."""


class Shown(msgspec.Struct, frozen=True):
    """A delivery that was printed and not sent, but for the addresses that are `allowed`; `refused` are the others."""

    allowed: list[str]
    refused: list[str]


Prepared = Send | Suppressed | Dead | Shown


class Preparing:
    """Prepares the deliveries of one sink.

    `templates` gives the compiled options by route, and by None for any other route; `expires` until when the deliveries
    of a route are worth making. `gone` are routes that had options of their own and are no more: what they sent is not
    for the sink's own templates.
    """

    def __init__(
        self,
        templates: Mapping[str | None, OptionsTemplate],
        expires: Mapping[str, Expiry],
        *,
        mode: DeliveryMode | None,
        book: SinkBook,
        clock: Clock,
        notes: LogLimits,
        gone: AbstractSet[str] = frozenset(),
    ) -> None:
        self._gone = gone
        self._templates = templates
        self._expires = expires
        self._mode = mode
        self._book = book
        self._clock = clock
        self._notes = notes
        self.shared = None if mode is not None or expires or gone else _shared(templates.values())
        """The one options object of all whole deliveries; None where routes, events or time make a difference."""

    def destination(self, event: Event, options: Any) -> Destination:
        """Where a delivery with these options goes."""
        template = self._templates.get(event.route) or self._templates[None]
        addresses = template.recipients(options) if event.address is None else (event.address,)
        return Destination(addresses, literal=not template.templated_address)

    async def prepare(self, event: Event) -> Prepared:
        """What is to become of a delivery now."""
        if event.route in self._gone:
            return Dead(Reason.ORPHANED, f"the route {event.route} had options of its own and is gone")
        try:
            late = self._late(event)
            return late or await self._rendered(event)
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
            self._book.degraded += 1
            message = "a text could not be rendered: the JSON line is sent instead"
            self._notes.say(message, event.route, error=rendered.degraded, **about(event))
        if self._mode is not None:
            parted = await self._mode.part(event, rendered, mail=template.mail)
            if parted is not None:
                return Shown(*parted)
        return Send(rendered.options)


def _shared(templates: Iterable[OptionsTemplate]) -> Any:
    options = [template.static for template in templates]
    return options[0] if options and all(one is not None and one == options[0] for one in options) else None


def about(event: Event) -> dict[str, Any]:
    """What log lines say of a delivery."""
    said = {"event_id": event.id, "source": event.source, "channel": event.channel, "route": event.route}
    if event.address is not None:
        said["address"] = event.address
    return said
