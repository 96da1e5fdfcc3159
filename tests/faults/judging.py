"""What came of a scenario, and whether that is good enough: counts, books, figures, and what the log said."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

LOUD = frozenset({"warning", "error", "critical"})
"""Levels of lines that somebody is meant to read."""

LINES_PER_FAULT = 4
"""How often a router may say the same of the same source or sink for one fault: that it begins, changes, and ends."""


@dataclass
class Found:
    """What came of one scenario. Counts are by sink; `figures` are what else was measured, in the words of the table."""

    name: str
    published: int = 0
    delivered: dict[str, int] = field(default_factory=dict)
    repeated: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    dead: int = 0
    dropped: int = 0
    balanced: bool = False
    faults: int = 0
    lines: int = 0
    """Lines at warning or above, of all routers."""
    figures: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def most_repeated(self) -> int:
        """Of the sink with most repetitions."""
        return max(self.repeated.values(), default=0)

    @property
    def most_lost(self) -> int:
        """Of the sink that lost most."""
        return max(self.lost.values(), default=0)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for `--json`."""
        return asdict(self)


def judge_counts(
    found: Found, got: Mapping[str, Counter[int]], expected: Mapping[str, Collection[int]], may_repeat: float
) -> None:
    """Compare what each sink delivered with what it should have; `may_repeat` is the most that may come again."""
    for sink, wanted in expected.items():
        counts = got.get(sink, Counter())
        missing = set(wanted) - counts.keys()
        again = sum(number - 1 for number in counts.values() if number > 1)
        found.delivered[sink] = found.delivered.get(sink, 0) + len(counts)
        found.lost[sink] = found.lost.get(sink, 0) + len(missing)
        found.repeated[sink] = found.repeated.get(sink, 0) + again
        if missing:
            found.problems.append(f"{sink} lost {len(missing)} of {len(wanted)}: {_some(missing)}")
    if found.most_repeated > may_repeat:
        found.problems.append(f"repeated {found.repeated}, at most {may_repeat:g} may be")


def _some(numbers: Collection[int]) -> str:
    first = sorted(numbers)[:10]
    return ", ".join(map(str, first)) + (" …" if len(numbers) > len(first) else "")


def judge_log(found: Found, said: str, *, killed: bool) -> Counter[str]:
    """Read one router's log; returns how often it said what of which source or sink, at warning or above."""
    times: Counter[str] = Counter()
    lines = said.splitlines()
    if killed and lines and not said.endswith("\n"):
        lines.pop()  # torn
    for text in lines:
        try:
            line = json.loads(text)
        except ValueError:
            found.problems.append(f"the log has a line that is none: {text[:200]}")
            continue
        if "exception" in line or "Traceback" in text:
            found.problems.append(f"the log has a traceback: {text[:2000]}")
        if line["level"] in LOUD:
            about = [str(line[key]) for key in ("source", "sink", "stream", "key") if key in line]
            times[" ".join([line["event"], *about])] += 1
    return times


def judge_lines(found: Found, times: Counter[str], faults: int) -> None:
    """Nothing is said a thousand times: a line a few times for each fault at most."""
    found.faults, found.lines = faults, times.total()
    for line, number in times.items():
        if number > LINES_PER_FAULT * max(faults, 1):
            found.problems.append(f"said {number} times for {faults} faults: {line}")


def judge_books(found: Found, told: Mapping[str, Any]) -> None:
    """What `status --json` says when everything is over: the books balance, and nothing is left."""
    found.balanced = bool(told["balanced"])
    if not told["balanced"]:
        found.problems.append(f"the books do not balance: {told['warnings']}")
    if not told["ready"]:
        found.problems.append(f"not ready at the end: {told['reasons']}")
    for name, book in told["books"]["sinks"].items():
        found.dropped += book["dropped"]
        if book["pending"]:
            found.problems.append(f"the books say that {book['pending']} wait for {name}")
