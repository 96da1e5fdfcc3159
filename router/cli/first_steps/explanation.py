"""The output of `explain`, for people and as JSON; floor 7."""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import click
import msgspec

from router import events
from router.config.models import RouterConfig
from router.core.conditions.route_checks import Check, RouteVerdict, Step
from router.core.delivery.preparation import overriding_route
from router.errors import Reason
from router.escaping import escape
from router.events import Event, timestamp
from router.ops.simulation import Ending, SimulatedDelivery, Simulation, is_made_up
from router.ops.terminal import colours, terminal
from router.wording import counted

WIDTH = 80
"""The width of a line, in columns, if stdout is not a terminal."""

MOST_LINES = 30
"""The largest number of lines shown to people for one rendered option."""

_LABEL = 10  # columns of the label at the beginning of a line
_NESTED = 6  # columns of `yes` or `no` on a line below a label
_OPTION = 8  # indentation of rendered options, in columns
GREEN, RED, _YELLOW = "green", "red", "yellow"
_LARGEST = 2**63 - 1


class Line(NamedTuple):
    """A line for people: a label (`head`), the label's colour, and a text.

    If the text is wrapped, its further lines begin in the column `indent`.
    """

    head: str
    text: str
    colour: str | None = None
    indent: int = _LABEL


# JSON


def document(found: Simulation, *, only_fails: bool = False) -> dict[str, Any]:
    """Return a simulation as plain data.

    With `only_fails`, leave out the routes, clauses and deliveries that passed.
    """
    routes = [route for route in found.routes if not (only_fails and route.matched)]
    deliveries = [each for each in found.deliveries if not (only_fails and each.delivers)]
    return {
        "event": event_document(found.event),
        "schema": _schema(found),
        "routes": [
            {
                "id": route.id,
                "matched": route.matched,
                "why": [
                    {
                        "clause": check.clause,
                        "held": check.held,
                        "saw": check.saw,
                        **({"hint": check.hint} if check.hint else {}),
                    }
                    for check in route.checks
                    if not (only_fails and check.held)
                ],
            }
            for route in routes
        ],
        "deliveries": [_delivery(each) for each in deliveries],
        "outcome": found.ending,
    }


def event_document(event: Event) -> dict[str, Any]:
    """Return an event as plain data."""
    return {
        "id": event.id,
        "source": event.source or None,
        "channel": event.channel,
        "pattern": event.pattern,
        "received_at": timestamp(event.received_at),
        "headers": event.headers,
        "payload": _payload(event),
    }


def _payload(event: Event) -> Any:
    """Return the payload as it was published, as JSON on one line. Return it as text if it can't be decoded."""
    try:
        payload = events.decode(event.raw, event.format)
        if event.format == events.TEXT:
            return payload
        msgspec.json.encode([[[[payload]]]])  # raises an error if the printed document would be nested too deep
        return msgspec.Raw(msgspec.json.format(event.raw, indent=0))
    except (ValueError, RecursionError, OverflowError):
        return event.raw.decode("utf-8", "backslashreplace")


def _schema(found: Simulation) -> dict[str, Any]:
    schema, rejected = found.schema, found.rejected
    errors = [{"pointer": each.pointer, "keyword": each.keyword, "message": each.message} for each in schema.violations]
    if rejected is not None and rejected.reason != Reason.SCHEMA:
        errors = [{"pointer": "", "keyword": str(rejected.reason), "message": rejected.detail}]
    valid = False if rejected is not None else schema.valid
    return {"file": schema.file, "mode": schema.mode, "valid": valid, "errors": errors}


def _delivery(delivery: SimulatedDelivery) -> dict[str, Any]:
    refused = delivery.refused
    made = {
        "route": delivery.route,
        "sink": delivery.sink,
        "to": delivery.to,
        "suppressed": None if refused is None else refused.reason,
        "rendered": encodable(delivery.rendered),
        "merged": delivery.merged,
    }
    if delivery.previews:
        made["sends"] = delivery.text
    detail = delivery.unsure if refused is None else refused.detail
    return {**made, "detail": detail} if detail else made


