"""Which dead letters are meant; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
from pydantic import TypeAdapter, ValidationError

from router import events
from router.config.scalars import Duration
from router.core.matching import any_of
from router.core.rendering.expressions import Expression
from router.errors import TemplateError
from router.events import DeadLetter, Event

_durations: TypeAdapter[float] = TypeAdapter(Duration)


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Conditions that a letter has to meet; what is left empty asks for nothing.

    A letter is one of `sinks` and one of `routes` …; `channels` are names or globs. `since` and `until` are seconds since
    the epoch and concern `failed_at`. `where` is asked of the event or delivery that the letter is of.
    """

    sinks: frozenset[str] = frozenset()
    routes: frozenset[str] = frozenset()
    reasons: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()
    channels: tuple[str, ...] = ()
    since: float | None = None
    until: float | None = None
    where: Expression | None = None
    failures: Counter[str] = field(default_factory=Counter)
    """How often `where` could not be worked out, by what was wrong; such a letter is not meant."""

    def chosen(self, letters: Iterable[DeadLetter], now: float) -> list[bool]:
        """For each letter whether it is meant; `now` is seconds since the epoch."""
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
    """A time as letters have it, which compares as text."""
    return None if at is None else events.timestamp(datetime.fromtimestamp(at, UTC))


def moment(text: str, now: float) -> float:
    """Seconds since the epoch of a time in RFC 3339, of a day (its midnight, UTC), or so long ago (`2h`, `3d`).

    Raises `ValueError` for what is none of these.
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
            f"{text!r} is no time: write so long ago (90s, 2h, 3d), 2026-01-31, or 2026-01-31T12:00:00Z with its zone"
        )
        raise ValueError(wrong) from None


def received_at(letter: DeadLetter) -> datetime:
    """When the event came; the beginning of time where a letter does not say."""
    return _time(letter.received_at)


def failed_at(letter: DeadLetter) -> float:
    """When it became a letter, in seconds since the epoch."""
    return _time(letter.failed_at).timestamp()


def _time(text: str) -> datetime:
    return moment_of(text) or datetime.fromtimestamp(0, UTC)


def moment_of(text: str) -> datetime | None:
    """The time that a letter gives; None for what is no time, or none since 1970."""
    try:
        found = datetime.fromisoformat(text)
        # This fails for the first and the last hours of all years.
        found = found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return found if found.year >= 1970 else None


def content(letter: DeadLetter) -> Any:
    """The payload: JSON values that can be shown, or text where it is no JSON (what is no UTF-8 is backslash-escaped)."""
    try:
        found = events.decode(letter.payload, events.JSON)
        msgspec.json.encode([[[[[found]]]]])  # nested within what shows it, it must not be too deep either
        return found
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return letter.payload.decode("utf-8", "backslashreplace")


def delivery_of(letter: DeadLetter) -> Event:
    """Return the event or the delivery that the letter is of, as new: its payload not decoded, its attempts not counted."""
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
    )


def event_of(letter: DeadLetter) -> Event:
    """Return the same with its attempts, and with a payload that can be shown even where it is no JSON."""
    return msgspec.structs.replace(delivery_of(letter), attempt=max(letter.attempts, 1), _payload=content(letter))


def faults(letter: DeadLetter) -> list[dict[str, str]] | None:
    """Return what a schema has against the payload, None where the detail is a text."""
    if letter.reason != "schema":
        return None
    try:
        found = msgspec.json.decode(letter.detail, type=list[dict[str, str]])
    except (msgspec.DecodeError, RecursionError):
        return None
    return found


def brief(letter: DeadLetter) -> str:
    """The detail in a few words."""
    found = faults(letter)
    if found is None:
        return letter.detail
    return "; ".join(f"{one.get('pointer') or '/'} {one.get('message') or one.get('keyword')}" for one in found)
