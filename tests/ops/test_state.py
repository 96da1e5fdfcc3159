from __future__ import annotations

import os
import stat
import subprocess
import sys

import pytest

from router.errors import ConfigError
from router.ops.state import InstanceLock, state_directory
from tests.support.users import NOBODY, as_root


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"STATE_DIRECTORY": "{tmp}/a", "XDG_STATE_HOME": "{tmp}/x", "HOME": "{tmp}/h"}, "a"),
        ({"STATE_DIRECTORY": "{tmp}/a:{tmp}/b", "HOME": "{tmp}/h"}, "a"),
        ({"STATE_DIRECTORY": "", "XDG_STATE_HOME": "{tmp}/x", "HOME": "{tmp}/h"}, "x/event-router"),
        ({"XDG_STATE_HOME": "", "HOME": "{tmp}/h"}, "h/.local/state/event-router"),
        ({"XDG_STATE_HOME": "relative", "HOME": "{tmp}/h"}, "h/.local/state/event-router"),
    ],
)
def test_the_state_directory_is_chosen_and_made_private(tmp_path, environ, expected):
    path = state_directory({name: value.format(tmp=tmp_path) for name, value in environ.items()})
    assert path == tmp_path / expected
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert state_directory({"STATE_DIRECTORY": str(path)}) == path


def test_without_a_home_there_is_a_plain_error(monkeypatch):
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    with pytest.raises(ConfigError, match="neither STATE_DIRECTORY nor HOME is set"):
        state_directory({})


def test_a_directory_that_cannot_be_made_is_a_plain_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"can't be created: .*; set STATE_DIRECTORY"):
        state_directory({"STATE_DIRECTORY": str(tmp_path / "file" / "below")})


def test_a_directory_of_somebody_else_is_a_plain_error(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ConfigError, match="can't be written by this user"):
        state_directory({"STATE_DIRECTORY": str(tmp_path)})


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o707])
def test_a_directory_that_everybody_may_write_is_refused(tmp_path, mode):
    tmp_path.chmod(mode)
    with pytest.raises(
        ConfigError, match=rf"can be written by every user: run `chmod o-w {tmp_path}`, or set STATE_DIR"
    ):
        state_directory({"STATE_DIRECTORY": str(tmp_path)})


@as_root
def test_a_directory_that_somebody_else_owns_is_refused(tmp_path):
    os.chown(tmp_path, NOBODY, NOBODY)
    with pytest.raises(ConfigError, match=rf"belongs to .*, who could change it: run `chown .* {tmp_path}`"):
        state_directory({"STATE_DIRECTORY": str(tmp_path)})


def test_a_link_at_the_place_of_the_lock_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "default.lock").symlink_to(victim)
    with pytest.raises(ConfigError, match=r"default\.lock can't be opened"):
        InstanceLock(tmp_path, "default").__enter__()
    assert victim.read_text() == "precious"


def test_a_second_router_of_the_same_name_is_told_how_to_be_another(tmp_path):
    with InstanceLock(tmp_path, "one"):
        with pytest.raises(ConfigError, match=rf"\(process {os.getpid()}\).*'one'.*--instance NAME"):
            InstanceLock(tmp_path, "one").__enter__()
        with InstanceLock(tmp_path, "two"):
            pass
    with InstanceLock(tmp_path, "one"):
        pass


def test_the_lock_of_a_killed_router_is_free_again(tmp_path):
    script = (
        "import os, pathlib, signal; from router.ops.state import InstanceLock;"
        f"InstanceLock(pathlib.Path({str(tmp_path)!r}), 'one').__enter__(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    with InstanceLock(tmp_path, "one"):
        pass


def test_the_lock_is_not_inherited_by_children(tmp_path):
    lock = InstanceLock(tmp_path, "one")
    with lock:
        child = subprocess.Popen(["/bin/sleep", "30"], close_fds=False)
    try:
        with lock:
            assert child.poll() is None
    finally:
        child.kill()
        child.wait()


def test_a_lock_that_cannot_be_made_is_a_plain_error(tmp_path):
    with pytest.raises(ConfigError, match="can't be opened"):
        InstanceLock(tmp_path / "nowhere", "one").__enter__()
