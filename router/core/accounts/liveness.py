"""Which parts of the router hang, by the signs that they give; pure.

Being connected says nothing: what counts is that each part gets on. One that waits for what need not come is well, one
that is at the same thing for longer than that can take is not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from router.contracts import Sign

STANDSTILL = 0.25
"""Seconds that a look may be late before the event loop counts as having stood still."""

REMEMBERED = 1_000
"""Standstills that are remembered: at a look every few seconds more than an hour of them."""


@dataclass(frozen=True, slots=True)
class Hang:
    """A part that does not get on: what it is at, and for how many seconds of the event loop."""

    part: str
    doing: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.part}: {self.doing}, for {self.seconds:.0f} s"


class Judge:
    """Looks at signs again and again. All times are seconds that never go back.

    While the event loop stands still no part can get on: that time is not held against any.
    """

    def __init__(self) -> None:
        self._standstills: deque[tuple[float, float]] = deque(maxlen=REMEMBERED)
        self._ended: dict[tuple[str, str], float] = {}

    def look(self, signs: Iterable[Sign], now: float, *, late: float = 0.0) -> tuple[Hang, ...]:
        """The parts that hang. `late` is by how much this look came after it was due."""
        if late > STANDSTILL:
            self._standstills.append((now, late))
        ended: dict[tuple[str, str], float] = {}
        found: dict[tuple[str, str], Hang] = {}
        for part, doing, since, limit, over in signs:
            name = part, doing
            if over:
                ended[name] = began = self._ended.get(name, now)
                found[name] = Hang(part, doing, now - began)
            elif since is not None and (seconds := self._age(since, now)) > limit:
                before = found.get(name)
                found[name] = Hang(part, doing, max(seconds, before.seconds if before else 0.0))
        self._ended = ended
        return tuple(found.values())

    def _age(self, since: float, now: float) -> float:
        """Seconds since then in which the event loop turned."""
        age = now - since
        for until, seconds in reversed(self._standstills):
            if until <= since:
                break
            age -= min(seconds, until - since)
        return age
