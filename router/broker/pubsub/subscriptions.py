"""The subscriptions of a pub/sub source, and the choice between several copies of an event; floor 4."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from router.core.accounts.books import LONGEST_CHANNEL
from router.core.matching import ChannelIndex, literal_prefix

REMEMBERED = 10_000
"""The largest number of channels in the cache of winners."""

SUBSCRIBE, PSUBSCRIBE = b"subscribe", b"psubscribe"

Wanted = tuple[bytes, bytes]
"""One subscription: the command (`subscribe` or `psubscribe`) and the name or glob."""


class Remembered(dict[bytes, bytes | None]):
    """A cache for the function `find`, which returns the winner of a channel.

    Very long channel names are not cached.
    """

    def __init__(self, find: Callable[[bytes], bytes | None]) -> None:
        self._find = find

    def __missing__(self, channel: bytes) -> bytes | None:
        winner = self._find(channel)
        if len(channel) <= LONGEST_CHANNEL:
            if len(self) >= REMEMBERED:
                self.clear()  # dropping only the oldest entry would be slow, because a dict has to search for it
            self[channel] = winner
        return winner


class Subscriptions:
    """The subscriptions of a source in order of priority: exact names, then globs in the order of the configuration.

    Redis sends one copy of an event for each subscription that matches the channel. The router uses only the copy for
    the first matching subscription, which is called the *winner* of the channel.
    """

    def __init__(self, names: Iterable[str], globs: Iterable[str]) -> None:
        names = list(names)
        exact = dict.fromkeys(name.encode() for name in names)
        patterns = list(dict.fromkeys(globs))
        self.names = frozenset(exact)
        """The exact names."""
        self.unrivalled = _unrivalled(exact, patterns)
        """The globs without rivals: no name and no earlier glob can match the same channel. Copies for these globs are
        always used."""
        self.wanted: tuple[Wanted, ...] = (
            *((SUBSCRIBE, name) for name in exact),
            *((PSUBSCRIBE, pattern.encode()) for pattern in patterns),
        )
        """All subscriptions, in the order in which they are requested: by priority. Otherwise a glob could be confirmed
        before the winner, and its copy of an event would be dropped although no copy of the winner arrives yet."""
        winners = [None, *(pattern.encode() for pattern in patterns)]
        index = ChannelIndex(
            enumerate([names, *([pattern] for pattern in patterns)]), lambda found: winners[found[0] if found else 0]
        )
        self.winner: Callable[[bytes], bytes | None] = Remembered(index.find).__getitem__
        """A function that returns the winner of a channel: a glob, or None if the exact name wins."""
        self.duplicates = 0
        """The number of copies dropped so far."""


def _unrivalled(names: Iterable[bytes], globs: Sequence[str]) -> frozenset[bytes]:
    """Return the globs without rivals, judged by their literal prefixes."""
    found: list[bytes] = []
    before: list[bytes] = []
    for glob in globs:
        begin = literal_prefix(glob).encode()
        rivals = any(other.startswith(begin) or begin.startswith(other) for other in before)
        if not rivals and not any(name.startswith(begin) for name in names):
            found.append(glob.encode())
        before.append(begin)
    return frozenset(found)
