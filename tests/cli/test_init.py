"""`event-router init`: what it writes works, whatever is answered; it writes everything or nothing, and no secret."""

import itertools
import json
import os
import re
import shlex

import pytest
import yaml
from click.testing import CliRunner

from router.cli import new_files
from router.cli.first_steps.starter import trial
from router.cli.main import cli
from router.ops.cases.running import CaseRunner
from router.ops.loading import Cases, load, loader
from router.ops.simulation import Message, Simulator
from router.plugin_loading.plugin_manager import load_plugins
from tests.support.process import run
from tests.support.redis import free_port
from tests.support.terminal import Terminal

ANSWER_DEFAULTS = ["", "", "", "", ""]
"""Enter for Redis, source, channel, no more channels, sink."""
PAGER = """\
from pydantic import model_validator
from router.api import Addresses, Secret, SinkOptions, Template, hookimpl


class PagerOptions(SinkOptions):
    url: str
    level: int
    number: Template
    pin: Secret
    team: Addresses
    colour: str | None = None
    voice: str | None = None

    @model_validator(mode="after")
    def _complete(self):
        if self.colour is None or self.voice is None:
            raise ValueError("a pager has a colour and a voice")
        return self


async def pager(event, options):
    return None


@hookimpl
def register_sinks(register):
    register("pager", pager, options=PagerOptions)
"""


