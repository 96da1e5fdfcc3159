"""How many entries of a stream were trimmed before a consumer group had read them, from what the server counts; pure."""

from __future__ import annotations

from typing import NamedTuple

from router.core.delivery.claims import parse


class Look(NamedTuple):
    """A server's answer about a group and its stream at one moment."""

    last: bytes
    """The last entry delivered to the group."""
    lowest: bytes | None
    """The oldest pending entry."""
    peers: bool
    """Whether others read with the group."""
    added: int | None
    """Entries ever added to the stream; None where the server does not count them (Redis 6.2)."""
    missed: int
    """Entries gone unread, by the server's own counts; those are set right with that, so nobody is told again."""
    read: int | None
    """Entries that the group had read, as the server counted; None where it did not know."""
    counted: int | None
    """The same from now on."""
    gap: bool
    """Whether the group has read nothing of what the stream still holds, or would hold were it not empty."""
    oldest: bytes | None
    """The oldest entry of the stream."""
    deleted: bytes | None
    """The newest entry that was deleted, which is not the same as trimmed."""


def unread(before: Look | None, now: Look, read: int | None) -> tuple[int, bool]:
    """Return how many entries were lost unread between two looks, and whether that is exact; else it is at least so many.

    `before` is None at the first look. `read` is how many entries the group delivered in between, None where that is not
    known: others read too, or an answer was lost. Valkey counts what a read skips as read, and only `read` tells.
    """
    deleted = now.deleted or b"0-0"
    if before is None:
        return now.missed, now.added is not None and not (now.gap and now.read is None) and not _after(
            deleted, now.last
        )
    number, exact = now.missed, now.added is not None and not (now.gap and now.read is None)
    if read is not None and now.read is not None and before.counted is not None:
        number += max(0, now.read - before.counted - read)
    elif now.added != before.added and (now.oldest is None or _after(now.oldest, before.last)):
        exact = False  # whatever was next at the look before has been trimmed since, perhaps unread
    return number, exact and not _after(deleted, before.last)


def _after(one: bytes, other: bytes) -> bool:
    return parse(one) > parse(other)
