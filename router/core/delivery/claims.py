"""Pending entries of a consumer group: which are taken together, which is to blame, where a lost group goes on; pure.

An entry that was delivered before and is pending again was in hand when a process died, or came to nothing on the way.
Nobody knows which of those that were in hand together killed it. So they are taken in ever smaller batches, and only one
that was alone in hand when the process died can be found guilty. The count that Redis keeps of an entry's deliveries is
the memory of this; an attempt that comes back, whatever its result, sets it back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

SIZES = {0: 100, 1: 100, 2: 10}
"""How many entries are taken together, by how often they were delivered; beyond that one at a time."""

ALONE = 3
"""From so many deliveries on an entry is taken alone."""

LOOK_AT_LEAST_EVERY = 5.0
"""Seconds between two looks for entries to take over, at most."""


class Pending(NamedTuple):
    """An entry that was delivered and not acknowledged."""

    id: bytes
    deliveries: int
    owner: bytes = b""
    """The consumer that it was delivered to."""


class Take(NamedTuple):
    """Entries to take together."""

    entries: list[Pending]
    alone: bool = False
    """Whether it is one entry that must be alone in hand."""


def is_poison(deliveries: int, most: int) -> bool:
    """Return whether an entry is given up: delivered `most` times, and alone in hand the last time."""
    return deliveries >= max(most, ALONE + 1)


def takes(pending: Sequence[Pending]) -> Iterator[Take]:
    """The batches in which to take entries: the harmless first, each kind in its order."""
    groups: dict[int, list[Pending]] = {}
    for entry in pending:
        if entry.deliveries < ALONE:
            groups.setdefault(entry.deliveries, []).append(entry)
    for deliveries in sorted(groups):
        entries, size = groups[deliveries], SIZES[deliveries]
        for first in range(0, len(entries), size):
            yield Take(entries[first : first + size])
    for entry in pending:
        if entry.deliveries >= ALONE:
            yield Take([entry], alone=True)


def renew_every(idle: float) -> float:
    """Seconds between two renewals of what is in hand, when others may take it over after `idle` seconds."""
    return idle / 3


def undisputed(idle: float) -> float:
    """Return for how many seconds after its last renewal nobody else can have taken an entry over."""
    return 0.9 * idle


def look_every(idle: float) -> float:
    """Seconds between two looks for entries to take over."""
    return min(idle / 3, LOOK_AT_LEAST_EVERY)


def patience(idle: float) -> float:
    """Seconds that an attempt of a suspicious entry is waited for: longer than an attempt may take."""
    return idle / 2


def parse(entry_id: bytes) -> tuple[int, int]:
    """The two numbers of an entry's id, which ids are ordered by."""
    milliseconds, _, number = entry_id.partition(b"-")
    return int(milliseconds), int(number or 0)


def before(entry_id: bytes) -> bytes:
    """The id right before this one: who begins to read after it gets this entry."""
    milliseconds, number = parse(entry_id)
    if number:
        return b"%d-%d" % (milliseconds, number - 1)
    return b"%d-%d" % (milliseconds - 1, 2**64 - 1) if milliseconds else b"0-0"


def resume_after(last: bytes, unsettled: Iterable[bytes]) -> bytes:
    """Return after which id a lost group goes on: right before the oldest entry that may be unsettled, else `last`."""
    return min([last, *map(before, unsettled)], key=parse)


def is_new(last: bytes, added: int | None, *, newest: bytes, added_now: int | None) -> bool:
    """Return whether a stream is another one than before: its newest id, or its count of entries ever added, went back."""
    if parse(newest) < parse(last):
        return True
    return added is not None and added_now is not None and added_now < added