@pytest.fixture(scope="module")
def plugins():
    return load_plugins()


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    """Nothing of this machine but an empty state directory."""
    for name in ("REDIS_URL", "LOGS_DIRECTORY", "CREDENTIALS_DIRECTORY", "TELEGRAM_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def quick(monkeypatch, plugins):
    """Plugins are loaded once for all tests, because loading them costs more than everything else."""
    monkeypatch.setattr(loader, "load_plugins", lambda _paths, **_options: plugins)
    monkeypatch.setattr(trial, "load_plugins", lambda _paths: plugins)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "shop"


def init(folder, *words, typed=None, monkeypatch=None):
    """Run the command in process; `typed` are the lines of a person on a terminal, without them nothing is asked."""
    if typed is not None:
        monkeypatch.setattr("router.cli.first_steps.init.terminal", lambda _descriptor: True)
    lines = "".join(f"{line}\n" for line in typed or ())
    return CliRunner().invoke(cli, ["init", str(folder), *words], input=lines, standalone_mode=False)


def written(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def works(folder, done):
    """Whether what was written passes `check --strict`, `test`, and `explain` as it is printed; returns what was loaded."""
    assert done.exception is None, done.output
    loaded = load(folder / "config.yaml", environ=os.environ, placeholders=True, tests=Cases())
    assert [problem for problem in loaded.problems if problem.severity != "note"] == []
    results = list(CaseRunner(loaded).run(loaded.cases))
    assert len(results) == 2
    assert all(result.holds for result in results)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("  ") and " explain " in line]
    words = shlex.split(line)
    channel = next(
        word.removeprefix("--channel=") if "=" in word else words[place + 1]
        for place, word in enumerate(words)
        if word.startswith("--channel")
    )
    found = Simulator(loaded).simulate(Message(channel.encode(), words[-1].encode(), 0.0))
    assert [delivery.delivers for delivery in found.deliveries] == [True]
    return loaded


SOURCES = ["pubsub", "stream", "list"]
SINKS = [
    ["log"],
    ["email"],
    ["email", "to={{ payload.email }}"],
    ["chat"],
    ["chat", "service=slack"],
    ["chat", "service=slack", "to={{ payload.user_id }}"],
]
REDIS = [
    [],
    ["embedded"],
    ["redis://127.0.0.1:1/3"],
    ["redis://:a-Pass-word@127.0.0.1:1"],
    ["unix:///run/no.sock?db=1&password=a-Pass-word"],
    ["${cred:redis}"],
]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("sink", SINKS, ids=" ".join)
def test_every_combination_works(folder, quick, source, sink):
    for number, redis in enumerate(REDIS):
        kind, *settings = sink
        words = ["--source", source, "--sink", kind, *itertools.chain(*(("--set", each) for each in settings))]
        words += [word for url in redis for word in ("--redis", url)]
        here = folder / str(number)
        done = init(here, *words)
        loaded = works(here, done)
        assert written(here) == {"config.yaml", "schemas/event.schema.json"}
        assert (loaded.config.deliver == "print") is (kind != "log")
        assert "a-Pass-word" not in "".join((here / name).read_text() for name in written(here)) + done.output
        assert ("set REDIS_URL to the URL that you gave" in done.output) is ("a-Pass-word" in str(redis))
        assert ("`run` needs the credential redis" in done.output) is ("cred" in str(redis))
        named = {"redis://127.0.0.1:1/3": "redis://127.0.0.1:1/3", "embedded": "embedded"}.get(str(*redis))
        assert named is None or loaded.config.redis.url == named


@pytest.mark.parametrize("service", ["slack", "discord", "teams", "mattermost", "telegram", "google-chat"])
@pytest.mark.parametrize("to", ["", "{{ payload.person.chat }}"])
def test_every_chat_service_works(folder, quick, service, to):
    bot = ["--set", f"to={to}"] if to and service not in {"teams", "google-chat"} else []
    loaded = works(folder, init(folder, "--sink", "chat", "--set", f"service={service}", *bot))
    document = json.loads((folder / "schemas/event.schema.json").read_text())
    assert ("person" in document["required"]) is bool(bot)
    assert ("user-chat" in loaded.config.sinks) is bool(bot or service == "telegram")


ODD = [
    *(
        "no",
        "yes",
        "on",
        "null",
        "~",
        "1",
        "-1",
        "1.5",
        "1e3",
        "0o10",
        "0x1F",
        "12:30:45",
        "2026-01-31",
        "true",
        ".inf",
    ),
    *(
        "a: b",
        "a #b",
        "#a",
        "- a",
        "-x",
        "--yes",
        "? a",
        "{a}",
        "[a",
        "a,b",
        "'",
        '"',
        "a'b\"c",
        "&a",
        "*a",
        "!a",
        "%a",
    ),
    *(
        "@a",
        "`a`",
        "|",
        ">",
        "<<",
        "=",
        " a ",
        "${HOME}",
        "$$",
        "${",
        "{{ payload.x }}",
        "{% x %}",
        "a\\b",
        "é",
        "日本",
        "a" * 300,
    ),
    *("x" + " word" * 60, "..", "/etc/passwd", "a=b", "C:\\x"),
]


@pytest.mark.parametrize("source", SOURCES)
def test_names_survive(folder, quick, source):
    names = [name for name in ODD if not set(name) & set("[*?\\") or (source == "pubsub" and name != "[a")]
    words = [word for name in names for word in ("--channel", name)]
    loaded = works(folder, init(folder, "--source", source, *words))
    assert loaded.config.sources["web-app"].reads == names
    assert loaded.schemas[0].channels == names


@pytest.mark.parametrize(
    "name", ["-x", "a b", "no", "orders.*", "a?[^a-z]", "${HOME}", "it's", "\\*", "{{ payload.x }}", "[a-c][!]"]
)
def test_the_printed_command_and_the_tests_are_right_for_any_first_name(folder, quick, name):
    works(folder, init(folder, "--channel", name))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--redis", "localhost:6379"], "--redis: a Redis URL must begin with redis://"),
        (["--redis", "redis://x:1/#a-Pass-word"], "--redis: this URL can't be read"),
        (["--redis", "${HOME"], "--redis: `${` is never closed"),
        (["--channel", ""], "--channel: the name of a channel must not be empty"),
        (["--channel", "a\x1bb"], "--channel: the text has a character that can't be printed"),
        (["--channel", "a\udcff"], "--channel: the text has a character that can't be printed"),
        (["--channel", "[a"], '--channel: "[a": the `[` is not closed'),
        (["--source", "stream", "--channel", "a*"], "--channel: 'a*' is read as an exact name"),
        (["--source", "kafka"], "'kafka' is not one of 'pubsub', 'stream', 'list'"),
        (["--sink", "chatt"], '--sink: unknown type of sink "chatt"'),
        (["--sink", "command"], "--sink: a sink of type command runs programs"),
        (["--sink", "command", "--set", 'argv=["cat"]'], "`allow_commands: true` to the configuration yourself"),
        (["--set", "path=x"], "name the type of this sink with --sink"),
        (["--sink", "log", "--set", "path"], "write KEY=VALUE"),
        (["--sink", "log", "--set", "pth=x"], "--set pth: unknown key"),
        (
            ["--sink", "log", "--set", "path=config.yaml"],
            "the sink can't write to config.yaml, which belongs to the configuration",
        ),
        (["--sink", "chat", "--set", "service=icq"], "--set service: "),
        (["--sink", "chat", "--set", "token=123:a-Pass-word"], "--set token: a secret is written here in clear text"),
        (["--sink", "email", "--set", "to=nobody"], "--set to"),
        (["--sink", "email", "--set", "to={{ payload. }}"], "--set to"),
        (["--sink", "email", "--set", "to={{ payload.user_id }}"], "would reach nobody"),
        (["--sink", "email", "--set", "port=many"], "--set port: "),
    ],
)
def test_a_wrong_option_is_named_and_nothing_is_written(folder, quick, words, said):
    done = init(folder, *words)
    assert done.exception.exit_code == 2
    lines = done.exception.format_message().splitlines()
    assert len(set(lines)) == len(lines)
    assert said in str(done.exception.format_message())
    assert "a-Pass-word" not in done.exception.format_message()
    assert not folder.exists()


