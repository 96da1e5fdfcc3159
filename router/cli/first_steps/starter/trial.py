"""The trial of a first configuration before it is written: load, check and test in a temporary folder; floor 7."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from router.cli.first_steps import samples, test_entry
from router.cli.first_steps.starter import composing
from router.cli.first_steps.starter.composing import CONFIG, SCHEMA, Answers
from router.cli.operate import written_files
from router.config.cases import START
from router.errors import ConfigError, Problem
from router.ops.cases.running import CaseRunner
from router.ops.loading import Cases, Loaded, load
from router.ops.simulation import Message, Simulation, Simulator
from router.plugin_loading.plugin_manager import Plugins, load_plugins


class Starter(NamedTuple):
    """A tested configuration: the files by path, in the order of writing, and an event that it delivers."""

    files: Mapping[str, str]
    channel: str
    payload: str
    redis_url: str
    """The URL of Redis, with the variables of this environment filled in."""
    remarks: tuple[str, ...] = ()
    """Warnings that do not depend on the answers, such as a warning about a broken plugin."""


_Tried = tuple[Starter | None, list[Problem]]
"""The result of a trial: the files (None if the configuration has errors), and the errors and warnings."""


class Workbench:
    """Tries configurations for a folder, with the plugins of the folder, without writing to the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self._drop_ins = self._folder / "plugins"
        self._last: tuple[Answers, _Tried] | None = None

    @cached_property
    def plugins(self) -> Plugins:
        """The plugins that a configuration in the folder loads."""
        return load_plugins([self._drop_ins] if self._drop_ins.is_dir() else [])

    @cached_property
    def _blameless(self) -> frozenset[str]:
        """The warnings that appear even with the default answers. They concern this machine, not the user's answers."""
        answers = Answers(self.plugins.sinks["log"], values={"path": "audit.jsonl"})
        return frozenset(problem.message for problem in self._tried(answers)[1] if problem.severity == "warning")

    def faults(self, answers: Answers) -> list[Problem]:
        """Return the errors and warnings that the answers cause."""
        found = self._tried(answers)[1]
        return [problem for problem in found if problem.message not in self._blameless] if found else []

    def starter(self, answers: Answers) -> Starter:
        """Return the files for answers without faults.

        Raises `ConfigError` if the files have errors or a test fails.
        """
        found, problems = self._tried(answers)
        if found is None:
            raise ConfigError(problems)
        with self._staged(found.files) as path:
            loaded = load(path, environ=_environ(answers), placeholders=True, tests=Cases())
            missed = [result.case.name for result in CaseRunner(loaded).run(loaded.cases) if not result.holds]
        if missed:
            raise ConfigError([Problem(f"the test {name!r} does not pass") for name in missed])
        return found._replace(remarks=tuple(problem.message for problem in problems))

    def _tried(self, answers: Answers) -> _Tried:
        if self._last is None or self._last[0] != answers:
            self._last = answers, self._try(answers)
        return self._last[1]

    def _try(self, answers: Answers) -> _Tried:
        schema = composing.schema(answers)
        with self._staged({SCHEMA: schema, CONFIG: composing.configuration(answers, [])}) as path:
            try:
                loaded = load(path, environ=_environ(answers), placeholders=True)
            except ConfigError as error:
                return None, [problem for problem in error.problems if problem.severity != "note"]
            loaded = self._moved(loaded)
        channel, payload = _event(loaded, answers)
        found = _simulated(loaded, channel, payload)
        problems = [each for each in (*loaded.problems, *written_files.problems(loaded)) if each.severity != "note"]
        problems += [*_overwritten(loaded, answers), *_undelivered(found)]
        tests = composing.tests(answers, channel, test_entry.expected(found))
        files = {SCHEMA: schema, CONFIG: composing.configuration(answers, tests)}
        return Starter(files, channel, payload, loaded.config.redis.url), problems

    @contextlib.contextmanager
    def _staged(self, files: Mapping[str, str]) -> Iterator[Path]:
        """Yield the path of the configuration, written with its schema into a temporary folder."""
        with tempfile.TemporaryDirectory(prefix="event-router-init-") as name:
            stage = Path(name)
            if self._drop_ins.is_dir():
                (stage / "plugins").symlink_to(self._drop_ins)
            for path, text in files.items():
                (stage / path).parent.mkdir(exist_ok=True)
                (stage / path).write_text(text, encoding="utf-8")
            yield stage / CONFIG

    def _moved(self, loaded: Loaded) -> Loaded:
        """Return a configuration from the temporary folder, with its paths changed to the final folder."""
        staged = loaded.write_base == loaded.path.parent
        return replace(loaded, write_base=self._folder) if staged else loaded


def _environ(answers: Answers) -> dict[str, str]:
    return {**os.environ, **({} if answers.redis_url is None else {"REDIS_URL": answers.redis_url})}


def _event(loaded: Loaded, answers: Answers) -> tuple[str, str]:
    """Return a channel that the source reads, and a payload as JSON."""
    first = samples.first_channel(loaded)
    channel = answers.channels[0] if first is None else first[1]
    return channel, json.dumps(composing.sample(answers), ensure_ascii=False)


def _simulated(loaded: Loaded, channel: str, payload: str) -> Simulation:
    """Return the simulation of an event, with the time and id that it has in a test."""
    message = Message(channel.encode(), payload.encode(), START, id="test-1")
    return Simulator(loaded, reasons=False).simulate(message)


def _undelivered(found: Simulation) -> Sequence[Problem]:
    """Return the reason why the sample would reach nobody; empty if it is delivered."""
    whys = [each.refused.detail for each in found.deliveries if each.refused is not None]
    whys += [] if found.rejected is None else [found.rejected.detail]
    if found.delivers:
        return ()
    return [Problem(f"the sample {found.event.raw.decode()} would reach nobody: {'; '.join(whys) or found.detail}")]


def _overwritten(loaded: Loaded, answers: Answers) -> Sequence[Problem]:
    """Return a fault if the sink would write into a file of the configuration."""
    file = written_files.written_file(loaded, answers.sink_name)
    ours = {loaded.write_base / path: path for path in (CONFIG, SCHEMA)}
    if file is None or Path(os.path.normpath(file)) not in ours:
        return ()
    path = ours[Path(os.path.normpath(file))]
    return [Problem(f"the sink can't write to {path}, which belongs to the configuration; choose a different file")]
