"""The real daemon at debug: what became of each event and each delivery, and no secret in it."""

import json

import pytest

from tests.support.daemon import daemon
from tests.support.http import Reply, stand_in

SECRET = "8123456789:AAE-fictitious-token"
SOURCES = {"web-app": {"type": "pubsub", "channels": ["notification", "other"]}}
SCHEMAS = [{"channels": ["notification"], "file": "notification.json"}]


def setup(bot):
    chat = {"type": "chat", "service": "telegram", "token": SECRET, "api": bot.url, "allow_private": True}
    chat |= {"to": "{{ payload.user_id }}", "text": "{{ payload.message }}"}
    full = {**chat, "to": "1", "timeout": "1h", "concurrency": 1, "queue": {"type": "redis", "max_events": 1}}
    sinks = {"chat": chat, "full": full}
    routes = [{"id": "notify", "channels": ["notification"], "sinks": list(sinks)}]
    return {"sources": SOURCES, "schemas": SCHEMAS, "sinks": sinks, "routes": routes, "shutdown": {"drain": "0s"}}


@pytest.mark.parametrize("level", ["debug", "info"])
async def test_why_did_user_42_not_get_it(redis_server, tmp_path, level):
    async with stand_in() as bot:
        bot.rule = lambda seen: Reply(how="hang") if str(seen.json["chat_id"]) == "1" else None
        arguments = ("--log-level", level)
        async with daemon(redis_server, tmp_path, setup(bot), arguments=arguments) as router:
            payloads = [{"user_id": 41 + number, "message": f"hi {SECRET}"} for number in range(2)]
            router.publish("notification", *payloads, {"user_id": 0})
            router.publish("other", {"user_id": 42})
            await router.until(lambda: {str(seen.json["chat_id"]) for seen in bot.requests} == {"1", "41", "42"})
            await router.until(lambda: router.process.err.count("event not routed") >= 2 or level == "info")
            await router.until(lambda: router.process.err.count('"sink":"chat"') >= 2 or level == "info")
            await router.stop()
    assert SECRET not in router.process.err
    lines = [json.loads(line) for line in router.process.err.splitlines() if '"level":"debug"' in line]
    lines = [line for line in lines if line.get("event") in {"delivery settled", "event not routed"}]
    if level == "info":
        assert lines == []
        return
    sent = {line["address"]: line for line in lines if line.get("sink") == "chat"}
    assert (sent["42"]["outcome"], sent["42"]["attempt"], sent["42"]["route"]) == ("delivered", 1, "notify")
    assert sent["42"]["payload"] == '{"user_id": 42, "message": "hi ***"}'
    assert sent["42"]["duration"] > 0
    dropped = [line for line in lines if line.get("reason") == "full"]
    assert [(line["sink"], line["outcome"]) for line in dropped] == [("full", "dropped")]
    assert '"user_id": 42' in dropped[0]["payload"]
    assert {line["outcome"]: line.get("reason") for line in lines if line["event"] == "event not routed"} == {
        "rejected": "schema",
        "unmatched": None,
    }