def test_a_variable_of_the_environment_with_a_fault_is_named(folder, quick, monkeypatch):
    monkeypatch.setenv("REDIS_URL", "localhost")
    done = init(folder)
    assert "--redis: a Redis URL must begin with redis://" in done.exception.format_message()
    works(folder, init(folder, "--redis", "embedded"))


def test_options_of_a_sink_have_their_types(folder, quick):
    settings = ["port=1025", "tls=none", "separate=false", 'headers={"X-Shop": "{{ payload.shop }}"}', "timeout=5s"]
    words = [word for each in settings for word in ("--set", each)]
    loaded = works(folder, init(folder, "--sink", "email", *words))
    options = loaded.config.sinks["team-mail"].options
    assert (options.port, options.tls, options.separate) == (1025, "none", False)
    assert loaded.config.sinks["team-mail"].host.timeout == 5.0


def test_lists_and_mappings_may_be_written_as_in_yaml(folder, quick):
    settings = ["headers={X-Shop: main, X-Kind: '{{ payload.kind }}'}", "batch={max_events: 1}"]
    words = [word for each in settings for word in ("--set", each)]
    sink = works(folder, init(folder, "--sink", "email", *words)).config.sinks["team-mail"]
    assert sink.options.headers == {"X-Shop": "main", "X-Kind": "{{ payload.kind }}"}
    assert sink.host.batch.max_events == 1


def test_the_first_configuration_of_webpush_reaches_a_browser(folder, quick):
    done = init(folder, "--sink", "webpush")
    works(folder, done)
    said = " ".join(done.output.split())
    assert "`run` needs the file private_key.pem." in said
    assert (
        "when the file private_key.pem has your key (`vapid --gen` makes one), `vapid_subject` has your address" in said
    )
    text = (folder / "config.yaml").read_text()
    assert "webpush: ['https://push.example.org/hello']" in text
    assert max(map(len, (line for line in text.splitlines() if line.startswith("#")))) <= 120


