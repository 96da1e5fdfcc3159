"""The execution of the tests of a configuration on the simulation; floor 4."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from router.config.cases import Case, CaseStep
from router.core.rendering.sandbox.lookup_records import Record
from router.ops.cases.comparing import Miss, misses
from router.ops.loading import Loaded
from router.ops.simulation import Message, Simulation, Simulator


class StepResult(msgspec.Struct, frozen=True):
    """The result of one event of a test. `number` counts from 1."""

    number: int
    found: Simulation
    misses: tuple[Miss, ...]


class CaseResult(msgspec.Struct, frozen=True):
    """The result of one test."""

    case: Case
    steps: tuple[StepResult, ...]

    @property
    def holds(self) -> bool:
        """True if every expectation of the test is met."""
        return not any(step.misses for step in self.steps)


class CaseRunner:
    """Runs tests under one configuration, which is compiled once."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._routes = loaded.config.routes
        self._records: Mapping[str, Mapping[str, Mapping[str, Any] | None]] = {}
        """The records of lookups in the running test."""
        self._brief = Simulator(loaded, self._given, reasons=False)
        self._thorough: Simulator | None = None
        """The simulator that also finds reasons, and so takes longer. It is created when the first test fails."""

    def run(self, cases: Iterable[Case]) -> Iterator[CaseResult]:
        """Yield the result of each test."""
        return (CaseResult(case, tuple(self._steps(case))) for case in cases)

    def holds(self, case: Case) -> bool:
        """Return whether a test holds. Stops at the first step that fails."""
        self._records = case.lookups
        return all(
            not misses(step.expect, self._brief.simulate(_message(step, number)), self._routes)
            for number, step in enumerate(case.steps, 1)
        )

    def _given(self, name: str, key: str) -> Record | None:
        """Return a record of a lookup from the running test; None if the test has no record for the key."""
        found = self._records.get(name, {}).get(key)
        return None if found is None else Record(found)

    def _steps(self, case: Case) -> Iterator[StepResult]:
        self._records = case.lookups
        for number, step in enumerate(case.steps, 1):
            message = _message(step, number)
            found = self._brief.simulate(message)
            missed = misses(step.expect, found, self._routes)
            if missed:
                self._thorough = self._thorough or Simulator(self._loaded, self._given)
                found = self._thorough.simulate(message)
                missed = misses(step.expect, found, self._routes)
            yield StepResult(number, found, tuple(missed))


def _message(step: CaseStep, number: int) -> Message:
    """Return the event of a step as it would come from Redis."""
    return Message(
        step.channel,
        step.raw,
        step.received_at,
        source=step.source,
        headers=step.headers or None,
        id=f"test-{number}",
        now=step.now,
    )
