"""The line of `event-router status` about waiting and dropped deliveries of one sink; floor 7."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router.wording import counted

MOST_CHANNELS = 3
"""The largest number of channels that the line names for dropped deliveries."""

Document = Mapping[str, Any]
"""The JSON document of `core.accounts.snapshot.document`, or a part of it."""


def fault_warning(name: str, sink: Document) -> str | None:
    """Return the router's own warning about the fault of a sink; None if the sink has no fault.

    The result of `trouble` contains this warning, so `status` does not print it a second time.
    """
    return f"sink {name}: {sink['fault']['why']}" if sink["fault"] else None


def trouble(name: str, sink: Document, book: Document, now: float) -> str | None:
    """Return why deliveries of a sink wait or were dropped; None if no deliveries wait or were dropped.

    `now` is seconds since the epoch.
    """
    parts = [*_failing(sink, now), *_waiting(sink, book["pending"], now), *_full(sink, book)]
    return f"sink {name}: {'; '.join(parts)}" if parts else None


def span(seconds: float) -> str:
    """Return a duration in its two largest units: `3 d 4 h`, `5 m 6 s`."""
    left = int(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        number, left = divmod(left, size)
        if number or (parts or unit == "s"):
            parts.append(f"{number} {unit}")
    return " ".join(parts[:2])


def _failing(sink: Document, now: float) -> list[str]:
    fault = sink["fault"]
    if not fault:
        return []
    breaker = ", breaker open" if sink["breaker_open"] else ""
    return [f"failing for {_since(fault['since'], now)}{breaker}: {fault['why']}"]


def _waiting(sink: Document, pending: int, now: float) -> list[str]:
    """Return how many deliveries wait, why they wait, and when the next attempt is.

    Older versions of the router do not report the time of the next attempt.
    """
    at, failure = sink.get("next_attempt"), sink.get("last_failure")
    soon = "" if at is None else f", next attempt in {span(max(at - now, 0.0))}"
    if sink["breaker_open"]:
        return [f"{counted(pending, 'delivery waits', 'deliveries wait')}{soon or ', an attempt is under way'}"]
    if not sink["delayed"]:  # in an ordered sink, retries stay in flight
        return [f"{counted(pending, 'delivery waits', 'deliveries wait')}{soon}"] if sink["fault"] and soon else []
    waits = f"{counted(sink['delayed'], 'delivery waits', 'deliveries wait')} for a retry{soon}"
    if sink["fault"] or not failure:
        return [waits]
    return [f"{waits}; last failure {_since(failure['at'], now)} ago: {failure['why']}"]


def _full(sink: Document, book: Document) -> list[str]:
    """Return texts about a full queue, and about the deliveries that were dropped since the router's start."""
    most, channels = sink.get("max_events", 0), sink["dropped_by_channel"]
    found = []
    if most and book["pending"] >= most:
        found.append(f"the queue is full ({counted(book['pending'], 'delivery', 'deliveries')}, limit {most:,})")
    number = book["by_reason"]["dropped"].get("full", 0)
    if number and channels:
        largest = sorted(channels, key=lambda channel: -channels[channel])[:MOST_CHANNELS]
        where = ", ".join(f"{channel} {channels[channel]:,}" for channel in largest)
        found.append(
            f"{counted(number, 'delivery', 'deliveries')} dropped because the queue was full (since the start; by channel: {where})"
        )
    return found


def _since(at: float, now: float) -> str:
    return span(max(now - at, 0.0))
