"""The page of `init`: its commands run in their order in an empty folder, and show what the page shows."""

import os
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.process import ROOT, Process, environment
from tests.support.waiting import PATIENCE

PAGE = (ROOT / "docs" / "init.md").read_text()
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
BLOCKS = [
    (language, re.sub(rf"^{indent}", "", text, flags=re.MULTILINE)) for indent, language, text in BLOCK.findall(PAGE)
]
WORK = "event-router run\n"


@pytest.fixture
def variables(tmp_path, redis_server):
    """The environment of a user who has installed event-router, in which a Redis is known."""
    command = tmp_path / "bin" / "event-router"
    command.parent.mkdir()
    command.write_text(f"#!{sys.executable}\nfrom router.cli.main import main\nmain()\n")
    command.chmod(0o755)
    path = f"{command.parent}:{os.environ['PATH']}"
    return environment(tmp_path, {"PATH": path, "REDIS_URL": redis_server.url})


def shell(block, folder, variables):
    """Run a block; return what it shows, and the folder that it ends in."""
    script = f"set -eu\n{block}\npwd >&3\n"
    reading, writing = os.pipe()
    with os.fdopen(reading) as told:
        done = subprocess.run(
            ["bash", "-c", f"exec 3>&{writing}\n{script}"],
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            pass_fds=[writing],
        )
        os.close(writing)
        assert (done.returncode, done.stderr) == (0, ""), f"{block}{done.stdout}{done.stderr}"
        return done.stdout, Path(told.read().strip())


def test_its_blocks_do_what_the_page_says(tmp_path, variables):
    empty = folder = tmp_path / "empty"
    empty.mkdir()
    shown, router = "", None
    with ExitStack() as stack:
        for language, text in BLOCKS:
            if text == WORK:
                router = stack.enter_context(Process("run", cwd=folder, env=variables, notify=True))
                router.wait_ready()
            elif language == "sh":
                shown, folder = shell(text, folder, variables)
            elif language == "yaml":
                assert text == (folder / "config.yaml").read_text()
            elif router is None:
                assert text == shown
            else:
                router.wait_for(re.escape(text), stream="out")
                assert router.stop() == 0
    made = {path.parent.name for path in empty.rglob("config.yaml")}
    assert made == {"shop", "by-mail", "to-team", "to-user", "jobs"}
    shell(
        f"cd shop; for each in {' '.join(made - {'shop'})}; do event-router test $each/config.yaml; done",
        empty,
        variables,
    )


def test_the_page_has_each_kind_of_block():
    assert {language for language, _ in BLOCKS} == {"sh", "text", "yaml"}
    assert sum(text == WORK for _, text in BLOCKS) == 1
    assert len(BLOCKS) >= 13
