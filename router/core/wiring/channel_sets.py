"""The check whether a channel exists that some globs match and other globs do not match; pure.

The check is exact: it walks the automata of all globs together. The number of steps of a walk is limited. If the limit
is reached, the result is "such a channel may exist". So the router never reports a false warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import takewhile

from router.core.matching import ANY, STAR, Token, glob, is_glob, literal_prefix, tokens

Globs = tuple[str, ...]
"""A set of channels, written as names and globs. A channel is in the set if at least one name or glob matches it."""

EVERY: Globs = ("*",)
"""The set of all channels."""

_OTHERS = frozenset("?[\\")
"""The special characters of globs besides the star."""

MOST_STEPS = 20_000
"""The largest number of steps of one walk. Usual globs take a few dozen."""


def apart(one: Globs, other: Globs) -> bool:
    """Return True if two small sets certainly have no channel in common.

    The test compares only the literal texts with which the globs begin and end. Unlike `meet`, it is not exact: for
    some sets without a common channel, the result is False. The test takes a microsecond.
    """
    return not any(_may_meet(first, second) for first in one for second in other)


def meet(*sets: Globs) -> bool:
    """Return whether some channel may be in all of these sets."""
    return may_have(sets, ())


@lru_cache(maxsize=10_000)
def may_have(sets: tuple[Globs, ...], without: Globs) -> bool:
    """Return whether some channel may be in all of these sets and match none of the globs of `without`."""
    sets = tuple(each for each in sets if "*" not in each) or (EVERY,)  # `*` contains every other set
    if not all(sets):
        return False
    named = [frozenset(each) for each in sets if not any(map(_is_glob, each))]
    if len(named) > 1 and not frozenset.intersection(*named):
        return False
    for number, each in enumerate(sets):
        others = [*sets[:number], *sets[number + 1 :]]
        for name in each:
            if not _is_glob(name) and all(_match(other, name) for other in others) and not _match(without, name):
                return True
    globs = [tuple(each for each in set_ if _is_glob(each)) for set_ in sets]
    globs = [_alike(each, globs) for each in globs]
    if not all(globs):
        return False
    longest = max(range(len(globs)), key=lambda number: len(globs[number][0]))
    shortest = _shortest(globs[longest][0])
    others = [*sets[:longest], *sets[longest + 1 :]]
    if shortest is not None and all(_match(other, shortest) for other in others) and not _match(without, shortest):
        return True  # the usual case; the walk would take several times as long
    return _Walk(globs, _alike(without, globs)).arrives()


def _shortest(glob: str) -> str | None:
    """Return the shortest channel that a glob matches; None if the glob has special characters other than stars."""
    return None if _OTHERS.intersection(glob) else glob.replace("*", "")


_matcher = lru_cache(maxsize=10_000)(glob)
_is_glob = lru_cache(maxsize=10_000)(is_glob)


def _match(globs: Globs, name: str) -> bool:
    channel = name.encode()
    return any(_matcher(each)(channel) for each in globs)


@lru_cache(maxsize=10_000)
def _ends(glob: str) -> tuple[str, bytes]:
    """Return the literal beginning and the literal end of a glob. Every channel that the glob matches has them."""
    ending = takewhile(lambda part: len(part) == 1 and part is not STAR, reversed(_parts(glob)))
    return literal_prefix(glob), bytes(byte for part in ending for byte in part)[::-1]


def _may_meet(one: str, other: str) -> bool:
    """Return whether the literal beginnings and ends of two globs allow a channel that both match."""
    (begin, end), (other_begin, other_end) = _ends(one), _ends(other)
    return (begin.startswith(other_begin) or other_begin.startswith(begin)) and (
        end.endswith(other_end) or other_end.endswith(end)
    )


def _alike(globs: Iterable[str], others: Sequence[Globs]) -> Globs:
    """Return the elements of `globs` that may have a channel in common with each set of `others`.

    Two globs are compared only by their literal beginnings and ends.
    """
    found = []
    for each in globs:
        if _is_glob(each):
            if all(any(_may_meet(each, one) for one in other) for other in others):
                found.append(each)
        elif all(_match(other, each) for other in others):
            found.append(each)
    return tuple(found)


@lru_cache(maxsize=10_000)
def _parts(glob: str) -> tuple[Token, ...]:
    """Return the parts of a glob, with adjacent stars as one star."""
    parts = tokens(glob.encode())
    return tuple(part for place, part in enumerate(parts) if part is not STAR or parts[place - 1 : place] != [STAR])


def _unlike(parts: Iterable[Token]) -> frozenset[int]:
    """Group the bytes that all these parts treat alike, and return one byte of each group."""
    found: set[int] = set()
    classes = []
    for part in set(parts):
        if len(part) == 1:
            found |= part
        elif part is not ANY:
            classes.append(part)
    kinds = [ANY - found]
    for part in classes:
        kinds = [each for kind in kinds for each in (kind & part, kind - part)]
        kinds = [kind for kind in kinds if kind]
    return frozenset([*(found - STAR), *(next(iter(kind)) for kind in kinds if kind)])


class _Walk:
    """A search, byte by byte, for a channel that is in all sets of `sets` and not in `without`.

    Each place in each glob has a bit. A state is an integer with the bits of all places that the bytes so far lead to.
    """

    def __init__(self, sets: Sequence[Globs], without: Globs) -> None:
        self._parts: list[tuple[int, Token]] = []
        """The bit of each place, and the bytes that lead from it to the next place. The end of a glob has no next place
        and is left out.
        """
        self._next = 1
        self._start = self._stars = 0
        added = [self._add(each) for each in sets]
        self._all = [places for places, _, _ in added]
        self._ends = [ends for _, ends, _ in added]
        _, self._unwanted, self._endless = self._add(without)
        self._steps = self._accepting(_unlike(part for _, part in self._parts))

    def _add(self, globs: Globs) -> tuple[int, int, int]:
        """Add the places of a set, and return three integers of bits.

        They have the bits of all places, of the ends of the globs, and of the places from which a glob matches any
        further bytes.
        """
        first, ends, endless = self._next, 0, 0
        for each in globs:
            self._start |= self._next
            parts = _parts(each)
            for part in parts:
                if part is STAR:
                    self._stars |= self._next
                self._parts.append((self._next, part))
                self._next <<= 1
            ends |= self._next
            if parts[-1:] == (STAR,):
                endless |= self._next >> 1
            self._next <<= 1
        return self._next - first, ends, endless

    def _accepting(self, kinds: frozenset[int]) -> list[int]:
        """Return, for each of these bytes, the places from which the byte leads to the next place.

        Stars are left out.
        """
        found = dict.fromkeys(kinds, 0)
        for bit, part in self._parts:
            for byte in part & kinds:
                found[byte] |= bit
        return list(found.values())

    def arrives(self) -> bool:
        """Return whether a channel exists that is in all sets and not in `without`.

        The result is True if the search takes too many steps.
        """
        stars = self._stars
        start = self._start | (self._start & stars) << 1
        waiting, seen = [start], {start}
        left = MOST_STEPS
        while waiting:
            state = waiting.pop()
            if self._is_there(state):
                return True
            left -= len(self._steps)
            if left < 0:
                return True
            kept = state & stars
            for accepting in self._steps:
                reached = (state & accepting) << 1 | kept
                reached |= (reached & stars) << 1
                if reached not in seen and not reached & self._endless and self._is_wanted(reached):
                    seen.add(reached)
                    waiting.append(reached)
        return False

    def _is_there(self, state: int) -> bool:
        return not state & self._unwanted and all(state & ends for ends in self._ends)

    def _is_wanted(self, state: int) -> bool:
        """Return whether each set may still contain a channel that begins with the bytes so far."""
        return all(state & places for places in self._all)
