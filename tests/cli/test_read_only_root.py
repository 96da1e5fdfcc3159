"""The command on a root file system that is read-only but for the state directory, without LANG, HOME and time zone data."""

import json
import os
import shutil
import signal
import subprocess

import pytest

from tests.support.process import COMMAND, ROOT
from tests.support.waiting import PATIENCE

CONFIG = {
    "version": 1,
    "sources": {"web": {"type": "pubsub", "channels": ["notification"]}},
    "sinks": {"audit": {"type": "log", "target": "stdout", "template": "{{ event.received_at | local | time }} größe"}},
    "routes": [{"id": "all", "sinks": ["audit"]}],
}

# Every mount becomes read-only in a name space of its own, the state directory excepted, which is made a mount first.
SCRIPT = """\
set -e
mount --make-rprivate /
mount --bind "$1" "$1"
while read -r _ _ _ _ place _; do
    case "$place" in /proc*|/sys*|"$1") ;; *) mount -o remount,bind,ro "$place" 2>/dev/null || true ;; esac
done < /proc/self/mountinfo
if touch "$2/probe" 2>/dev/null; then exit 99; fi
cd "$2"
shift 2
exec "$@"
"""


def closed(state, folder, *words):
    """The words that run a command there."""
    return ["unshare", "--mount", "sh", "-c", SCRIPT, "sh", str(state), str(folder), *words]


@pytest.fixture
def root(tmp_path):
    """What runs a command there, as the beginning of its words."""
    folder, state = tmp_path / "etc", tmp_path / "state"
    folder.mkdir()
    state.mkdir(mode=0o700)
    (folder / "config.yaml").write_text(json.dumps(CONFIG, ensure_ascii=False), encoding="utf-8")
    (tmp_path / "empty" / "tzdata").mkdir(parents=True)
    (tmp_path / "empty" / "tzdata" / "__init__.py").touch()
    if (
        not shutil.which("unshare")
        or subprocess.run(closed(state, folder, "true"), capture_output=True, check=False).returncode
    ):
        pytest.skip("a mount name space can't be had: that takes root, and unshare")
    variables = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{tmp_path / 'empty'}:{ROOT}",
        "PYTHONTZPATH": "",
        "STATE_DIRECTORY": str(state),
    }
    named = [f"{name}={value}" for name, value in variables.items()]
    return lambda *words, **more: closed(
        state, folder, "env", "-i", *named, *(f"{name}={value}" for name, value in more.items()), *COMMAND, *words
    )


@pytest.mark.parametrize("command", ["check", "demo", "config", "plugins"])
def test_a_command_that_ends_by_itself(root, command):
    done = subprocess.run(root(command), capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert "Traceback" not in done.stderr
    assert done.returncode == 0, done.stdout + done.stderr


def test_run(root, server):
    daemon = subprocess.Popen(
        root("run", "--log-format", "json", REDIS_URL=server.url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    try:
        said: list[str] = []
        while not said or (said[-1] and '"event":"ready"' not in said[-1]):
            said.append(daemon.stderr.readline())
        assert server.do("PUBLISH", "notification", '{"a": 1}') == 1, said
        assert daemon.stdout.readline().endswith(" größe\n")
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(PATIENCE) == 0
    finally:
        daemon.kill()
        daemon.communicate()
