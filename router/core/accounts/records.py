"""The records of deliveries in a Redis queue: msgpack with a version; pure.

A record holds the event with its bytes as published. It holds no rendered text, because each attempt renders the
templates of the current configuration. The due time of a delayed delivery is in the sorted set, not in the record.
"""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec

from router.core.ids import LONGEST
from router.escaping import cut
from router.events import Event, History, decode

VERSION = 1
"""The version of records. Raise it if older routers can't read the new records."""

LONGEST_ERROR = 1024
"""The largest number of bytes of the last error that a record stores."""


LATEST = 253402300800.0
"""The seconds since the epoch at the beginning of the year 10000. A `datetime` can't represent this time."""

MOST_CALLS = 1_000_000_000
"""The largest number of attempts in a valid record. Arithmetic with larger numbers may overflow."""

Moment = Annotated[float, msgspec.Meta(ge=0, lt=LATEST)]
Format = Literal["json", "text"]


class UnknownRecordError(Exception):
    """The error for a record that this router can't read: it has a newer version, or another program wrote it.

    The record must stay in the queue, because a newer router may be able to read it.
    """


class _First(msgspec.Struct, array_like=True, gc=False):
    """The first fields of a record, in the order in which they are written.

    A delivery needs the other fields only if it has failed, or if it has headers or an address, or is a fallback.
    """

    version: Annotated[int, msgspec.Meta(ge=1)]
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST)]
    received_at: Moment
    raw: bytes
    route: str
    overridden: bool
    """True if the route overrode options of the sink when the record was written. Without the route, the text or
    address would differ.
    """
    source: str
    channel: str
    pattern: str | None
    format: Format


class _Record(_First, array_like=True, gc=False):
    """All fields of a record. A record may end before a field with a default. Add new fields at the end."""

    headers: Mapping[str, str] | None = None
    attempt: Annotated[int, msgspec.Meta(ge=1, le=MOST_CALLS)] = 1
    address: str | None = None
    first_failed_at: Moment = 0.0
    calls: Annotated[int, msgspec.Meta(ge=0, le=MOST_CALLS)] = 0
    last_error: str = ""
    failed_at: Moment = 0.0
    planned: Moment = 0.0
    fallback: bool = False


_SHOWN = 200  # the maximum number of bytes of the error that are shown for an invalid record

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Record).decode
_decode_any = msgspec.msgpack.Decoder().decode


def pack(events: Sequence[Event], overriding: AbstractSet[str] = frozenset()) -> list[bytes]:
    """Return the record of each delivery. `overriding` are the routes that override options of the sink."""
    at: datetime | None = None
    received_at = 0.0
    packed: list[bytes] = []
    append, encode = packed.append, _encode
    for e in events:
        if e.received_at is not at:
            at = e.received_at
            received_at = at.timestamp()
        route = e.route
        # The default values of the other fields would take up a sixth of a typical record.
        short = e._history is None and not e.headers and e.attempt == 1 and e.address is None and not e._fallback
        made = (_First if short else _Record)(
            VERSION,
            e.id,
            received_at,
            e.raw,
            route,
            route in overriding and not e._fallback,
            e.source,
            e.channel,
            e.pattern,
            e.format,  # type: ignore[arg-type]  # a delivery has the format json or text
        )
        if isinstance(made, _Record):
            _add_optional_fields(made, e)
        append(encode(made))
    return packed


def _add_optional_fields(record: _Record, event: Event) -> None:
    history = event._history
    record.headers, record.attempt, record.address = event.headers, event.attempt, event.address
    record.fallback = event._fallback
    if history is not None:
        # If the clock was set to 1970, the time of the first failure may be before the epoch. A record can't store such
        # a time.
        record.first_failed_at, record.calls = max(history.first_failed_at, 0.0), history.calls
        record.failed_at, record.planned = history.failed_at, history.planned
        # The error may quote a lone surrogate, which can't be encoded as UTF-8.
        record.last_error = cut(history.last_error, LONGEST_ERROR).encode("utf-8", "backslashreplace").decode()


