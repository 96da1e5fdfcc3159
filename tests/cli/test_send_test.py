"""`send-test`: a marked message to one sink of every kind, the answer of the other side, and what it never does."""

from __future__ import annotations

import asyncio
import json
import textwrap
from types import SimpleNamespace

import pytest
import yaml
from click.testing import CliRunner

from router.cli.main import cli
from router.cli.write.trial_event import MESSAGE, event_of, place_of
from router.errors import ConfigError, Exit, UnavailableError
from router.ops.loading import load
from tests.support.browsers import Browser, options
from tests.support.http import Reply, stand_in
from tests.support.process import run
from tests.support.smtp import smtp_server

PASSWORD = "smtp-p4ssword"
TOKEN = "Bearer-T0K3N-secret"
MAIL = {"type": "email", "host": "127.0.0.1", "tls": "none", "from": "shop@example.org"}


def configured(folder, sinks, **sections):
    """The file of a configuration with these sinks, which a route takes from the channel `notification`."""
    document = {
        "version": 1,
        "redis": {"url": "redis://127.0.0.1:1"},
        "sources": {"web-app": {"type": "pubsub", "channels": ["notification"]}},
        "sinks": sinks,
        "routes": [{"id": "all", "sinks": list(sinks)}],
        **sections,
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    path.chmod(0o600)
    return path


async def sent(folder, *arguments, stdin=None):
    """What the command gives, run in a thread of this process: servers of the test answer meanwhile."""
    words = ["send-test", *map(str, arguments), "-c", str(folder / "config.yaml")]
    done = await asyncio.to_thread(CliRunner().invoke, cli, words, input=stdin, standalone_mode=False)
    return SimpleNamespace(code=done.return_value, out=done.output, error=done.exception)


async def document(folder, *arguments, code=0, stdin=None):
    """The JSON of a call that ends with this code."""
    done = await sent(folder, *arguments, "--json", stdin=stdin)
    assert done.error is None, done.error
    assert done.code == code, done.out
    return json.loads(done.out)


# --- mail -------------------------------------------------------------------------------------------------------------


async def test_a_mail_is_marked_and_sent_to_the_given_recipient_alone(tmp_path):
    (tmp_path / "users.json").write_text('{"42": {"name": "Jane", "email": "jane@example.org"}}')
    html = "<!doctype html><body class=a><p>{{ payload.message }}</p></body>"
    async with smtp_server(password=PASSWORD) as box:
        mail = {**MAIL, "port": box.port, "password": PASSWORD, "to": "{{ user.email }}", "bcc": "{{ payload.boss }}"}
        texts = {"subject": "News for {{ user.name }}", "text": "{{ payload.message }}", "html": html}
        more = {
            "lookups": {"user": {"type": "file", "path": "users.json", "key": "{{ payload.user_id }}"}},
            "deliver": "print",
        }
        configured(tmp_path, {"user-mail": {**mail, **texts, "only_if": "payload.urgent"}}, **more)

        refused = await sent(tmp_path, "user-mail")
        assert "--to ADDRESS" in str(refused.error)
        assert box.taken == [], "a sample must not write to a person"

        found = await document(tmp_path, "user-mail", "--to", "Me <me@example.net>")
        (taken,) = box.taken
        assert taken.recipients == ["me@example.net"]
        assert taken.message["Subject"] == "[test] News for Jane"
        assert taken.message["Message-ID"].startswith("<send-test-")
        assert taken.text().strip() == f"[test] {MESSAGE}"
        assert taken.text("html").strip() == f"<!doctype html><body class=a>[test] <p>{MESSAGE}</p></body>"
        assert (found["delivered"], found["answer"], found["failure"]) == (True, "250 OK: queued", None)
        assert found["to"] == ["Me <me@example.net>"]
        assert (found["rendered"]["subject"], found["rendered"]["password"]) == ("[test] News for Jane", "***")
        assert 0 < found["seconds"] < 10

        # The recipient of a given event is a person, who may have opted out.
        payload = '{"user_id": 42, "message": "hi", "boss": "", "urgent": false}'
        opted_out = await document(tmp_path, "user-mail", "--payload", "-", stdin=payload, code=1)
        assert opted_out["failure"]["class"] == "only_if"
        assert len(box.taken) == 1
        reached = await document(tmp_path, "user-mail", "--payload", "-", stdin=payload.replace("false", "true"))
        assert (reached["to"], box.taken[1].recipients) == (["jane@example.org"], ["jane@example.org"])

        unknown = await sent(tmp_path, "user-mail", "--payload", "-", "--to", "a@b.example", stdin='{"user_id": 7}')
        assert unknown.code == Exit.FINDINGS
        assert "not sent (lookup): lookup user: there is no record with the key '7'" in unknown.out


async def test_deliver_only_decides_who_may_get_the_message(tmp_path):
    async with smtp_server() as box:
        team = {
            **MAIL,
            "port": box.port,
            "to": ["ops@example.org", "boss@example.com"],
            "text": "{{ payload.message }}",
        }
        sinks = {"team": team, "hook": {"type": "webhook", "url": "http://127.0.0.1:1/x", "allow_private": True}}
        configured(tmp_path, sinks, deliver={"only": ["*@example.org"], "others": "print"})
        found = await document(tmp_path, "team")
        assert (found["to"], found["excluded"]) == (["ops@example.org"], ["boss@example.com"])
        assert box.reached == ["ops@example.org"]
        for arguments in (["team", "--to", "boss@example.com"], ["hook"]):
            refused = await document(tmp_path, *arguments, code=1)
            assert (refused["failure"]["class"], refused["seconds"]) == ("only", None)
            assert "*@example.org" in refused["failure"]["text"]
        assert box.reached == ["ops@example.org"]


async def test_a_refusal_of_the_mail_server_has_its_class_and_words(tmp_path):
    async with smtp_server(password=PASSWORD) as box:
        team = {**MAIL, "port": box.port, "password": PASSWORD, "to": ["a@example.org", "b@example.org"]}
        configured(tmp_path, {"team": team})
        box.recipients = {"b@example.org": ["550 5.1.1 no such user"]}
        found = await document(tmp_path, "team", code=1)
        assert found["failure"]["class"] == "partial"
        assert list(found["failure"]["addresses"]) == ["b@example.org"]
        assert found["failure"]["addresses"]["b@example.org"]["class"] == "permanent"
        assert box.reached == ["a@example.org"]
        for refusing, told in (
            ("b", "the other recipients have received"),
            ("ab", "no recipient has received the message"),
        ):
            box.recipients = {f"{name}@example.org": ["550 5.1.1 no such user"] for name in refusing}
            assert told in (await sent(tmp_path, "team")).out
        before = box.commands.count("MAIL shop@example.org")

        box.mail.append("451 4.7.1 come again in 5 minutes")
        shown = await sent(tmp_path, "team")
        assert shown.code == Exit.FINDINGS
        assert "failed (transient)" in shown.out
        assert "the service asks the router to wait 300 s" in shown.out
        assert box.commands.count("MAIL shop@example.org") == before + 1, "one attempt is made, and no more"

        box.password = "another"
        wrong = await document(tmp_path, "team", code=1)
        assert wrong["failure"]["class"] == "sink"
        assert "535" in wrong["failure"]["text"]
        assert PASSWORD not in json.dumps(wrong)


# --- HTTP -------------------------------------------------------------------------------------------------------------


async def test_webhooks_and_chats_get_a_marked_message(tmp_path):
    async with stand_in() as server:
        server.script(Reply(201, json={"id": 17}), Reply(body=b"ok"), Reply(503, body=f"down, {TOKEN}".encode()))
        common = {"allow_private": True}
        hook = {"type": "webhook", "url": f"{server.url}/events", "auth": {"bearer": TOKEN}, **common}
        user = {**hook, "url": f"{server.url}/users/{{{{ payload.user_id }}}}"}
        own = {**hook, "json": {"text": "{{ payload.message }}", "order": "{{ payload.order.id }}"}}
        text = "*News* {{ payload.message }}"
        slack = {"type": "chat", "service": "slack", "url": f"{server.url}/s3cr3t-path", "text": text, **common}
        configured(tmp_path, {"hook": hook, "own": own, "user": user, "ops-chat": {**slack, "markup": "native"}})

        found = await document(tmp_path, "hook")
        assert found["answer"] == "HTTP 201, id 17"
        body = server.last.json
        assert (body["source"], body["route"], body["payload"]["test"]) == ("send-test", "send-test", True)
        assert body["id"].startswith("send-test-")
        assert body["channel"] == found["event"]["channel"] == "notification"

        found = await document(tmp_path, "ops-chat")
        assert server.last.json == {"text": f"[test] *News* {MESSAGE}"}
        assert found["answer"] == "HTTP 200"
        assert "s3cr3t-path" not in json.dumps(found)

        failed = await document(tmp_path, "hook", code=1)
        assert failed["failure"]["class"] == "transient"
        assert "down, ***" in failed["failure"]["text"]

        shown = await sent(tmp_path, "own")
        assert shown.code == Exit.FINDINGS
        assert "not sent (template): json.order: payload.order is missing" in shown.out
        assert "--payload FILE" in shown.out
        file = tmp_path / "order.json"
        file.write_text('{"message": "hi", "order": {"id": 7}}\n')
        await document(tmp_path, "own", "--payload", file)
        assert server.last.json == {"text": "hi", "order": 7}, "data is not marked"
        assert len(server.requests) == 4

        for arguments, why in (
            (["hook", "--to", "me@example.org"], "the sink hook (webhook) has no recipient"),
            (["user"], "the sink user takes its recipient from the event (option `url`)"),
            (["hok"], "did you mean `hook`?"),
            (["hook", "--payload", tmp_path / "none.json"], "none.json: No such file"),
            (["hook", "--payload", "-"], "not JSON"),
        ):
            assert why in str((await sent(tmp_path, *arguments, stdin="{'a': 1}")).error)


# --- Redis ------------------------------------------------------------------------------------------------------------


async def test_redis_gets_the_entry_and_nothing_else(tmp_path, redis_server):
    sinks = {
        "inbox": {"type": "redis", "xadd": "inbox"},
        "live": {"type": "redis", "publish": "live:{{ payload.user_id }}"},
    }
    configured(tmp_path, sinks, redis={"url": redis_server.url}, deliver="print")
    found = await document(tmp_path, "inbox")
    with redis_server.client() as client:
        [(entry, fields)] = client.xrange("inbox")
        assert found["answer"] == entry.decode()
        assert json.loads(fields[b"payload"])["test"] is True
        assert fields[b"key"].startswith(b"send-test-")
        assert "(option `publish`)" in str((await sent(tmp_path, "live")).error), "a sample must not choose a user"
        live = await document(tmp_path, "live", "--payload", "-", stdin='{"user_id": 7}')
        assert live["answer"] == "0 subscribers"
        assert client.keys() == [b"inbox"], "there is no queue, no book and no dead letter"

    configured(tmp_path, sinks, redis={"url": "embedded"})
    assert isinstance((await sent(tmp_path, "inbox")).error, UnavailableError)
    chat = {"type": "chat", "service": "telegram", "token": TOKEN, "to": "7", "text": "hi"}
    configured(tmp_path, {"team": {**chat, "thread": "{{ payload.user_id }}"}}, redis={"url": "embedded"})
    error = (await sent(tmp_path, "team")).error
    assert isinstance(error, UnavailableError), "the sink is not at fault"
    assert str(error).startswith("the sink team uses the router's Redis, but the embedded server is not running: start")


# --- plugins ----------------------------------------------------------------------------------------------------------

PLUGIN = """
from router.api import Addresses, GoneError, Secret, SinkOptions, Text, hookimpl


class Options(SinkOptions):
    lines: list[Text] = []
    to: Addresses = Addresses()
    key: Secret = Secret("k3y-of-the-plugin")


async def aside(event, options, context):
    if context.redis is not None:
        return f"{event.route} {options.lines} {options.to} {options.key.get_secret_value()}"


def thread(event, options):
    if event.payload.get("gone"):
        raise GoneError("HTTP 410")
    if event.payload.get("odd"):
        return chr(0xD800)
    if event.payload.get("fail"):
        raise ValueError(f"no {options.key.get_secret_value()}{chr(0xD800)}")
    return f"thread {options.lines[0]}"


def process(event, options):
    return f"process {options.lines[0]}"


class Several:
    def __init__(self, options):
        self.said = []

    async def open(self, context):
        self.said.append("opened")

    async def deliver_batch(self, batch):
        [(_, options)] = batch
        return [" ".join([*self.said, *options.lines])]


@hookimpl
def register_sinks(register):
    register("aside", aside, options=Options)
    register("thread", thread, options=Options)
    register("process", process, options=Options, execution="process")
    register("several", Several, options=Options)
"""


async def test_plugins_of_every_kind(tmp_path):
    (tmp_path / "plugins").mkdir(mode=0o755)
    (tmp_path / "plugins" / "kinds.py").write_text(textwrap.dedent(PLUGIN))
    (tmp_path / "plugins" / "kinds.py").chmod(0o644)
    lines = {"lines": ["{{ payload.message }}", "fixed"]}
    sinks = {name: {"type": name, **lines, "timeout": "20s"} for name in ("aside", "thread", "process", "several")}
    sinks["aside"]["to"] = ["{{ payload.user_id }}", "boss"]
    configured(tmp_path, sinks)

    marked = f"[test] {MESSAGE}"
    aside = await document(tmp_path, "aside", "--to", "7, 8")
    assert aside["answer"] == f"send-test ['{marked}', '[test] fixed'] ['7', '8'] ***"
    for nobody in ("", " , "):
        assert "this text contains no recipient" in str((await sent(tmp_path, "aside", "--to", nobody)).error)
    assert (await document(tmp_path, "thread"))["answer"] == f"thread {marked}"
    odd = await document(tmp_path, "thread", "--payload", "-", stdin='{"message": "", "odd": 1}')
    assert odd["answer"] == "\\ud800"
    assert (await document(tmp_path, "process"))["answer"] == f"process {marked}"
    assert (await document(tmp_path, "several"))["answer"] == f"opened {marked} [test] fixed"

    gone = await document(tmp_path, "thread", "--payload", "-", stdin='{"message": "", "gone": 1}', code=1)
    assert gone["failure"] == {"class": "gone", "text": "HTTP 410", "retry_after": None}
    failed = await document(tmp_path, "thread", "--payload", "-", stdin='{"message": "", "fail": 1}', code=1)
    place = (
        PLUGIN.strip()
        .splitlines()
        .index('        raise ValueError(f"no {options.key.get_secret_value()}{chr(0xD800)}")')
        + 2
    )
    assert failed["failure"]["class"] == "transient"
    assert failed["failure"]["text"] == f"ValueError: no ***\\ud800 (plugins/kinds.py, line {place})"
    assert failed["rendered"]["lines"] == ["", "[test] fixed"], "an empty text stays empty"


async def test_titles_are_marked_as_texts_are(tmp_path):
    title = {"title": "News for {{ payload.user_id }}"}
    async with stand_in() as server:
        url = f"json://{server.url.partition('://')[2]}/"
        browser = Browser(server.url).subscription
        configured(
            tmp_path,
            {
                "target": {"type": "apprise", "urls": url, "body": "{{ payload.message }}", **title},
                "browsers": options(type="webpush", text="{{ payload.message }}", **title),
            },
        )
        await document(tmp_path, "target")
        payload = json.dumps({"user_id": 42, "message": MESSAGE, "browsers": [browser]})
        pushed = await document(tmp_path, "browsers", "--payload", "-", stdin=payload, code=1)
        assert (server.last.json["title"], server.last.json["message"]) == ("[test] News for 42", f"[test] {MESSAGE}")
    assert (pushed["rendered"]["title"], pushed["rendered"]["text"]) == ("[test] News for 42", f"[test] {MESSAGE}")


# --- the event, and the command itself --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, {"order": 42, "message": MESSAGE, "user_id": 42, "test": True}),
        ({"additionalProperties": False}, {"order": 42, "message": MESSAGE}),
        ({"properties": {"message": {"maxLength": 5}}}, {"order": 42, "message": "hello", "user_id": 42, "test": True}),
    ],
)
def test_the_sample_fits_the_schema_of_a_channel_that_leads_to_the_sink(tmp_path, more, expected):
    fields = {
        "order": {"type": "integer"},
        "message": {"type": "string", **more.pop("properties", {}).get("message", {})},
    }
    schema = {"type": "object", "properties": fields, "required": ["order", "message"], **more}
    (tmp_path / "order.schema.json").write_text(json.dumps(schema))
    path = configured(
        tmp_path,
        {"audit": {"type": "log", "path": "a"}, "other": {"type": "log", "path": "b"}},
        sources={
            "web-app": {"type": "pubsub", "channels": ["notification", "orders.*"]},
            "shell": {"type": "pubsub", "channels": ["command"], "format": "text"},
        },
        schemas=[{"channels": ["orders.*"], "file": "order.schema.json"}],
        routes=[
            {"id": "orders", "channels": ["orders.*"], "sinks": ["audit"]},
            {"id": "commands", "sources": ["shell"], "sinks": ["other"]},
        ],
    )
    loaded = load(path, environ={})
    place = place_of(loaded, "audit", None)
    event = event_of(loaded, "audit", place, None, 0.0)
    assert (event.channel, event.pattern, event.payload) == ("orders.test", "orders.*", expected)
    text = event_of(loaded, "other", place_of(loaded, "other", None), None, 0.0)
    assert (text.channel, text.payload) == ("command", MESSAGE)
    chosen = event_of(loaded, "audit", place_of(loaded, "audit", "elsewhere"), None, 0.0)
    assert (chosen.channel, chosen.pattern, chosen.payload["message"]) == ("elsewhere", None, MESSAGE)


