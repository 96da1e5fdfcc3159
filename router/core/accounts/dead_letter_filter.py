"""The selection of dead letters for commands, and views of a letter as an event; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
from pydantic import TypeAdapter, ValidationError

from router import events
from router.config.scalars import Duration
from router.core.matching import any_of
from router.errors import TemplateError
from router.events import DeadLetter, Event

if TYPE_CHECKING:
    from router.core.rendering.expressions import Expression

_durations: TypeAdapter[float] = TypeAdapter(Duration)


class DeadLetterFilter(msgspec.Struct, frozen=True):
    """Conditions that a letter must meet. An empty condition is met by all letters.

    The letter's sink must be one of `sinks`, its route one of `routes`, and so on; `channels` are names or globs.
    `since` and `until` (seconds since the epoch) bound `failed_at`. `where` is an expression on the letter's event.
    """

    sinks: frozenset[str] = frozenset()
    routes: frozenset[str] = frozenset()
    reasons: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()
    channels: tuple[str, ...] = ()
    since: float | None = None
    until: float | None = None
    where: Expression | None = None
    failures: Counter[str] = msgspec.field(default_factory=Counter)
    """For each fault, the number of letters for which `where` could not be evaluated because of this fault. These
    letters are not chosen.
    """

    def chosen(self, letters: Iterable[DeadLetter], now: float) -> list[bool]:
        """Return for each letter whether it meets all conditions; `now` is seconds since the epoch."""
        since, until = _stamp(self.since), _stamp(self.until)
        matches = any_of(self.channels)
        return [
            (not self.sinks or letter.sink in self.sinks)
            and (not self.routes or letter.route in self.routes)
            and (not self.reasons or letter.reason in self.reasons)
            and (not self.sources or letter.source in self.sources)
            and (not self.channels or matches(letter.channel.encode("utf-8", "surrogateescape")))
            and (since is None or letter.failed_at >= since)
            and (until is None or letter.failed_at < until)
            and (self.where is None or self._holds(self.where, letter, now))
            for letter in letters
        ]

    def _holds(self, where: Expression, letter: DeadLetter, now: float) -> bool:
        try:
            return where.holds(event_of(letter), now)
        except TemplateError as error:
            self.failures[error.told] += 1
            return False


def _stamp(at: float | None) -> str | None:
    """Return a time in the format of dead letters. Texts in this format sort in the order of time."""
    return None if at is None else events.timestamp(datetime.fromtimestamp(at, UTC))


def moment(text: str, now: float) -> float:
    """Convert a written time to seconds since the epoch.

    The text is an RFC 3339 time, a day (midnight UTC) or a duration before `now` (`2h`). Raises `ValueError` for any
    other string.
    """
    try:
        return now - _durations.validate_python(text)
    except ValidationError:
        pass
    try:
        found = datetime.fromisoformat(text)
        if len(text) > 10 and found.tzinfo is None:  # a day has ten characters
            raise ValueError
        return found.replace(tzinfo=found.tzinfo or UTC).timestamp()
    except (ValueError, OverflowError):
        wrong = (
            f"{text!r} is not a time: write a duration before now (90s, 2h, 3d), a day (2026-01-31), "
            "or a time with its zone (2026-01-31T12:00:00Z)"
        )
        raise ValueError(wrong) from None


def received_at(letter: DeadLetter) -> datetime:
    """Return the time at which the event was received; the epoch if the letter has no valid time."""
    return _time(letter.received_at)


def failed_at(letter: DeadLetter) -> float:
    """Return the time of the letter's failure in seconds since the epoch; 0 if the letter has no valid time."""
    return _time(letter.failed_at).timestamp()


def _time(text: str) -> datetime:
    return moment_of(text) or datetime.fromtimestamp(0, UTC)


def moment_of(text: str) -> datetime | None:
    """Convert a time of a letter to a datetime; return None for an invalid time or a time before 1970."""
    try:
        found = datetime.fromisoformat(text)
        # `astimezone` raises `OverflowError` in the first hours of year 1 and in the last hours of year 9999.
        found = found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return found if found.year >= 1970 else None


def content(letter: DeadLetter) -> Any:
    """Return the payload of a letter, decoded from JSON.

    A payload that is not JSON is returned as text, with invalid UTF-8 backslash-escaped.
    """
    try:
        found = events.decode(letter.payload, events.JSON)
        # Callers embed the payload in JSON documents. If a document would be nested too deeply, this call raises
        # RecursionError, and the payload is returned as text.
        msgspec.json.encode([[[[[found]]]]])
        return found
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return letter.payload.decode("utf-8", "backslashreplace")


def delivery_of(letter: DeadLetter) -> Event:
    """Return the event or delivery of a letter as a new object.

    The payload is not decoded. The attempts are counted from the start.
    """
    return Event(
        letter.event_id,
        letter.source,
        letter.channel,
        letter.pattern,
        received_at(letter),
        letter.payload,
        letter.route or "",
        letter.sink or "",
        headers=letter.headers,
        address=letter.address,
        _fallback=letter.fallback,
    )


def format_of(letter: DeadLetter, of_source: str | None) -> str | None:
    """Return the format of a delivery's payload, JSON or text; None if the payload can't be decoded.

    `of_source` is the format of the source. If `of_source` is None (unknown) or CloudEvents, JSON is tried first, then
    text.
    """
    known = (events.JSON, events.TEXT)
    for candidate in (of_source,) if of_source in known else known:
        try:
            events.decode(letter.payload, candidate)
        except (ValueError, RecursionError):
            continue
        return candidate
    return None


def event_of(letter: DeadLetter) -> Event:
    """Return the letter's event for display.

    The event has the attempts of the letter, and the result of `content` as payload.
    """
    return msgspec.structs.replace(delivery_of(letter), attempt=max(letter.attempts, 1), _payload=content(letter))


def faults(letter: DeadLetter) -> list[dict[str, str]] | None:
    """Return the violations of the schema in a letter's detail (pointer, keyword, message); None if the detail is plain
    text.
    """
    if letter.reason != "schema":
        return None
    try:
        found = msgspec.json.decode(letter.detail, type=list[dict[str, str]])
    except (msgspec.DecodeError, RecursionError):
        return None
    return found


def fault_line(fault: Mapping[str, str]) -> str:
    """Return a violation of a schema as a line of text: pointer, keyword and message."""
    return f"{fault.get('pointer') or '/'} {fault.get('keyword', '')}: {fault.get('message', '')}"


def brief(letter: DeadLetter) -> str:
    """Return the detail of a letter on one line. Violations of a schema are shown without their keywords."""
    found = faults(letter)
    if found is None:
        return letter.detail
    return "; ".join(f"{fault.get('pointer') or '/'} {fault.get('message') or fault.get('keyword')}" for fault in found)
