"""The recovery of pending entries of a consumer group: batch sizes, poison, the id at which a lost group resumes; pure.

An entry stays pending if it was in flight when a process died, or if a reply of Redis was lost. If several entries were
in flight, any of them may have crashed the process. Recovery therefore claims ever smaller batches. Only an entry that
was alone in flight when the process died becomes poison. The delivery count, which Redis stores for each entry, is the
number of tries. An attempt that returns, successful or not, resets the count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

SIZES = {0: 100, 1: 100, 2: 10}
"""The size of a batch of claimed entries, by their delivery count."""

ALONE = 3
"""The delivery count from which an entry is claimed alone."""

LOOK_AT_LEAST_EVERY = 5.0
"""The longest interval in seconds between two checks for entries of dead consumers."""


class Pending(NamedTuple):
    """An entry that was delivered and not acknowledged."""

    id: bytes
    deliveries: int
    """The delivery count."""
    owner: bytes = b""
    """The consumer to which the entry was delivered."""


class ClaimBatch(NamedTuple):
    """Entries to claim together."""

    entries: list[Pending]
    alone: bool = False
    """True for a single entry that must be alone in flight."""


def is_poison(deliveries: int, most: int) -> bool:
    """Return whether an entry is poison.

    A poison entry was delivered `most` times, and the last time no other entry was in flight.
    """
    return deliveries >= max(most, ALONE + 1)


def claim_batches(pending: Sequence[Pending]) -> Iterator[ClaimBatch]:
    """Yield the batches in which to claim entries.

    Entries with a low delivery count come first. Entries with equal counts stay in the given order.
    """
    groups: dict[int, list[Pending]] = {}
    for entry in pending:
        if entry.deliveries < ALONE:
            groups.setdefault(entry.deliveries, []).append(entry)
    for deliveries in sorted(groups):
        entries, size = groups[deliveries], SIZES[deliveries]
        for first in range(0, len(entries), size):
            yield ClaimBatch(entries[first : first + size])
    for entry in pending:
        if entry.deliveries >= ALONE:
            yield ClaimBatch([entry], alone=True)


def renew_every(idle: float) -> float:
    """Return the seconds between two renewals of entries that peers may claim after `idle` seconds."""
    return idle / 3


def undisputed(idle: float) -> float:
    """Return the seconds after a renewal during which no peer can have claimed the entry."""
    return 0.9 * idle


def look_every(idle: float) -> float:
    """Return the seconds between two checks for entries of dead consumers."""
    return min(idle / 3, LOOK_AT_LEAST_EVERY)


def patience(idle: float) -> float:
    """Return the seconds to wait for the attempt of a suspected crasher: longer than an attempt may take."""
    return idle / 2


def parse(entry_id: bytes) -> tuple[int, int]:
    """Return the two numbers of an entry's id, by which ids are ordered."""
    milliseconds, _, number = entry_id.partition(b"-")
    return int(milliseconds), int(number or 0)


def before(entry_id: bytes) -> bytes:
    """Return the largest id below `entry_id`. A read after the returned id starts with the entry `entry_id`."""
    milliseconds, number = parse(entry_id)
    if number:
        return b"%d-%d" % (milliseconds, number - 1)
    return b"%d-%d" % (milliseconds - 1, 2**64 - 1) if milliseconds else b"0-0"


def resume_after(last: bytes, unsettled: Iterable[bytes]) -> bytes:
    """Return the id after which a lost group resumes to read.

    It is the id before the oldest entry in `unsettled`; without such entries, it is `last`.
    """
    return min([last, *map(before, unsettled)], key=parse)


def is_new(last: bytes, added: int | None, *, newest: bytes, added_now: int | None) -> bool:
    """Return whether a stream was certainly deleted and created again.

    This is certain if the stream's newest id or its count of added entries is lower than at the earlier check.
    """
    if parse(newest) < parse(last):
        return True
    return added is not None and added_now is not None and added_now < added
