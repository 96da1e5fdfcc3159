"""Sinks in trouble, on the real daemon: nothing is lost for it, and it is said what to do."""

import pytest

from tests.support.daemon import daemon
from tests.support.http import Reply, stand_in
from tests.support.waiting import moment

SOURCES = {"web-app": {"type": "pubsub", "channels": ["notification"]}}
AUDIT = {"type": "log", "path": "audit.jsonl"}
DENIED = Reply(401, {"ok": False, "error_code": 401, "description": "Unauthorized"})
FINE = Reply(200, {"ok": True, "result": {}})


def telegram(url, **keys):
    return {
        "type": "chat",
        "service": "telegram",
        "token": "123:abc",
        "api": url,
        "allow_private": True,
        "to": "{{ payload.user_id }}",
        "text": "{{ payload.message }}",
        **keys,
    }


def setup(sinks, route=None, **keys):
    routes = [{"id": "notify", "sinks": list(sinks), **(route or {})}]
    return {"sources": SOURCES, "sinks": sinks, "routes": routes, **keys}


def events(number, users=10):
    return [{"user_id": count % users + 1, "message": f"{count}"} for count in range(number)]


def texts(requests):
    return [request.json["text"] for request in requests]


@pytest.mark.parametrize("queue", ["memory", "redis"])
async def test_a_token_that_is_refused_for_a_while_costs_nothing(queue, redis_server, tmp_path):
    async with stand_in() as bot:
        bot.default = DENIED
        sinks = {"chat": telegram(bot.url, queue=queue, breaker={"reset": "200ms"}), "audit": AUDIT}
        async with daemon(redis_server, tmp_path, setup(sinks)) as router:
            router.publish("notification", *events(300))
            await router.until(lambda: router.count() == 300, "for the other sink")
            await router.until(lambda: len(bot.requests) >= 6, "for probes")
            refused = len(bot.requests)
            assert refused < 60  # a few at once, then one probe after another
            bot.default = FINE
            await router.until(lambda: len(bot.requests) >= refused + 300, "for everything")
            assert router.letters() == []
            assert await router.stop() == 0
        assert sorted(texts(bot.requests[-300:]), key=int) == [str(number) for number in range(300)]
        assert router.closing()["delivered"] == 600
        said = router.process.err
        assert said.count("all deliveries of this sink wait") == 1
        assert "Unauthorized" in said
        assert said.count("the sink delivers again") == 1


async def test_a_sink_that_is_down_for_five_seconds_gets_everything(redis_server, tmp_path):
    async with stand_in() as bot:
        url = bot.url
    sinks = {"chat": telegram(url, retry={"initial": "100ms"}, breaker={"reset": "500ms"})}
    async with daemon(redis_server, tmp_path, setup(sinks)) as router:
        router.publish("notification", *events(100))
        await moment(5.0)
        async with stand_in(port=int(url.rsplit(":", 1)[1])) as bot:
            bot.default = FINE
            await router.until(lambda: len(bot.requests) >= 100, "for everything")
            assert await router.stop() == 0
            assert sorted(texts(bot.requests), key=int) == [str(number) for number in range(100)]
    assert router.letters() == []


async def test_what_all_fallbacks_refuse_is_a_dead_letter_of_the_last(redis_server, tmp_path):
    refused = Reply(400, {"ok": False, "error_code": 400, "description": "Bad Request: chat not found"})
    async with stand_in() as first, stand_in() as second:
        first.default, second.default = refused, refused
        sinks = {
            "first": telegram(first.url, fallback=["second"]),
            "second": telegram(second.url, text="again: {{ payload.message }}", fallback=["kept"]),
            "third": telegram(second.url),
            "kept": {"type": "log", "path": "kept.jsonl"},
        }
        config = setup(sinks)
        config["routes"] = [{"id": "notify", "sinks": ["first", "third"]}]
        async with daemon(redis_server, tmp_path, config) as router:
            router.publish("notification", *events(5))
            await router.until(lambda: router.count("kept.jsonl") == 5, "for the last fallback")
            await router.until(lambda: len(router.letters()) == 5, "for the letters of the sink without one")
            assert await router.stop() == 0
        assert sorted(texts(first.requests), key=int) == ["0", "1", "2", "3", "4"]
        assert sorted(text for text in texts(second.requests) if "again" in text) == [f"again: {n}" for n in range(5)]
        assert {letter["sink"] for letter in router.letters()} == {"third"}


async def test_late_is_worse_than_never(redis_server, tmp_path):
    async with stand_in() as bot:
        bot.default = DENIED
        sinks = {"chat": telegram(bot.url, breaker={"reset": "200ms"})}
        config = setup(sinks, {"expires": "{{ payload.until | default('') }}"})
        async with daemon(redis_server, tmp_path, config) as router:
            router.publish("notification", {"user_id": 1, "message": "late", "until": "2020-01-01T00:00:00Z"})
            router.publish("notification", {"user_id": 1, "message": "in time", "until": "2990-01-01T00:00:00Z"})
            router.publish("notification", {"user_id": 1, "message": "always"})
            await router.until(lambda: len(router.letters()) == 1, "for the letter")
            bot.default = FINE
            await router.until(lambda: {"in time", "always"} <= set(texts(bot.requests)), "for the others")
            assert await router.stop() == 0
        (letter,) = router.letters()
        assert letter["reason"] == "expired"
        assert "late" not in texts(bot.requests)


@pytest.mark.parametrize("queue", ["memory", "redis"])
async def test_each_user_gets_messages_in_their_order(queue, redis_server, tmp_path):
    async with stand_in() as bot:
        bot.default = FINE
        sinks = {
            "chat": telegram(
                bot.url,
                queue=queue,
                concurrency=8,
                order_by="payload.user_id",
                retry={"initial": "20ms"},
                breaker={"failures": 1000},
            )
        }
        async with daemon(redis_server, tmp_path, setup(sinks)) as router:
            busy = Reply(500, {})
            bot.script(*[busy if number % 7 in {0, 1} else FINE for number in range(140)])
            router.publish("notification", *events(200))
            await router.until(lambda: len(bot.requests) >= 240, "for everything")
            assert await router.stop() == 0
        last = {}
        for request in bot.requests:  # a message that failed comes again before any later one of its user
            user, number = request.json["chat_id"], int(request.json["text"])
            assert number == last.get(user, number) or number == last[user] + 10
            last[user] = number
        assert last == {user: 190 + user - 1 for user in range(1, 11)}