def encodable(value: Any) -> Any:
    """Return a value that msgspec can encode: integers beyond 64 bits become raw JSON, and lone surrogates escapes."""
    if isinstance(value, Mapping):
        return {str(key): encodable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [encodable(each) for each in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _LARGEST:
        return msgspec.Raw(str(value).encode())
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


# For people


def show(found: Simulation, config: RouterConfig, *, only_fails: bool = False) -> bool:
    """Print a simulation, or only its failures. Return False if there is nothing to print."""
    return show_lines(_fail_lines(found, config) if only_fails else _all_lines(found, config))


def show_lines(lines: Iterable[Line]) -> bool:
    """Print lines for people on stdout. Return False if there are none."""
    paint = colours(os.environ, 1)
    width = shutil.get_terminal_size((WIDTH, 24)).columns if terminal(1) else WIDTH
    shown = False
    for line in lines:
        shown = True
        for text in _wrapped(line, width):
            click.echo(text, color=paint)
    return shown


def _wrapped(line: Line, width: int) -> Iterator[str]:
    """Yield the printed lines of one `Line`: wrapped between words, with each further line indented to the text."""
    head = escape(line.head)
    wrapped = textwrap.wrap(
        f"{head:<{line.indent}}{' ' if len(head) >= line.indent and line.text else ''}{escape(line.text)}".rstrip(),
        max(width, 40),
        subsequent_indent=" " * line.indent,
        initial_indent="",
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
        drop_whitespace=True,
    )
    for number, text in enumerate(wrapped or [""]):
        if number == 0 and line.colour is not None and text.startswith(head):
            yield click.style(head, fg=line.colour, bold=True) + text.removeprefix(head)
        else:
            yield text


def _all_lines(found: Simulation, config: RouterConfig) -> Iterator[Line]:
    event = found.event
    came = f"channel {event.channel}" + (f", source {event.source}" if event.source else "")
    by_glob = f", pattern {event.pattern}" if event.pattern else ""
    own = "" if is_made_up(event.id) else f", id {event.id}"
    yield Line("event", f"{came}{by_glob}{own}")
    if found.ending == Ending.UNREAD:
        yield Line("read", f"no: {found.detail}", RED)
    elif found.verdict is None:
        yield from _replay_lines(found, config)
    else:
        yield from _event_lines(found, config)
    yield from _outcome(found, config)


def _replay_lines(found: Simulation, config: RouterConfig) -> Iterator[Line]:
    (delivery,) = found.deliveries
    way = ", as a fallback" if overriding_route(found.event) is None else ""
    yield Line("replay", f"one delivery of the route {delivery.route}, only to the sink {delivery.sink}{way}")
    yield from _deliveries(found, config)


def _event_lines(found: Simulation, config: RouterConfig) -> Iterator[Line]:
    rejected = found.rejected
    if rejected is not None and rejected.reason != Reason.SCHEMA:
        yield Line("decode", f"no: {rejected.detail} ({rejected.reason})", RED)
        return
    yield Line("decode", f"yes: {counted(len(found.event.raw), 'byte')} of {_name(found.event.format)}", GREEN)
    yield from _schema_lines(found)
    if rejected is not None:
        return
    yield Line("routes", "")
    widest = max((len(route.id) for route in found.routes), default=0)
    for route in found.routes:
        why = _why_matched(route) if route.matched else why_not(route)
        yield Line(_yes(route.matched), f"{route.id:<{widest}}  {why}", _colour(route.matched), _NESTED)
    if found.nearest is not None and len(found.routes) > 1:
        yield Line("nearest", f"{found.nearest.id}: {why_not(found.nearest)}", _YELLOW)
    yield from _deliveries(found, config)


def _yes(held: bool) -> str:
    return "  yes" if held else "  no"


def _colour(held: bool) -> str:
    return GREEN if held else RED


def _name(format: str) -> str:  # noqa: A002  # the configuration's word
    return "text" if format == events.TEXT else "JSON"


def _schema_lines(found: Simulation) -> Iterator[Line]:
    schema = found.schema
    if schema.file is None:
        yield Line("schema", "none for this channel")
    elif schema.valid is None:
        yield Line("schema", f"not checked: {schema.file} has mode {schema.mode}")
    elif schema.valid:
        yield Line("schema", f"yes: it fits {schema.file} ({schema.mode})", GREEN)
    else:
        passes = "; mode warn lets it pass" if schema.mode == "warn" else ""
        colour = _YELLOW if passes else RED
        yield Line("schema", f"no: it does not fit {schema.file} ({schema.mode}){passes}", colour)
        for each in schema.violations:
            yield Line("", f"{each.pointer or '/'} {each.keyword}: {each.message}")


def _why_matched(route: RouteVerdict) -> str:
    number = len(route.checks)
    if not number:
        return "it takes every event"
    return "its condition held" if number == 1 else f"all {number} conditions held"


def why_not(route: RouteVerdict) -> str:
    """Return why a route does not take an event: the number of conditions that held, and the first failed condition."""
    check = route.decided_by
    if check is None:
        return ""
    number = len(route.checks)
    held = f"{route.held} of {counted(number, 'condition')} held; " if number > 1 else ""
    return f"{held}{_sentence(check)}"


def _sentence(check: Check) -> str:
    """Return a clause about a condition that did not hold: the value found in the event, and the value needed."""
    if check.step == Step.ENABLED:
        return "the route is disabled (enabled: false)"
    if check.step == Step.FINAL:
        return f"the route {check.saw} above took the event, and is final"
    if check.step == Step.WHEN:
        return f"{check.clause}; {check.saw}" if check.saw != "false" else check.clause
    if not check.subject:
        return f"needed: {check.clause}; found: {check.saw}{check.hint and f'; {check.hint}'}"
    was = "is missing" if check.saw == "nothing" else f"was {check.saw}"
    return f"{check.subject} {was}; needed: {check.needs}{check.hint and f'; {check.hint}'}"


def _deliveries(found: Simulation, config: RouterConfig) -> Iterator[Line]:
    if not found.deliveries:
        return
    yield Line("deliveries", "")
    for delivery in found.deliveries:
        yield from _delivery_lines(delivery, config)


def _delivery_lines(delivery: SimulatedDelivery, config: RouterConfig) -> Iterator[Line]:
    name = f"{delivery.sink} ({delivery.type})" if delivery.type else delivery.sink
    also = f" (also for {', '.join(delivery.merged)})" if delivery.merged else ""
    to = f" to {', '.join(delivery.to)}" if delivery.to else ""
    text = f"{name} by {delivery.route}{also}{to}: {_result(delivery, config)}"
    yield Line(_yes(delivery.delivers), text, _colour(delivery.delivers), _NESTED)
    if delivery.unsure:
        yield Line("", f"not certain: {delivery.unsure} (--live fetches the records)", None, _OPTION)
    if delivery.degraded:
        yield Line(
            "", f"the event's JSON line is sent, because the text can't be rendered: {delivery.degraded}", None, _OPTION
        )
    for key, value in (delivery.rendered or {}).items():
        if value != list(delivery.to):
            yield from option_lines(key, value)
    if delivery.previews:
        yield from option_lines("sends", delivery.text)


def option_lines(key: str, value: Any) -> Iterator[Line]:
    """Yield the lines of a rendered option: its name with the first line of its value, then the other lines."""
    if not isinstance(value, str):
        value = msgspec.json.encode(encodable(value)).decode()
    first, *rest = value.splitlines() or [""]
    yield Line("", f"{key}: {first}", None, _OPTION)
    for text in rest[: MOST_LINES - 1]:
        yield Line("", text, None, _OPTION + len(key) + 2)
    if len(rest) >= MOST_LINES:
        yield Line("", f"… {counted(len(rest) - MOST_LINES + 1, 'more line')} (--json has all)", None, _OPTION)


def _result(delivery: SimulatedDelivery, config: RouterConfig) -> str:
    refused = delivery.refused
    if refused is not None:
        kind = "suppressed" if delivery.suppressed else "dead letter"
        return f"{kind} ({refused.reason}), {refused.detail}"
    if not delivery.prints:
        return "would be sent"
    mode = "print" if config.deliver == "print" else "only"
    if delivery.printed and len(delivery.printed) < len(delivery.to):
        return f"would be sent, but printed for {', '.join(delivery.printed)} (deliver: {mode})"
    return f"would be printed and not sent (deliver: {mode})"


def _outcome(found: Simulation, config: RouterConfig) -> Iterator[Line]:
    sent = sum(delivery.delivers for delivery in found.deliveries)
    number = len(found.deliveries)
    made = f"{sent} of {counted(number, 'delivery', 'deliveries')} would be made"
    if found.ending == Ending.UNREAD:
        yield Line("outcome", "unread: the router never receives this message", RED)
    elif found.rejected is not None:
        yield Line("outcome", f"rejected: the event becomes a dead letter with the reason {found.rejected.reason}", RED)
    elif found.ending == Ending.UNMATCHED and not number:
        kept = (
            "the event becomes a dead letter with the reason unmatched"
            if config.unmatched == "dead-letter"
            else "the event is dropped and counted"
        )
        yield Line("outcome", f"unmatched: {kept}", RED)
    else:
        yield Line("outcome", f"{found.ending}: {made}", GREEN if sent else RED)


# Only the failures


def _fail_lines(found: Simulation, config: RouterConfig) -> Iterator[Line]:
    """Yield a line for each failure. The label is the failed step. If nothing is delivered, the outcome follows."""
    for step, subject, why in fails(found, config):
        yield Line(str(step), f"{subject}: {why}" if subject else why, RED)
    if not found.delivers:
        yield from _outcome(found, config)


def fails(found: Simulation, config: RouterConfig) -> Iterator[tuple[Step, str, str]]:
    """Yield each failure: the step that failed, the schema, route or delivery concerned, and the reason."""
    rejected = found.rejected
    if found.ending == Ending.UNREAD:
        yield Step.READ, "", found.detail
    if rejected is not None and rejected.reason != Reason.SCHEMA:
        yield Step.DECODE, "", rejected.detail
    for each in found.schema.violations:
        yield Step.SCHEMA, str(found.schema.file), f"{each.pointer or '/'} {each.keyword}: {each.message}"
    for route in found.routes:
        if route.decided_by is not None:
            yield route.decided_by.step, route.id, why_not(route)
    for delivery in found.deliveries:
        if delivery.refused is not None:
            yield Step(delivery.refused.decided_by), f"{delivery.sink} by {delivery.route}", _result(delivery, config)