def test_a_plugin_of_the_folder_is_asked_for_what_it_requires(folder, monkeypatch):
    (folder / "plugins").mkdir(parents=True)
    (folder / "plugins" / "pager.py").write_text(PAGER)
    done = init(folder, "--sink", "pager")
    assert "--set url=VALUE --set level=VALUE" in done.exception.format_message()
    typed = ["", "", "", "", "pager", "https://pager.example.org", "high", "3", "", "", "colour=red", "voice=alto"]
    done = init(folder, typed=typed, monkeypatch=monkeypatch)
    sink = works(folder, done).config.sinks["pager"].options
    assert (sink.level, sink.number, list(sink.team)) == (3, "{{ payload.message }}", ["{{ payload.user_id }}"])
    assert (sink.colour, sink.voice) == ("red", "alto")
    assert done.output.count("error:") == 3
    said = " ".join(done.output.split())
    assert "`run` needs PAGER_PIN." in said
    assert "Delete `deliver: print` when PAGER_PIN is set." in said


def test_a_broken_plugin_is_a_warning(folder):
    (folder / "plugins").mkdir(parents=True)
    (folder / "plugins" / "broken.py").write_text("import no_such_module")
    done = init(folder)
    assert done.exception is None
    assert "warning: the plugin broken" in " ".join(done.output.split())
    assert "config.yaml" in written(folder)


def test_what_explain_adds_stands_in_the_list_of_tests(folder, quick):
    init(folder, "--sink", "email", "--set", "to={{ payload.email }}")
    payload = '{"message": "hi", "email": "joe@example.org"}'
    words = ["explain", "-c", str(folder / "config.yaml"), "--channel", "notification", payload, "--as-test"]
    added = CliRunner().invoke(cli, words, standalone_mode=False)
    with (folder / "config.yaml").open("a") as file:
        file.write(added.stdout)
    loaded = load(folder / "config.yaml", environ={}, placeholders=True, tests=Cases())
    results = list(CaseRunner(loaded).run(loaded.cases))
    assert [result.holds for result in results] == [True, True, True]


def test_the_tests_notice_every_change(folder, quick):
    init(folder, "--sink", "chat")
    done = CliRunner().invoke(
        cli, ["test", str(folder / "config.yaml"), "--mutate", "--coverage"], standalone_mode=False
    )
    assert done.return_value == 0, done.output


@pytest.mark.parametrize(
    "there", [["config.yaml"], ["schemas/event.schema.json"], ["config.yaml", "schemas/event.schema.json"]]
)
@pytest.mark.parametrize("dangling", [False, True])
def test_nothing_is_overwritten(folder, there, dangling):
    for name in there:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to("nowhere") if dangling else (folder / name).write_text("mine")
    before = written(folder)
    done = init(folder)
    assert done.exception.exit_code == 2
    message = done.exception.format_message()
    assert all(str(folder / name) in message for name in there)
    assert "event-router init FOLDER" in message
    assert written(folder) == before


def test_a_file_that_appears_meanwhile_stays_and_nothing_else_is_left(folder):
    (folder / "schemas").mkdir(parents=True)
    (folder / "config.yaml").write_text("mine")
    with pytest.raises(Exception, match="exists already") as raised:
        new_files.write_new(folder, {"schemas/a/b.json": "{}", "c.txt": "", "config.yaml": "ours"}, "do it")
    assert raised.value.exit_code == 2
    assert {path.name for path in folder.rglob("*")} == {"schemas", "config.yaml"}
    assert (folder / "config.yaml").read_text() == "mine"


def test_an_interrupted_write_leaves_nothing(tmp_path):
    def files():
        yield "a/b.txt", "x"
        raise KeyboardInterrupt

    class Interrupted(dict):
        def items(self):
            return files()

    with pytest.raises(KeyboardInterrupt):
        new_files.write_new(tmp_path / "new" / "folder", Interrupted(), "do it")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_can_not_be_written_is_told(folder):
    folder.mkdir()
    (folder / "schemas").write_text("a file")
    done = init(folder)
    assert f"can't write {folder / 'schemas' / 'event.schema.json'}: Not a directory" in str(done.exception)
    assert written(folder) == {"schemas"}


def test_a_redis_that_does_not_answer_is_a_note(folder, quick):
    done = init(folder, "--redis", f"redis://127.0.0.1:{free_port()}")
    works(folder, done)
    assert "note: redis://127.0.0.1:" in done.stderr
    assert "the configuration was written anyway" in " ".join(done.stderr.split())


