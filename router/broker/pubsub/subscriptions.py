"""What a pub/sub source subscribes to, and which copy of an event counts where several subscriptions match; floor 4."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from router.core.accounts.books import LONGEST_CHANNEL
from router.core.matching import ChannelIndex, literal_prefix

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
                self.clear()  # dropping the oldest one each time takes long: a dict has to look for it
            self[channel] = winner
        return winner


class Subscriptions:
    """The subscriptions of a source in order of priority: exact names, then globs in the order of the configuration.

    A published event is one event of the source however many of them match: the first that matches wins.
    """

    def __init__(self, names: Iterable[str], globs: Iterable[str]) -> None:
        names = list(names)
        exact = dict.fromkeys(name.encode() for name in names)
        patterns = list(dict.fromkeys(globs))
        self.names = frozenset(exact)
        """The exact names."""
        self.unrivalled = _unrivalled(exact, patterns)
        """Globs whose copies always count: no name and no glob before them can match what they match."""
        self.wanted: tuple[Wanted, ...] = (
            *((SUBSCRIBE, name) for name in exact),
            *((PSUBSCRIBE, pattern.encode()) for pattern in patterns),
        )
        """In the order to subscribe: with the winner always first, no event is missed while the rest is confirmed."""
        winners = [None, *(pattern.encode() for pattern in patterns)]
        index = ChannelIndex(
            enumerate([names, *([pattern] for pattern in patterns)]), lambda found: winners[found[0] if found else 0]
        )
        self.winner: Callable[[bytes], bytes | None] = Remembered(index.find).__getitem__
        """The glob whose copy of a channel's events counts; None where the exact name's does."""
        self.duplicates = 0
        """Copies dropped so far."""


def _unrivalled(names: Iterable[bytes], globs: Sequence[str]) -> frozenset[bytes]:
    """Return the globs that begin otherwise than every name and every glob before them."""
    found: list[bytes] = []
    before: list[bytes] = []
    for glob in globs:
        begin = literal_prefix(glob).encode()
        rivals = any(other.startswith(begin) or begin.startswith(other) for other in before)
        if not rivals and not any(name.startswith(begin) for name in names):
            found.append(glob.encode())
        before.append(begin)
    return frozenset(found)
