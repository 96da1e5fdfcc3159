"""The webhook sink in the real daemon: queue, retries, dead letters and batches, and what the commands show of it."""

import json

import pytest

from router.engine.delivery.delivery_mode import DeliveryMode
from router.errors import ConfigError
from router.ops.loading import load
from router.ops.simulation import Message, Simulator
from tests.support.daemon import daemon
from tests.support.http import Reply, stand_in
from tests.support.process import run
from tests.support.sinks import make_event
from tests.support.webhooks import WHSEC

SOURCES = {"web-app": {"type": "pubsub", "channels": ["orders"]}}


async def test_events_reach_endpoints_by_the_durable_queue(redis_server, tmp_path):
    """One daemon for all: a signed post that is retried, a refusal, a batch around a refused event."""
    asked = []

    def rule(seen):
        if seen.path == "/signed" and seen.json["n"] == 1 and asked.append(1) is None and len(asked) == 1:
            return Reply(503, headers={"Retry-After": "1"})
        if seen.path == "/refuses":
            return Reply(200, json={"ok": False, "error": f"no {seen.json['n']} with T0P-SECRET"})
        if seen.path == "/batch" and any(item["n"] == 2 for item in seen.json):
            return Reply(422, body=b"bad 2")
        return Reply(202, json={"id": "m-1"})

    async with stand_in() as server:
        server.rule = rule

        def hook(path, **options):
            at = {"type": "webhook", "url": f"{server.url}/{path}", "allow_private": True}
            return {**at, "json": {"n": "{{ payload.n }}"}, **options}

        sinks = {
            "signed": hook("signed", signing_secret=WHSEC, concurrency=1),
            "refuses": hook("refuses", success="answer.ok", auth={"bearer": "T0P-SECRET"}),
            "batch": hook("batch", batch_as="array", batch={"max_wait": "1s", "max_events": 3}, concurrency=1),
        }
        routes = [{"id": "all", "sinks": list(sinks)}]
        config = {"sources": SOURCES, "sinks": sinks, "routes": routes}
        arguments = ("--log-level", "debug", "--log-format", "json")
        async with daemon(redis_server, tmp_path / "d", config, arguments=arguments) as router:
            router.publish("orders", {"n": 1}, {"n": 2}, {"n": 3})

            def settled():
                taken = sum(seen.path == "/signed" for seen in server.requests)
                return taken == 4 and len(router.letters()) == 4

            await router.until(settled)
            letters = router.letters()
            assert await router.stop() == 0
            log = router.process.err
    by_sink = {}
    for letter in letters:
        by_sink.setdefault(letter["sink"], []).append((letter["reason"], letter["detail"]))
    assert by_sink.keys() == {"refuses", "batch"}
    assert by_sink["batch"] == [("permanent", "HTTP 422: bad 2")]
    assert len(by_sink["refuses"]) == 3
    for reason, detail in by_sink["refuses"]:
        assert reason == "permanent"
        assert "with *** " in detail.replace('"', " ")
        assert detail.endswith("(`success` is false)")
    signed = [(seen.json["n"], seen.headers["webhook-id"]) for seen in server.requests if seen.path == "/signed"]
    assert sorted(n for n, _ in signed) == [1, 1, 2, 3]
    assert len(set(signed)) == 3  # the retry had the same id
    assert '"answer":"HTTP 202, id m-1"' in log
    assert "T0P-SECRET" not in log
    assert WHSEC.removeprefix("whsec_") not in log


HOOK = {
    "type": "webhook",
    "url": "${HOOK_URL}",
    "headers": {"X-Api-Key": "${API_KEY}", "X-User": "{{ payload.user }}"},
    "json": {"user": "{{ payload.user }}", "text": "{{ payload.text }}"},
    "auth": {"bearer": "${TOKEN}"},
}
ENVIRON = {
    "HOOK_URL": "https://hooks.example.org/services/T0/B0/abcSECRETdefSECRETghi",
    "API_KEY": "key-SECRET-key",
    "TOKEN": "token-SECRET-token",
}


@pytest.fixture
def loaded(tmp_path):
    def load_with(environ=None, *, routes=None, **more):
        document = {
            "version": 1,
            "sources": SOURCES,
            "sinks": {"hook": {**HOOK, **more}},
            "routes": routes or [{"id": "r", "sinks": ["hook"]}],
        }
        (tmp_path / "config.yaml").write_text(json.dumps(document))
        return load(tmp_path / "config.yaml", environ=environ or {}, placeholders=environ is None)

    return load_with


def simulated(loaded, payload):
    (delivery,) = (
        Simulator(loaded).simulate(Message(b"orders", json.dumps(payload).encode(), 1_770_000_000.0)).deliveries
    )
    return delivery