def test_a_redis_that_answers_needs_no_note(folder, quick, redis_server):
    done = init(folder, "--redis", redis_server.url)
    works(folder, done)
    assert done.stderr == ""


def test_a_person_is_asked_again_where_an_answer_is_wrong(folder, quick, monkeypatch):
    typed = [
        *("localhost", "redis://127.0.0.1:1"),
        *("kafka", "stream"),
        *("a*", "orders", "b?", "jobs", ""),
        *("sms", "email"),
        *("", "nobody", "Shop <shop@example.org>", "{{ payload.user_id }}", "{{ payload.email }}"),
    ]
    done = init(folder, typed=typed, monkeypatch=monkeypatch)
    loaded = works(folder, done)
    assert (loaded.config.sources["web-app"].type, loaded.config.sources["web-app"].reads) == (
        "stream",
        ["orders", "jobs"],
    )
    assert loaded.config.sinks["user-mail"].options.from_ == "Shop <shop@example.org>"
    assert done.stderr.count("error: ") == 5
    assert done.stderr.count("Error: ") == 2  # click's own, for words of a list


def test_options_answer_questions(folder, quick, monkeypatch):
    words = ["--redis", "embedded", "--source", "list", "--channel", "jobs", "--sink", "log"]
    done = init(folder, *words, typed=["lines.jsonl"], monkeypatch=monkeypatch)
    assert works(folder, done).config.sinks["audit"].options.path == "lines.jsonl"
    assert len(re.findall(r"\]: ", done.stderr)) == 1


@pytest.mark.parametrize("answered", range(6))
def test_the_end_of_input_leaves_nothing(folder, quick, monkeypatch, answered):
    done = init(folder, typed=ANSWER_DEFAULTS[:answered], monkeypatch=monkeypatch)
    assert type(done.exception).__name__ == "Abort"
    assert "nothing was written" in done.stderr
    assert not folder.exists()


@pytest.mark.parametrize("columns", [80, 120])
def test_on_a_terminal(tmp_path, columns):
    terminal = Terminal("init", "shop", cwd=tmp_path, columns=columns)
    for question in ("Redis [", "Source (", "Name [", "One more", "Sink (", "one line for each event"):
        terminal.until(question)
        terminal.type("\n")
    assert terminal.end() == 0
    shown = terminal.shown.decode().replace("\r", "").splitlines()
    assert [line for line in shown if len(line) > columns and " explain " not in line] == []
    assert written(tmp_path / "shop") == {"config.yaml", "schemas/event.schema.json"}


def test_ctrl_c_on_a_terminal(tmp_path):
    terminal = Terminal("init", "shop", cwd=tmp_path)
    terminal.until("Redis [")
    terminal.interrupt()
    assert terminal.end() == 130
    assert b"nothing was written" in terminal.shown
    assert not (tmp_path / "shop").exists()


def test_the_printed_commands_work_as_they_are(tmp_path):
    done = run("init", "a shop", "--sink", "chat", "--channel", "a 'b' c*", cwd=tmp_path)
    assert done.code == 0, done.err
    commands = [shlex.split(line) for line in done.out.splitlines() if line.startswith("  ")]
    assert [next(word for word in words if word in {"test", "explain", "run"}) for words in commands] == [
        "test",
        "explain",
        "run",
    ]
    for words in commands[:2]:
        tried = run(*words[words.index("router.cli.main") + 1 :], cwd=tmp_path)
        assert tried.code == 0, tried.out + tried.err
    assert run("check", "--strict", tmp_path / "a shop" / "config.yaml", cwd=tmp_path).code == 0


def test_the_file_has_comments_and_is_plain_yaml(folder, quick):
    init(folder, "--sink", "chat")
    text = (folder / "config.yaml").read_text()
    assert text.count("\n# ") >= 6
    assert list(yaml.safe_load(text)) == [
        "version",
        "redis",
        "sources",
        "schemas",
        "sinks",
        "routes",
        "deliver",
        "tests",
    ]
    assert max(map(len, text.splitlines())) <= 120
