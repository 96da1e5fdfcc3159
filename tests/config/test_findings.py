"""Each file in `doubtful/` loads, and says in its first lines which warnings and notes it must get, and no others."""

import os
from pathlib import Path

import pytest

from router.ops.loading import load

DOUBTFUL = Path(__file__).parent / "doubtful"
FILES = sorted(DOUBTFUL.glob("*.yaml"))


def shown(problem):
    """A finding as the first lines of its file say it."""
    return problem.headline().partition(":")[2].replace(f"{DOUBTFUL}{os.sep}", "").lstrip()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_finding_is_named_at_its_place(file, monkeypatch):
    monkeypatch.chdir(DOUBTFUL)
    head = "# expect: "
    expected = [line.removeprefix(head) for line in file.read_text().splitlines() if line.startswith(head)]
    assert expected or "# nothing to find" in file.read_text()
    assert [shown(problem) for problem in load(Path(file.name), environ={}).problems] == expected
