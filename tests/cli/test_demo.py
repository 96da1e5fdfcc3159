"""`event-router demo`: it ends by itself, shows what it promises and touches nothing."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.process import ROOT, environment, run
from tests.support.waiting import PATIENCE, wait_until


def test_the_tour_ends_by_itself_and_shows_every_way(tmp_path):
    done = run("demo", cwd=tmp_path, env={"NOTIFY_SOCKET": str(tmp_path / "nobody"), "EVENT_ROUTER_INSTANCE": "x"})
    assert done.code == 0, done.err
    for part in (
        "user-chat (chat) to 42: Your order is on its way!",
        '"route":"notify"',
        '"pattern":"orders.*"',
        "dead letter (schema)",
        "/user_id type:",
        "/message required:",
        "dead letter (decode)",
        "unmatched: no route takes",
        "received      5",
        "rejected      decode 1, schema 1",
        "delivered     2",  # both by the log: it writes whatever `deliver` says
        "printed       1",
    ):
        assert part in done.out
    assert "\x1b[" not in done.out
    assert list(tmp_path.iterdir()) == []


def test_colours_when_asked(tmp_path):
    done = run("demo", cwd=tmp_path, env={"FORCE_COLOR": "1"})
    assert done.code == 0, done.err
    assert "\x1b[" in done.out


@pytest.mark.parametrize("file", ["config.example.yaml", "config.yaml", None])
def test_every_command_that_is_next_works_where_it_is_printed(tmp_path, file):
    if file:
        shutil.copy(ROOT / "config.example.yaml", tmp_path / file)
        shutil.copytree(ROOT / "schemas", tmp_path / "schemas")
    done = run("demo", cwd=tmp_path)
    lines = [line.strip() for line in done.out.partition("\nNext\n")[2].splitlines() if re.match(r"  \S", line)]
    words = [shlex.split(line) for line in lines]
    assert [each[3] for each in words] == (["check", "run"] if file else []) + ["plugins", "config"]
    for each in words:
        if "run" in each:
            assert each[-1] == file
            continue
        ended = subprocess.run(
            each, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert ended.returncode == 0, ended.stderr


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed on this machine")
def test_ctrl_c_ends_make_run_without_a_word_of_make(tmp_path, start_server):
    shutil.copy(ROOT / "config.example.yaml", tmp_path)
    shutil.copytree(ROOT / "schemas", tmp_path / "schemas")
    said = tmp_path / "said"
    program = Path(sys.executable).parent
    arguments = ["run", "RUN=", f"BIN={program}", f"ARGS=-c {tmp_path / 'config.example.yaml'}"]
    with said.open("w") as out:
        variables = environment(tmp_path, {"REDIS_URL": start_server().url})
        making = subprocess.Popen(
            ["make", *arguments], cwd=ROOT, env=variables, stdout=out, stderr=out, start_new_session=True
        )
    wait_until(lambda: '"event":"ready"' in said.read_text() or making.poll() is not None, "the router")
    os.killpg(making.pid, signal.SIGINT)
    making.wait(PATIENCE)
    assert '"event":"stopped"' in said.read_text()
    assert "make" not in said.read_text().partition('"event":"stopped"')[2]
