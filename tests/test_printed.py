"""What is printed and not sent is told as that, wherever somebody may look, and nothing is said to be kept."""

import asyncio
import json
import re
import urllib.request

import pytest

from tests.support.daemon import daemon
from tests.support.http import Reply, stand_in
from tests.support.process import run
from tests.support.redis import free_port
from tests.support.waiting import PATIENCE

SOURCES = {"web-app": {"type": "pubsub", "channels": ["notification"]}}
SCHEMAS = [{"channels": ["notification"], "file": "notification.json"}]
ONLY = {"only": ["4?"], "others": "print"}


def setup(bot, port, **keys):
    chat = {"type": "chat", "service": "telegram", "token": "123:abc", "api": bot.url, "allow_private": True}
    chat |= {"to": "{{ payload.user_id }}", "text": "{{ payload.message }}"}
    sinks = {"chat": chat, "audit": {"type": "log", "path": "audit.jsonl"}}
    routes = [{"id": "notify", "sinks": list(sinks)}]
    admin = {"listen": f"127.0.0.1:{port}"}
    return {"sources": SOURCES, "schemas": SCHEMAS, "sinks": sinks, "routes": routes, "admin": admin, **keys}


@pytest.mark.parametrize(
    ("started", "counts", "told"),
    [
        (
            (("--deliver", "print"), {}),
            (0, 5),
            ("print", "deliver: print: deliveries are printed on stdout and not sent"),
        ),
        (((), {"deliver": "print"}), (0, 5), ("print", "dead letters are shown and not kept")),
        (
            ((), {"deliver": ONLY}),
            (2, 3),
            ("only 4?, others are printed", "deliver.only: only deliveries to 4? are sent"),
        ),
        (((), {}), (5, 0), (None, None)),
    ],
)
async def test_what_is_printed_is_told_everywhere(redis_server, tmp_path, started, counts, told):
    (arguments, keys), (delivered, printed), (deliver, warning) = started, counts, told
    port = free_port()

    def asked(path):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as answer:
            return answer.read().decode()

    def book():
        return json.loads(asked("/api/status"))["books"]["sinks"]["chat"]

    async with stand_in() as bot:
        bot.default = Reply(body=b'{"ok": true}')
        async with daemon(redis_server, tmp_path, setup(bot, port, **keys), arguments=arguments) as router:
            users = (42, 43, 54, 55, 56)
            router.publish("notification", *[{"user_id": user, "message": "hi"} for user in users])
            await asyncio.to_thread(router.process.wait_for, '"event":"ready"')
            await router.until(lambda: book()["delivered"] + book()["printed"] == 5)
            assert (book()["delivered"], book()["printed"], book()["balanced"]) == (delivered, printed, True)
            if not printed:
                await router.until(lambda: 'outcome="delivered",reason="",sink="chat"} 5.0' in asked("/metrics"))
            assert f'{{outcome="printed",reason="",sink="chat"}} {printed}.0' in asked("/metrics")
            warnings = json.loads(asked("/readyz"))["warnings"]
            assert any(warning in each for each in warnings) if warning else not any("deliver" in w for w in warnings)
            drawn = run("status", "-c", tmp_path / "config.yaml", cwd=tmp_path).out
            assert re.search(
                rf"^chat +ok +0 +{delivered} +{f'{printed} +' if printed else ''}0 +0 +0 +0$", drawn, re.MULTILINE
            )
            assert (warning in drawn) if warning else "print" not in drawn
            await router.stop()
        assert len(bot.requests) == delivered
    ready = json.loads(re.search(r'^\{.*"event":"ready".*\}$', router.process.err, re.MULTILINE)[0])
    assert ready.get("deliver") == deliver
    message = next(each for each in router.process.notify.messages if each.startswith("READY=1"))
    assert ("printed" in message) is bool(deliver)
    assert (router.closing()["delivered"], router.closing()["printed"]) == (delivered + 5, printed)


async def test_a_dead_letter_that_is_shown_is_not_said_to_be_kept(redis_server, tmp_path):
    async with stand_in() as bot, daemon(redis_server, tmp_path, setup(bot, free_port(), deliver="print")) as router:
        router.publish("notification", {"user_id": "42"}, b"{", {"user_id": 42})
        await router.until(lambda: router.process.out.count("\n") == 3)
        await router.stop()
    assert router.letters() == []
    shown = "notification → dead letter"
    missing = '/message required: "message" is a required property'
    wrong = '/user_id type: "42" is not of type "integer"'
    assert router.process.out.splitlines() == [
        f"{shown} (schema), not kept: {missing}; {wrong}",
        f"{shown} (decode), not kept: not JSON: the JSON ends too early, at line 1, column 2",
        f"{shown} (schema), not kept: {missing}",
    ]
    assert "rejected" not in re.sub(r'\{[^{}]*"event":"stopped".*', "", router.process.err), "once is enough"


async def test_a_delivery_that_can_not_be_rendered_is_shown_once(redis_server, tmp_path):
    async with stand_in() as bot:
        config = setup(bot, free_port(), deliver="print")
        config["sinks"]["chat"]["text"] = "{{ payload.missing }}"
        async with daemon(redis_server, tmp_path, config) as router:
            router.publish("notification", {"user_id": 42, "message": "hi"})
            await router.until(lambda: router.process.out.count("\n") == 1)
            await router.stop()
    assert router.process.out.startswith("notification → notify → chat → dead letter (template), not kept: ")
    assert "given up" not in router.process.err
