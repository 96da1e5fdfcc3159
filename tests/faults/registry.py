"""The list of scenarios, and the function that plays a scenario."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.faults.judging import Found
from tests.faults.recorder import Outside
from tests.faults.stage import Stage, Step, Stuck, kinds_of_server

Play = Callable[[Stage], None]


@dataclass(frozen=True)
class Scenario:
    """A scenario: a fault that is caused, and the promise of the router for this fault.

    `title` describes the fault. `promise` describes the required result. `small` is False if even a small run takes
    too long for the test suite. `lacks` returns a text if this machine lacks something that the scenario needs, else
    None.
    """

    name: str
    title: str
    promise: str
    play: Play
    small: bool = True
    lacks: Callable[[], str | None] = lambda: None


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    title: str, promise: str, *, small: bool = True, lacks: Callable[[], str | None] = lambda: None
) -> Callable[[Play], Play]:
    """Return a decorator that adds the function to `SCENARIOS`, under its name."""

    def enter(play: Play) -> Play:
        SCENARIOS[play.__name__] = Scenario(play.__name__, title, promise, play, small, lacks)
        return play

    return enter


def run(one: Scenario, *, full: bool, folder: Path | None = None, step: Step | None = None, kind: str = "") -> Found:
    """Play a scenario and return its result. An exception of the test code becomes a problem in the result.

    `full` selects the full size. `step` is called with a text at each step. `kind` is `redis` or `valkey`.
    """
    began = time.monotonic()
    kind = kind or kinds_of_server()[0]
    with tempfile.TemporaryDirectory(prefix="faults-") as own, Outside() as outside:
        stage = Stage(one.name, folder or Path(own), full=full, step=step or _quiet, outside=outside, kind=kind)
        try:
            one.play(stage)
        except Stuck as stuck:
            stage.found.problems.append(str(stuck))
        except Exception as error:  # noqa: BLE001  # the remaining scenarios must be played too
            stage.found.problems.append(f"{type(error).__name__}: {error}\n{stage.story()}")
        finally:
            stage.close()
    stage.found.seconds = time.monotonic() - began
    return stage.found


def _quiet(_step: str) -> None:
    """Ignore the text of a step."""
