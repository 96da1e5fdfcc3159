"""`explain` as a process: what it prints for people and programs, each kind of "no", and its exit codes."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from unicodedata import normalize

import pytest
from click.testing import CliRunner

from router.cli.first_steps import explanation
from router.cli.main import cli
from router.core.conditions.lookalikes import HINT
from router.core.conditions.route_checks import Step
from router.ops.loading import load
from router.ops.simulation import Message, Simulator
from tests.support.process import ROOT, run

CONFIG = """\
version: 1
redis: {url: "${REDIS_URL:-redis://127.0.0.1:1}"}
sources:
  web-app: {type: pubsub, channels: [notification, "orders.*"]}
  jobs: {type: list, keys: [jobs]}
  shop: {type: stream, streams: [shop], format: cloudevents}
schemas:
  - {channels: [notification], file: schemas/notification.schema.json}
sinks:
  audit: {type: log, path: audit.jsonl}
  user-mail: {type: email, host: localhost, from: shop@example.org, to: "{{ payload.email | default('') }}", password: "${SMTP_PASSWORD}",
              username: shop, subject: "For {{ payload.user_id }}", text: "{{ payload.message }}", only_if: "payload.wants != false"}
  ops-chat: {type: chat, service: slack, url: "${SLACK_URL}", text: "{{ payload.message }}"}
routes:
  - {id: everything, sinks: [audit]}
  - {id: urgent, channels: [notification], match: {severity: [high, critical], order.total: {gt: 100}, user_id: {gte: 1}}, sinks: [ops-chat, audit]}
  - {id: people, when: "payload.user_id > 0", sinks: [user-mail], final: true}
  - {id: after, sinks: [{sink: ops-chat, text: other}]}
  - {id: off, sinks: [ops-chat], enabled: false}
  - {id: jobs-only, sources: [jobs], channels: [jobs], sinks: [ops-chat]}
deliver: {only: ["*@example.org"], others: print}
"""
ORDER = {"user_id": 42, "message": "hello", "email": "jane@example.org", "severity": "high", "order": {"total": 99.5}}

GOLDEN = """\
event     channel notification, source web-app
decode    yes: 110 bytes of JSON
schema    yes: it fits schemas/notification.schema.json (enforce)
routes
  yes everything  it takes every event
  no  urgent      3 of 4 conditions held; order.total was 99.5; needed: > 100
  yes people      its condition held
  no  after       the route people above took the event, and is final
  no  off         0 of 2 conditions held; the route is disabled (enabled: false)
  no  jobs-only   0 of 3 conditions held; the source was web-app; needed: jobs
deliveries
  yes audit (log) by everything: would be sent
        path: audit.jsonl
  yes user-mail (email) by people to jane@example.org: would be sent
        host: localhost
        username: shop
        password: ***
        from: shop@example.org
        text: hello
        subject: For 42
        separate: true
