"""The two locks: every file that they install is named by its hash, and what they pin is what `pyproject.toml` asks for."""

import re
import shutil
import subprocess
import tomllib

import pytest

from tests.support.process import ROOT

LOCKS = ("requirements.lock", "requirements-dev.lock")


def entries(lock: str) -> dict[str, str]:
    """The lines of each package, by its name."""
    blocks = re.split(r"\n(?=\S)", (ROOT / lock).read_text(encoding="utf-8").strip())
    return {block.partition("==")[0]: block for block in blocks}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_of_a_lock_has_hashes(lock):
    found = entries(lock)
    assert len(found) > 20
    bare = [name for name, block in found.items() if not re.search(r"\n    --hash=sha256:[0-9a-f]{64}\b", block)]
    assert bare == []


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_every_dependency_of_the_project(lock):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {re.split(r"[^a-z0-9-]", dependency, maxsplit=1)[0] for dependency in project["dependencies"]}
    assert wanted <= entries(lock).keys()


def test_both_locks_pin_the_same_versions():
    run, dev = ({name: block.split()[0] for name, block in entries(lock).items()} for lock in LOCKS)
    assert {name: dev.get(name) for name in run} == run


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed on this machine")
@pytest.mark.parametrize(("target", "lock"), [("run", LOCKS[0]), ("test", LOCKS[1])])
def test_the_set_up_refuses_a_package_without_a_hash(target, lock, tmp_path):
    words = ["make", "--dry-run", target, f"VENV={tmp_path / 'none'}"]
    told = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"install --require-hashes -r {lock}" in told
    assert "install --no-deps -e ." in told
