"""The result of a scenario, and the checks of its counts, books, figures and log."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

LOUD = frozenset({"warning", "error", "critical"})
"""The levels of log lines that are meant for an operator."""

LINES_PER_FAULT = 4
"""The maximum number of equal log lines about one source or sink for each fault."""


@dataclass
class Found:
    """The result of one scenario. Counts are by sink. `figures` maps the names of other measurements to values."""

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
    """The number of log lines at the level warning or above, of all routers."""
    figures: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def most_repeated(self) -> int:
        """The number of repeated events of the sink with the most repetitions."""
        return max(self.repeated.values(), default=0)

    @property
    def most_lost(self) -> int:
        """The number of lost events of the sink with the most losses."""
        return max(self.lost.values(), default=0)

    def as_dict(self) -> dict[str, Any]:
        """Return the result as plain values, for `--json`."""
        return asdict(self)


def judge_counts(
    found: Found, got: Mapping[str, Counter[int]], expected: Mapping[str, Collection[int]], may_repeat: float
) -> None:
    """Compare the events of each sink with the expected events. At most `may_repeat` repetitions are allowed."""
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
        found.problems.append(f"repeated {found.repeated}, at most {may_repeat:g} are allowed")


def _some(numbers: Collection[int]) -> str:
    first = sorted(numbers)[:10]
    return ", ".join(map(str, first)) + (" …" if len(numbers) > len(first) else "")


def judge_log(found: Found, said: str, *, killed: bool) -> Counter[str]:
    """Check the log of one router. Return the number of equal lines about a source or sink, at warning or above.

    `killed` says that the router was killed, so that its last line may be incomplete.
    """
    times: Counter[str] = Counter()
    lines = said.splitlines()
    if killed and lines and not said.endswith("\n"):
        lines.pop()  # incomplete
    for text in lines:
        try:
            line = json.loads(text)
        except ValueError:
            found.problems.append(f"the log has a line that is not JSON: {text[:200]}")
            continue
        if "exception" in line or "Traceback" in text:
            found.problems.append(f"the log has a traceback: {text[:2000]}")
        if line["level"] in LOUD:
            about = [str(line[key]) for key in ("source", "sink", "stream", "key") if key in line]
            times[" ".join([line["event"], *about])] += 1
    return times


def judge_lines(found: Found, times: Counter[str], faults: int) -> None:
    """Check that no log line is repeated more often than `LINES_PER_FAULT` times for each fault."""
    found.faults, found.lines = faults, times.total()
    for line, number in times.items():
        if number > LINES_PER_FAULT * max(faults, 1):
            found.problems.append(f"logged {number} times for {faults} faults: {line}")


def judge_books(found: Found, told: Mapping[str, Any]) -> None:
    """Check the output of `status --json` at the end: the books balance, and no delivery is left."""
    found.balanced = bool(told["balanced"])
    if not told["balanced"]:
        found.problems.append(f"the books do not balance: {told['warnings']}")
    if not told["ready"]:
        found.problems.append(f"not ready at the end: {told['reasons']}")
    for name, book in told["books"]["sinks"].items():
        found.dropped += book["dropped"]
        if book["pending"]:
            found.problems.append(f"the books have {book['pending']} pending deliveries for {name}")
