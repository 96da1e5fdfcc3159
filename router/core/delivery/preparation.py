"""The checks before the attempt of a delivery, by the rules of its sink and route; pure.

A delivery is not attempted if it is too late, if its `only_if` is false, if a template fails, or if it has no address.
The checks are made in this order. The engine's `Preparing` carries out the decision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from router.core.lookups.finding import NoRecordError
from router.core.mailboxes import matcher
from router.core.matching import any_of
from router.core.rendering import OptionsTemplate, Rendered
from router.core.rendering.sandbox.lookup_records import NO_RECORDS, Records
from router.errors import AddressError, Reason, TemplateError
from router.events import Event, timestamp

if TYPE_CHECKING:
    from router.core.rendering.expressions import Expiry, Expression


class Rules(msgspec.Struct, frozen=True, eq=False):
    """The rules that prepare a delivery: the compiled options of its sink and route, `expires` and `only_if`."""

    template: OptionsTemplate
    expiry: Expiry | None = None
    only_if: Expression | None = None


def overriding_route(delivery: Event) -> str | None:
    """Return the route whose overrides of the sink apply to a delivery; None if the sink is the fallback of another.

    A route overrides options only for its own sinks. A fallback uses its own templates and `only_if`.
    """
    return None if delivery._fallback else delivery.route


class Refused(msgspec.Struct, frozen=True):
    """The decision not to attempt a delivery, with the reason and the check that decided.

    The delivery is suppressed if `suppressed` is true; otherwise it becomes a dead letter.
    """

    reason: Reason
    decided_by: str
    detail: str
    suppressed: bool = False


Find = Callable[[Event, frozenset[str], float], Records]
"""A function that finds the records of an event for the lookups among some names, at a time in seconds since the epoch.

It raises `NoRecordError` or `TemplateError`.
"""


def _no_records(_event: Event, _names: frozenset[str], _now: float) -> Records:
    return NO_RECORDS


def prepare(event: Event, rules: Rules, now: float, find: Find = _no_records) -> Rendered | Refused:
    """Return the rendered options of a delivery, or why it is not attempted. `now` is seconds since the epoch.

    The records that `only_if` names are found first, because a suppressed delivery needs no other records.
    """
    decided_by = "expires"
    try:
        late = None if rules.expiry is None else too_late(rules.expiry, event, now)
        if late is not None:
            return Refused(Reason.EXPIRED, decided_by, late)
        decided_by, only_if = "only_if", rules.only_if
        records = NO_RECORDS if only_if is None else find(event, only_if.names, now)
        if only_if is not None and not only_if.holds(event, now, records):
            return Refused(Reason.ONLY_IF, decided_by, f"only_if is false: {only_if.shown}", suppressed=True)
        decided_by = "template"
        rendered = rules.template.render(event, now, {**records, **find(event, rules.template.names, now)})
    except TemplateError as error:
        return Refused(Reason.TEMPLATE, decided_by, str(error))
    except AddressError as error:
        return Refused(Reason.ADDRESS, "address", str(error))
    except NoRecordError as error:
        return Refused(Reason.LOOKUP, "lookup", str(error), suppressed=error.suppresses)
    if rendered.suppressed is not None:
        detail = "no address in " + ", ".join(f"`{option}`" for option in rules.template.fields.addresses)
        return Refused(rendered.suppressed, "address", detail, suppressed=True)
    return rendered


def shown(rendered: Rendered, event: Event) -> str:
    """Return the text to display for a delivery: the message to people, or else the sink's preview of its data."""
    if rendered.text:
        return rendered.text
    try:
        return rendered.options.preview(event)
    except Exception:  # noqa: BLE001  # `preview` is code of a plugin, and only for display
        return ""


def too_late(expiry: Expiry, event: Event, now: float) -> str | None:
    """Return the deadline that a delivery missed, as a message; None if it is in time. Raises `TemplateError`."""
    until = expiry.at(event, now)
    if until is None or now < until:
        return None
    return f"the delivery expired at {timestamp(datetime.fromtimestamp(until, UTC))}"


class AllowedAddresses:
    """The addresses that `deliver: {only: [globs]}` sends to; none if there are no globs.

    The globs are matched with the mailbox of a mail address, and with any other address as written.
    """

    def __init__(self, only: Iterable[str]) -> None:
        globs = list(only)
        self._allows = any_of(globs)
        self._allows_mail: Callable[[str], bool] = matcher(globs)

    def split(self, rendered: Rendered, *, mail: bool) -> tuple[list[str], list[str]] | None:
        """Return the addresses of a delivery that get it and those that are printed; None if all addresses get it.

        A delivery without an address is printed. `mail` is true if the addresses are mail addresses.
        """
        allowed: list[str] = []
        refused: list[str] = []
        for address in rendered.addresses:
            allows = self._allows_mail(address) if mail else self._allows(address.encode())
            (allowed if allows else refused).append(address)
        return None if allowed and not refused else (allowed, refused)
