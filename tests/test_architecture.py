"""The page on the architecture names paths, classes and functions that exist, and every folder."""

import ast
import re
from functools import cache

import pytest

from tests.support.process import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text()

FOLDERS = ("admin", "broker", "cli", "config", "core", "engine", "ops", "plugin_loading", "testing")
NAMED = re.compile(rf"(?<![\w./-])(?:router|plugins|tests|{'|'.join(FOLDERS)})/(?:\w+/)*(?:\w+(?:\.\w+)*)?")


@cache
def members(file):
    """Return the names that a module and its classes define: `name` and `Class.name`."""
    found = set()

    def add(body, prefix):
        for node in body:
            names = [node.name] if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) else []
            if isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = [target.id for target in targets if isinstance(target, ast.Name)]
            found.update(prefix + name for name in names)
            if isinstance(node, ast.ClassDef):
                add(node.body, f"{prefix}{node.name}.")

    add(ast.parse(file.read_text()).body, "")
    return found


def exists(named):
    """Return whether a path of the page is a folder, a file, or a module with that class or function in it."""
    root = ROOT if named.startswith(("router/", "plugins/", "tests/")) else ROOT / "router"
    if (root / named).exists():
        return True
    folder, _, last = named.rpartition("/")
    module, _, member = last.partition(".")
    file = root / folder / f"{module}.py"
    return file.is_file() and (not member or member in members(file))


def missing(text):
    """Return the paths in a text that lead nowhere."""
    return sorted({named for named in NAMED.findall(text) if not exists(named)})


def test_everything_that_the_page_names_exists():
    assert len(NAMED.findall(PAGE)) > 100
    assert missing(PAGE) == []


@pytest.mark.parametrize(
    "named",
    [
        "core/delivery/made_up.py",
        "core/delivery/made_up",
        "core/made_up/",
        "router/made_up.py",
        "plugins/made_up.Sink",
        "core/delivery/retry.made_up",
        "engine/intake/pipeline.Pipeline.made_up",
        "engine/intake/pipeline.receive",
    ],
)
def test_a_path_that_is_made_up_is_found(named):
    assert missing(f"See `{named}` and `router/core/delivery/retry.decide`.") == [named]


def test_every_folder_has_its_line():
    listed = re.findall(r"^\| \S+ \| `([\w/]+)/` \|", PAGE, re.MULTILINE)
    files = [*ROOT.glob("router/**/*.py"), *ROOT.glob("plugins/**/*.py")]
    folders = {file.parent.relative_to(ROOT).as_posix().removeprefix("router/") for file in files}
    assert set(listed) == folders
