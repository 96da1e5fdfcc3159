"""The values that travel; floor 0.

They are msgspec structs without garbage-collector tracking: one is built in a tenth of a microsecond, and a million of
them do not slow a collection down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import msgspec

from router.errors import Reason
from router.escaping import escape_json


class Outcome(StrEnum):
    """The way a delivery ended: one closed set for books, logs and metrics."""

    DELIVERED = "delivered"
    PRINTED = "printed"
    DEAD_LETTERED = "dead_lettered"
    DROPPED = "dropped"
    SUPPRESSED = "suppressed"
    HANDED_OVER = "handed_over"


JSON = "json"
TEXT = "text"
CLOUDEVENTS = "cloudevents"
"""How a source's messages are read. An event's payload is JSON or text: of a CloudEvent it is the data."""


class History(msgspec.Struct, frozen=True, gc=False):
    """The past of a delivery that has failed: since when, how often the sink was called, why it failed last.

    Times are seconds since the epoch. `first_failed_at` lies as long before `failed_at`, the last failure, as the delivery
    was old then (`retry.age`). `planned` is the delay in seconds that was to follow.
    """

    first_failed_at: float
    calls: int
    last_error: str = ""
    failed_at: float = 0.0
    planned: float = 0.0


class Event(msgspec.Struct, frozen=True, gc=False):
    """An event as a sink gets it: the message, what we know of it, and which delivery this is.

    `id` is unique and the same in every sink and retry. `received_at` is an aware datetime in UTC. `raw` are the bytes as
    published. `pattern` is the glob that matched, None for an exact name. `attempt` counts from 1. `address` is set only
    on a delivery that was split off for one recipient. Before routing, `route` and `sink` are empty.
    """

    id: str
    source: str
    channel: str
    pattern: str | None
    received_at: datetime
    raw: bytes
    route: str = ""
    sink: str = ""
    format: str = JSON
    headers: Mapping[str, str] | None = None
    attempt: int = 1
    address: str | None = None
    _payload: Any = msgspec.UNSET
    _history: History | None = None
    _receipt: Any = None
    """What the source wants to hear when the delivery is over (`contracts.Receipt`); None where nobody waits."""
    _position: int = 0
    """Which entry of the receipt it is."""

    @property
    def payload(self) -> Any:
        """The decoded payload: JSON values, or text where the source's format is `text`; decoded on first access.

        Each delivery decodes its own copy, so what one sink does to it no other sink sees.
        """
        if self._payload is msgspec.UNSET:
            msgspec.structs.force_setattr(self, "_payload", decode(self.raw, self.format))
        return self._payload

    @property
    def key(self) -> str:
        """The idempotency key, the same on every attempt: `<event id>:<route>:<sink>`, plus `:<address>` when split."""
        key = f"{self.id}:{self.route}:{self.sink}"
        return key if self.address is None else f"{key}:{self.address}"


class Settled(msgspec.Struct, frozen=True, gc=False):
    """A delivery that is over: how it ended and, as far as is known, what was said and done before."""

    event: Event
    outcome: Outcome
    reason: Reason | None = None
    detail: str | None = None
    """Why, in words that the log may have: no payload, no secret."""
    answer: str | None = None
    """What the other side said when it took the delivery, such as a message id; of a bounded length, without secrets."""
    attempts: int = 0
    """How often the sink was called for it."""
    addresses: tuple[str, ...] = ()
    """Where it went, or would have gone."""
    seconds: float | None = None
    """How long the last call took."""


def size_of(events: Sequence[Event]) -> int:
    """Return the bytes of the payloads of these deliveries together."""
    return sum([len(event.raw) for event in events])


class RawBatch(msgspec.Struct, frozen=True, gc=False):
    """Raw messages that a source hands over together, all of one channel, in the order they came.

    `channel` and `pattern` are the bytes on the wire; `pattern` is None where the exact name matched. `ids` (of events)
    and `headers` stand parallel to the payloads; without ids the events get some of ours. `receipt`
    (`contracts.Receipt`) is what a source that acknowledges wants to hear of, by position; `first` is the position there of
    the first payload.
    """

    channel: bytes
    pattern: bytes | None
    payloads: list[bytes]
    ids: list[str] | None = None
    headers: list[dict[str, str] | None] | None = None
    receipt: Any = None
    first: int = 0


class DeadLetter(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The record of an event or a delivery that could not be handled. Times are RFC 3339 in UTC, six decimals."""

    id: str
    event_id: str
    reason: str
    detail: str
    source: str
    channel: str
    received_at: str
    failed_at: str
    payload: bytes
    pattern: str | None = None
    headers: Mapping[str, str] | None = None
    route: str | None = None
    sink: str | None = None
    address: str | None = None
    key: str | None = None
    attempts: int = 0
    written: Callable[[], None] | None = None
    """Called once it stands in the stream; not a part of what is written."""


class _Line(msgspec.Struct, gc=False):
    """The JSON line of an event, its fields in this order."""

    id: str
    source: str
    channel: str
    pattern: str | None
    received_at: str
    route: str
    payload: Any


_encode_lines = msgspec.json.Encoder().encode_lines

DECODERS: dict[str, Callable[[bytes], Any]] = {JSON: msgspec.json.Decoder().decode, TEXT: bytes.decode}
"""How the payloads of each format are decoded."""


def decode(raw: bytes, format: str) -> Any:  # noqa: A002  # the word of the configuration
    """Decode known-good bytes: JSON values for `json`, a str for `text` (UTF-8).

    Raises `msgspec.DecodeError`, `RecursionError` (nested deeper than Python's recursion limit) or `UnicodeDecodeError`.
    """
    return DECODERS[format](raw)


def timestamp(at: datetime) -> str:
    """RFC 3339 text of an aware datetime, in UTC with always six decimals."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def text(name: bytes) -> str:
    """A channel or header name as text: UTF-8, what isn't is backslash-escaped."""
    return name.decode("utf-8", "backslashreplace")


def json_lines(events: Sequence[Event]) -> bytes:
    r"""The JSON line of each event, each ended by a newline.

    The payload stands as it was published, byte for byte, where it is JSON on one line; else it is encoded anew. In both,
    what steers a terminal or turns text around is written out as `\u009b`, which is the same JSON.
    """
    # Looking for line breaks in the whole result is ten times cheaper than in each payload, and there are hardly ever any.
    lines = _encode_lines(_lines(events, _as_published))
    if lines.count(b"\n") != len(events) or b"\r" in lines:
        lines = _encode_lines(_lines(events, _on_one_line))
    return escape_json(lines)


def _lines(events: Sequence[Event], embed: Callable[[bytes], Any]) -> list[_Line]:
    last: datetime | None = None
    received_at = ""
    lines: list[_Line] = []
    append, make, is_json = lines.append, _Line, JSON
    for e in events:
        if e.received_at is not last:
            last = e.received_at
            received_at = timestamp(last)
        payload = embed(e.raw) if e.format == is_json else e.payload
        append(make(e.id, e.source, e.channel, e.pattern, received_at, e.route, payload))
    return lines


_as_published = msgspec.Raw


def _on_one_line(raw: bytes) -> Any:
    """Raw JSON whose white space holds no line break, or else what it says, to be encoded anew."""
    return msgspec.Raw(raw) if b"\n" not in raw and b"\r" not in raw else DECODERS[JSON](raw)


def json_line(event: Event) -> bytes:
    """The JSON line of one event, without the newline: the default body of every sink that sends JSON."""
    return json_lines([event])[:-1]
