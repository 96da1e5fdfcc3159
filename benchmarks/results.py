"""Figures that are measured in turn, and compared with a base, with another command and with a goal.

The results are printed as a table or as JSON.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

from rich.progress import Progress
from rich.table import Table

from benchmarks.ratios import Interval, median_interval, ratios

THIS, OTHER = "this", "other"


@dataclass(frozen=True)
class Reading:
    """One measurement of one figure. `beside` is shown in separate columns, and `detail` only in JSON."""

    value: float
    beside: Mapping[str, float] = field(default_factory=dict)
    detail: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Figure:
    """A measured figure. `goal` is a maximum: of the figure (`value`), or of a ratio. `goal_of` selects one of these.

    The ratio is that to the base (`base`), or to the figure of the other command (`other`).
    """

    name: str
    unit: str
    base: str | None = None
    goal: float | None = None
    goal_of: Literal["value", "base", "other"] = "base"


Readings = Mapping[str, Reading]
Turns = Generator[None, None, Readings]
"""A measurement in turns. Each call of `next` makes one turn, and the generator returns the readings at its end."""


@dataclass(frozen=True)
class Case:
    """A group of figures of one command that are measured together."""

    name: str
    figures: Sequence[Figure]
    measure: Callable[[Path], Turns]


@dataclass(frozen=True)
class Benchmark:
    """A benchmark with cases that are measured in turn.

    `about` is the description, `title` is the title of the table, and `base` is the name of the base in the table.
    """

    about: str
    title: str
    rounds: int
    arguments: Callable[[argparse.ArgumentParser], None]
    cases: Callable[[argparse.Namespace], list[Case]]
    base: str = ""


class Results:
    """The readings of every figure and command, one for each round."""

    def __init__(self, figures: Sequence[Figure], commands: Sequence[str], base: str = "base") -> None:
        self.figures = figures
        self.commands = commands
        self._base = base
        self._readings: dict[tuple[str, str], list[Reading]] = defaultdict(list)

    def add(self, command: str, readings: Readings) -> None:
        """Add the readings of a command."""
        for name, reading in readings.items():
            self._readings[command, name].append(reading)

    def values(self, figure: str, command: str = THIS) -> list[float]:
        """Return the values of a figure, in the order of the rounds."""
        return [reading.value for reading in self._readings[command, figure]]

    def to_base(self, figure: Figure) -> Interval | None:
        """Return the ratio of a figure to its base, or None if the figure has no base."""
        if figure.base is None:
            return None
        return _interval(ratios(self.values(figure.name), self.values(figure.base)))

    def to_other(self, figure: Figure) -> Interval | None:
        """Return the ratio of a figure to the figure of the other command, or None if only one command is measured."""
        if OTHER not in self.commands:
            return None
        return _interval(ratios(self.values(figure.name), self.values(figure.name, OTHER)))

    def met(self, figure: Figure) -> bool | None:
        """Return True if the median is within the goal. Return None if there is no goal, or no ratio for the goal."""
        if figure.goal is None:
            return None
        if figure.goal_of == "value":
            return median(self.values(figure.name)) <= figure.goal
        ratio = self.to_base(figure) if figure.goal_of == "base" else self.to_other(figure)
        return None if ratio is None else ratio.median <= figure.goal

    def table(self, title: str) -> Table:
        """Return the figures as a table with one row per figure."""
        columns = list(dict.fromkeys(name for figure in self.figures for name in self._beside(figure)))
        based = any(figure.base for figure in self.figures)
        drawn = Table(title=title, caption=self._caption())
        drawn.add_column("figure")
        headings = ["unit", *self.commands, *[f"÷ {self._base}"] * based, *self._versus(), "goal", *columns]
        for heading in headings:
            drawn.add_column(heading, justify="right")
        for figure in self.figures:
            beside = self._beside(figure)
            drawn.add_row(
                figure.name,
                figure.unit,
                *(f"{median(self.values(figure.name, command)):,.2f}" for command in self.commands),
                *[_text(self.to_base(figure))] * based,
                *[_text(self.to_other(figure))] * len(self._versus()),
                self._goal(figure),
                *(f"{beside[name]:,.1f}".removesuffix(".0") if name in beside else "" for name in columns),
            )
        return drawn

    def as_dict(self) -> dict[str, Any]:
        """Return all readings as values for JSON."""
        return {"figures": [dict(self._told(figure)) for figure in self.figures]}

    def _told(self, figure: Figure) -> Iterator[tuple[str, Any]]:
        yield "figure", figure.name
        yield "unit", figure.unit
        for command in self.commands:
            yield command, self.values(figure.name, command)
        for key, ratio in (("in_bases", self.to_base(figure)), ("to_other", self.to_other(figure))):
            if ratio is not None:
                yield key, asdict(ratio)
        if figure.base is not None:
            yield "base", figure.base
        if figure.goal is not None:
            yield "goal", {"most": figure.goal, "of": figure.goal_of, "met": self.met(figure)}
        yield "beside", self._beside(figure)
        yield "detail", self._readings[THIS, figure.name][-1].detail

    def _beside(self, figure: Figure) -> dict[str, float]:
        """Return the maximum of each value beside a figure."""
        greatest: dict[str, float] = {}
        for reading in self._readings[THIS, figure.name]:
            for name, value in reading.beside.items():
                greatest[name] = max(value, greatest.get(name, value))
        return greatest

    def _versus(self) -> list[str]:
        return [f"{THIS} ÷ {OTHER}"] if OTHER in self.commands else []

    def _goal(self, figure: Figure) -> str:
        if figure.goal is None:
            return ""
        unit = f" {figure.unit}" if figure.goal_of == "value" else ""
        met = {True: ": met", False: ": missed", None: ""}[self.met(figure)]
        return f"≤ {figure.goal:g}{unit}{met}"

    def _caption(self) -> str:
        rounds = len(self.values(self.figures[0].name))
        if rounds == 1:
            return "measured once"
        share = f"{median_interval([0.0] * rounds).coverage:.1%}"
        return f"medians of {rounds} rounds; the interval in brackets contains the true median with a probability of {share}"


def in_turn(
    cases: Sequence[Case], commands: Mapping[str, Path], rounds: int, progress: Progress, base: str = "base"
) -> Results:
    """Measure every case once in each round. In each case, the commands are measured in turn.

    So disturbances of the machine affect all cases and commands equally. Ctrl-C ends the measurement early. The
    results then contain only the complete rounds.
    """
    results = Results([figure for case in cases for figure in case.figures], list(commands), base)
    task = progress.add_task("", total=rounds * len(cases))
    for number in range(rounds):
        measured: list[tuple[str, Readings]] = []
        try:
            for case in cases:
                progress.update(task, description=case.name)
                measured += _turns(case, commands)
                progress.advance(task)
        except KeyboardInterrupt:
            if not number:
                raise
            break
        for name, readings in measured:
            results.add(name, readings)
    return results


def _turns(case: Case, commands: Mapping[str, Path]) -> Iterator[tuple[str, Readings]]:
    """Measure a case with all commands, turn by turn (A B A B …), and yield the readings of each command.

    The other command has the first turn.
    """
    with ExitStack() as stack:
        # If the machine is busy for a second, all work in this second costs more. Short turns spread this cost over all
        # commands.
        left = {name: stack.enter_context(closing(case.measure(commands[name]))) for name in sorted(commands)}
        while left:
            for name, turns in list(left.items()):
                try:
                    next(turns)
                except StopIteration as end:
                    del left[name]
                    yield name, end.value


def _interval(values: Sequence[float]) -> Interval | None:
    return median_interval(values) if values else None


def _text(ratio: Interval | None) -> str:
    return "" if ratio is None else str(ratio)
