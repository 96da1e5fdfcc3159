"""The options of the command sink: where values may stand, what is refused, and what `check` warns of."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
from pydantic import ValidationError

from router.engine.delivery.delivery_mode import DeliveryMode
from router.errors import ConfigError
from router.ops.loading import load
from router.ops.simulation import Message, Simulator
from tests.support.programs import script
from tests.support.sinks import make_event, open_sink, sink_type, validate

VALUE = "{{ payload.user }}"


@pytest.mark.parametrize(
    ("values", "place", "said"),
    [
        ({"argv": []}, ("argv",), "at least 1"),
        ({"argv": "cat -n"}, ("argv",), "valid list"),
        ({"argv": [""]}, ("argv", 0), "must not be empty"),
        ({"argv": ["--", "cat"]}, ("argv", 0), "must not be empty"),
        ({"argv": ["bin/notify"]}, ("argv", 0), "write the absolute path of the program"),
        ({"argv": ["cat", "a\0b"]}, ("argv", 1), "must not contain a NUL character"),
        ({"argv": [VALUE, "--"]}, ("argv", 0), "could treat a value of an event here as an option or a program"),
        ({"argv": ["notify", VALUE]}, ("argv", 1), 'as in [PROGRAM, --, "{{ payload.user_id }}"]'),
        ({"argv": ["notify", "{% if payload.x %}-v{% endif %}", "--"]}, ("argv", 1), "read the event from stdin"),
        ({"argv": ["sh", "-c", "--", VALUE]}, ("argv", 3), "sh would run this value as a program"),
        ({"argv": ["/usr/bin/env", "A=b", "python3.11", "-c", "--", VALUE]}, ("argv", 5), "python would run this"),
        ({"argv": ["env", "--", VALUE]}, ("argv", 2), "env would run this value"),
        ({"argv": ["sudo", "-u", "www-data", "--", VALUE]}, ("argv", 4), "sudo would run this value"),
        ({"argv": ["nice", "-n", "10", "--", VALUE]}, ("argv", 4), "nice would run this value"),
        ({"argv": ["sh", "-o", "errexit", "-c", "--", VALUE]}, ("argv", 5), "sh would run this value"),
        ({"argv": ["timeout", "10", "--", VALUE]}, ("argv", 3), "timeout would run this value"),
        ({"argv": ["sudo", "-u", "ops", "ssh", "host", "--", VALUE]}, ("argv", 6), "ssh passes this value to a shell"),
        ({"argv": ["ssh", "host", "notify", "--", "x", VALUE]}, ("argv", 5), "ssh passes this value to a shell"),
        ({"argv": ["cat"], "cwd": "here"}, ("cwd",), "must be an absolute path"),
        ({"argv": ["cat"], "cwd": "/srv/{{ payload.x }}"}, ("cwd",), "a template can't be used here"),
        ({"argv": ["cat"], "env": {"A=B": "c"}}, ("env", "A=B", "[key]"), "must contain neither `=` nor a NUL"),
        ({"argv": ["cat"], "env": {"A": VALUE}}, ("env", "A"), "write a template after `--`"),
        ({"argv": ["cat"], "env": {"A": "b\0"}}, ("env", "A"), "must not contain a NUL character"),
    ],
)
def test_what_is_refused(values, place, said):
    with pytest.raises(ValidationError) as raised:
        validate("command", values)
    (error,) = raised.value.errors()
    assert (error["loc"], said in error["msg"]) == (place, True), error


@pytest.mark.parametrize(
    "argv",
    [
        ["cat"],
        ["notify", "--level=high", "--", VALUE, f"user {VALUE}"],
        ["sh", "-c", 'echo "$1"', "--", VALUE],
        ["env", "A=b", "sh", "/srv/notify.sh", "--", VALUE],
        ["grep", "-c", "--", VALUE],
        ["sudo", "-u", "www-data", "/usr/bin/notify", "--", VALUE],
        ["python3", "-m", "shop.notify", "--", VALUE],
        ["sh", "-c", "a=1; cat", "--", VALUE],
        ["sh", "-c", "--", "cat"],
        ["ssh", "host", "--", "cat"],
    ],
)
def test_what_is_allowed(argv):
    assert validate("command", {"argv": argv}).argv == argv


def test_its_defaults():
    kind = sink_type("command")
    assert (kind.queue, kind.concurrency, kind.local, kind.runs_programs) == ("redis", 4, False, True)
    assert [kind.name for kind in (sink_type("log"), sink_type("webhook")) if kind.runs_programs] == []


def test_what_is_missing_on_this_machine(tmp_path):
    plain = tmp_path / "a plain file"
    plain.touch()

    def warned(program, **more):
        return [(each.option, each.message) for each in validate("command", {"argv": [program], **more}).check_warnings]

    assert warned("sh") == []
    assert warned(script(tmp_path, "exit 0")) == []
    assert warned("program", env={"PATH": str(tmp_path)}) == []
    assert warned("sh", env={"PATH": str(tmp_path)}) == [
        ("argv", "there is no program sh in PATH that this user may run: write its absolute path")
    ]
    assert warned(f"{tmp_path}/none") == [("argv", f"there is no program {tmp_path}/none")]
    assert warned(str(tmp_path)) == [("argv", f"{tmp_path} is not a program, because it is not a file")]
    assert warned(str(plain)) == [("argv", f"this user has no permission to run {plain}: run `chmod +x '{plain}'`")]
    subprocess.run(f"chmod +x '{plain}'", shell=True, check=True)
    assert warned(str(plain)) == []
    assert warned("sh", cwd="/no/where") == [("cwd", "there is no folder /no/where that this user can see")]


def test_the_environment_is_path_and_what_is_given(monkeypatch):
    monkeypatch.setenv("PATH", "/a")
    monkeypatch.setenv("SECRET", "x")
    assert validate("command", {"argv": ["cat"], "env": {"LANG": "C"}}).environment == {"PATH": "/a", "LANG": "C"}
    assert validate("command", {"argv": ["cat"], "env": {"PATH": "/b"}}).environment == {"PATH": "/b"}
    monkeypatch.delenv("PATH")
    assert validate("command", {"argv": ["cat"]}).environment == {"PATH": os.defpath}


def written(tmp_path, **more):
    sink = {"type": "command", "argv": ["sh", "-c", 'touch ran; echo "$1"', "--", VALUE], "cwd": str(tmp_path)}
    document = {
        "version": 1,
        "allow_commands": True,
        "sources": {"web": {"type": "pubsub", "channels": ["orders"]}},
        "sinks": {"run": {**sink, "env": {"TOKEN": "${TOKEN}"}}},
        "routes": [{"id": "r", "sinks": ["run"]}],
        **more,
    }
    (tmp_path / "config.yaml").write_text(json.dumps(document))
    return tmp_path / "config.yaml"


async def test_what_would_be_run_is_shown_and_not_run(tmp_path):
    loaded = load(written(tmp_path), environ={"TOKEN": "the-SECRET-token"})
    payload = json.dumps({"user": "O'Hara the-SECRET-token"}).encode()
    (delivery,) = Simulator(loaded).simulate(Message(b"orders", payload, 1_770_000_000.0)).deliveries
    line = """sh -c 'touch ran; echo "$1"' -- 'O'"'"'Hara ***'"""
    assert (delivery.previews, delivery.text) == (True, line)
    assert delivery.rendered["env"] == {"TOKEN": "***"}
    lines = []

    async def show(shown):
        lines.append(shown)

    event = make_event({"user": "a\nb"}, sink="run")
    rendered = loaded.templates["run", None].render(event, 1_770_000_000.0)
    assert await DeliveryMode("run", "command", [], show).part(event, rendered, mail=False) == ([], [])
    assert lines == ["notification → notify → run (command): sh -c 'touch ran; echo \"$1\"' -- 'a b'"]
    assert not (tmp_path / "ran").exists()


def test_check_needs_no_credentials(tmp_path):
    loaded = load(written(tmp_path), environ={}, placeholders=True)
    assert [problem.severity for problem in loaded.problems if problem.path == "sinks.run.env.TOKEN"] == ["note"]


async def test_a_route_has_a_program_and_an_environment_of_its_own(tmp_path):
    own = {"sink": "run", "argv": ["sh", "-c", 'echo "$A"'], "env": {"A": "of the route"}}
    loaded = load(written(tmp_path, routes=[{"id": "r", "sinks": [own]}]), environ={"TOKEN": "x" * 9})
    rendered = loaded.templates["run", "r"].render(make_event({}), 1_770_000_000.0).options
    async with open_sink("command", {"argv": ["true"]}) as opened:
        assert await opened.sink.deliver(make_event({}), rendered) == "of the route"


def test_it_is_off_unless_the_main_file_allows_it(tmp_path):
    def problems(**more):
        with pytest.raises(ConfigError) as raised:
            load(written(tmp_path, **more), environ={"TOKEN": "x" * 9})
        return [(problem.path, problem.message) for problem in raised.value.problems]

    for refused in (False, None):
        (path, message), *others = problems(allow_commands=refused)[::-1]
        assert path == "sinks.run.type"
        assert message.endswith(f"write `allow_commands: true` at the top level of {tmp_path}/config.yaml to allow it")
        assert len(others) == (refused is None)
    (tmp_path / "more.yaml").write_text("allow_commands: true")
    main = {"include": "more.yaml", "allow_commands": False}
    assert (
        "allow_commands",
        f"an included file can't set `allow_commands`; set it in {tmp_path}/config.yaml",
    ) in problems(**main)
