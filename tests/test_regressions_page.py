"""`docs/regressions.md` names a test for each fault that was found: each of them exists."""

import ast
import functools
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "regressions.md"


def rows() -> list[list[str]]:
    """The cells of each row of the page's tables, headings and rules left out."""
    cells = (
        [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("| ")
    )
    return [row for row in cells if row != ["fault", "behaviour now", "test"]]


@functools.cache
def functions(path: Path) -> set[str]:
    """The names of all functions in a file of tests."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_row_names_tests_that_exist():
    for row in rows():
        assert len(row) == 3, f"not three cells: {row}"
        named = row[2].split("`")[1::2]
        assert named, f"no test in `…`: {row}"
        for test in named:
            file, _, name = test.partition("::")
            assert (ROOT / file).is_file(), f"no such file: {test}"
            assert name in functions(ROOT / file), f"no such test: {test}"


def test_no_row_stands_twice():
    seen = [tuple(row) for row in rows()]
    assert len(seen) == len(set(seen))
