"""The list of scenarios, and how one is played."""

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
    """A fault. `title` says what is done, `promise` what must come of it. `small` is False where it takes too long for
    the test suite however small it is. `lacks` says what this machine has not that it needs."""

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
    """Enter the function into the list, under its name."""

    def enter(play: Play) -> Play:
        SCENARIOS[play.__name__] = Scenario(play.__name__, title, promise, play, small, lacks)
        return play

    return enter


def run(one: Scenario, *, full: bool, folder: Path | None = None, step: Step | None = None, kind: str = "") -> Found:
    """Play a scenario in a folder; returns what came of it, a fault of the harness too. `kind` is the server's."""
    began = time.monotonic()
    kind = kind or kinds_of_server()[0]
    with tempfile.TemporaryDirectory(prefix="faults-") as own, Outside() as outside:
        stage = Stage(one.name, folder or Path(own), full=full, step=step or _quiet, outside=outside, kind=kind)
        try:
            one.play(stage)
        except Stuck as stuck:
            stage.found.problems.append(str(stuck))
        except Exception as error:  # noqa: BLE001  # the other scenarios are still to be played
            stage.found.problems.append(f"{type(error).__name__}: {error}\n{stage.story()}")
        finally:
            stage.close()
    stage.found.seconds = time.monotonic() - began
    return stage.found


def _quiet(_step: str) -> None:
    """Nobody is told."""
