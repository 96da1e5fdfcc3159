"""The names that templates and expressions see of one delivery; floor 2."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from jinja2.defaults import DEFAULT_NAMESPACE
from jinja2.sandbox import safe_range

from router.core.rendering.sandbox.values import EventFields
from router.errors import TemplateError
from router.events import Event

_GLOBALS = {**DEFAULT_NAMESPACE, "range": safe_range}


def scope(event: Event, used: Collection[str]) -> dict[str, Any]:
    """The names of a delivery, of `payload` and `event` those that are `used`: a payload nobody reads is not decoded.

    Raises `TemplateError` when the payload can't be decoded.
    """
    names = _GLOBALS.copy()
    names["route"] = event.route
    names["sink"] = event.sink
    if "event" in used:
        names["event"] = EventFields(event)
    if "payload" in used:
        try:
            names["payload"] = event.payload
        except (ValueError, RecursionError) as error:
            raise TemplateError(f"the payload can't be decoded: {error}", "the payload can't be decoded") from None
    return names
