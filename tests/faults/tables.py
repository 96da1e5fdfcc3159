"""The tables of docs/reliability.md: the measured figures, and the comparison with other routers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.faults.registry import Scenario

BEGIN = "<!-- measured: begin; written by `make faults` -->"
END = "<!-- measured: end -->"

Result = Mapping[str, Any]


def document(scenarios: Mapping[str, Scenario], results: Mapping[str, Result]) -> str:
    """Return the text between the markers of the page."""
    shown = {name: results[name] for name in scenarios if name in results}
    if not shown:
        return "\nNothing has been measured yet."
    parts = [_where(shown), _table(scenarios, shown), "### Compared with other routers", PEERS_HEAD, _peers(shown)]
    return "\n" + "\n\n".join(parts) + "\n"


def _where(shown: Mapping[str, Result]) -> str:
    dates = sorted({result["date"] for result in shown.values()})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    places = {
        key: " and ".join(sorted({str(one[key]) for one in shown.values()})) for key in ("server", "python", "cores")
    }
    held = sum(not result["problems"] for result in shown.values())
    minutes = round(sum(result["seconds"] for result in shown.values()) / 60)
    return (
        f"Measured {when} with event-router {' and '.join(sorted({one['version'] for one in shown.values()}))}, "
        f"{places['server']}, Python {places['python']}, on {places['cores']} cores, in {minutes} minutes: "
        f"{held} of {len(shown)} promises were kept."
    )


def _table(scenarios: Mapping[str, Scenario], shown: Mapping[str, Result]) -> str:
    lines = ["| fault | promise | events | lost | repeated | also measured | books | kept |"]
    lines.append("|---|---|--:|--:|--:|---|---|---|")
    for name, result in shown.items():
        one = scenarios[name]
        cells = [
            one.title,
            one.promise,
            f"{result['published']:,}",
            f"{_most(result['lost']):,}",
            _share(_most(result["repeated"]), result["published"]),
            _also(result),
            "balance" if result["balanced"] else "**do not**",
            f"**no**: {_first(result['problems'])}" if result["problems"] else "yes",
        ]
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines)


def _first(problems: Sequence[str]) -> str:
    more = len(problems) - 1
    return problems[0] + (f" (and {more} more)" if more else "")


def _most(by_sink: Mapping[str, int]) -> int:
    return max(by_sink.values(), default=0)


def _share(number: int, published: int) -> str:
    if not number or not published:
        return f"{number:,}"
    return f"{number:,} ({number / published:.2%})"


def _also(result: Result) -> str:
    told = [f"{name}: {value}" for name, value in result["figures"].items()]
    if result["dead"]:
        told.append(f"dead letters at the end: {result['dead']:,}")
    faults = max(result["faults"], 1)
    told.append(f"warnings and errors in the log, per fault: {result['lines'] / faults:.1f}".replace(".0", ""))
    return "; ".join(told)


PEERS_HEAD = (
    "Some of these faults were also tested with Bento (its main branch of August 2026) and Vector 0.58, on one "
    "machine, on 2026-11-23. Vector does not read streams."
)


def _counts(result: Result) -> str:
    published = result["published"]
    again = _most(result["repeated"])
    repeated = f"{again:,} of {published:,}" if again else "0"
    return f"lost {_most(result['lost']):,}, repeated {repeated}"


def _figure(name: str) -> Callable[[Result], str]:
    return lambda result: result["figures"].get(name, "not measured").partition(" (at most")[0]


def _healed(result: Result) -> str:
    return f"group created again, {_counts(result)}"


def _restarted(result: Result) -> str:
    took = _figure("longest time from the opened port of Redis to the new subscription")(result)
    return f"subscribed again {took} after the port of Redis opened"


def _half_open(result: Result) -> str:
    noticed = _figure("time until the fault was noticed")(result)
    back = _figure("time from the restored path to the new subscription")(result)
    return f"fault noticed after {noticed}, subscribed again {back} after the path was restored"


def _slow(result: Result) -> str:
    return (
        f"two sinks at a tenth of the publishing rate: {result['dropped']:,} drops, all counted by channel and logged; "
        "the fast sink got every event"
    )


def _order(result: Result) -> str:
    return "kept" if not any("places" in problem for problem in result["problems"]) else "**not kept**"


NONE = "does not read streams"

PEERS: tuple[tuple[str, str, str, str, Callable[[Result], str]], ...] = (
    ("stream at 2,000/s, kill -9 four times", "lost 0, repeated 7,500 of 20,000", NONE, "killed_at_a_rate", _counts),
    (
        "stream, SIGTERM (ten times for event-router, four times for the others)",
        "lost 0, repeated 0",
        NONE,
        "stopped",
        _counts,
    ),
    ("XGROUP DESTROY", "group created again, all 1,000 old entries delivered again", NONE, "destroyed", _healed),
    ("FLUSHALL", "group created again, lost 0", NONE, "flushed", _healed),
    (
        "pub/sub, Redis restarts",
        "subscribed again at once",
        "subscribed again after 0.5 s",
        "redis_killed",
        _restarted,
    ),
    (
        "pub/sub, half-open connection",
        "received nothing for the whole 90 s of the test",
        "received nothing for the whole 90 s of the test",
        "half_open",
        _half_open,
    ),
    (
        "pub/sub, slow sink",
        "a sink at a fifth of the publishing rate: 30,086 of 40,000 events lost, nothing in the log",
        "not measured",
        "slow_sinks",
        _slow,
    ),
    ("pub/sub, burst of 100,000", "lost 27 to 31 in each of 12 runs", "lost 0", "burst", _counts),
    ("order of one channel", "not kept: some events arrived out of order", "kept", "burst", _order),
)
"""The rows of the comparison.

Each row has the fault, the results of Bento and Vector, the name of our scenario, and the function that describes the
result of our scenario.
"""


def _peers(shown: Mapping[str, Result]) -> str:
    lines = ["| fault | event-router | Bento | Vector |", "|---|---|---|---|"]
    for fault, bento, vector, name, say in PEERS:
        ours = say(shown[name]) if name in shown else "not measured"
        lines.append(f"| {fault} | {ours} | {bento} | {vector} |")
    return "\n".join(lines)
