"""Events as CloudEvents 1.0: the attributes, and the two modes of the HTTP binding.

The source is https://github.com/cloudevents/spec, version 1.0.2: the HTTP protocol binding and the JSON event format.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import quote

import msgspec
from pydantic import Field, field_validator

from router.api import Event, PermanentError, SinkOptions, Template, Url, timestamp

STRUCTURED = "application/cloudevents+json"
BATCHED = "application/cloudevents-batch+json"
_REQUIRED = ("specversion", "id", "source", "type")
_URI = re.compile(r"[!-~]*")
TEMPLATES = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
_NAME = re.compile(r"[a-z0-9]+")
_CONTENT = frozenset({"data", "datacontenttype"})
# Section 3.1.3.2 of the binding: a space, `"`, `%` and everything that is not printable ASCII is percent-encoded.
_SAFE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')


class CloudEvents(SinkOptions, defer_build=True):
    """The option `cloudevents`: the mode, and the attributes for events that did not arrive as CloudEvents."""

    mode: Literal["binary", "structured"] = Field(
        default="binary",
        description="binary: attributes in headers. structured: attributes and data in one JSON document.",
    )
    type: Template | None = Field(default=None, description="The type; default: the channel.")
    source: Url | None = Field(
        default=None, description="The source, a URI reference; default: `event-router/` and the name of the source."
    )
    subject: Template | None = Field(default=None, description="The subject; left out if it is empty.")

    @field_validator("source")
    @classmethod
    def _reference(cls, source: str | None) -> str | None:
        if source is not None and not _URI.fullmatch(TEMPLATES.sub("", source)):
            raise ValueError(
                "is not a URI reference: it has a space or a non-ASCII character; percent-encode such characters"
            )
        return source


def attributes(event: Event, options: CloudEvents) -> dict[str, str]:
    """Return the context attributes of an event except its content type.

    An event that came as a CloudEvent keeps its own attributes. Raises `PermanentError` if a required attribute is
    empty.
    """
    headers = event.headers or {}
    if came_as_one(headers):
        return {name: text for name, text in headers.items() if _NAME.fullmatch(name) and name not in _CONTENT}
    found = {
        "specversion": "1.0",
        "id": event.id,
        "source": f"event-router/{event.source}" if options.source is None else options.source,
        "type": event.channel if options.type is None else options.type,
        "time": timestamp(event.received_at),
    }
    if empty := [name for name in _REQUIRED if not found[name]]:
        raise PermanentError(f"cloudevents.{empty[0]} is empty, but a CloudEvent requires it")
    return {**found, "subject": options.subject} if options.subject else found


def came_as_one(headers: Mapping[str, str]) -> bool:
    """Return whether an event with these headers was received as a CloudEvent."""
    return "ce-id" in headers and all(headers.get(name) for name in _REQUIRED)


def content_type(event: Event, otherwise: str) -> str:
    """Return the content type of the data. It is `otherwise` if no CloudEvent with a content type was received."""
    headers = event.headers or {}
    return (headers.get("datacontenttype") if came_as_one(headers) else None) or otherwise


def binary(found: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a CloudEvent in binary mode."""
    return {f"ce-{name}": quote(text, safe=_SAFE, errors="backslashreplace") for name, text in found.items()}


def structured(found: Mapping[str, str], kind: str, data: Any) -> bytes:
    """Return a CloudEvent in structured mode; `data` is a JSON value or `msgspec.Raw`."""
    return msgspec.json.encode({**found, "datacontenttype": kind, "data": data})