class Reader:
    """The reader of one sink's records. `overriding` are the routes that override options of the sink now."""

    def __init__(self, sink: str, overriding: AbstractSet[str] = frozenset()) -> None:
        self._sink = sink
        self._overriding = overriding
        self._stamp = 0.0
        self._at = datetime.fromtimestamp(0, UTC)

    def read(self, data: bytes, receipt: Any) -> tuple[Event, bool]:
        """Return the delivery in a record, and whether the delivery is orphaned.

        A delivery is orphaned if its route overrode options of the sink, but does not override them now. `receipt`
        becomes the event's receipt, and the record's size in bytes becomes the event's position. Raises
        `UnknownRecordError` for a record that can't be read.
        """
        try:
            r = _decode(data)
            if r.version == VERSION:
                if not (r.id.isascii() and r.id.isprintable()):  # the id is sent in mail and HTTP headers
                    raise ValueError("the id of the delivery is not printable ASCII")
                decode(r.raw, r.format)
        except Exception as error:  # noqa: BLE001  # another program's bytes must not end a worker
            raise UnknownRecordError(_why(data, error)) from None
        if r.version > VERSION:
            raise UnknownRecordError(_newer(r.version))
        if r.received_at != self._stamp:  # equal times share one object, because the log sink formats each object once
            self._at = datetime.fromtimestamp(r.received_at, UTC)
            self._stamp = r.received_at
        # Older routers wrote no `failed_at`. The age of a delivery without it starts again at 0.
        failed_at = r.failed_at or r.first_failed_at
        failed = r.calls or r.failed_at  # there was no call if a lookup failed
        history = History(r.first_failed_at, r.calls, r.last_error, failed_at, r.planned) if failed else None
        event = Event(
            r.id,
            r.source,
            r.channel,
            r.pattern,
            self._at,
            r.raw,
            r.route,
            self._sink,
            r.format,
            r.headers,
            r.attempt,
            r.address,
            _history=history,
            _receipt=receipt,
            _position=len(data),
            _fallback=r.fallback,
        )
        return event, r.overridden and r.route not in self._overriding


def history_of(data: bytes) -> History | None:
    """Return the earlier failures of the delivery in a record; None if it never failed, or if the record can't be
    read.
    """
    with contextlib.suppress(UnknownRecordError):
        return Reader("").read(data, None)[0]._history
    return None


HEAD = 256
"""The number of bytes at the beginning of a record that `received_at` needs. It is large enough, because an id has at
most 200 bytes.
"""


def received_at(head: bytes) -> float | None:
    """Return the time at which the event of a record was received, in seconds since the epoch.

    `head` are the first `HEAD` bytes of the record. Returns None for bytes that are not a record.
    """
    found = _HEAD.match(head)
    if found is None:
        return None
    length = found[1][0] - 0xA0 if found[1] else found[2][0]
    number = head[found.end() + length :][:9]
    if len(number) < 9 or number[0] != 0xCB:
        return None
    at: float = struct.unpack(">d", number[1:])[0]
    return at if 0 <= at < LATEST else None


# The beginning of a record in msgpack: the head of an array (one or three bytes), the version, and the head of the id.
# The head of a short id contains the length of the id; for a longer id, the next byte is the length.
_HEAD = re.compile(rb"(?:[\x93-\x9f]|\xdc..)[\x00-\x7f](?:([\xa0-\xbf])|\xd9(.))", re.DOTALL)


def _why(data: bytes, error: Exception) -> str:
    with contextlib.suppress(Exception):  # a record of a newer router is still an array that begins with its version
        match _decode_any(data):
            case [int(version), *_] if version > VERSION:
                return _newer(version)
    return f"this is not a record of a delivery: {cut(str(error), _SHOWN)}"


def _newer(version: int) -> str:
    return (
        f"the record has version {version}, but this router reads only versions up to {VERSION}: "
        "the record stays in the queue until a newer router reads it"
    )
