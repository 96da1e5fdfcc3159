"""Ids of events and dead letters; pure.

Those of events are unique by themselves, and in the order of time as plain text.
"""

from __future__ import annotations

from hashlib import sha256

LONGEST = 200
"""Bytes an id may have."""

_LETTER_DIGITS = 20  # 80 bits: among a million letters two share an id once in a trillion times


def portable(text: str) -> str:
    """Return an id from outside as the router carries it: as it is, or its SHA-256 in hex.

    Ids stand in mail headers, HTTP headers and log lines, so one that is empty, longer than `LONGEST` or not printable
    ASCII is replaced. Equal ids stay equal.
    """
    if 0 < len(text) <= LONGEST and text.isascii() and text.isprintable():
        return text
    return sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def of_delivery(key: str) -> str:
    """Return the id of the dead letter of a delivery with this idempotency key.

    Nothing has to remember it: a letter that is replayed and fails again has the same id, whichever router replays it and
    whatever is killed meanwhile.
    """
    return sha256(key.encode("utf-8", "backslashreplace")).hexdigest()[:_LETTER_DIGITS]


class Ids:
    """Makes ids of one router: milliseconds since the epoch, a word that no other process has, a count.

    `boot` is that word: random, chosen once by each process. The hot path takes `prefix` once for a batch and counts
    itself, so that an id costs one string and nothing else.
    """

    __slots__ = ("boot", "count")

    def __init__(self, boot: str) -> None:
        self.boot = boot
        # All counts have the same number of digits, so that their order as text is their order as numbers.
        self.count = 10**12

    def prefix(self, now: float) -> str:
        """Return the beginning of all ids made at `now` (seconds since the epoch); a count that grows must follow."""
        return f"{int(now * 1000):012x}-{self.boot}-"

    def next(self, now: float) -> str:
        """Return a new id."""
        self.count += 1
        return f"{self.prefix(now)}{self.count}"