def test_the_body_is_shown_and_no_secret(loaded):
    payload = {"user": 42, "text": f'"{ENVIRON["API_KEY"]}" {ENVIRON["TOKEN"]}'}
    delivery = simulated(loaded(ENVIRON), payload)
    assert delivery.previews
    assert json.loads(delivery.text) == {"user": 42, "text": '"***" ***'}
    assert delivery.rendered == {
        "url": "https://hooks.example.org***",
        "headers": {"X-Api-Key": "***", "X-User": "42"},
        "json": {"user": 42, "text": '"***" ***'},
        "auth": {"bearer": "***"},
    }


def test_the_headers_of_a_route_hide_their_secrets_too(loaded):
    routes = [{"id": "r", "sinks": [{"sink": "hook", "headers": {"Authorization": "Bearer ${OTHER}"}}]}]
    found = loaded({**ENVIRON, "OTHER": "other-SECRET"}, routes=routes, auth=None)
    delivery = simulated(found, {"user": 1, "text": "it is other-SECRET"})
    assert delivery.rendered["headers"] == {"Authorization": "***"}
    assert "SECRET" not in delivery.text


def test_a_command_that_needs_no_secrets_takes_placeholders(loaded):
    body = {**HOOK["json"], "key": "${cred:on-call}"}
    more = {"signing_secret": "${WHSEC}", "client_certificate": {"certificate": "${PEM}"}, "json": body}
    delivery = simulated(loaded(**more), {"user": 1, "text": "hi"})
    assert json.loads(delivery.text) == {"user": 1, "text": "hi", "key": "placeholder"}
    assert delivery.rendered["headers"]["X-Api-Key"] == "placeholder"
    with pytest.raises(ConfigError) as caught:
        loaded({}, **more)  # the daemon needs them
    assert len(caught.value.problems) == 6


async def test_print_shows_the_body_without_secrets(loaded):
    lines = []

    async def show(line):
        lines.append(line)

    event = make_event({"user": 1, "text": "a\nSECRET"}, sink="hook")
    rendered = loaded(ENVIRON).templates["hook", None].render(event, 1_770_000_000.0)
    mode = DeliveryMode("hook", "webhook", [], show, lambda text: text.replace("SECRET", "***"))
    assert await mode.part(event, rendered, mail=False) == ([], [])
    assert lines == ['notification → notify → hook (webhook): {"user":1,"text":"a\\n***"}']


def test_test_and_explain_show_the_body(tmp_path):
    config = {
        "version": 1,
        "sources": SOURCES,
        "sinks": {
            "hook": {**HOOK, "url": "https://hooks.example.org/", "headers": {}, "auth": {"bearer": "in-clear-SECRET"}}
        },
        "routes": [{"id": "r", "sinks": ["hook"]}],
        "deliver": "print",
        "tests": [
            {
                "name": "the body",
                "event": {"channel": "orders", "payload": {"user": 42, "text": "hi"}},
                "expect": {"sinks": ["hook"], "text": {"hook": '{"user":42,"text":"hi"}'}},
            }
        ],
    }
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    done = run("test", "config.yaml", cwd=tmp_path)
    assert done.code == 0, done.out + done.err
    shown = run("explain", "-c", "config.yaml", "--channel", "orders", '{"user": 1, "text": "x"}', cwd=tmp_path)
    assert 'sends: {"user":1,"text":"x"}' in shown.out
    told = run(
        "explain", "-c", "config.yaml", "--channel", "orders", "--json", '{"user": 1, "text": "x"}', cwd=tmp_path
    )
    assert json.loads(told.out)["deliveries"][0]["sends"] == '{"user":1,"text":"x"}'
    assert "SECRET" not in shown.out + told.out


@pytest.mark.parametrize(
    ("option", "value", "path", "says"),
    [
        ("json", {"a": [1, "{{ payload.x | nope }}"]}, "sinks.hook.json.a[1]", "there is no filter `nope`"),
        (
            "success",
            "answer.ok and payload.x",
            "sinks.hook.success",
            "there is no `payload`; an expression can use answer,",
        ),
        (
            "headers",
            {"Content-Length": "1"},
            "sinks.hook.headers",
            "the HTTP client sets the header Content-Length itself, so it can't be given here",
        ),
        ("url", "http://10.0.0.1/{{ payload.x }}", "sinks.hook", "`url` leads to 10.0.0.1, a private address"),
        ("cloudevents", {"type": "{{ x }}"}, "sinks.hook.cloudevents.type", "there is no `x`"),
    ],
)
def test_check_names_the_place_of_a_fault(loaded, option, value, path, says):
    more = {"json": None} if option != "json" else {}
    with pytest.raises(ConfigError) as caught:
        loaded(ENVIRON, **{**more, option: value})
    (problem,) = caught.value.problems
    assert problem.path == path
    assert says in problem.message
