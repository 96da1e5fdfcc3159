"""The conversion of a simulation to an entry of the section `tests`; floor 7."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from router import events
from router.errors import RouterError
from router.escaping import escape_json
from router.events import Event, timestamp
from router.ops.redaction import HIDDEN
from router.ops.simulation import Ending, SimulatedDelivery, Simulation
from router.options import is_placeholder

INDENT = "  "
"""The indentation of an entry. The output can be appended to a file that ends with its section `tests`."""

Records = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Records by lookup and key."""

_DOLLAR = re.compile(r"\$(?=[{$])")
_REDIS_ID = "redis-id"  # the header that a stream source adds itself


def entry(found: Simulation, records: Records) -> str:
    """Return a test, as YAML, that expects the result of a simulation. `records` are the records of lookups.

    Raises `RouterError` if the simulation can't be written as a test.
    """
    if found.ending == Ending.UNREAD:
        raise RouterError(f"there is nothing to test: {found.detail}")
    if found.verdict is None:
        raise RouterError("only an event can be tested, not a single delivery")
    lines = [
        f"- name: {_written(_name(found))}",
        f"  event: {_written(_event(found.came))}",
        *([f"  lookups: {_written(records)}"] if records else []),
        f"  expect: {_written(expected(found))}",
    ]
    return "".join(f"{INDENT}{line}\n" for line in lines)


def uncertain(found: Simulation) -> str:
    """Return a warning that names the uncertain expectations of an entry; empty if all are certain."""
    sinks = ", ".join(dict.fromkeys(delivery.sink for delivery in found.deliveries if delivery.unsure))
    why = "the records of lookups were not fetched. Add `lookups` to the test, or create the test with `explain --live`"
    return f"warning: the test may expect the wrong result for {sinks}, because {why}" if sinks else ""


def _name(found: Simulation) -> str:
    """Return a name for the test: the channel, the result, and the time, which makes the name unique."""
    sinks = dict.fromkeys(delivery.sink for delivery in found.deliveries if delivery.delivers)
    if found.rejected is not None:
        end = f"is rejected ({found.rejected.reason})"
    elif sinks:
        end = f"goes to {', '.join(sinks)}"
    else:
        end = "goes nowhere"
    return f"{found.event.channel} {end}, {timestamp(found.came.received_at)}"


def _event(came: Event) -> dict[str, Any]:
    headers = {name: text for name, text in (came.headers or {}).items() if name != _REDIS_ID}
    return {
        "channel": came.channel,
        "source": came.source,
        "payload": _payload(came.raw),
        **({"headers": headers} if headers else {}),
        "at": timestamp(came.received_at),
    }


def _payload(raw: bytes) -> Any:
    """Return a payload for `tests:`. An object or a list is written as such, anything else as the published text."""
    try:
        payload = events.decode(raw, events.JSON)
        if isinstance(payload, dict | list):
            json.dumps(payload)  # a payload that is nested too deep for `json` stays a string
            return payload
    except (ValueError, RecursionError):
        pass
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise RouterError(
            "the payload is not text (UTF-8): save it as a file, and write `file: NAME` instead of `payload`"
        ) from None


def expected(found: Simulation) -> dict[str, Any]:
    """Return the section `expect` that holds for a simulation, as plain values."""
    if found.rejected is not None:
        return {"rejected": str(found.rejected.reason)}
    made = [delivery for delivery in found.deliveries if delivery.delivers]
    number = Counter(delivery.sink for delivery in made)
    single = [delivery for delivery in made if number[delivery.sink] == 1]
    keys: dict[str, Any] = {
        "unmatched": found.ending == Ending.UNMATCHED,
        "sinks": [delivery.sink for delivery in made],
        "to": {delivery.sink: list(delivery.to) for delivery in single if _has_steady_addresses(delivery)},
        "text": {delivery.sink: delivery.text for delivery in single if _is_steady(delivery, found.event)},
        **{
            option: {each.sink: each.keys[option] for each in single if option in each.keys and not each.unsure}
            for option in ("thread", "update")
        },
        "suppressed": {each.sink: str(each.suppressed) for each in found.deliveries if each.suppressed},
        "dead": {each.sink: str(each.dead) for each in found.deliveries if each.dead},
    }
    return {key: value for key, value in keys.items() if value or key == "sinks"}


def _has_steady_addresses(delivery: SimulatedDelivery) -> bool:
    """Return whether a test can expect the addresses of a delivery: all are certain, and none is a placeholder."""
    return bool(delivery.to) and not delivery.unsure and not any(map(is_placeholder, delivery.to))


def _is_steady(delivery: SimulatedDelivery, event: Event) -> bool:
    """Return whether a test can expect the text of a delivery.

    The text must be certain, must have no hidden secret, and must not have the event's generated id.
    """
    text = delivery.text
    return (
        bool(text) and not delivery.unsure and delivery.degraded is None and HIDDEN not in text and event.id not in text
    )


def _written(value: Any) -> str:
    """Return a value as JSON, which is valid YAML. A dollar sign that would begin an expression is doubled."""
    encoded = json.dumps(literal(value), ensure_ascii=False).encode("utf-8", "backslashreplace")
    return escape_json(encoded).decode()


def literal(value: Any) -> Any:
    """Return plain values in which each dollar sign that would begin an expression is doubled."""
    if isinstance(value, str):
        return _DOLLAR.sub("$$", value)
    if isinstance(value, dict):
        return {key: literal(each) for key, each in value.items()}
    return [literal(each) for each in value] if isinstance(value, list) else value
