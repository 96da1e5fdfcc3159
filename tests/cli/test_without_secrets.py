"""`dlq`, `queue` and `publish` where the secrets of sinks can't be had, and beside a running router."""

import json
import re

import pytest
import redis

from router.cli import running_router
from router.errors import ConfigError
from tests.support.process import Process, environment, run

CONFIG = """\
version: 1
redis: {url: "redis://:${cred:redis}@127.0.0.1:PORT"}
sources:
  web-app: {type: pubsub, channels: [notification]}
  remote: {type: pubsub, channels: [remote], url: "${REMOTE_URL}"}
sinks:
  user-mail:
    {type: email, host: h, from: a@example.org, to: "{{ payload.to }}", subject: s, text: t, username: u, password: "${cred:smtp}"}
  team: {type: chat, service: slack, url: "${SLACK_WEBHOOK_URL}", text: t}
  user-chat: {type: chat, service: telegram, token: "${TELEGRAM_TOKEN}", to: "{{ payload.to }}", text: t}
routes:
  - {id: all, sinks: [user-mail, team, user-chat]}
"""
COMMANDS = [
    ("dlq", "list"),
    ("dlq", "replay", "--dry-run"),
    ("dlq", "purge", "--dry-run"),
    ("queue", "list"),
    ("queue", "move", "team", "user-mail", "--dry-run"),
    ("queue", "dead-letter", "team", "--dry-run"),
    ("publish", "notification", '{"to": "b@example.org"}'),
]


@pytest.fixture
def guarded(start_server):
    return start_server(options={"requirepass": "right-password"})


@pytest.fixture
def folder(tmp_path, guarded):
    (tmp_path / "config.yaml").write_text(CONFIG.replace("PORT", str(guarded.port)))
    (tmp_path / "creds").mkdir()
    return tmp_path


@pytest.fixture
def env(folder):
    """The one secret of `redis`, and no other."""
    (folder / "creds" / "redis").write_text("right-password")
    (folder / "creds" / "redis").chmod(0o600)
    return {"CREDENTIALS_DIRECTORY": str(folder / "creds")}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_secret_of_a_sink_is_needed(folder, env, command):
    done = run(*command, cwd=folder, env=env)
    assert done.code == 0, done.err
    assert "placeholder" not in done.err + done.out


def put_letter(server, sink):
    with redis.Redis(port=server.port, password="right-password") as client:
        names = ("id", "event_id", "detail", "key")
        of_sink = {"source": "web-app", "channel": "notification", "route": "all", "sink": sink, "attempts": "3"}
        times = dict.fromkeys(("received_at", "failed_at"), "2026-01-31T12:00:00.000000Z")
        fixed = {"version": "1", "reason": "exhausted", "payload": '{"to": "b@example.org"}'}
        client.xadd("{event-router}:dead", dict.fromkeys(names, "l-1") | of_sink | times | fixed)


@pytest.mark.parametrize("sink", ["team", "user-mail", "user-chat"])
def test_a_letter_is_shown_and_its_recipients_counted_without_the_secret_of_a_sink(folder, env, guarded, sink):
    put_letter(guarded, sink)
    assert run("dlq", "show", "l-1", cwd=folder, env=env).code == 0
    done = run("dlq", "replay", "--dry-run", cwd=folder, env=env)
    assert "would replay 1 dead letter" in done.err
    assert done.err.endswith("to 1 recipient\n")


PLUGIN = """from router.api import Addresses, SinkOptions, hookimpl

class Options(SinkOptions):
    urls: Addresses

async def pager(event, options):
    pass

@hookimpl
def register_sinks(register):
    register("pager", pager, options=Options)
"""


def test_recipients_that_need_a_value_which_is_not_set_are_said_to_be_uncertain(folder, env, guarded):
    (folder / "plugins").mkdir()
    (folder / "plugins" / "pager.py").write_text(PLUGIN)
    text = (
        (folder / "config.yaml")
        .read_text()
        .replace("sinks:\n", 'sinks:\n  page: {type: pager, urls: "${PAGERS}"}\n', 1)
    )
    (folder / "config.yaml").write_text(text)
    put_letter(guarded, "page")
    command = ("dlq", "replay", "--dry-run")
    assert (
        "not certain: addresses of page depend on values that are not set here"
        in run(*command, cwd=folder, env=env).err
    )
    known = run(*command, cwd=folder, env={**env, "PAGERS": "http://a, http://b"}).err
    assert known.endswith("to 2 recipients\n")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_secret_of_redis_is_needed_and_named(folder, command):
    done = run(*command, cwd=folder)
    assert done.code == 78
    assert re.match(r"config\.yaml:2:14: redis\.url: the credential redis can't be read", done.err)
    assert "smtp" not in done.err


