"""Every command that a page, `--help` or a message prints is one: it is executed beside a running router.

Commands of other programs (systemctl, pip, curl, a shell's own) are left out: what they do is not ours to break.
"""

import re
import shlex
import shutil
import subprocess

import click
import pytest
import redis
from redis.connection import Connection

from router.cli import new_files
from router.cli.main import cli
from router.cli.write import plugin_files
from tests.support.commands import OURS, every_command, literals, of_help, of_messages, of_page, of_unit
from tests.support.process import ROOT, Process, run
from tests.support.redis import RedisServer

PAGES = [
    path
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))
    if path.name != "regressions.md"  # it tells what was, the commands of that time included
]
PRINTED = sorted(
    of_help() | of_messages() | of_unit(ROOT / "deploy" / "event-router.service") | set().union(*map(of_page, PAGES))
)
COMMANDS = [words for words in PRINTED if words[0] == OURS]
LONG = {
    "run": "it ends by a signal alone; tests/cli/test_run.py and many more run it",
    "demo": "tests/cli/test_demo.py executes it",
    "send-test": "it needs the other side of a sink; tests/cli/test_send_test.py runs it",
    "--watch": "it ends by Ctrl-C alone; tests/cli/test_status.py runs it",
}
"""What is parsed and not executed, and why."""

NO_COMMANDS = {(OURS, "configuration")}
"""Words of a message that only look like a command: the title of the editor schema."""

CONFIG = """\
version: 1
sources:
  web-app: {type: pubsub, channels: [notification]}
sinks:
  audit: {type: log, path: audit.jsonl}
  mail: {type: email, host: localhost, from: a@example.org, to: b@example.org, subject: s, text: t}
  team-chat: {type: email, host: localhost, from: a@example.org, to: c@example.org, subject: s, text: t}
routes:
  - {id: everything, sinks: [audit]}
  - {id: none, sinks: [mail, team-chat], enabled: false}
tests:
  - name: everything is logged
    event: {channel: notification, payload: {user_id: 42, message: hi}}
    expect: {routes: [everything]}
"""
CASES = """\
config: ../config.yaml
tests: [{name: in a file, event: {channel: notification, payload: {}}, expect: {sinks: [audit]}}]
"""
PAYLOAD = '{"user_id": 42, "message": "hi"}'
GONE = ("gone", "old-chat", "default")
LETTERS = ("l-1", "0199c4d2e5f1-4be01c22ad-1000000000007")


def test_enough_is_found():
    """A page that is written differently must not leave this file without work."""
    assert len(COMMANDS) > 60
    assert {words[0] for words in PRINTED} == {OURS, "make", "redis-cli"}
    ours = {words[: len(path) + 1] for words in COMMANDS for path, _ in every_command()}
    assert {(OURS, *path) for path, _ in every_command()} <= ours


def parsed(words):
    """Whether a command is whole; False for a mere mention of it, which lacks arguments. Raises for what is not a command."""
    command, rest = cli, list(words[1:])
    context = click.Context(cli, info_name=OURS)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        _, command, rest = command.resolve_command(context, rest)
    if isinstance(command, click.Group) and not command.invoke_without_command:
        if rest and rest[0] not in {"--help", "--version"}:
            raise click.NoSuchOption(rest[0])
        return bool(rest)
    try:
        command.make_context(command.name, rest)
    except click.MissingParameter:
        return False
    except click.NoSuchOption:
        raise
    except click.BadOptionUsage:
        return False
    except click.exceptions.Exit:
        return True
    return True


@pytest.mark.parametrize("words", [w for w in COMMANDS if w not in NO_COMMANDS], ids=shlex.join)
def test_what_is_printed_can_be_parsed(words, monkeypatch):
    for name in ("EVENT_ROUTER_CONFIG", "EVENT_ROUTER_INSTANCE"):
        monkeypatch.delenv(name, raising=False)
    parsed(words)


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        (("dlq", "lst"), click.UsageError, "No such command 'lst'"),
        (("publish-it", "x"), click.UsageError, "There is no command 'publish-it'"),
        (("dlq", "list", "--sinks", "a"), click.NoSuchOption, "No such option '--sinks'"),
        (("queue", "--all"), click.NoSuchOption, "No such option '--all'"),
    ],
)
def test_what_is_no_command_is_found_out(words, error, said):
    with pytest.raises(error, match=said) as raised:
        parsed((OURS, *words))
    assert isinstance(raised.value, click.NoSuchOption) is (error is click.NoSuchOption)


