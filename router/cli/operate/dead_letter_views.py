"""Views of dead letters: a row of a table, a page about one letter, a line of JSON; floor 7."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from router.broker.dead_letters.dead_letter_store import Kept
from router.cli.operate.bulk import ago
from router.cli.tables import Column
from router.core.accounts.dead_letter_filter import brief, content, fault_line, faults, moment_of
from router.escaping import escape_json
from router.ops.redaction import Redactor
from router.wording import counted

COLUMNS = (
    Column("id"),
    Column("age"),
    Column("reason"),
    Column("source", rank=8, least=8),
    Column("channel", rank=3, least=12),
    Column("route", rank=7, least=8),
    Column("sink", rank=2, least=12),
    Column("address", rank=6, least=12),
    Column("detail", rank=1, least=12),
)
"""The columns of the table."""

_DETAIL = 60  # the maximum number of characters of the detail in the table
_UNREADABLE = "unreadable"  # in place of a reason
_FIELDS = (
    "id",
    "event_id",
    "reason",
    "detail",
    "source",
    "channel",
    "pattern",
    "headers",
    "route",
    "sink",
    "address",
    "key",
    "attempts",
    "fallback",
    "received_at",
    "failed_at",
)


def hiding(secrets: frozenset[str]) -> Callable[[Kept], Kept]:
    """Return a function that hides secrets in the detail of a letter. The other fields can't contain secrets."""
    redact = Redactor(secrets).text
    return lambda kept: kept._replace(letter=msgspec.structs.replace(kept.letter, detail=redact(kept.letter.detail)))


def count(number: int) -> str:
    """Return a number of dead letters in words."""
    return counted(number, "dead letter")


def age(failed_at: str, now: float) -> str:
    """Return the age of a letter, in its largest unit."""
    at = moment_of(failed_at)
    return "?" if at is None else ago(max(now - at.timestamp(), 0.0))


def row(kept: Kept, now: float) -> tuple[str, ...]:
    """Return the cells of a letter in the table."""
    letter = kept.letter
    detail = " ".join(brief(letter).split())
    return (
        kept.entry if kept.unreadable else letter.id,
        age(letter.failed_at, now),
        _UNREADABLE if kept.unreadable else letter.reason,
        letter.source,
        letter.channel,
        letter.route or "-",
        letter.sink or "-",
        letter.address or "-",
        detail if len(detail) <= _DETAIL else f"{detail[: _DETAIL - 1]}…",
    )


def line(kept: Kept) -> str:
    """Return a letter as one line of JSON."""
    letter = kept.letter
    found = faults(letter)
    fields = {name: getattr(letter, name) for name in _FIELDS}
    detail = letter.detail if found is None else found
    shown = {**fields, "detail": detail, "payload": content(letter), "entry": kept.entry}
    return escape_json(msgspec.json.encode(shown | {_UNREADABLE: True} if kept.unreadable else shown)).decode()


def page(kept: Kept, now: float) -> Iterator[str]:
    """Return the lines that show one letter in full."""
    letter = kept.letter
    found = faults(letter)
    if kept.unreadable:
        yield "This entry is not a dead letter of event-router. Its readable fields are:"
    fields = {
        "id": letter.id,
        "entry": kept.entry,
        "event": letter.event_id,
        "reason": letter.reason,
        "detail": "" if found is not None else letter.detail,
        "source": letter.source,
        "channel": letter.channel,
        "pattern": letter.pattern,
        "route": letter.route,
        "sink": f"{letter.sink} (as a fallback)" if letter.fallback else letter.sink,
        "address": letter.address,
        "key": letter.key,
        "attempts": str(letter.attempts) if letter.sink else None,
        "received at": letter.received_at,
        "failed at": f"{letter.failed_at} ({age(letter.failed_at, now)} ago)",
    }
    yield "\n".join(f"{name:<12} {value}" for name, value in fields.items() if value)
    for name, value in (letter.headers or {}).items():
        yield f"{'header':<12} {name}: {value}"
    if found is not None:
        yield "the payload does not fit its schema:"
        for fault in found:
            yield f"  {fault_line(fault)}"
    yield "payload:"
    payload = content(letter)
    yield payload if isinstance(payload, str) else msgspec.json.format(msgspec.json.encode(payload), indent=2).decode()
