"""The whole product as its users meet it: the real command, real servers, plain publishes."""

import asyncio
import json
import signal

import pytest

from tests.support.daemon import DEAD, daemon
from tests.support.http import Reply, stand_in
from tests.support.smtp import smtp_server

PAYLOAD = {"user_id": 42, "message": "Your order is on its way!"}
SOURCES = {"web-app": {"type": "pubsub", "channels": ["notification"]}}
SCHEMAS = [{"channels": ["notification"], "file": "notification.json"}]
AUDIT = {"type": "log", "path": "audit.jsonl"}


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


def email(port, **keys):
    return {
        "type": "email",
        "host": "127.0.0.1",
        "port": port,
        "tls": "none",
        "from": "shop@example.org",
        "to": "{{ payload.email }}",
        "subject": "News for you",
        "text": "{{ payload.message }}",
        **keys,
    }


def setup(sinks, **keys):
    routes = [{"id": "notify", "sinks": list(sinks)}]
    return {"sources": SOURCES, "schemas": SCHEMAS, "sinks": sinks, "routes": routes, **keys}


async def test_one_publish_reaches_log_mail_and_chat(redis_server, tmp_path):
    async with stand_in() as slack, smtp_server() as box:
        slack.default = Reply(body=b"ok")
        sinks = {
            "audit": AUDIT,
            "mail": email(box.port, to=["ops@example.org"], subject="[{{ event.channel }}] {{ payload.message }}"),
            "slack": {
                "type": "chat",
                "service": "slack",
                "url": f"{slack.url}/services/T0/B0/xyzzy42",
                "text": "{{ payload.message }}",
                "allow_private": True,
            },
        }
        async with daemon(redis_server, tmp_path, setup(sinks)) as router:
            router.publish("notification", PAYLOAD)
            await router.until(lambda: router.count() and box.taken and slack.requests)
            assert await router.stop() == 0
    (line,) = router.lines()
    assert list(line) == ["id", "source", "channel", "pattern", "received_at", "route", "payload"]
    assert line["payload"] == PAYLOAD
    assert (line["source"], line["channel"], line["pattern"], line["route"]) == (
        "web-app",
        "notification",
        None,
        "notify",
    )
    assert box.taken[0].recipients == ["ops@example.org"]
    assert box.taken[0].message["Subject"] == "[notification] Your order is on its way!"
    assert "Your order is on its way!" in slack.last.json["text"]
    assert "xyzzy42" not in router.process.err
    closing = router.closing()
    assert (closing["received"], closing["delivered"], closing["rejected"], closing["gaps"]) == (1, 3, {}, 0)


async def test_it_reaches_user_42_and_nobody_else(redis_server, tmp_path):
    async with stand_in() as bot, smtp_server() as box:
        sinks = {"chat": telegram(bot.url), "mail": email(box.port)}
        async with daemon(redis_server, tmp_path, setup(sinks)) as router:
            router.publish("notification", {**PAYLOAD, "email": "ada@example.org"})
            await router.until(lambda: bot.requests and box.taken)
            await router.stop()
    assert [seen.path for seen in bot.requests] == ["/bot123:abc/sendMessage"]
    assert bot.last.json["chat_id"] == 42
    assert bot.last.json["text"] == "Your order is on its way!"
    assert box.reached == ["ada@example.org"]


async def test_a_thousand_events_for_a_hundred_users_each_in_order(redis_server, tmp_path):
    events = [{"user_id": n % 100 + 1, "message": f"{n}"} for n in range(1000)]
    async with (
        stand_in() as bot,
        daemon(redis_server, tmp_path, setup({"chat": telegram(bot.url, concurrency=1)})) as router,
    ):
        router.publish("notification", *events)
        await router.until(lambda: len(bot.requests) == 1000)
        await router.stop()
    got = {}
    for seen in bot.requests:
        got.setdefault(seen.json["chat_id"], []).append(int(seen.json["text"]))
    assert got == {user + 1: list(range(user, 1000, 100)) for user in range(100)}


async def test_what_can_not_reach_a_user_is_suppressed_or_a_dead_letter_and_never_json_in_a_chat(
    redis_server, tmp_path
):
    async with stand_in() as bot:
        sinks = {
            "chat": telegram(
                bot.url, to="{{ payload.chat | default('') }}", text="{{ payload.message }} {{ payload.link }}"
            )
        }
        async with daemon(redis_server, tmp_path, setup(sinks)) as router:
            router.publish(
                "notification",
                {**PAYLOAD, "chat": ""},
                {**PAYLOAD, "chat": "x\r\nBcc: y"},
                {**PAYLOAD, "chat": "7"},
                {**PAYLOAD, "chat": "8", "link": "good"},
            )
            await router.until(lambda: bot.requests and len(router.letters()) == 2)
            await router.stop()
    assert sorted((letter["reason"], letter["sink"]) for letter in router.letters()) == [
        ("address", "chat"),
        ("template", "chat"),
    ]
    assert [seen.json["chat_id"] for seen in bot.requests] == [8]
    assert router.closing()["suppressed"] == {"no_address": 1}
    assert router.closing()["dead_lettered"] == {"address": 1, "template": 1}


