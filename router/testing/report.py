"""The report of a conformance check: one line for each rule; floor 7."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

Result = Literal["passed", "failed", "not checked"]


class ConformanceError(AssertionError):
    """The failure of a conformance check; its text is the report. `report` has the details."""

    def __init__(self, report: Report) -> None:
        super().__init__(f"\n{report}")
        self.report = report


class Check(msgspec.Struct, frozen=True):
    """A rule and its result. `detail` describes the fault, or the reason why the rule was not checked."""

    name: str
    rule: str
    result: Result
    detail: str = ""


class Report(msgspec.Struct, frozen=True):
    """The results for one type of sink or lookup, in a fixed order. `str(report)` is a table."""

    subject: str
    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.result == "failed")

    @property
    def not_checked(self) -> tuple[Check, ...]:
        """The checks that were not possible."""
        return tuple(check for check in self.checks if check.result == "not checked")

    def raise_for_failures(self) -> None:
        """Raise `ConformanceError`, an `AssertionError` with the table, if a check failed."""
        if self.failed:
            raise ConformanceError(self)

    def __str__(self) -> str:
        """Return a table with one line for each check, and the details below it."""
        passed = len(self.checks) - len(self.failed) - len(self.not_checked)
        heading = f"{self.subject}: {passed} passed, {len(self.failed)} failed, {len(self.not_checked)} not checked"
        width = max((len(check.name) for check in self.checks), default=0)
        lines = [heading]
        for check in self.checks:
            result = check.result.upper() if check.result == "failed" else check.result
            lines.append(f"  {check.name:<{width}}  {result:<11}  {check.rule}")
            indent = " " * (width + 17)
            for line in check.detail.splitlines():
                lines += textwrap.wrap(line, 120, initial_indent=indent, subsequent_indent=indent)
        return "\n".join(lines)


class Findings:
    """A collector of the findings of a conformance check.

    `rules` are the rules by the names of their checks, in order.
    """

    def __init__(self, subject: str, rules: Mapping[str, str]) -> None:
        self._subject = subject
        self._rules = rules
        self._faults: dict[str, list[str]] = {}
        self._skipped: dict[str, str] = {}

    def fail(self, name: str, fault: str) -> None:
        """Record a fault. A repeated fault is recorded only once."""
        faults = self._faults.setdefault(name, [])
        if fault not in faults:
            faults.append(fault)

    def skip(self, why: str, *names: str) -> None:
        """Record why some checks are not possible. If such a check still finds a fault, the fault counts."""
        for name in names:
            self._skipped.setdefault(name, why)

    def has_failed(self, *names: str) -> bool:
        """Return whether one of these checks has failed so far."""
        return any(name in self._faults for name in names)

    def report(self) -> Report:
        """Return the report of all findings."""
        return Report(self._subject, tuple(self._checks()))

    def _checks(self) -> Iterable[Check]:
        for name, rule in self._rules.items():
            if name in self._faults:
                yield Check(name, rule, "failed", "\n".join(self._faults[name]))
            elif name in self._skipped:
                yield Check(name, rule, "not checked", self._skipped[name])
            else:
                yield Check(name, rule, "passed")
