"""The results of `event-router test`, as data and as lines for people; floor 7."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from router.cli.common import print_text, wrapped
from router.cli.tables import Column, show_table
from router.escaping import escape
from router.ops.cases.coverage import Coverage
from router.ops.cases.mutants import Mutant
from router.ops.cases.running import CaseResult
from router.ops.terminal import colours
from router.wording import counted

Document = dict[str, Any]

_UNCOVERED = (Column("route", least=12), Column("sink", rank=1, least=12))
_SIGNS = {True: ("✓", "green"), False: ("✗", "red")}


def document(
    config: str,
    results: Sequence[CaseResult],
    covered: Coverage | None,
    mutated: tuple[int, Sequence[Mutant]] | None,
) -> Document:
    """Return the results of the tests of one configuration. `mutated` has the number of mutants, and the survivors."""
    passed = sum(result.holds for result in results)
    return {
        "config": config,
        "tests": [of_case(result) for result in results],
        "passed": passed,
        "missed": len(results) - passed,
        "coverage": None if covered is None else _coverage(covered),
        "mutants": None
        if mutated is None
        else {
            "tried": mutated[0],
            "survived": [
                {"place": each.place, "change": each.change, "hint": each.hint or None} for each in mutated[1]
            ],
        },
    }


def of_case(result: CaseResult) -> Document:
    """Return the result of one test as data."""
    case = result.case
    return {
        "name": case.name,
        "file": case.file,
        "line": case.line,
        "ok": result.holds,
        "misses": [
            {
                "step": step.number if len(case.steps) > 1 else None,
                "key": miss.key,
                "wanted": miss.wanted,
                "got": miss.got,
                "why": list(miss.why),
            }
            for step in result.steps
            for miss in step.misses
        ],
    }


def _coverage(covered: Coverage) -> Document:
    missed = [{"route": route, "sink": None} for route in covered.missed_routes]
    missed += [{"route": each.route, "sink": each.sink} for each in covered.missed_sinks]
    return {
        "routes": len(covered.routes),
        "routes_reached": len(covered.routes) - len(covered.missed_routes),
        "sinks": len(covered.sinks),
        "sinks_reached": len(covered.sinks) - len(covered.missed_sinks),
        "percent": covered.percent,
        "missed": missed,
    }


def show(report: Mapping[str, Any]) -> None:
    """Print a report for people."""
    print_text(report["config"])
    for case in report["tests"]:
        _show_case(case)
    numbers = [f"{report['passed']} passed", *([f"{report['missed']} missed"] if report["missed"] else [])]
    print_text(f"{counted(len(report['tests']), 'test')}: {', '.join(numbers)}")
    if report["coverage"] is not None:
        _show_coverage(report["coverage"])
    if report["mutants"] is not None:
        _show_mutants(report["mutants"])


def _show_case(case: Mapping[str, Any]) -> None:
    sign, colour = _SIGNS[case["ok"]]
    place = "" if case["ok"] else f" ({case['file']}:{case['line']})"
    _styled(sign, colour, f"{escape(case['name'])}{escape(place)}")
    for line in lines_of(case):
        print_text(f"      {line}")


def lines_of(case: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines that list the unmet expectations of a test."""
    for miss in case["misses"]:
        step = "" if miss["step"] is None else f"step {miss['step']}, "
        yield f"{step}{miss['key']}"
        yield f"  wanted: {_shown(miss['wanted'])}"
        yield f"  got:    {_shown(miss['got'])}"
        for why in miss["why"]:
            yield f"  {escape(why)}"


def _shown(value: Any) -> str:
    """Return a value on one line: names and addresses unquoted, texts in quotes so that spaces are visible."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value)) or "nothing"
    text = escape(str(value))
    return text if text and text == text.strip() and " " not in text else f'"{text}"'


def _show_coverage(covered: Mapping[str, Any]) -> None:
    routes = f"{covered['routes_reached']} of {counted(covered['routes'], 'route')}"
    sinks = f"{covered['sinks_reached']} of {counted(covered['sinks'], 'sink')} of routes"
    print_text(f"coverage: {covered['percent']:g} %: {routes}, {sinks}{'; not reached:' if covered['missed'] else ''}")
    if covered["missed"]:
        show_table(_UNCOVERED, [(each["route"], each["sink"] or "-") for each in covered["missed"]])


def _show_mutants(mutants: Mapping[str, Any]) -> None:
    survived = mutants["survived"]
    noticed = mutants["tried"] - len(survived)
    which = "this change" if len(survived) == 1 else "each of these changes"
    left = f", {len(survived)} survived. All tests pass with {which}:" if survived else ""
    print_text(f"{counted(mutants['tried'], 'mutant')}: {noticed} noticed{left}")
    last = None
    for each in survived:
        _styled(_SIGNS[False][0], _SIGNS[False][1], escape(f"{each['place']}: {each['change']}"))
        if each["hint"] and each["hint"] != last:  # the mutants of one route follow each other, with the same hint
            print_text(wrapped(f"    {escape(each['hint'])}", indent=4))
        last = each["hint"]


def _styled(sign: str, colour: str, text: str) -> None:
    click.echo(f"  {click.style(sign, fg=colour, bold=True)} {text}", color=colours(os.environ, 1))
