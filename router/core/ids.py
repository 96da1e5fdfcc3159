"""Ids of events and dead letters; pure.

Ids of events are globally unique. Their order as text is their order in time.
"""

from __future__ import annotations

from hashlib import sha256

LONGEST = 200
"""The largest number of bytes of an id."""

_LETTER_DIGITS = 20  # 80 bits: the chance that any two of a million dead letters share an id is one in a trillion


def portable(text: str) -> str:
    """Return an external id unchanged if the router can use it, else its SHA-256 in hex.

    Ids are used in mail headers, HTTP headers and log lines. So an id that is empty, longer than `LONGEST` or not
    printable ASCII is replaced. Equal ids stay equal.
    """
    if 0 < len(text) <= LONGEST and text.isascii() and text.isprintable():
        return text
    return sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def of_delivery(key: str) -> str:
    """Return the id of the dead letter of a delivery with this idempotency key.

    The id is derived from the key. So a letter keeps its id when its replay fails. This also holds if another router
    replays the letter, or if the first router was killed.
    """
    return sha256(key.encode("utf-8", "backslashreplace")).hexdigest()[:_LETTER_DIGITS]


class Ids:
    """The generator of one router's ids: milliseconds since the epoch, a word of this process, and a count.

    `boot` is the word. Each process chooses its word at random. The hot path gets `prefix` once per batch and appends
    the count itself: then an id costs one string and no call.
    """

    __slots__ = ("boot", "count")

    def __init__(self, boot: str) -> None:
        self.boot = boot
        # All counts have the same number of digits, so their order as text is their order as numbers.
        self.count = 10**12

    def prefix(self, now: float) -> str:
        """Return the prefix of the ids made at `now` (seconds since the epoch). The caller appends a growing count."""
        return f"{int(now * 1000):012x}-{self.boot}-"

    def next(self, now: float) -> str:
        """Return a new id."""
        self.count += 1
        return f"{self.prefix(now)}{self.count}"
