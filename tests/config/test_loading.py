"""Expressions, env files, placeholders, includes, plugins, warnings: what no single faulty file shows."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from router.errors import ConfigError
from router.ops.loading import load

HERE = Path(__file__).parent
BASE = """\
version: 1
plugins: {paths: [PLUGINS]}
sources:
  web-app: {type: pubsub, channels: [notification]}
sinks:
  audit: {type: log, path: audit.jsonl}
  page:
    type: pager
    to: "42"
    text: hello
    SINK
routes:
  - {id: notify, sinks: [audit, page]}
"""


@pytest.fixture
def write(tmp_path):
    def write(sink="", more="", name="config.yaml"):
        text = BASE.replace("PLUGINS", str(HERE / "plugins")).replace("SINK", sink) + more
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def problems_of(file, **arguments):
    with pytest.raises(ConfigError) as raised:
        load(file, **{"environ": {}, **arguments})
    return [problem.headline() for problem in raised.value.problems]


def page(file, **arguments):
    return load(file, **{"environ": {}, **arguments}).config.sinks["page"]


@pytest.mark.parametrize(
    ("written", "environ", "value"),
    [
        ("${A}", {"A": "x"}, "x"),
        ("${A}", {"A": ""}, ""),
        ("${A:-y}", {"A": "x"}, "x"),
        ("${A:-y}", {"A": ""}, "y"),
        ("${A:-y}", {}, "y"),
        ("${A:-}", {}, ""),
        ("${A:?say}", {"A": "x"}, "x"),
        ("<${A} ${B}>", {"A": "x", "B": "y"}, "<x y>"),
        ("${A:-${B:-z}}", {}, "z"),
        ("${A:-${B}}", {"B": "b"}, "b"),
        ("${A:-{{ payload }}}", {}, "{{ payload }}"),
        ("$$", {}, "$"),
        ("$${A}", {"A": "x"}, "${A}"),
        ("$$${A}", {"A": "x"}, "$x"),
        ("$A costs $5 $", {"A": "x"}, "$A costs $5 $"),
        ("${A}", {"A": "a: b # c\n- d"}, "a: b # c\n- d"),
        ("${A}", {"A": "$${B} ${B}"}, "$${B} ${B}"),
    ],
)
def test_expressions(write, written, environ, value):
    file = write(f"subject: '{written}'".replace("'{{", "'{{"))
    assert page(file, environ=environ).options.subject == value


def test_a_value_never_adds_structure(write):
    options = page(write('headers: {X: "${A}"}'), environ={"A": "1}\n  evil: {type: log"}).options
    assert options.headers == {"X": "1}\n  evil: {type: log"}


@pytest.mark.parametrize(
    ("key", "given", "value"),
    [
        ("level", "7", 7),
        ("level", "0o7", 7),
        ("urgent", "true", True),
        ("urgent", "False", False),
        ("factor", "2", 2),
        ("factor", "0.25", 0.25),
        ("subject", "7", "7"),
        ("subject", "true", "true"),
        ("tags", "5", "5"),
        ("service", "nightly", "nightly"),
    ],
)
def test_an_expanded_scalar_is_read_by_the_type_of_its_field(write, key, given, value):
    got = getattr(page(write(f'{key}: "${{A}}"'), environ={"A": given}).options, key)
    assert got == value
    assert type(got) is type(value) or isinstance(value, int)


def test_an_expanded_scalar_that_does_not_fit_is_told_without_its_value(write):
    [problem] = problems_of(write('level: "${A}"'), environ={"A": "hunter2"})
    assert "sinks.page.level: must be a whole number, not the value of ${A}" in problem
    assert "hunter2" not in problem


def test_files_and_credentials(write, tmp_path):
    (tmp_path / "secret").write_text("from a file\n")
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "creds").mkdir()
    (tmp_path / "creds" / "page").write_text("from a credential\r\n")
    file = write('token: "${file:secret}"\n    url: "${cred:page}"\n    subject: "${file:secret}!"')
    loaded = load(file, environ={"CREDENTIALS_DIRECTORY": str(tmp_path / "creds")})
    options = loaded.config.sinks["page"].options
    assert options.token.get_secret_value() == "from a file"
    assert options.url.get_secret_value() == "from a credential"
    assert options.subject == "from a file!"
    assert loaded.secrets == {"from a file", "from a credential"}
    assert [problem for problem in loaded.problems if problem.severity == "warning"] == []


def test_a_secret_that_every_user_can_read_is_a_warning(write, tmp_path):
    (tmp_path / "secret").write_text("x" * 10)
    (tmp_path / "secret").chmod(0o644)
    loaded = load(write('token: "${file:secret}"'), environ={})
    assert [problem.headline() for problem in loaded.problems if problem.severity == "warning"] == [
        f"{tmp_path / 'config.yaml'}:11:12: sinks.page.token: every user can read secret: run `chmod o-r {tmp_path / 'secret'}` [warning]"
    ]


def test_a_short_secret_is_a_warning(write, tmp_path):
    warned = "a secret of fewer than 8 characters is hidden in the output only if it is a whole word there; use a longer secret"
    for value, expected in (("1234567", 1), ("12345678", 0)):
        loaded = load(write('token: "${TOKEN}"'), environ={"TOKEN": value})
        said = [problem.headline() for problem in loaded.problems if warned in problem.message]
        assert len(said) == expected
        assert not any(value in line for line in said)
        assert value in loaded.secrets


def test_env_file(write, tmp_path):
    env = tmp_path / "env"
    env.write_text(
        "# a comment\n\nexport A=one\nB = no\n".replace("B = no\n", "")
        + 'B="two \\"words\\"\\n" # comment\nC=\'$A #3\'\nD=four # comment\nE=\nF=x=y#z\n'
    )
    file = write("""subject: '${A}|${B}|${C}|${D}|${E}|${F}'""")
    loaded = load(file, environ={"A": "the process wins"}, env_file=env)
    subject = loaded.config.sinks["page"].options.subject
    assert subject == 'the process wins|two "words"\n|$A #3|four||x=y#z'
    assert env in loaded.files


def test_bad_lines_of_an_env_file_are_named(write, tmp_path):
    env = tmp_path / "env"
    env.write_text("A=1\nnonsense\nB='open\n2C=3\n")
    problems = problems_of(write(), env_file=env)
    assert problems == [
        f"{env}:2:1: a line of an env file must be KEY=VALUE",
        f"{env}:3:3: the quote is not closed, or text follows the closing quote",
        f"{env}:4:1: a line of an env file must be KEY=VALUE",
    ]
    [problem] = problems_of(write(), env_file=tmp_path / "none")
    assert "can't read the env file: there is no such file" in problem


PLACEHELD = """\
token: "${PAGER_TOKEN}"
    url: "${PAGER_URL:?where}"
    http: {proxy: "${PROXY}"}"""


def test_what_of_a_webhook_is_a_secret_by_itself(write, tmp_path):
    sink = "  hook: {type: chat, service: discord, url: '${HOOK}', text: hi}\n"
    file = write()
    file.write_text(file.read_text().replace("sinks:\n", f"sinks:\n{sink}"))
    loaded = load(file, environ={"HOOK": "https://discord.example/api/webhooks/12345/abcdefghijklmnopq?wait=true"})
    assert loaded.secrets == {
        "https://discord.example/api/webhooks/12345/abcdefghijklmnopq?wait=true",
        "/api/webhooks/12345/abcdefghijklmnopq?wait=true",
        "/api/webhooks/12345/abcdefghijklmnopq",
        "abcdefghijklmnopq",
    }


def test_placeholders_stand_for_secrets_and_urls(write):
    file = write(PLACEHELD, 'redis: {url: "redis://:${PW}@cache:${PORT}/0"}\n')
    assert len(problems_of(file)) == 5
    loaded = load(file, environ={}, placeholders=True)
    options = loaded.config.sinks["page"].options
    assert options.token.get_secret_value() == "placeholder"
    assert options.url.get_secret_value() == "https://placeholder.invalid/"
    assert loaded.config.redis.url == "redis://placeholder.invalid:6379/0"
    assert loaded.secrets == frozenset()
    notes = [problem.headline() for problem in loaded.problems if "placeholder" in problem.message]
    assert len(notes) == 5
    assert any("sinks.page.token: PAGER_TOKEN is not set" in note and note.endswith("[note]") for note in notes)


def test_placeholders_stand_nowhere_else(write):
    problem, note = problems_of(write('subject: "${SUBJECT}"\n    token: "${T}"'), placeholders=True)
    assert note.endswith("a placeholder is used instead [note]")
    assert "sinks.page.subject: SUBJECT is not set" in problem


def test_every_problem_is_told_at_once(write):
    file = write(
        'level: high\n    urgent: no\n    pth: x\n    subject: "{{ payload.x | uper }}"\n    text: {{ payload }}',
        "timezone: Nowhere\nunmatched: [adit]\nskins: {}\ndeliver: prnt\n",
    )
    problems = problems_of(file)
    places = [problem.split(": ")[1] for problem in problems]
    assert places == [
        "sinks.page.level",
        "sinks.page.urgent",
        "sinks.page.pth",
        "sinks.page.text",
        "sinks.page.text",
        "timezone",
        "unmatched[0]",
        "skins",
        "deliver",
    ]


def test_warnings(write, tmp_path):
    (tmp_path / "schema.json").write_text("{}")
    file = write(
        "",
        "include: none.d/*.yaml\n"
        "schemas:\n  - {channels: [notification, x], file: schema.json}\n  - {channels: [other], file: schema.json}\n",
    )
    text = file.read_text().replace("sinks: [audit, page]", "sources: [web-app], sinks: [audit]")
    text = text.replace("sinks:\n  audit", "  idle: {type: pubsub, patterns: ['idle.*']}\nsinks:\n  audit")
    text = text.replace("sinks: [audit]", "channels: [“notification”], sinks: [audit]")
    file.write_text(text)
    warnings = [problem.headline() for problem in load(file, environ={}).problems if problem.severity == "warning"]
    unread = (
        'none of this route\'s sources reads a channel that "“notification”" matches; the channels that are read: notification '
        "(did you mean `notification`?)"
    )
    assert [warning.removeprefix(f"{file}:") for warning in warnings] == [
        "4:3: sources.web-app: no route takes the events of this source; add a route for these events [warning]",
        "5:3: sources.idle: no route takes the events of this source; add a route for these events [warning]",
        "8:3: sinks.page: no route uses this sink, so it gets no deliveries [warning]",
        "14:49: routes[0].channels[0]: the quotes “ and ” are a part of the text, because YAML knows only the quotes \" and '; write \" or ' instead [warning]",
        f"14:49: routes[0].channels[0]: {unread} [warning]",
        '15:10: include: no file matches "none.d/*.yaml" [warning]',
        '17:31: schemas[0].channels[1]: no source reads a channel that "x" matches; the channels that are read: notification, idle.* [warning]',
        "18:5: schemas[1]: no source reads a channel of this schema; the channels that are read: notification, idle.* [warning]",
    ]


def test_a_broken_plugin_that_is_not_used_is_a_warning(write, tmp_path):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "fax.py").write_text("raise RuntimeError('no paper')\n")
    loaded = load(write(), environ={})
    [warning] = [problem.message for problem in loaded.problems if problem.severity == "warning"]
    assert warning == (
        f"the plugin fax ({tmp_path / 'plugins' / 'fax.py'}) could not be loaded: RuntimeError: no paper (line 1)"
    )


def test_plugins_beside_the_configuration_are_loaded(write, tmp_path):
    (tmp_path / "plugins").mkdir()
    text = (HERE / "plugins" / "pager.py").read_text()
    (tmp_path / "plugins" / "pager.py").write_text(text)
    file = write()
    file.write_text(file.read_text().replace(f"plugins: {{paths: [{HERE / 'plugins'}]}}\n", ""))
    assert load(file, environ={}).types["page"].name == "pager"


def test_where_is_written(write, tmp_path):
    file = write()
    assert load(file, environ={}).write_base == tmp_path
    assert load(file, environ={"LOGS_DIRECTORY": "/var/log/a:/var/log/b"}).write_base == Path("/var/log/a")


def test_an_unused_default_may_leave_out_what_the_sink_must_say(write):
    loaded = load(write("", "defaults: {email: {subject: News}, pager: {level: 3}}\n"), environ={})
    assert loaded.config.sinks["page"].options.level == 3


def test_a_fault_in_defaults_is_told_once_where_it_stands(write):
    file = write("", "  - {id: again, sinks: [more]}\ndefaults: {pager: {level: high}, all: {timeout: 5}}\n")
    text = file.read_text().replace("routes:", "  more: {type: pager, to: a, text: b}\nroutes:")
    file.write_text(text)
    assert [problem.removeprefix(f"{file}:") for problem in problems_of(file)] == [
        '16:27: defaults.pager.level: must be a whole number, not the string "high"',
        "16:49: defaults.all.timeout: 5 is not a duration; write a number with its unit, such as 500ms, 30s, 5m, 24h or 7d",
    ]


def test_template_files(write, tmp_path):
    (tmp_path / "mail").mkdir()
    (tmp_path / "mail" / "order.txt").write_text("Order {% include 'end.txt' %}")
    (tmp_path / "mail" / "end.txt").write_text("{{ payload.id }}")
    file = write("subject: {file: mail/order.txt}")
    loaded = load(file, environ={})
    assert loaded.config.sinks["page"].options.subject == "Order {% include 'end.txt' %}"
    assert {tmp_path / "mail" / "order.txt", tmp_path / "mail" / "end.txt"} <= loaded.files
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "mail" / "end.txt").unlink()
    (tmp_path / "mail" / "end.txt").symlink_to(tmp_path / "secret.txt")
    [problem] = problems_of(file)
    assert "11:21: sinks.page.subject.file: mail/order.txt:1: end.txt: the file is outside the folder" in problem


def test_a_schema_link_out_of_the_folder_is_refused(write, tmp_path):
    (tmp_path / "schemas").mkdir()
    (tmp_path / "outside.json").write_text("{}")
    (tmp_path / "schemas" / "link.json").symlink_to(tmp_path / "outside.json")
    (tmp_path / "schemas" / "a.json").write_text(json.dumps({"$ref": "link.json"}))
    [problem] = problems_of(write("", "schemas: [{channels: [notification], file: schemas/a.json}]\n"))
    assert "the file is outside the folder of the schema" in problem


def test_a_schema_may_have_an_id_and_refer_to_its_folder(write, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"$id": "https://shop.example/s/a.json", "$ref": "b.json"}))
    (tmp_path / "b.json").write_text(json.dumps({"$id": "https://shop.example/s/b.json", "type": "integer"}))
    [entry] = load(write("", "schemas: [{channels: [notification], file: a.json}]\n"), environ={}).schemas
    assert entry.schema.is_valid(5)
    assert not entry.schema.is_valid("5")


def test_nothing_is_read_twice_and_the_file_itself_is_not_included(write, tmp_path):
    (tmp_path / "b.yaml").write_text("routes:\n  - {id: b, sinks: [audit]}\n")
    file = write("", "include: ['*.yaml', b.yaml]\n")
    assert [route.id for route in load(file, environ={}).config.routes] == ["notify", "b"]


@pytest.mark.parametrize("path", ["none.yaml", "."])
def test_a_file_that_can_not_be_read(tmp_path, path):
    [problem] = problems_of(tmp_path / path)
    assert problem.startswith("can't read ")


def test_a_large_file_is_refused(tmp_path):
    (tmp_path / "config.yaml").write_bytes(b"#" * (4 * 1024**2 + 1))
    [problem] = problems_of(tmp_path / "config.yaml")
    assert "larger than 4 MiB" in problem


def test_loading_imports_little():
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from router.ops.loading import load\n"
        "load(Path('config.example.yaml'), environ={}, placeholders=True)\n"
        "print(*sorted({'redis', 'aiohttp', 'jsonschema', 'structlog', 'rich'} & set(sys.modules)))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=HERE.parent.parent
    )
    assert run.stdout.split() == []


HOLDS_UP = """\
version: 1
sources:
  web: {{type: {source}}}
