"""A configuration that others can change, and passwords in clear: warnings, to which `check --strict` objects."""

import json
import os

import pytest

from router.ops.loading import load
from tests.support.process import run

CONFIG = {
    "version": 1,
    "include": "more.yaml",
    "redis": {"url": "${file:secret}"},
    "sources": {"web": {"type": "pubsub", "channels": ["a"]}},
    "sinks": {"audit": {"type": "log", "path": "audit.jsonl"}},
    "routes": [{"id": "all", "sinks": ["audit"]}],
}


@pytest.fixture
def folder(tmp_path):
    """A folder with a configuration, what it includes and a secret, all closed to others."""
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    for name, text in {
        "config.yaml": json.dumps(CONFIG),
        "more.yaml": "timezone: UTC\n",
        "secret": "redis://:hunter2@cache.example.org\n",
        "variables.env": "A=b\n",
    }.items():
        (home / name).write_text(text)
        (home / name).chmod(0o600)
    return home


def warnings(folder, environ=None):
    problems = load(folder / "config.yaml", environ=environ or {}, env_file=folder / "variables.env").problems
    return [problem.message for problem in problems if problem.severity == "warning"]


def test_nothing_is_said_where_nobody_else_can_write(folder):
    assert warnings(folder) == []


@pytest.mark.parametrize("name", ["config.yaml", "more.yaml", "variables.env", "secret"])
def test_a_file_that_everybody_can_write_is_a_warning(folder, name):
    (folder / name).chmod(0o622)
    file = folder / name
    assert warnings(folder) == [f"{file} can be written by every user: run `chmod o-w {file}`"]


def test_strict_objects(folder):
    assert run("check", "--strict", "config.yaml", cwd=folder).code == 0
    (folder / "config.yaml").chmod(0o666)
    folder.chmod(0o777)
    done = run("check", "--strict", "config.yaml", cwd=folder)
    assert done.code == 1
    assert "config.yaml:1:1: " in done.out
    assert f"{folder}/config.yaml can be written by every user" in done.out
    assert f"{folder}, which contains config.yaml, can be written by every user" in done.out
    assert run("check", "config.yaml", cwd=folder).code == 0


def test_a_sticky_folder_lets_nobody_replace_a_file(folder):
    folder.chmod(0o1777)
    assert warnings(folder) == []


def test_the_folder_that_a_link_leads_to_counts_too(folder, tmp_path):
    (tmp_path / "open").mkdir()
    (folder / "more.yaml").rename(tmp_path / "open" / "more.yaml")
    (folder / "more.yaml").symlink_to(tmp_path / "open" / "more.yaml")
    (tmp_path / "open").chmod(0o777)
    [message] = warnings(folder)
    assert message.startswith(f"{tmp_path}/open, which contains more.yaml, can be written by every user")


def test_nothing_is_said_on_a_read_only_mount(folder, monkeypatch):
    (folder / "config.yaml").chmod(0o666)
    folder.chmod(0o777)
    real = os.statvfs

    def read_only(path):  # mounting one needs rights that a test has not
        found = list(real(path))
        return os.statvfs_result([*found[:8], found[8] | os.ST_RDONLY, *found[9:]])

    monkeypatch.setattr(os, "statvfs", read_only)
    assert warnings(folder) == []


def test_a_plugin_that_everybody_can_write_is_still_refused(folder):
    (folder / "code").mkdir()
    (folder / "code" / "mine.py").write_text("")
    (folder / "code" / "mine.py").chmod(0o666)
    (folder / "config.yaml").write_text(json.dumps({**CONFIG, "plugins": {"paths": ["code"]}}))
    assert any("mine.py) could not be loaded: can be written by every user" in message for message in warnings(folder))


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"redis": {"url": "redis://:hunter2@cache"}}, "redis.url"),
        ({"redis": {"url": "redis://:hunter2@${HOST}"}}, "redis.url"),
        (
            {"sources": {"web": {"type": "pubsub", "channels": ["a"], "url": "rediss://joe:hunter2@c"}}},
            "sources.web.url",
        ),
        (
            {"sinks": {"audit": {"type": "log", "path": "x", "http": {"proxy": "http://joe:hunter2@proxy:3128"}}}},
            "sinks.audit.http.proxy",
        ),
    ],
)
def test_a_password_in_a_url_is_a_secret_in_clear(folder, changes, place):
    (folder / "config.yaml").write_text(json.dumps({**CONFIG, **changes}))
    done = run("check", "--strict", "config.yaml", cwd=folder, env={"HOST": "cache"})
    assert done.code == 1
    assert f": {place}: a secret is written here in clear text; write ${{NAME}}" in done.out
    assert "hunter2" not in done.out


