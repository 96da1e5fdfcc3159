"""Files of tests beside a configuration, `*_test.yaml`. Each file names the tested configuration; floor 4."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from router.errors import ConfigError
from router.ops.loading.reading import typed, yaml_nodes
from router.ops.loading.reading.expand import Expander
from router.ops.loading.reading.nodes import Entry, Mapping, Mark, name_paths
from router.ops.loading.reading.nodes import Sequence as Items
from router.ops.loading.reading.problems import Problems

ENDINGS = ("_test.yaml", "_test.yml")
"""The endings of the names of test files."""

_KEYS = ("config", "tests")


class CaseFile(NamedTuple):
    """A file of tests that was read: its tree, and the path of the configuration that it names."""

    root: Mapping
    config: Path


class Cases(NamedTuple):
    """The tests to load with a configuration: its own section `tests` if `own` is True, and the tests of `files`."""

    own: bool = True
    files: Sequence[CaseFile] = ()


def read_case_file(path: Path) -> CaseFile | None:
    """Read a test file. Returns None if the file does not have the name of a test file, or is a whole configuration.

    Raises `ConfigError` for a test file with faults.
    """
    if not path.name.endswith(ENDINGS):
        return None
    problems = Problems()
    root = yaml_nodes.read(path.absolute(), str(path), problems)
    if root is None:
        raise ConfigError(problems.all())
    if "config" not in root.entries and {"sources", "sinks", "routes"} & set(root.entries):
        return None
    name_paths(root)
    typed.unknown_keys(root, _KEYS, problems)
    named = typed.text(root.get("config"), problems)
    for key, what in (("config", "write the path of the configuration that is tested"), ("tests", "list the tests")):
        if key not in root.entries:
            problems.add(f"`{key}` is required: {what}", Mark(root.mark.file, 1, 1), path=key)
    problems.check()
    return CaseFile(root, path.parent / str(named))


def merge(root: Mapping, tests: Cases | None, expander: Expander) -> None:
    """Add the tests of test files to the tests of a configuration."""
    for file in () if tests is None else tests.files:
        entry = file.root.entries["tests"]
        expander.tree(entry.node)
        mine = root.entries.get("tests")
        theirs = typed.sequence(entry.node, expander.problems)
        ours = None if mine is None else typed.sequence(mine.node, expander.problems)
        if theirs is not None:
            items = [*(ours.items if ours is not None else ()), *theirs.items]
            root.entries["tests"] = Entry(entry.mark, Items(entry.mark, items=items))
