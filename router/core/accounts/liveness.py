"""The detection of hanging components, from the progress (`Sign`) that components report; pure.

A component hangs if an operation takes longer than its limit. A component that waits for input, such as a message, is
healthy. An open connection is not proof of health, because the other end may be stuck.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import msgspec

from router.contracts import Sign

STANDSTILL = 0.25
"""The delay of a check, in seconds, above which the event loop counts as blocked."""

REMEMBERED = 1_000
"""The largest number of remembered blocked periods. With a check every few seconds, they cover more than an hour."""


class Hang(msgspec.Struct, frozen=True):
    """A component that hangs: its name, its operation, and the duration of the operation in seconds.

    Time in which the event loop was blocked is not part of the duration.
    """

    part: str
    doing: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.part}: {self.doing}, for {self.seconds:.0f} s"


class HangDetector:
    """The checker that finds hanging components at intervals. All times are monotonic seconds.

    While the event loop is blocked, no component can make progress. This time is not counted as a hang.
    """

    def __init__(self) -> None:
        self._standstills: deque[tuple[float, float]] = deque(maxlen=REMEMBERED)
        self._ended: dict[tuple[str, str], float] = {}

    def check(self, signs: Iterable[Sign], now: float, *, late: float = 0.0) -> tuple[Hang, ...]:
        """Return the components that hang. `late` is the delay of this check in seconds."""
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
        """Return the seconds from `since` to `now`, without the time in which the event loop was blocked."""
        age = now - since
        for until, seconds in reversed(self._standstills):
            if until <= since:
                break
            age -= min(seconds, until - since)
        return age