outcome   routed: 2 of 2 deliveries would be made
"""


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(ROOT / "schemas", tmp_path / "schemas")
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path


def explained(folder, payload, *arguments, channel="notification", code=0, **more):
    written = payload if isinstance(payload, str) else json.dumps(payload)
    done = run("explain", "--channel", channel, *arguments, "--", written, cwd=folder, **more)
    assert done.code == code, done
    return done


def as_json(folder, payload, *arguments, **more):
    return json.loads(explained(folder, payload, "--json", *arguments, **more).out)


def test_what_becomes_of_an_event_in_words(folder):
    done = explained(folder, ORDER)
    assert done.out == GOLDEN
    assert done.err == ""
    assert max(map(len, done.out.splitlines())) <= 80
    assert not (folder / "audit.jsonl").exists()


def test_a_text_that_looks_the_same_is_explained(tmp_path):
    (tmp_path / "config.yaml").write_text(
        "version: 1\nsources: {web: {type: pubsub, channels: [notification, 'caf*']}}\n"
        "sinks: {audit: {type: log, path: audit.jsonl}}\nroutes:\n"
        "  - {id: name, match: {name: José}, sinks: [audit]}\n"
        "  - {id: channel, channels: [café], sinks: [audit]}\n"
    )
    channel, name = (normalize("NFD", text) for text in ("café", "José"))
    words = [
        "explain",
        "-c",
        str(tmp_path / "config.yaml"),
        "--channel",
        channel,
        json.dumps({"name": name}, ensure_ascii=False),
    ]
    lines = " ".join(CliRunner().invoke(cli, words).stdout.split())
    assert f'name was "{name}"; needed: == "José"; {HINT}' in lines
    assert f"the channel was {channel}; needed: café; {HINT}" in lines
    hints = [
        route["why"][0]["hint"] for route in json.loads(CliRunner().invoke(cli, [*words, "--json"]).stdout)["routes"]
    ]
    assert hints == [HINT, HINT]


def test_colours_stand_around_the_words_that_decide(folder):
    plain = explained(folder, ORDER).out
    coloured = explained(folder, ORDER, env={"FORCE_COLOR": "1"}).out
    assert "\x1b[32m\x1b[1m  yes\x1b[0m everything" in coloured
    assert explained(folder, ORDER, env={"FORCE_COLOR": "1", "NO_COLOR": "1"}).out == plain


def test_the_json_is_that_of_the_contract(folder):
    found = as_json(folder, ORDER)
    assert list(found) == ["event", "schema", "routes", "deliveries", "outcome"]
    event = found["event"]
    assert list(event) == ["id", "source", "channel", "pattern", "received_at", "headers", "payload"]
    assert (event["source"], event["channel"], event["pattern"], event["payload"]) == (
        "web-app", "notification", None, ORDER,
    )  # fmt: skip
    assert found["schema"] == {
        "file": "schemas/notification.schema.json",
        "mode": "enforce",
        "valid": True,
        "errors": [],
    }
    assert [(route["id"], route["matched"]) for route in found["routes"]] == [
        ("everything", True), ("urgent", False), ("people", True), ("after", False), ("off", False), ("jobs-only", False),
    ]  # fmt: skip
    assert found["routes"][1]["why"] == [
        {"clause": "channel is notification", "held": True, "saw": "notification"},
        {"clause": 'severity is one of "high", "critical"', "held": True, "saw": '"high"'},
        {"clause": "order.total > 100", "held": False, "saw": "99.5"},
        {"clause": "user_id >= 1", "held": True, "saw": "42"},
    ]
    assert found["routes"][2]["why"] == [{"clause": "when: payload.user_id > 0", "held": True, "saw": "user_id was 42"}]
    assert found["deliveries"] == [
        {
            "route": "everything",
            "sink": "audit",
            "to": [],
            "suppressed": None,
            "rendered": {"path": "audit.jsonl"},
            "merged": [],
        },
        {
            "route": "people",
            "sink": "user-mail",
            "to": ["jane@example.org"],
            "suppressed": None,
            "rendered": {
                "host": "localhost",
                "username": "shop",
                "password": "***",
                "from": "shop@example.org",
                "to": ["jane@example.org"],
                "subject": "For 42",
                "text": "hello",
                "separate": True,
            },
            "merged": [],
        },
    ]
    assert found["outcome"] == "routed"


def test_a_schema_error_has_its_pointer_keyword_and_message(folder):
    found = as_json(folder, {"user_id": "x", "message": "m"}, code=1)
    assert found["outcome"] == "rejected"
    assert found["schema"]["valid"] is False
    assert found["schema"]["errors"] == [
        {"pointer": "/user_id", "keyword": "type", "message": '"x" is not of type "integer"'}
    ]
    assert found["routes"] == found["deliveries"] == []


def test_what_can_not_be_read_is_an_error_of_the_reason(folder):
    found = as_json(folder, "{user_id: 1}", code=1)
    (error,) = found["schema"]["errors"]
    assert (error["pointer"], error["keyword"]) == ("", "decode")
    assert "a key must be in double quotes" in error["message"]
    assert found["event"]["payload"] == "{user_id: 1}"


def test_one_message_once_names_the_other_routes(folder):
    found = as_json(folder, {**ORDER, "order": {"total": 101}})
    assert [(each["sink"], each["merged"]) for each in found["deliveries"]] == [
        ("audit", ["urgent"]), ("ops-chat", []), ("user-mail", []),
    ]  # fmt: skip
    assert (
        "audit (log) by everything (also for urgent): would be sent"
        in explained(folder, {**ORDER, "order": {"total": 101}}).out
    )


@pytest.mark.parametrize(
    ("payload", "reason", "part"),
    [
        ({**ORDER, "email": ""}, "no_address", "suppressed (no_address), no address in `to`"),
        ({**ORDER, "wants": False}, "only_if", "suppressed (only_if), only_if is false: payload.wants != false"),
        ({**ORDER, "email": "nobody"}, "address", "dead letter (address), to: "),
    ],
)
def test_a_delivery_that_is_not_made_says_why(folder, payload, reason, part):
    (delivery,) = [each for each in as_json(folder, payload)["deliveries"] if each["sink"] == "user-mail"]
    assert delivery["suppressed"] == reason
    assert delivery["rendered"] is None
    assert delivery["detail"]
    assert part in " ".join(explained(folder, payload).out.split())


def test_the_exit_code_says_whether_anything_would_be_delivered(folder):
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("  - {id: everything, sinks: [audit]}\n", ""))
    nobody = explained(folder, {**ORDER, "wants": False}, "--fails", code=1)
    assert nobody.out.endswith("\noutcome   routed: 0 of 1 delivery would be made\n")
    explained(folder, {"message": "m", "user_id": 1}, code=1)
    explained(folder, {**ORDER, "email": "jane@elsewhere.org"}, code=0)  # it is printed
    done = explained(folder, {"user_id": 0}, channel="orders.new", code=0)
    assert "yes ops-chat (chat) by after: would be printed and not sent (deliver: only)" in " ".join(done.out.split())


def test_the_nearest_route_is_named_where_none_takes_the_event(folder):
    text = (folder / "config.yaml").read_text()
    kept = [line for line in text.splitlines() if "id: everything" not in line and "id: after" not in line]
    for unmatched, told in (
        ("drop", "the event is dropped and counted"),
        ("dead-letter", "the event becomes a dead letter with the reason unmatched"),
    ):
        (folder / "config.yaml").write_text("\n".join([*kept, f"unmatched: {unmatched}", ""]))
        done = explained(folder, {"user_id": 0, "n": 1}, channel="orders.new", code=1)
        assert "nearest   people: when: payload.user_id > 0; user_id was 0\n" in done.out
        assert done.out.endswith(f"outcome   unmatched: {told}\n")


def test_only_what_said_no(folder):
    done = explained(folder, {**ORDER, "wants": False}, "--fails")
    assert done.out == (
        "match     urgent: 3 of 4 conditions held; order.total was 99.5; needed: > 100\n"
        "final     after: the route people above took the event, and is final\n"
        "enabled   off: 0 of 2 conditions held; the route is disabled (enabled: false)\n"
        "source    jobs-only: 0 of 3 conditions held; the source was web-app; needed:\n"
        "          jobs\n"
        "only_if   user-mail by people: suppressed (only_if), only_if is false:\n"
        "          payload.wants != false\n"
    )
    found = as_json(folder, {**ORDER, "wants": False}, "--fails")
    assert [route["id"] for route in found["routes"]] == ["urgent", "after", "off", "jobs-only"]
    assert [[clause["held"] for clause in route["why"]] for route in found["routes"][:2]] == [[False], [False]]
    assert [each["sink"] for each in found["deliveries"]] == ["user-mail"]


def test_where_nothing_said_no_that_is_said(folder):
    text = (folder / "config.yaml").read_text()
    kept = [line for line in text.splitlines() if "- {id: " not in line or "id: everything" in line]
    (folder / "config.yaml").write_text("\n".join([*kept, ""]))
    done = explained(folder, ORDER, "--fails")
    assert (done.out, done.err) == ("", "no step failed\n")


def test_every_step_that_can_say_no_is_on_the_page():
    page = (ROOT / "docs" / "explain.md").read_text()
    table = page[page.index("| step |") :].split("\n\n")[0]
    assert [line.split("`")[1] for line in table.splitlines()[2:]] == [str(step) for step in Step]


def test_the_page_shows_what_the_command_prints(tmp_path):
    page = (ROOT / "docs" / "explain.md").read_text()
    (tmp_path / "config.yaml").write_text(re.search(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[1])
    shown = re.findall(r"^```console\n\$ event-router (.*?)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(shown) == 3
    for command, output in shown:
        done = run(*shlex.split(command), cwd=tmp_path)
        assert (done.code, done.err) == (0, "")
        assert done.out == output if output else done.out.startswith("  - name: ")


def test_a_channel_that_nobody_reads(folder):
    done = explained(folder, ORDER, channel="notifikation", code=1)
    assert "no source reads the channel 'notifikation' (did you mean `notification`?)" in " ".join(done.out.split())
    assert as_json(folder, ORDER, channel="notifikation", code=1)["outcome"] == "unread"
    done = explained(folder, ORDER, "--source", "jobs", code=1)
    assert "the source jobs does not read the channel 'notification'" in done.out


def test_the_payload_from_stdin_loses_its_last_newline_alone(folder):
    found = json.loads(run("explain", "--json", "--channel", "jobs", "-", cwd=folder, stdin='{"user_id":\n 1}\n').out)
    assert found["event"]["payload"] == {"user_id": 1}
    assert (found["event"]["source"], found["event"]["channel"]) == ("jobs", "jobs")


def test_an_envelope_gives_its_headers_and_its_id(folder):
    envelope = {"specversion": "1.0", "id": "7", "source": "/shop", "type": "sold", "data": ORDER}
    found = as_json(folder, envelope, channel="shop")
    assert found["event"]["id"] == "/shop#7"
    assert found["event"]["headers"]["type"] == "sold"
    assert found["event"]["payload"] == ORDER
    assert "event     channel shop, source shop, id /shop#7\n" in explained(folder, envelope, channel="shop").out


def test_integers_of_any_size_and_strange_text_are_shown_as_they_are(folder):
    number = "9" * 400
    found = as_json(folder, f'{{"user_id": {number}, "message": "\\u001b[31m red"}}')
    assert found["event"]["payload"]["user_id"] == int(number)
    done = explained(folder, '{"user_id": 1, "email": "a@example.org", "message": "\\u001b[31m red\\u202e\\nnext"}')
    assert "\x1b" not in done.out
    assert "\u202e" not in done.out
    assert "text: \\u001b[31m red\\u202e\n              next\n" in done.out


@pytest.mark.parametrize(
    "payload",
    [
        "[" * 900 + "]" * 900,
        "[" * 100_000,
        '{"user_id": 1, "message": "' + "x" * 100_000 + '"}',
        "",
        "null",
        '"' + "\\ud800" * 3 + '"',
        '{"a": 1, "a": 2}',
        "1e999",
    ],
)
def test_a_hostile_payload_harms_nobody(folder, payload):
    for how in ((), ("--json",), ("--fails",)):
        arguments = ["explain", "-c", str(folder / "config.yaml"), "--channel", "orders.x", *how, "-"]
        done = CliRunner().invoke(cli, arguments, input=payload, standalone_mode=False)
        assert done.exception is None, done.exception
        assert done.return_value in {0, 1}
        if how == ("--json",):
            json.loads(done.stdout)


def test_bytes_that_are_no_text_are_escaped(folder):
    done = run(
        "explain", "--json", "--channel", "orders.x", b"\xff\xfe{".decode("utf-8", "surrogateescape"), cwd=folder
    )
    assert done.code == 1
    assert json.loads(done.out)["event"]["payload"] == "\\xff\\xfe{"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Give --channel CHANNEL and PAYLOAD (`-` reads stdin), or --dlq ID."),
        (["{}"], "Give --channel CHANNEL and PAYLOAD (`-` reads stdin), or --dlq ID."),
        (["--channel", "notification"], "Give --channel CHANNEL and PAYLOAD (`-` reads stdin), or --dlq ID."),
        (["--dlq", "x", "{}"], "leave out PAYLOAD, --channel and --source"),
        (["--dlq", "x", "--source", "jobs"], "leave out PAYLOAD, --channel and --source"),
        (["--channel", "jobs", "{}", "--source", "job"], 'unknown source "job"'),
        (["--channel", "jobs", "{}", "--as-test", "--json"], "--as-test prints YAML"),
        (["--channel", "jobs", "{}", "--as-test", "--fails"], "--as-test prints YAML"),
    ],
)
def test_a_wrong_command_line_is_2(folder, arguments, said):
    done = run("explain", *arguments, cwd=folder)
    assert (done.code, done.out) == (2, "")
    assert said in " ".join(done.err.split())


def test_a_configuration_that_can_not_work_is_78(folder):
    (folder / "config.yaml").write_text(CONFIG.replace("sinks: [audit]", "sinks: [audti]"))
    done = run("explain", "--channel", "jobs", "{}", cwd=folder)
    assert (done.code, done.out) == (78, "")
    assert "audti" in done.err


def test_a_secret_that_is_set_stands_nowhere(folder):
    text = (folder / "config.yaml").read_text().replace('subject: "For', 'subject: "${SMTP_PASSWORD} For')
    (folder / "config.yaml").write_text(text)
    for how in ((), ("--json",), ("--fails",), ("--as-test",)):
        done = explained(folder, ORDER, *how, env={"SMTP_PASSWORD": "correct-horse-battery"})
        assert "correct-horse-battery" not in done.out + done.err


def test_what_is_printed_as_a_test_passes(folder):
    payloads = [
        {**ORDER, "message": "${HOME} $$ {{ x }}"},
        {"user_id": "x"},
        {**ORDER, "email": "nobody"},
        "{bad",
        '"text"',
    ]
    entries = []
    for payload in payloads:
        written = payload if isinstance(payload, str) else json.dumps(payload)
        arguments = [
            "explain",
            "-c",
            str(folder / "config.yaml"),
            "--as-test",
            "--channel",
            "notification",
            "--",
            written,
        ]
        entries.append(CliRunner().invoke(cli, arguments, standalone_mode=False).stdout)
    (folder / "config.yaml").write_text(f"{CONFIG}tests:\n{''.join(entries)}")
    done = run("test", "config.yaml", cwd=folder)
    assert done.code == 0, done
    assert "5 passed" in done.out


def test_a_number_in_an_option_that_the_encoder_does_not_take_is_written_out():
    assert explanation.encodable({"a": [2**70, True, "x"]})["a"][1:] == [True, "x"]
    assert bytes(explanation.encodable(2**70)) == str(2**70).encode()


def test_the_lines_of_a_long_text_are_counted(folder):
    loaded = load(folder / "config.yaml", environ={}, placeholders=True)
    text = "\n".join(map(str, range(100)))
    message = Message(b"orders.x", json.dumps({**ORDER, "message": text}).encode(), 0.0)
    assert Simulator(loaded).simulate(message).deliveries[1].text == text
    done = explained(folder, {**ORDER, "message": text})
    assert "… 70 more lines (--json has all)" in done.out
