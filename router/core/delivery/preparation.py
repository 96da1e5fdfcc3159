"""The checks before the attempt of a delivery, by the rules of its sink and route; pure.

A delivery is not attempted in these cases:

- It has expired.
- Its `only_if` is false.
- A lookup has no record for it.
- It has no address, or an invalid one.
- A template fails.

The checks stop at the first case that applies. The engine's `Preparing` carries out the decision.
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
    """Return the route whose overrides of the sink apply to a delivery; None if the delivery went to a fallback sink.

    A route overrides options only of the sinks that it names. A fallback sink uses its own templates and its own
    `only_if`.
    """
    return None if delivery._fallback else delivery.route


class Refused(msgspec.Struct, frozen=True):
    """The decision not to attempt a delivery, with the reason and the check that decided (`decided_by`).

    The delivery is suppressed if `suppressed` is true. Otherwise it becomes a dead letter.
    """

    reason: Reason
    decided_by: str
    detail: str
    suppressed: bool = False


Find = Callable[[Event, frozenset[str], float], Records]
"""A function that returns the records of an event for some lookups. Its arguments are the event, the names that an
expression or template uses, and the time in seconds since the epoch. Names that are not lookups are ignored. The
function raises `NoRecordError` or `TemplateError`.
"""


def _no_records(_event: Event, _names: frozenset[str], _now: float) -> Records:
    return NO_RECORDS


def prepare(event: Event, rules: Rules, now: float, find: Find = _no_records) -> Rendered | Refused:
    """Return the rendered options of a delivery, or the decision not to attempt it.

    `now` is seconds since the epoch. The records for `only_if` are found first. If `only_if` is false, the delivery
    needs no other records.
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
    """Return the text to display for a delivery.

    This is the message, if the sink sends a text to people. Otherwise, it is the sink's preview of the data to send.
    """
    if rendered.text:
        return rendered.text
    try:
        return rendered.options.preview(event)
    except Exception:  # noqa: BLE001  # `preview` is code of a plugin, and only for display
        return ""


def too_late(expiry: Expiry, event: Event, now: float) -> str | None:
    """Return a message with the deadline that a delivery has missed; None if the delivery has not expired.

    Raises `TemplateError`.
    """
    until = expiry.at(event, now)
    if until is None or now < until:
        return None
    return f"the delivery expired at {timestamp(datetime.fromtimestamp(until, UTC))}"


class AllowedAddresses:
    """The addresses to which `deliver: {only: [globs]}` sends.

    Without globs, no address is allowed. A mail address is matched by its mailbox, any other address as it is written.
    """

    def __init__(self, only: Iterable[str]) -> None:
        globs = list(only)
        self._allows = any_of(globs)
        self._allows_mail: Callable[[str], bool] = matcher(globs)

    def split(self, rendered: Rendered, *, mail: bool) -> tuple[list[str], list[str]] | None:
        """Split the addresses of a delivery into allowed and refused addresses; return None if all are allowed.

        The delivery is sent to the allowed addresses and printed for the refused ones. A delivery without an address is
        printed. `mail` is true if the addresses are mail addresses.
        """
        allowed: list[str] = []
        refused: list[str] = []
        for address in rendered.addresses:
            allows = self._allows_mail(address) if mail else self._allows(address.encode())
            (allowed if allows else refused).append(address)
        return None if allowed and not refused else (allowed, refused)