async def test_a_rejected_event_disturbs_no_other(redis_server, tmp_path):
    async with daemon(redis_server, tmp_path, setup({"audit": AUDIT})) as router:
        good = [{"user_id": n + 1, "message": "x"} for n in range(500)]
        router.publish("notification", *good, {"user_id": "42"}, b"{broken", *good)
        await router.until(lambda: router.count() == 1000 and len(router.letters()) == 2)
        await router.stop()
    schema, decode = router.letters()
    assert schema["reason"] == "schema"
    assert schema["payload"] == '{"user_id": "42"}'
    assert {(one["pointer"], one["keyword"]) for one in json.loads(schema["detail"])} == {
        ("/user_id", "type"),
        ("/message", "required"),
    }
    assert decode["reason"] == "decode"
    assert [line["payload"]["user_id"] for line in router.lines()] == [*range(1, 501)] * 2
    assert router.closing()["rejected"] == {"decode": 1, "schema": 1}


async def test_one_publish_is_one_event_however_many_subscriptions_match(redis_server, tmp_path):
    sources = {"all": {"type": "pubsub", "channels": ["orders.new", "orders.*", "*.new"], "patterns": ["order*"]}}
    config = setup({"audit": AUDIT}, sources=sources, schemas=[])
    async with daemon(redis_server, tmp_path, config) as router:
        router.publish("orders.new", 1)
        router.publish("orders.old", 2)
        router.publish("shop.new", 3)
        router.publish("orderly", 4)
        await router.until(lambda: router.count() >= 4)
        await router.stop()
    assert [(line["payload"], line["pattern"]) for line in router.lines()] == [
        (1, None),
        (2, "orders.*"),
        (3, "*.new"),
        (4, "order*"),
    ]


async def test_text_needs_no_json(redis_server, tmp_path):
    sources = {"shell": {"type": "pubsub", "channels": ["command"], "format": "text"}}
    async with daemon(redis_server, tmp_path, setup({"audit": AUDIT}, sources=sources, schemas=[])) as router:
        router.publish("command", b"whoami")
        await router.until(router.count)
    assert [line["payload"] for line in router.lines()] == ["whoami"]


FAULTY = """
import asyncio
from router.api import hookimpl

async def hangs(event, options):
    await asyncio.sleep(3600)

async def raises(event, options):
    raise RuntimeError("on purpose")

@hookimpl
def register_sinks(register):
    register("hangs", hangs)
    register("raises", raises)
"""


async def test_a_sink_that_hangs_and_one_that_raises_leave_a_third_untouched(redis_server, tmp_path):
    plugins = tmp_path / "plugins"
    plugins.mkdir(mode=0o755)
    (plugins / "faulty.py").write_text(FAULTY)
    (plugins / "faulty.py").chmod(0o644)
    sinks = {name: {"type": kind, "queue": "memory"} for name, kind in (("hanging", "hangs"), ("raising", "raises"))}
    sinks["audit"] = AUDIT
    async with daemon(redis_server, tmp_path, setup(sinks, shutdown={"drain": "1s"})) as router:
        router.publish("notification", *[{"user_id": n + 1, "message": "x"} for n in range(10_000)])
        await router.until(lambda: router.count() >= 10_000)
        assert await router.stop() == 0
    assert [line["payload"]["user_id"] for line in router.lines()] == list(range(1, 10_001))
    assert router.closing()["dropped"] == {"shutdown": 20_000}
    assert '"hanging":10000' in router.process.err
    assert router.process.err.count("on purpose") < 10


async def test_a_burst_is_complete_and_in_order(redis_server, tmp_path):
    async with daemon(redis_server, tmp_path, setup({"audit": AUDIT})) as router:
        router.publish("notification", *[{"user_id": n + 1, "message": "x" * 50} for n in range(60_000)])
        await router.until(lambda: router.count() >= 60_000)
        await router.stop()
    assert [line["payload"]["user_id"] for line in router.lines()] == list(range(1, 60_001))


async def test_deliver_print_sends_nothing_and_writes_nothing_to_redis(redis_server, tmp_path):
    async with stand_in() as bot, smtp_server() as box:
        sinks = {"chat": telegram(bot.url), "mail": email(box.port), "audit": AUDIT}
        async with daemon(redis_server, tmp_path, setup(sinks), arguments=("--deliver", "print")) as router:
            router.publish("notification", {**PAYLOAD, "email": "ada@example.org"}, {"user_id": "42"})
            await router.until(lambda: router.count() and router.process.out.count("\n") >= 3)
            await router.stop()
            assert redis_server.do("DBSIZE") == 0
    assert bot.requests == []
    assert box.taken == []
    assert "chat" in router.process.out
    assert " to 42: Your order is on its way!" in router.process.out
    assert " to ada@example.org: Your order is on its way!" in router.process.out
    assert "dead letter (schema)" in router.process.out