HEADERS = {
    "Authorization": "Bearer hunter2-hunter2",
    "X-Api-Key": "hunter2-hunter2",
    "Cookie": "id=hunter2-hunter2",
    "X-Auth-User": "hunter2-hunter2",
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_with_a_credential_is_a_secret_in_clear(folder, name):
    hook = {"type": "webhook", "url": "https://example.org/in", "headers": {name: HEADERS[name], "X-Kind": "shown"}}
    own = {"sink": "hook", "headers": {name: f"{HEADERS[name]}-own"}}
    changes = {"sinks": {"hook": hook}, "routes": [{"id": "all", "sinks": [own]}]}
    (folder / "config.yaml").write_text(json.dumps({**CONFIG, **changes}))
    done = run("check", "--strict", "config.yaml", cwd=folder)
    assert done.code == 1
    for place in (f"sinks.hook.headers.{name}", f"routes[0].sinks[0].headers.{name}"):
        assert f": {place}: a secret is written here in clear text; write ${{NAME}}" in done.out
    shown = run("config", "-c", "config.yaml", cwd=folder)
    sent = run("explain", "-c", "config.yaml", "--channel", "a", "{}", cwd=folder)
    assert "shown" in shown.out
    assert "hunter2" not in done.out + shown.out + sent.out


@pytest.mark.parametrize("name", ["TICKET_TOKEN", "DB_PASS", "AWS_SECRET_ACCESS_KEY"])
def test_a_variable_of_a_command_with_a_credential_is_a_secret_in_clear(folder, name):
    env = {name: "hunter2-hunter2", "LANG": "shown", "SORT_KEY": "shown"}
    run_it = {"type": "command", "argv": ["/bin/true"], "env": env}
    own = {"sink": "run", "env": {name: "hunter2-hunter2-own"}}
    changes = {"allow_commands": True, "sinks": {"run": run_it}, "routes": [{"id": "all", "sinks": [own]}]}
    (folder / "config.yaml").write_text(json.dumps({**CONFIG, **changes}))
    done = run("check", "--strict", "config.yaml", cwd=folder)
    assert done.code == 1
    for place in (f"sinks.run.env.{name}", f"routes[0].sinks[0].env.{name}"):
        assert f": {place}: a secret is written here in clear text; write ${{NAME}}" in done.out
    assert "SORT_KEY: a secret" not in done.out
    shown = run("config", "-c", "config.yaml", cwd=folder)
    sent = run("send-test", "run", "-c", "config.yaml", cwd=folder)
    assert "shown" in shown.out
    assert "delivered in" in sent.out
    assert "hunter2" not in done.out + shown.out + sent.out + sent.err


@pytest.mark.parametrize("value", ["Bearer ${TOKEN}", "Bearer {{ payload.token }}", "${file:token}"])
def test_a_header_whose_credential_comes_from_elsewhere_is_none(folder, value):
    (folder / "token").write_text("hunter2-hunter2")
    (folder / "token").chmod(0o600)
    hook = {"type": "webhook", "url": "https://example.org/in", "headers": {"Authorization": value}}
    changes = {"sinks": {"hook": hook}, "routes": [{"id": "all", "sinks": ["hook"]}]}
    (folder / "config.yaml").write_text(json.dumps({**CONFIG, **changes}))
    done = run("check", "--strict", "config.yaml", cwd=folder, env={"TOKEN": "hunter2-hunter2"})
    assert done.code == 0, done.out
    assert value in run("config", "-c", "config.yaml", cwd=folder).out


@pytest.mark.parametrize("url", ["redis://:${PASSWORD}@cache", "${URL}", "redis://cache", "redis://joe@cache"])
def test_a_url_whose_password_comes_from_elsewhere_is_none(folder, url):
    (folder / "config.yaml").write_text(json.dumps({**CONFIG, "redis": {"url": url}}))
    assert warnings(folder, {"PASSWORD": "hunter2", "URL": "redis://:hunter2@cache"}) == []
