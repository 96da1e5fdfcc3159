"""The content of a request: the body, its content type and the headers that describe it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

import msgspec

from router.api import Event, PermanentError, json_line

from . import cloud_events

if TYPE_CHECKING:
    from .webhook_options import WebhookOptions

JSON = "application/json"
LINES = "application/x-ndjson"
FORM = "application/x-www-form-urlencoded"
TEXT = "text/plain; charset=utf-8"

_NO_HEADERS: dict[str, str] = {}


class Body(NamedTuple):
    """The content of a request, its content type, and further headers that describe it."""

    content: bytes
    kind: str
    headers: dict[str, str] = _NO_HEADERS


def make(events: Sequence[Event], options: Sequence[WebhookOptions]) -> Body | None:
    """Return the body of a request for these events, or None if the method has no body.

    `options` are the rendered options of each event. The option `batch_as` defines how several events are combined.
    Raises `PermanentError` for values that can't be encoded.
    """
    first = options[0]
    if not first.has_body:
        return None
    try:
        if first.batch_as is None:
            return _single(events[0], first)
        items = [_item(event, each) for event, each in zip(events, options, strict=True)]
    except (ValueError, TypeError, RecursionError) as error:
        raise PermanentError(f"the body can't be encoded: {type(error).__name__}") from None
    if first.batch_as == "lines":
        return Body(b"".join(item + b"\n" for item in items), LINES)
    kind = JSON if first.cloudevents is None else cloud_events.BATCHED
    return Body(b"[" + b",".join(items) + b"]", kind)


def _single(event: Event, options: WebhookOptions) -> Body:
    if options.cloudevents is not None:
        return _cloud_event(event, options, options.cloudevents)
    if options.form is not None:
        return Body(urlencode(options.form, doseq=True).encode(), FORM)
    if options.json_ is not None:
        return Body(msgspec.json.encode(options.json_), JSON)
    if options.body == "raw":
        return Body(event.raw, JSON if event.format == "json" else TEXT)
    return Body(json_line(event), JSON)


def _cloud_event(event: Event, options: WebhookOptions, events: cloud_events.CloudEvents) -> Body:
    found = cloud_events.attributes(event, events)
    if options.json_ is not None:
        kind, data = JSON, msgspec.Raw(msgspec.json.encode(options.json_))
    else:
        kind = cloud_events.content_type(event, JSON if event.format == "json" else TEXT)
        data = msgspec.Raw(event.raw)
    if events.mode == "binary":
        return Body(bytes(data), kind, cloud_events.binary(found))
    value: Any = data if options.json_ is not None or event.format == "json" else event.payload
    return Body(cloud_events.structured(found, kind, value), cloud_events.STRUCTURED)


def _item(event: Event, options: WebhookOptions) -> bytes:
    """Return one event of a batch as JSON on one line. A payload that is not JSON becomes a JSON string."""
    if options.cloudevents is not None:
        return _cloud_event(event, options, options.cloudevents).content
    if options.json_ is not None:
        return msgspec.json.encode(options.json_)
    if options.body != "raw":
        return json_line(event)
    if event.format != "json":
        return msgspec.json.encode(event.payload)
    return msgspec.json.format(event.raw, indent=-1) if b"\n" in event.raw or b"\r" in event.raw else event.raw
