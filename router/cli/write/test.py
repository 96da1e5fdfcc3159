"""`event-router test`; floor 7."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from router.cli.common import (
    config_option,
    env_file_option,
    find_config,
    json_option,
    load_config,
    print_json,
    print_message,
    verbose_option,
)
from router.errors import ConfigError, Exit, Problem, RouterError

if TYPE_CHECKING:
    from router.ops.cases.mutants import Mutant
    from router.ops.cases.running import CaseResult
    from router.ops.loading import Loaded
    from router.ops.loading.case_files import CaseFile


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE]...", type=click.Path(path_type=Path, readable=False))
@config_option
@env_file_option
@json_option
@verbose_option
@click.option(
    "--junit",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the results as JUnit XML too, for CI systems.",
)
@click.option(
    "--coverage", "with_coverage", is_flag=True, help="List the routes, and the sinks of routes, that no test reaches."
)
@click.option(
    "--mutate",
    is_flag=True,
    help="Test copies of the configuration, each with a small change to a route, and list the changes that no test notices.",
)
def test(
    files: tuple[Path, ...],
    config: Path | None,
    env_file: Path | None,
    *,
    as_json: bool,
    junit: Path | None,
    with_coverage: bool,
    mutate: bool,
) -> int:
    """Run the tests of a configuration: its section `tests:`, or the tests in files named *_test.yaml.

    A test gives an event and the expected sinks, addresses and texts. Nothing is sent, and neither Redis nor secrets
    are needed. The exit code is 1 if a test fails, if no test notices a change of `--mutate`, or if there are no tests.
    """
    from router.cli.write import case_reports
    from router.ops.redaction import Redactor

    reports: list[dict[str, Any]] = []
    seconds: list[float] = []
    found = _loaded(files or (find_config(config),), env_file)
    for group, loaded in found:
        results, took = _run(loaded)
        redactor = Redactor(loaded.secrets)
        covered = _covered(loaded, results) if with_coverage else None
        mutated = _mutated(loaded, results) if mutate else None
        reports.append(redactor.value(case_reports.document(str(group.config), results, covered, mutated)))
        seconds.append(took)
    if junit is not None:
        if any(junit.absolute() in loaded.files for _, loaded in found):
            raise click.UsageError(f"--junit would overwrite {junit}, a file of the configuration")
        _write(junit, reports, seconds)
    if as_json:
        print_json(reports)
    else:
        for report in reports:
            if report["tests"]:
                case_reports.show(report)
    return _code(reports)


class _Group(msgspec.Struct):
    """The tests of one configuration: those in test files, and its own section `tests:` if `own` is true."""

    config: Path
    own: bool = False
    files: list[CaseFile] = msgspec.field(default_factory=list)


def _loaded(files: Sequence[Path], env_file: Path | None) -> list[tuple[_Group, Loaded]]:
    """Load every configuration with its tests. Raises `ConfigError` with the problems of all files."""
    from router.ops.loading import Cases

    problems: list[Problem] = []
    found: list[tuple[_Group, Loaded]] = []
    for group in _groups(files, problems):
        try:
            tests = Cases(group.own, group.files)
            found.append((group, load_config(group.config, env_file, placeholders=True, tests=tests)))
        except ConfigError as error:
            problems += error.problems
    if any(problem.severity == "error" for problem in problems):
        raise ConfigError(problems)
    return found


def _groups(files: Sequence[Path], problems: list[Problem]) -> list[_Group]:
    """Return the files grouped by configuration.

    A file is a configuration, or a test file that names a configuration.
    """
    from router.ops.loading import read_case_file

    groups: dict[str, _Group] = {}
    seen: set[str] = set()
    for path in files:
        where = os.path.realpath(path)
        if where in seen:
            continue
        seen.add(where)
        try:
            cases = read_case_file(path)
        except ConfigError as error:
            problems += error.problems
            continue
        config = path if cases is None else cases.config
        group = groups.setdefault(os.path.realpath(config), _Group(config))
        if cases is None:
            group.own = True
        else:
            group.files.append(cases)
    return list(groups.values())


def _run(loaded: Loaded) -> tuple[list[CaseResult], float]:
    """Run the tests; return their results, and their duration in seconds."""
    from router.ops.cases.running import CaseRunner

    begun = time.perf_counter()
    results = list(CaseRunner(loaded).run(loaded.cases))
    return results, time.perf_counter() - begun


def _covered(loaded: Loaded, results: Sequence[CaseResult]) -> Any:
    from router.ops.cases.coverage import coverage

    return coverage(loaded, results)


def _mutated(loaded: Loaded, results: Sequence[CaseResult]) -> tuple[int, list[Mutant]] | None:
    """Try every mutant; return the number of mutants, and the survivors.

    Return None if a test fails or there are no tests.
    """
    from router.cli.operate.bulk import progress
    from router.ops.cases.mutants import Mutation

    if not results:
        return None
    if not all(result.holds for result in results):
        print_message("no mutant was tried, because a test already fails without a change", "warning")
        return None
    mutation = Mutation(loaded, results)
    with progress(len(mutation.mutants)) as tried:
        return len(mutation.mutants), list(mutation.survivors(tried))


def _write(path: Path, reports: Sequence[dict[str, Any]], seconds: Sequence[float]) -> None:
    from router.cli.write.junit import junit

    try:
        path.write_bytes(junit(zip(reports, seconds, strict=True)))
    except OSError as error:
        raise RouterError(f"can't write {path}: {error.strerror}") from None


def _code(reports: Sequence[dict[str, Any]]) -> int:
    """Print an error for each configuration without tests; return the exit code."""
    code = Exit.OK
    for report in reports:
        if not report["tests"]:
            print_message(f"{report['config']} has no tests: write tests below `tests:`", "error")
        survived = report["mutants"] is not None and report["mutants"]["survived"]
        if not report["tests"] or report["missed"] or survived:
            code = Exit.FINDINGS
    return code
