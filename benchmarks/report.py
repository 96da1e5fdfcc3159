"""The command that stores the figures of benchmarks, and draws the table and the plot of docs/performance.md from them.

    make bench ARGS='report start webhook "mixed --minutes 20"'

This example runs three benchmarks one after another. Each benchmark can have its own options, in quotes. The figures
of all other benchmarks stay in `benchmarks/results.json`. Then the table and the plot of the page are drawn. If the
command names no benchmark, only the table and the plot are drawn again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness import HERE
from benchmarks.plot import Bar, svg
from benchmarks.ratios import Interval
from benchmarks.results import Results

STORED = HERE / "results.json"
PAGE = HERE.parent / "docs" / "performance.md"
PLOT = HERE.parent / "docs" / "performance.svg"
BEGIN, END = "<!-- results: begin -->\n", "<!-- results: end -->"

Document = dict[str, Any]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("jobs", nargs="*", metavar="JOB", help="a benchmark, in quotes if it has options")


def merged(stored: Document, name: str, words: str, results: Results) -> Document:
    """Return the stored figures after replacing the figures of one benchmark with its new results."""
    figures = [dict(_figure(results, each.name)) for each in results.figures]
    told = {"command": words, "measured": f"{datetime.now(UTC):%Y-%m-%d}", "machine": machine(), "figures": figures}
    return {**stored, name: told}


def _figure(results: Results, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the values of a figure to store. Medians are rounded, because more than three digits have no meaning."""
    figure = next(each for each in results.figures if each.name == name)
    values = results.values(name)
    yield "figure", name
    yield "unit", figure.unit
    yield "value", _rounded(median(values))
    yield "rounds", len(values)
    ratio = results.to_base(figure)
    if ratio is not None:
        yield "base", figure.base
        yield "ratio", [_rounded(each) for each in (ratio.median, ratio.low, ratio.high)]
    if figure.goal is not None and figure.goal_of != "other":
        yield "goal", {"most": figure.goal, "of": figure.goal_of}


def machine() -> str:
    """Return the environment that the figures depend on: the processor, its cores and Python."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    return f"{os.cpu_count()} cores, {model}, Python {sys.version.split()[0]}"


def _rounded(value: float) -> float:
    return float(f"{value:.3g}") if abs(value) < 1000 else round(value)


def load(file: Path = STORED) -> Document:
    """Return the stored figures by benchmark. If there is no file, the result is empty."""
    return dict(json.loads(file.read_text())) if file.exists() else {}


def save(stored: Document, file: Path = STORED) -> None:
    """Store the figures."""
    file.write_text(json.dumps(dict(sorted(stored.items())), indent=2, ensure_ascii=False) + "\n")


def table(stored: Mapping[str, Any]) -> str:
    """Return the figures as a Markdown table with one row per figure, and a list of the machines below it."""
    lines = ["| benchmark | figure | median | ÷ base | base | goal |", "|---|---|--:|--:|---|---|"]
    for name, job in stored.items():
        for figure in job["figures"]:
            ratio = figure.get("ratio")
            cells = (
                f"`{name}`",
                figure["figure"],
                _amount(figure),
                "" if ratio is None else str(Interval(ratio[0], ratio[1], ratio[2], float(figure["rounds"] > 1))),
                figure.get("base", ""),
                _goal(figure),
            )
            lines.append(f"| {' | '.join(cells)} |")
    for name, job in stored.items():
        lines += ["", f"`{name}`: `make bench ARGS='{job['command']}'`, {job['measured']}, {job['machine']}."]
    return "\n".join(lines) + "\n"


_ONE = {"events": "event", "times": "time"}
"""The singular of each unit that is a plural."""


def _amount(figure: Mapping[str, Any]) -> str:
    """Return the value of a figure with its unit."""
    value, unit = figure["value"], figure["unit"]
    number = f"{value:,.0f}" if abs(value) >= 100 else f"{value:g}"
    return f"{number} {_ONE.get(unit, unit) if value == 1 else unit}"


def _goal(figure: Mapping[str, Any]) -> str:
    share = share_of_goal(figure)
    if share is None:
        return ""
    unit = f" {figure['unit']}" if figure["goal"]["of"] == "value" else ""
    return f"≤ {figure['goal']['most']:g}{unit}: {'met' if share <= 1 else '**missed**'}"


def share_of_goal(figure: Mapping[str, Any]) -> float | None:
    """Return a figure as a multiple of its goal, or None without a goal. Only the figure 0 meets a goal of 0."""
    goal = figure.get("goal")
    if goal is None or (goal["of"] == "base" and "ratio" not in figure):
        return None
    value = float(figure["ratio"][0] if goal["of"] == "base" else figure["value"])
    if not goal["most"]:
        return float("inf") if value else 0.0
    return value / float(goal["most"])


def bars(stored: Mapping[str, Any]) -> list[Bar]:
    """Return the bars of the plot: every figure that has a goal."""
    found = []
    for name, job in stored.items():
        for figure in job["figures"]:
            share = share_of_goal(figure)
            if share is not None:
                of_base = figure["goal"]["of"] == "base"
                value = f"{figure['ratio'][0]:.2f} times its base" if of_base else _amount(figure)
                found.append(Bar(f"{name}: {figure['figure']}", share, f"{value}, goal {figure['goal']['most']:g}"))
    return found


def page(text: str, stored: Mapping[str, Any]) -> str:
    """Return the text of the page with the table of these figures. Raises `ValueError` if the page has no markers."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN.strip()} … {END}")
    return f"{before}{begin}{table(stored)}{end}{after}"


def draw(stored: Mapping[str, Any]) -> None:
    """Write the table into the page, and the plot beside it."""
    PAGE.write_text(page(PAGE.read_text(), stored))
    PLOT.write_text(svg(bars(stored)))