sinks:
  audit: {{type: log, path: audit.jsonl{queue}}}
  mail: {{type: email, host: h, from: a@x.org, to: b@x.org, subject: s, text: t}}
routes:
  - {{id: all, sinks: [audit]}}
  - {{id: mails, channels: [{channel}], sinks: [mail]}}
{more}
"""


@pytest.mark.parametrize(
    ("source", "channel", "queue", "more", "noted"),
    [
        ("stream, streams: [a]", "a", "", "", "1000"),
        ("list, keys: [a]", '"a*"', "", "", "100"),
        ("stream, streams: [a], max_in_flight: 7", "a", "", "", "7"),
        ("stream, streams: [a]", "a", ", queue: redis", "", None),
        ("stream, streams: [a, b]", "b", "", "", "1000"),
        ("stream, streams: [a]", "other", "", "", None),
        ("pubsub, channels: [a]", "a", "", "", None),
        ("stream, streams: [a]", "a", "", "deliver: print", None),
    ],
)
def test_a_queue_in_memory_that_holds_up_others_is_noted(tmp_path, *, source, channel, queue, more, noted):
    file = tmp_path / "config.yaml"
    file.write_text(HOLDS_UP.format(source=source, channel=channel, queue=queue, more=more))
    notes = [
        each.headline()
        for each in load(file, environ={}).problems
        if "the queue of this sink is in memory" in each.message
    ]
    if noted is None:
        assert notes == []
    else:
        (note,) = notes
        assert "sinks.audit" in note
        assert f"the router reads only {noted} entries of web" in note
        assert "mail gets no new events" in note
        assert note.endswith("[note]")
