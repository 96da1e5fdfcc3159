"""The number of stream entries trimmed before a consumer group had read them, from the server's counters; pure."""

from __future__ import annotations

from typing import NamedTuple

from router.core.delivery.claims import parse


class GroupState(NamedTuple):
    """The state of a group and its stream at one moment, from a reply of the server."""

    last: bytes
    """The last entry delivered to the group."""
    lowest: bytes | None
    """The oldest pending entry."""
    peers: bool
    """True if other consumers read with the group."""
    added: int | None
    """The number of entries ever added to the stream; None for a server without this counter (Redis 6.2)."""
    missed: int
    """The number of entries lost unread, by the server's counters. The script that reads this number also corrects the
    counters.
    """
    read: int | None
    """The server's count of entries read by the group; None if the server did not know it."""
    counted: int | None
    """The server's count of entries read by the group, after the correction by the script."""
    gap: bool
    """True if the group has read none of the entries that the stream holds now."""
    oldest: bytes | None
    """The oldest entry of the stream."""
    deleted: bytes | None
    """The newest entry that was deleted by XDEL, as opposed to trimmed."""
    compared: bool = False
    """True if `counted` was compared with the stream, and is therefore correct."""
    doubt: bool = False
    """True if `read` differed from `counted` and can't be trusted: the server may have lost reads when it restarted."""
    passed: int | None = None
    """The number of entries that the group has read or missed; None if unknown (see `passed_entries`)."""


def lost_unread(before: GroupState | None, now: GroupState, read: int | None) -> tuple[int, bool]:
    """Return the number of entries lost unread between two checks, and whether the number is exact (else it is a lower
    bound).

    `before` is the state at the earlier check; None at the first check. `read` is the number of entries delivered to
    the group between the checks. It is None if it is unknown, because peers read too or a reply was lost. The server's
    count of reads is not enough: Valkey counts skipped entries as read. Only the difference between the server's count
    and `read` shows that these entries were lost.
    """
    deleted = now.deleted or b"0-0"
    if now.doubt:  # the server's count of reads is wrong, so only our own count can show losses
        if before is None or before.passed is None or read is None or now.counted is None:
            return 0, False
        return max(0, now.counted - before.passed - read), not _after(deleted, before.last)
    if before is None:
        return now.missed, now.added is not None and not (now.gap and now.read is None) and not _after(
            deleted, now.last
        )
    number, exact = now.missed, now.added is not None and not (now.gap and now.read is None)
    # The server counts more reads than were delivered: it has counted skipped entries as read.
    if read is not None and now.read is not None and before.counted is not None and now.read >= before.counted:
        number += max(0, now.read - before.counted - read)
    elif now.added != before.added and (now.oldest is None or _after(now.oldest, before.last)):
        exact = False  # the entry after `before.last` was trimmed between the checks, perhaps unread
    return number, exact and not _after(deleted, before.last)


def passed_entries(before: GroupState | None, now: GroupState, read: int | None, missed: int) -> int | None:
    """Return the value of `GroupState.passed` for this check.

    It is the number of entries that the group has read or missed; None if unknown. `read` and `missed` are the numbers
    of entries read and missed since the previous check.
    """
    if now.compared:
        return now.counted
    if before is None or before.passed is None or read is None:
        return None
    return before.passed + read + missed


def _after(one: bytes, other: bytes) -> bool:
    return parse(one) > parse(other)