def test_publish_needs_the_url_of_its_source(folder, env, start_server):
    done = run("publish", "remote", "{}", cwd=folder, env=env)
    assert done.code == 78
    assert "sources.remote.url: REMOTE_URL is not set" in done.err
    assert run("publish", "remote", "{}", cwd=folder, env={**env, "REMOTE_URL": start_server().url}).code == 0


RUNNING = """\
version: 1
sources:
  web-app: {type: pubsub, channels: [notification]}
sinks:
  audit: {type: log, path: audit.jsonl}
routes:
  - {id: everything, sinks: [audit]}
"""


@pytest.fixture
def router(tmp_path, server):
    """A router that was started elsewhere, with an env file that says where its Redis is."""
    home = tmp_path / "service"
    home.mkdir()
    (home / "orders.yaml").write_text(RUNNING)
    (home / "environment").write_text(f"REDIS_URL={server.url}\n")
    state = {"STATE_DIRECTORY": str(tmp_path / "state-of-service")}
    with Process("run", "-c", "orders.yaml", "--env-file", "environment", cwd=home, env=state, notify=True) as daemon:
        daemon.wait_ready()
        yield state


@pytest.mark.parametrize("command", [("dlq", "list"), ("queue", "list"), ("publish", "notification", '{"a": 1}')])
def test_the_configuration_of_the_running_router_is_found(tmp_path, router, command):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert run(*command, cwd=elsewhere).code == 78
    done = run(*command, cwd=elsewhere, env=router)
    assert done.code == 0, done.err
    if command[0] == "publish":
        assert "1 subscriber received it" in done.out
    assert (
        f"note: this command uses the configuration of the running router ({tmp_path / 'service' / 'orders.yaml'})\n"
        in done.err
    )
    assert run(*command, "--instance", "other", cwd=elsewhere, env=router).code == 78
    told = json.loads(run("status", "--json", cwd=elsewhere, env=router).out)["config"]
    assert (told["file"], told["env_file"]) == tuple(
        str(tmp_path / "service" / name) for name in ("orders.yaml", "environment")
    )


@pytest.mark.parametrize("written", ["", 'redis: {url: "${REDIS_URL}"}\n', 'redis: {url: "${BROKER:-embedded}"}\n'])
def test_the_redis_that_the_router_has_from_its_own_environment_is_used_and_said(tmp_path, server, written):
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    (home / "orders.yaml").write_text(RUNNING + written)
    state = {"STATE_DIRECTORY": str(tmp_path / "state")}
    both = {"REDIS_URL": server.url, "BROKER": server.url}
    with Process("run", "-c", "orders.yaml", cwd=home, env=state | both, notify=True) as daemon:
        daemon.wait_ready()
        for command in (["dlq", "list"], ["queue", "list"], ["publish", "notification", '{"a": 1}']):
            done = run(*command, cwd=elsewhere, env=state)
            assert done.code == 0, done.err
            name = "BROKER" if "BROKER" in written else "REDIS_URL"
            note = f"note: this command uses the configuration of the running router ({home / 'orders.yaml'})"
            url = f"the Redis URL {server.url} from the variable {name} of that router's environment"
            assert f"{note}, and {url}" in done.err
        assert "1 subscriber received it" in done.out
        other = dict.fromkeys(both, "redis://127.0.0.1:1")
        assert run("dlq", "list", cwd=elsewhere, env=state | other).code == 69, "a variable that is set here counts"


def test_the_variables_of_a_service_are_read_where_its_unit_has_them(tmp_path, server, monkeypatch):
    """Of the shipped unit, whose variables come from systemd: the router knows of no env file."""
    (tmp_path / "service.yaml").write_text(RUNNING)
    (tmp_path / "environment").write_text(f"REDIS_URL={server.url}\n")
    state = tmp_path / "state-of-service"
    env = {"STATE_DIRECTORY": str(state), "REDIS_URL": server.url}
    for name, value in environment(tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(running_router, "SERVICE_STATE", state)
    monkeypatch.setattr(running_router, "SERVICE_ENVIRONMENT", tmp_path / "environment")
    with Process("run", "-c", "service.yaml", cwd=tmp_path, env=env, notify=True) as daemon:
        daemon.wait_ready()
        loaded = running_router.configuration(None, None, "default")
        (tmp_path / "service.yaml").chmod(0o666)
        monkeypatch.chdir(tmp_path / "state-of-service")
        with pytest.raises(ConfigError, match="no configuration"):  # what others can write is not believed
            running_router.configuration(None, None, "default")
    assert (loaded.path, loaded.config.redis.url) == (tmp_path / "service.yaml", server.url)


def test_a_configuration_that_is_named_wins_over_that_of_the_running_router(tmp_path, router):
    (tmp_path / "other.yaml").write_text(RUNNING + "redis: {url: 'redis://127.0.0.1:1'}\n")
    done = run("dlq", "list", "-c", tmp_path / "other.yaml", cwd=tmp_path, env=router)
    assert done.code == 69