async def test_a_configuration_that_cannot_work_sends_nothing(tmp_path):
    configured(tmp_path, {"hook": {"type": "webhook", "url": "https://h.example", "auth": {"bearer": "${NO_SUCH}"}}})
    assert isinstance((await sent(tmp_path, "hook")).error, ConfigError)


STUBBORN = """
import asyncio
import threading

from router.api import hookimpl


async def stubborn(event, options):
    threading.Thread(target=threading.Event().wait).start()
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass


@hookimpl
def register_sinks(register):
    register("stubborn", stubborn)
"""


def test_the_command_as_a_process(tmp_path):
    (tmp_path / "plugins").mkdir(mode=0o755)
    (tmp_path / "plugins" / "stubborn.py").write_text(STUBBORN)
    (tmp_path / "plugins" / "stubborn.py").chmod(0o644)
    sinks = {"audit": {"type": "log", "path": "audit.jsonl"}, "slow": {"type": "stubborn", "timeout": "100ms"}}
    configured(tmp_path, sinks)
    done = run("send-test", "audit", "--payload", "-", cwd=tmp_path, stdin='{"message": "hi \u202e"}\n')
    assert (done.code, done.err) == (0, "")
    (line,) = (tmp_path / "audit.jsonl").read_text().splitlines()
    assert json.loads(line)["route"] == "send-test"
    assert "\u202e" not in done.out
    assert f"answer    written to {tmp_path}/audit.jsonl" in " ".join(done.out.split("\n          "))
    assert done.out.splitlines()[0] == "sink      audit (log)"
    assert "outcome   delivered in 0." in done.out
    found = sorted(each.name for each in tmp_path.iterdir())
    assert found == ["audit.jsonl", "config.yaml", "plugins"], "no state is kept"

    # A plugin that ignores its timeout, and leaves a thread behind, does not hold up the command.
    done = run("send-test", "slow", "--json", cwd=tmp_path)
    assert done.code == Exit.FINDINGS
    assert json.loads(done.out)["failure"]["text"] == "timed out after 0.1 s"
    assert "the plugin ignored its timeout" in done.err
    assert "threads of plugins still run" in done.err