@pytest.mark.parametrize("queue", ["memory", "redis"])
async def test_sigterm_finishes_what_is_in_hand(redis_server, tmp_path, queue):
    async with (
        stand_in() as bot,
        daemon(redis_server, tmp_path, setup({"chat": telegram(bot.url, queue=queue)})) as router,
    ):
        router.publish("notification", *[{"user_id": n + 1, "message": "x"} for n in range(300)])
        await router.until(lambda: bot.requests)
        assert await router.stop() == 0
    left = redis_server.do("XLEN", "{event-router}:queue:chat") if queue == "redis" else 0
    assert len(bot.requests) + left == 300  # a Redis queue keeps what was not begun within a second
    assert router.closing()["delivered"] == len(bot.requests)
    assert router.closing()["dropped"] == {}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
async def test_a_second_signal_ends_it_now(redis_server, tmp_path, number, code):
    async with stand_in() as bot:
        bot.default = Reply(how="hang")
        async with daemon(
            redis_server,
            tmp_path,
            setup({"chat": telegram(bot.url, timeout="1h", queue="memory")}, shutdown={"drain": "1h"}),
        ) as router:
            router.publish("notification", PAYLOAD)
            await router.until(lambda: bot.requests)
            router.process.signal(number)
            await router.until(lambda: "draining" in router.process.err)
            router.process.signal(number)
            assert await asyncio.to_thread(router.process.wait) == code
    assert router.closing()["dropped"] == {"shutdown": 1}


async def test_a_lost_connection_heals_and_the_gap_is_told(redis_server, tmp_path):
    async with daemon(redis_server, tmp_path, setup({"audit": AUDIT})) as router:
        redis_server.do("CLIENT", "KILL", "TYPE", "pubsub")
        await router.until(lambda: redis_server.subscribers("notification") == 1)
        await router.until(lambda: router.process.err.count('"source":"web-app"') >= 1)
        router.publish("notification", PAYLOAD)
        await router.until(router.count)
        await router.stop()
    assert router.closing()["gaps"] == 1
    assert router.closing()["gap_seconds"] >= 0


async def test_several_sources_on_several_servers(start_server, tmp_path):
    first, second = start_server("valkey"), start_server("valkey")
    sources = {
        "web": {"type": "pubsub", "channels": ["a"]},
        "shop": {"type": "pubsub", "channels": ["a"], "url": second.url},
    }
    async with daemon(first, tmp_path, setup({"audit": AUDIT}, sources=sources, schemas=[])) as router:
        first.do("PUBLISH", "a", "1")
        second.do("PUBLISH", "a", "2")
        await router.until(lambda: router.count() == 2)
    assert sorted((line["source"], line["payload"]) for line in router.lines()) == [("shop", 2), ("web", 1)]


async def test_unmatched_events_may_be_kept(redis_server, tmp_path):
    sources = {"web": {"type": "pubsub", "channels": ["*"]}}
    routes = [{"id": "orders", "channels": ["orders.*"], "sinks": ["audit"]}]
    config = setup({"audit": AUDIT}, sources=sources, routes=routes, schemas=[], unmatched="dead-letter")
    async with daemon(redis_server, tmp_path, config) as router:
        router.publish("other", 1)
        router.publish("orders.new", 2)
        await router.until(lambda: router.count() and router.letters())
        await router.stop()
    assert [(letter["reason"], letter["channel"]) for letter in router.letters()] == [("unmatched", "other")]
    assert redis_server.do("XLEN", DEAD) == 1


BLOCKS = """
import time
from router.api import hookimpl

async def blocks(event, options):
    time.sleep(1.2)

@hookimpl
def register_sinks(register):
    register("blocks", blocks)
"""


@pytest.mark.parametrize("name", ["blocks.py", "blocks/work.py"])
async def test_an_async_plugin_that_blocks_the_loop_is_named_with_file_and_line(redis_server, tmp_path, name):
    file = tmp_path / "plugins" / name
    file.parent.mkdir(parents=True)
    file.write_text(BLOCKS)
    if name != "blocks.py":
        (file.parent / "__init__.py").write_text("from .work import register_sinks\n")
    async with daemon(redis_server, tmp_path, setup({"bad": {"type": "blocks"}})) as router:
        router.publish("notification", PAYLOAD)
        await router.until(lambda: "blocks the event loop" in router.process.err)
        await router.stop()
    assert f"{file}:6" in router.process.err
