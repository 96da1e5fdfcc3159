"""Whether there is a channel that some globs match and others do not; pure.

The question is decided exactly, by walking the automata of all the globs together. The walk is bounded: where it would be
too long the answer is "there may be one", which never has anything reported that is not so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from router.core.matching import ANY, STAR, Token, glob, is_glob, literal_prefix, tokens

Globs = tuple[str, ...]
"""Names and globs: the set of the channels that at least one of them matches."""

EVERY: Globs = ("*",)
"""Every channel there is."""

MOST_STEPS = 20_000
"""Steps of one walk; globs as people write them take a few dozen."""


def meet(*sets: Globs) -> bool:
    """Return whether some channel may be in all of these sets."""
    return may_have(sets, ())


@lru_cache(maxsize=10_000)
def may_have(sets: tuple[Globs, ...], without: Globs) -> bool:
    """Return whether some channel may be in all of these sets and match none of the globs of `without`."""
    if not all(sets):
        return False
    for number, each in enumerate(sets):
        others = [*sets[:number], *sets[number + 1 :]]
        for name in each:
            if not _is_glob(name) and all(_match(other, name) for other in others) and not _match(without, name):
                return True
    globs = [tuple(each for each in set_ if _is_glob(each)) for set_ in sets]
    globs = [_beginning_alike(each, globs) for each in globs]
    return all(globs) and _Walk(globs, _beginning_alike(without, globs)).arrives()


_matcher = lru_cache(maxsize=10_000)(glob)
_is_glob = lru_cache(maxsize=10_000)(is_glob)
_prefix = lru_cache(maxsize=10_000)(literal_prefix)


def _match(globs: Globs, name: str) -> bool:
    channel = name.encode()
    return any(_matcher(each)(channel) for each in globs)


def _beginning_alike(globs: Iterable[str], others: Sequence[Globs]) -> Globs:
    """Return those of the globs that begin as at least one glob of each other set may."""
    prefixes = [[_prefix(one) for one in other] for other in others]
    found = []
    for each in globs:
        if _is_glob(each):
            begin = _prefix(each)
            if all(any(begin.startswith(one) or one.startswith(begin) for one in some) for some in prefixes):
                found.append(each)
        elif all(_match(other, each) for other in others):
            found.append(each)
    return tuple(found)


@lru_cache(maxsize=10_000)
def _parts(glob: str) -> tuple[Token, ...]:
    """Return the parts of a glob, of stars that stand together one."""
    parts = tokens(glob.encode())
    return tuple(part for place, part in enumerate(parts) if part is not STAR or parts[place - 1 : place] != [STAR])


class _Automaton:
    """The automaton of a set of globs. A state is a bit for each place in each glob that has been reached."""

    def __init__(self, globs: Globs) -> None:
        self.parts: list[tuple[int, Token]] = []
        """The bit of each place but the ends, and the bytes that lead on from it."""
        self.start = self.ends = self._stars = self.endless = 0
        place = 0
        for each in globs:
            self.start |= 1 << place
            parts = _parts(each)
            for part in parts:
                if part is STAR:
                    self._stars |= 1 << place
                self.parts.append((1 << place, part))
                place += 1
            self.ends |= 1 << place
            if parts[-1:] == (STAR,):
                self.endless |= 1 << place - 1
            place += 1
        self.start |= (self.start & self._stars) << 1

    def accepting(self, byte: int) -> int:
        """Return the places that this byte leads on from; a star leads nowhere by itself."""
        return sum(bit for bit, part in self.parts if byte in part)

    def after(self, state: int, accepting: int) -> int:
        """Return the state after a byte."""
        reached = (state & accepting) << 1 | state & self._stars
        return reached | (reached & self._stars) << 1


def _unlike(parts: Iterable[Token]) -> list[int]:
    """Return one byte of each kind that these parts tell apart."""
    found: set[int] = set()
    classes = []
    for part in set(parts):
        if len(part) == 1:
            found |= part
        elif part is not ANY:
            classes.append(part)
    kinds: dict[tuple[bool, ...], int] = {}
    for byte in ANY - found if classes else list(ANY - found)[:1]:
        kinds.setdefault(tuple(byte in part for part in classes), byte)
    return [*(found - STAR), *kinds.values()]


class _Walk:
    """A search for a channel that all of some sets have and that is not in another set, byte by byte."""

    def __init__(self, sets: Sequence[Globs], without: Globs) -> None:
        self._wanted = [_Automaton(each) for each in sets]
        self._unwanted = _Automaton(without)
        automata = [*self._wanted, self._unwanted]
        kinds = _unlike(part for each in automata for _, part in each.parts)
        self._steps = [tuple(each.accepting(byte) for each in automata) for byte in kinds]

    def arrives(self) -> bool:
        """Return whether there is such a channel; True too where that takes too many steps to find out."""
        start = (*(each.start for each in self._wanted), self._unwanted.start)
        waiting, seen = [start], {start}
        left = MOST_STEPS
        while waiting:
            state = waiting.pop()
            if self._is_there(state):
                return True
            left -= len(self._steps)
            if left < 0:
                return True
            for step in self._steps:
                following = self._after(state, step)
                if following is not None and following not in seen:
                    seen.add(following)
                    waiting.append(following)
        return False

    def _is_there(self, state: tuple[int, ...]) -> bool:
        *wanted, unwanted = state
        return not unwanted & self._unwanted.ends and all(
            each & automaton.ends for each, automaton in zip(wanted, self._wanted, strict=True)
        )

    def _after(self, state: tuple[int, ...], step: tuple[int, ...]) -> tuple[int, ...] | None:
        """Return the state after a byte; None where no channel that begins so is wanted."""
        reached = []
        for automaton, at, accepting in zip(self._wanted, state, step, strict=False):
            after = automaton.after(at, accepting)
            if not after:
                return None
            reached.append(after)
        unwanted = self._unwanted.after(state[-1], step[-1])
        return None if unwanted & self._unwanted.endless else (*reached, unwanted)
