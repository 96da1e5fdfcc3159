"""Events for tests of plugins, and texts that software often handles wrongly; floor 7."""

from __future__ import annotations

from itertools import count
from typing import Any

import msgspec

from router.events import JSON, TEXT, Event
from router.testing.manual_clock import START

SAMPLE = {"user_id": 42, "message": "Hello"}
"""The default payload of an event."""

HOSTILE = (
    "Zoë Müller, 日本語, العربية, עברית, ελληνικά, e\u0301",
    "👩\u200d👩\u200d👧 🏴\u200d☠️ 𝒳 \U0010ffff",
    "tab\t newline\n return\r nul\0 escape\x1b[31m delete\x7f nel\x85 line\u2028 turned\u202e mark\ufeff",
    "' \" ` \\ </b> &amp; %s %00 {{ payload }} {% raw %} ${HOME} ../../etc #:/?@ <!channel> *b* _i_",
)
"""Four texts: many scripts and accents; emoji and characters above U+FFFF; control characters; markup and code."""

_numbers = count(1)


def make_event(payload: Any = msgspec.UNSET, **fields: Any) -> Event:
    """Return an event as a sink gets it.

    `payload` is any JSON value, by default `{"user_id": 42, "message": "Hello"}`. `fields` are attributes of `Event`:
    `make_event({"message": "hi"}, channel="orders", attempt=2)`. The field `raw` (bytes) can be given instead of
    `payload`. With `format="text"`, the payload is a text. Each event has its own id. Raises `TypeError` for an unknown
    field.
    """
    if "raw" in fields and payload is not msgspec.UNSET:
        raise TypeError("`payload` and `raw` can't be used together: pass one of them")
    if "raw" not in fields:
        fields["raw"] = encoded(SAMPLE if payload is msgspec.UNSET else payload, fields.get("format", JSON))
    values: dict[str, Any] = {
        "id": f"test-{next(_numbers)}",
        "source": "web-app",
        "channel": "notification",
        "pattern": None,
        "received_at": START,
        "route": "all",
        "sink": "under-test",
    }
    return Event(**{**values, **fields})


def encoded(payload: Any, payload_format: str) -> bytes:
    """Return the bytes of a payload as published: text for the format `text`, else JSON."""
    return str(payload).encode() if payload_format == TEXT else msgspec.json.encode(payload)
