"""Events, deliveries, dead letters and batches: the values that floors exchange; floor 0.

The values are msgspec structs that the garbage collector does not track. Building one takes 0.1 µs, and a million of them
do not slow down a garbage collection.
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
    """The outcome of a settled delivery. Books, logs and metrics use the same outcomes."""

    DELIVERED = "delivered"
    PRINTED = "printed"
    DEAD_LETTERED = "dead_lettered"
    DROPPED = "dropped"
    SUPPRESSED = "suppressed"
    HANDED_OVER = "handed_over"


JSON = "json"
TEXT = "text"
CLOUDEVENTS = "cloudevents"
"""The formats of a source. The format of an event is only JSON or text; the payload of a CloudEvent is its `data`."""


class History(msgspec.Struct, frozen=True, gc=False):
    """The earlier failures of a delivery: the time of the first one, the number of calls, and the last error.

    Times are in seconds since the epoch. `failed_at` is the time of the last failure. `first_failed_at` is `failed_at` minus
    the age of the delivery at that time (`retry.age`). `planned` is the delay in seconds that was planned after the last
    failure.
    """

    first_failed_at: float
    calls: int
    last_error: str = ""
    failed_at: float = 0.0
    planned: float = 0.0


class Event(msgspec.Struct, frozen=True, gc=False):
    """A delivery of an event, as a sink gets it: the message and its metadata.

    `id` is unique, and the same for every sink and retry. `received_at` is an aware datetime in UTC. `raw` holds the
    published bytes. `pattern` is the glob that matched the channel; None if an exact name matched. `attempt` counts from 1.
    `address` is set only if the delivery is for one of several recipients, after a split. Before routing, `route` and `sink`
    are empty.
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
    """The receipt by which the source learns the outcome (`contracts.Receipt`); None for a source without
    acknowledgements."""
    _position: int = 0
    """The position of the event's entry in the receipt."""
    _fallback: bool = False
    """True if another sink gave the delivery up and this sink is its fallback. The route's overrides do not apply then."""

    @property
    def payload(self) -> Any:
        """The decoded payload: JSON values, or a str if the event's format is `text`. It is decoded on first access.

        Each delivery has its own copy, so a sink that changes the payload affects no other sink.
        """
        if self._payload is msgspec.UNSET:
            msgspec.structs.force_setattr(self, "_payload", decode(self.raw, self.format))
        return self._payload

    @property
    def key(self) -> str:
        """The idempotency key of the delivery, which is the same on every attempt.

        The key is `<event id>:<route>:<sink>`. If the delivery was split by address, `:<address>` follows.
        """
        key = f"{self.id}:{self.route}:{self.sink}"
        return key if self.address is None else f"{key}:{self.address}"


class Settled(msgspec.Struct, frozen=True, gc=False):
    """A settled delivery with its outcome, and with what is known about its attempts."""

    event: Event
    outcome: Outcome
    reason: Reason | None = None
    detail: str | None = None
    """The explanation. It contains no payload and no secrets, so it may be logged."""
    answer: str | None = None
    """The service's answer, such as a message id, cut to a limit and without secrets."""
    attempts: int = 0
    """The number of calls of the sink."""
    addresses: tuple[str, ...] = ()
    """The addresses of the delivery, whether it was sent or not."""
    seconds: float | None = None
    """The duration of the last call, in seconds."""


def size_of(events: Sequence[Event]) -> int:
    """Return the total size of the payloads of these deliveries, in bytes."""
    return sum([len(event.raw) for event in events])


class RawBatch(msgspec.Struct, frozen=True, gc=False):
    """Raw messages of one channel from a source, in the order of arrival.

    `channel` and `pattern` are the received bytes; `pattern` is None if an exact name matched. `ids` and `headers` have the id
    and the headers of each event, in the order of `payloads`. If `ids` is None, the router assigns ids. A source with
    acknowledgements sets `receipt` (`contracts.Receipt`); `first` is the position of the first payload in the receipt.
    `received_at` is the time of arrival; None means the present time.
    """

    channel: bytes
    pattern: bytes | None
    payloads: list[bytes]
    ids: list[str] | None = None
    headers: list[dict[str, str] | None] | None = None
    receipt: Any = None
    first: int = 0
    received_at: datetime | None = None


class DeadLetter(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """An event or a delivery that could not be handled. Times are RFC 3339 in UTC with six decimals."""

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
    fallback: bool = False
    """True if the delivery has fallen back from another sink to this one (`Event._fallback`)."""
    written: Callable[[], None] | None = None
    """A function that is called when the letter is in the stream. The function itself is not stored."""


class _Line(msgspec.Struct, gc=False):
    """The fields of an event's JSON line, in order."""

    id: str
    source: str
    channel: str
    pattern: str | None
    received_at: str
    route: str
    payload: Any


_encode_lines = msgspec.json.Encoder().encode_lines

DECODERS: dict[str, Callable[[bytes], Any]] = {JSON: msgspec.json.Decoder().decode, TEXT: bytes.decode}
"""The decoder of each format."""


def decode(raw: bytes, format: str) -> Any:  # noqa: A002  # the word of the configuration
    """Decode a payload; return JSON values for the format `json`, or a str for `text` (UTF-8).

    Raises `msgspec.DecodeError`, `UnicodeDecodeError`, or `RecursionError` if the payload is nested deeper than Python's
    recursion limit.
    """
    return DECODERS[format](raw)


def timestamp(at: datetime) -> str:
    """Return an aware datetime as RFC 3339 text, in UTC with six decimals."""
    if at.tzinfo is not UTC:
        at = at.astimezone(UTC)
    written: str = msgspec.to_builtins(at)  # isoformat takes eight times as long, but msgspec leaves out zeros
    return written if at.microsecond else f"{written[:-1]}.000000Z"


def text(name: bytes) -> str:
    """Return a channel or header name as text: UTF-8, with invalid bytes backslash-escaped."""
    return name.decode("utf-8", "backslashreplace")


def json_lines(events: Sequence[Event]) -> bytes:
    r"""Return the JSON lines of events. Each line ends with a newline.

    A JSON payload without line breaks is embedded byte for byte as published; any other payload is encoded again. Characters
    that control a terminal or change the text direction are escaped as `\u009b`, which is the same JSON.
    """
    # Line breaks in payloads are rare, and one search in the result is ten times as fast as a search in each payload.
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
    """Return the object to embed for a JSON payload: the payload itself, or its decoded values if it has line breaks."""
    return msgspec.Raw(raw) if b"\n" not in raw and b"\r" not in raw else DECODERS[JSON](raw)


def json_line(event: Event) -> bytes:
    """Return the JSON line of one event without the newline. It is the default body of all sinks that send JSON."""
    return json_lines([event])[:-1]