EXECUTED = [w for w in COMMANDS if w not in NO_COMMANDS and not LONG.keys() & set(w) and parsed(w)]


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """A running router, its folder and its server."""
    folder = tmp_path_factory.mktemp("stage")
    shutil.copytree(ROOT / "schemas", folder / "schemas")
    shutil.copy(ROOT / "config.example.yaml", folder)
    shutil.copytree(ROOT / "docs" / "recipes", folder / "docs" / "recipes")
    (folder / "config.yaml").write_text(CONFIG)
    new_files.write_new(folder, plugin_files.drop_in("pager"), "")
    (folder / "tests").mkdir()
    (folder / "tests" / "refunds_test.yaml").write_text(CASES)
    server = RedisServer("valkey", tmp_path_factory.mktemp("valkey"), options={"appendonly": "yes"}).start()
    try:
        with Process("run", cwd=folder, env={"REDIS_URL": server.url}, notify=True) as daemon:
            daemon.wait_ready()
            yield folder, server
    finally:
        server.kill()


def prepare(server):
    """Put the dead letters and the queues there that examples name; a queue's entry is one that stays."""
    with redis.Redis(port=server.port) as client:
        for name in GONE:
            client.xadd(f"{{event-router}}:queue:{name}", {"d": b"\x91\x63"})
        for name in LETTERS:
            fixed = {
                "version": "1",
                "reason": "schema",
                "source": "web-app",
                "channel": "notification",
                "payload": "{}",
            }
            times = dict.fromkeys(("received_at", "failed_at"), "2026-01-31T12:00:00.000000Z")
            client.xadd("{event-router}:dead", {"id": name, "event_id": name, "detail": "[]"} | times | fixed)


@pytest.mark.parametrize("words", EXECUTED, ids=shlex.join)
def test_what_is_printed_does_what_it_says(stage, words, tmp_path):
    folder, server = stage
    prepare(server)
    if words[1] in {"init", "new-plugin"}:
        folder = tmp_path  # they want one without the files that they write
    arguments = [word.replace("/etc/event-router/config.yaml", "config.yaml") for word in words[1:]]
    stdin = CONFIG if arguments[0] == "check" else PAYLOAD
    done = run(*arguments, cwd=folder, env={"REDIS_URL": server.url}, stdin=stdin)
    assert done.code == 0, done.out + done.err


@pytest.mark.parametrize("words", [w for w in PRINTED if w[0] == "make"], ids=shlex.join)
def test_every_printed_target_of_make_exists(words):
    """Only planned (`-n`): they install, run without an end, or run these tests."""
    if not shutil.which("make"):
        pytest.skip("make is not installed on this machine")
    done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [w for w in PRINTED if w[0] == "redis-cli"], ids=shlex.join)
def test_every_printed_command_of_redis_is_one(stage, words):
    _, server = stage
    rest = list(words[1:])
    if rest[0] == "-p":
        rest = rest[2:]
    if rest[0] == "--scan":
        rest = ["SCAN", "0", "MATCH", rest[2]]
    with redis.Redis(connection_pool=redis.ConnectionPool(Connection, port=server.port)) as client:
        client.response_callbacks.clear()  # the library can't read every form of an answer
        if rest[0] == "XPENDING":
            client.xgroup_create(rest[1], rest[2], mkstream=True)
        client.execute_command(*rest)


OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


OF_OTHERS = {"--user", "--tls", "--scan", "--pattern", "--python", "--gen"}
"""Options of the server, of redis-cli, of uv and of vapid."""


def test_every_option_in_a_message_is_one():
    known = {option for _, command in every_command() for each in command.params for option in each.opts}
    printed = {option for text in literals() for option in OPTION.findall(text)}
    assert printed - known - OF_OTHERS - {"--help", "--version"} == set()


def test_every_variable_in_a_message_or_on_a_page_is_read():
    variable = r"(?<![A-Z_])EVENT_ROUTER_[A-Z_]*[A-Z]\b"
    code = [path.read_text() for folder in ("router", "tests/support") for path in ROOT.glob(f"{folder}/**/*.py")]
    read = set(re.findall(f'"({variable})"', "".join(code)))
    printed = "\n".join([*literals(), *(path.read_text() for path in PAGES)])
    assert set(re.findall(variable, printed)) <= read
