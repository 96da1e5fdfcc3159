"""The cures that messages print (`chmod`, `chown`, a setting, an option): each is carried out, and it helps."""

import os
import re
import subprocess

import pytest

from tests.support.commands import literals
from tests.support.process import Process, run
from tests.test_plugin_manager import GOOD

CONFIG = """\
version: 1
redis: {url: "${REDIS_URL:-redis://127.0.0.1:1}"}
sources:
  web-app: {type: pubsub, channels: [notification]}
sinks:
  audit: {type: log, path: audit.jsonl}
routes:
  - {id: everything, sinks: [audit]}
"""
CURES = {
    "chmod +x",
    "chmod o-r",
    "chmod o-w",
    "chmod g-w",
    "chown HOLE",
    "set LC_ALL=C.UTF-8",
    "set REDIS_URL",
    "set STATE_DIRECTORY",
    "set HOLE=HOLE",
    "set HOLE",
}
"""All that messages print. The last two are those of `redis.url`, see test_redis_origin.py, and of `appendfsync`, see
tests/broker/test_embedded.py (`test_every_write_may_be_synced_…`); `chmod +x` is carried out in
tests/plugins/test_command_options.py, and `set REDIS_URL` in tests/cli/test_init.py."""


def test_every_printed_cure_is_one_of_those_that_are_carried_out():
    found = {
        cure
        for text in literals()
        for cure in re.findall(r"ch(?:mod|own) \S+|(?<!-)\bset [A-Z_]{3,}(?:=[\w.-]+)?", text)
    }
    assert found == CURES


@pytest.fixture
def folder(tmp_path):
    """A folder whose name a shell takes for two words."""
    home = tmp_path / "a folder"
    home.mkdir(mode=0o755)
    (home / "config.yaml").write_text(CONFIG)
    (home / "plugins").mkdir(mode=0o755)
    (home / "plugins" / "good.py").write_text(GOOD)
    (home / "plugins" / "two").mkdir(mode=0o755)
    (home / "plugins" / "two" / "__init__.py").write_text("from .part import register_sinks\n")
    (home / "plugins" / "two" / "part.py").write_text(GOOD.replace("pager", "beeper"))
    (home / "secret").write_text("redis://cache.example.org")
    for name in ("config.yaml", "plugins/good.py", "plugins/two/__init__.py", "plugins/two/part.py", "secret"):
        (home / name).chmod(0o600)
    return home


def carry_out(said):
    """Carry out what is said in `run …`, as long as it is said."""
    cures = re.findall(r"run `(ch(?:mod|own) [^`]+)`", said)
    assert cures, said
    for cure in cures:
        subprocess.run(cure, shell=True, check=True)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("config.yaml", 0o622),
        ("plugins/good.py", 0o622),
        ("plugins", 0o777),
        ("plugins/two", 0o777),
        ("plugins/two/part.py", 0o622),
        ("secret", 0o644),
    ],
)
def test_modes(folder, name, mode):
    (folder / "config.yaml").write_text(CONFIG.replace("${REDIS_URL:-redis://127.0.0.1:1}", "${file:secret}"))
    assert run("check", "--strict", cwd=folder).code == 0
    (folder / name).chmod(mode)
    refused = run("check", "--strict", cwd=folder)
    plugins = run("plugins", cwd=folder)
    assert refused.code or plugins.code
    carry_out(refused.out + plugins.out + plugins.err)
    assert run("check", "--strict", cwd=folder).code == 0
    assert run("plugins", cwd=folder).code == 0


def test_the_mode_of_a_group(folder):
    file = folder / "plugins" / "good.py"
    group = next((gid for gid in (1, 2, 3, 12, 100) if os.geteuid() == 0 or gid in os.getgroups()), None)
    if group is None:
        pytest.skip("no group of others can be had")
    os.chown(file, -1, group)
    file.chmod(0o660)
    refused = run("plugins", cwd=folder)
    if "g-w" not in refused.out + refused.err:
        pytest.skip("nobody else is in that group")
    carry_out(refused.out + refused.err)
    assert run("plugins", cwd=folder).code == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_the_owner(folder):
    os.chown(folder / "plugins" / "good.py", 12345, -1)
    refused = run("plugins", cwd=folder)
    carry_out(refused.out + refused.err)
    assert run("plugins", cwd=folder).code == 0


def test_the_state_directory(folder, server):
    env = {"REDIS_URL": server.url}
    (folder / "state" / "event-router").mkdir(parents=True)
    (folder / "state" / "event-router").chmod(0o777)
    refused = run("run", cwd=folder, env=env)
    assert refused.code == 78
    assert "or set STATE_DIRECTORY" in refused.err
    for more in ({"STATE_DIRECTORY": str(folder / "other")}, {}):
        with Process("run", cwd=folder, env=env | more, notify=True) as daemon:
            daemon.wait_ready()
        carry_out(refused.err)


def test_the_locale(folder):
    (folder / "schämas").mkdir()
    (folder / "schämas" / "a.json").write_text("{}")
    schema = "schemas:\n  - {channels: [notification], file: schämas/a.json}\n"
    (folder / "config.yaml").write_text(CONFIG + schema, encoding="utf-8")
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    refused = run("check", cwd=folder, env=env)
    assert refused.code == 78
    (cure,) = set(re.findall(r"set (LC_ALL)=(\S+)$", refused.out, re.MULTILINE))
    assert run("check", cwd=folder, env=env | dict([cure])).code == 0


def test_a_name_for_the_second_router(folder, server):
    env = {"REDIS_URL": server.url}
    with Process("run", cwd=folder, env=env, notify=True) as first:
        first.wait_ready()
        refused = run("run", cwd=folder, env=env)
        assert refused.code == 78
        assert "start this router under another name with --instance NAME" in refused.err
        with Process("run", "--instance", "second", cwd=folder, env=env, notify=True) as second:
            second.wait_ready()
