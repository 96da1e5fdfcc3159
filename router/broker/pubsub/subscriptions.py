"""What a pub/sub source subscribes to, and which copy of an event counts where several subscriptions match; floor 4."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from router.core.accounts.books import LONGEST_CHANNEL
from router.core.matching import glob

REMEMBERED = 10_000
"""Channels whose winner is remembered."""

SUBSCRIBE, PSUBSCRIBE = b"subscribe", b"psubscribe"

Wanted = tuple[bytes, bytes]
"""One subscription: the command (`subscribe` or `psubscribe`) and the name or glob."""


class Remembered(dict[bytes, bytes | None]):
    """The winners of the channels seen last, as `find` gives them; of a very long name the winner is found each time."""

    def __init__(self, find: Callable[[bytes], bytes | None]) -> None:
        self._find = find

    def __missing__(self, channel: bytes) -> bytes | None:
        winner = self._find(channel)
        if len(channel) <= LONGEST_CHANNEL:
            if len(self) >= REMEMBERED:
                del self[next(iter(self))]
            self[channel] = winner
        return winner


class Subscriptions:
    """The subscriptions of a source in order of priority: exact names, then globs in the order of the configuration.

    A published event is one event of the source however many of them match: the first that matches wins.
    """

    def __init__(self, names: Iterable[str], globs: Iterable[str]) -> None:
        exact = dict.fromkeys(name.encode() for name in names)
        self.names = frozenset(exact)
        """The exact names."""
        self._globs = {text.encode(): glob(text) for text in globs}
        self.wanted: tuple[Wanted, ...] = (
            *((SUBSCRIBE, name) for name in exact),
            *((PSUBSCRIBE, pattern) for pattern in self._globs),
        )
        """In the order to subscribe: with the winner always first, no event is missed while the rest is confirmed."""
        self.winner: Callable[[bytes], bytes | None] = Remembered(self._winner).__getitem__
        """The glob whose copy of a channel's events counts; None where the exact name's does."""
        self.duplicates = 0
        """Copies dropped so far."""

    def _winner(self, channel: bytes) -> bytes | None:
        if channel in self.names:
            return None
        return next((pattern for pattern, matches in self._globs.items() if matches(channel)), None)
