"""`only_if` under the real daemon: what is suppressed is counted, what can't be decided is a dead letter."""

from __future__ import annotations

import asyncio
import json
import signal
import urllib.request

import pytest

from tests.support.daemon import daemon
from tests.support.http import Reply, stand_in
from tests.support.process import run
from tests.support.redis import free_port
from tests.support.waiting import PATIENCE

SOURCES = {"web": {"type": "pubsub", "channels": ["notification"]}}
WANTS = "on(payload.wants, true)"
SAID = "only_if: on(): the value must be yes, no, true, false, 1, 0, on or off"


def log_sink(name="audit", **keys):
    return {"type": "log", "path": f"{name}.jsonl", "template": "{{ payload.n }}", **keys}


def setup(sinks, routes=None, **keys):
    port = free_port()
    routes = routes or [{"id": "all", "sinks": list(sinks)}]
    return port, {
        "sources": SOURCES,
        "sinks": sinks,
        "routes": routes,
        "admin": {"listen": f"127.0.0.1:{port}"},
        **keys,
    }


def asked(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as answer:
        return answer.read().decode()


def book(router, sink):
    """The sink's book as `status --json` tells it."""
    told = run("status", "--json", "-c", router.folder / "config.yaml", cwd=router.folder)
    status = json.loads(told.out)
    assert status["balanced"], status["books"]
    return status["books"]["sinks"][sink]


async def over(router, port, sink, number):
    """Wait until so many deliveries of a sink are settled."""

    def settled():
        found = json.loads(asked(port, "/api/status"))["books"]["sinks"][sink]
        return found["accepted"] == number and not found["pending"]

    await router.until(settled)


def written(router, name="audit"):
    file = router.folder / f"{name}.jsonl"
    return sorted(file.read_text().split()) if file.exists() else []


@pytest.mark.parametrize("queue", ["memory", "redis"])
async def test_what_is_suppressed_is_counted_and_what_fails_is_a_dead_letter(redis_server, tmp_path, queue):
    port, config = setup({"audit": log_sink(only_if=WANTS, queue=queue)})
    events = [
        {"n": 1, "wants": "yes"},
        {"n": 2, "wants": "no"},
        {"n": 3},
        {"n": 4, "wants": "xyzzy"},
        {"n": 5, "wants": 0},
    ]
    async with daemon(redis_server, tmp_path, config) as router:
        router.publish("notification", *events)
        await over(router, port, "audit", 5)
        told = await asyncio.to_thread(book, router, "audit")
        assert (told["delivered"], told["suppressed"], told["dead_lettered"]) == (2, 2, 1)
        assert told["by_reason"]["suppressed"] == {"only_if": 2}
        assert told["by_reason"]["dead_lettered"] == {"template": 1}
        counted = 'event_router_deliveries_total{outcome="suppressed",reason="only_if",sink="audit"} 2.0'
        assert counted in asked(port, "/metrics")
        await router.until(router.letters)
        assert await router.stop() == 0
    assert written(router) == ["1", "3"]
    [letter] = router.letters()
    assert (letter["reason"], letter["detail"]) == ("template", f"{SAID}: 'xyzzy'")
    assert SAID in router.process.err
    assert "xyzzy" not in router.process.err
    assert router.closing()["suppressed"] == {"only_if": 2}
    if queue == "redis":
        assert redis_server.do("HGET", "{event-router}:books:audit", "suppressed:only_if") == b"2"


@pytest.mark.parametrize("queue", ["memory", "redis"])
async def test_routes_override_it_each_for_itself(redis_server, tmp_path, queue):
    sinks = {"audit": log_sink(only_if="payload.n > 1", queue=queue), "plain": log_sink("plain", queue=queue)}
    routes = [
        {"id": "own", "sinks": ["audit", {"sink": "plain", "only_if": "payload.n == 1"}]},
        {"id": "odd", "sinks": [{"sink": "audit", "only_if": "payload.n is odd", "template": "odd{{ payload.n }}"}]},
        {"id": "all", "sinks": [{"sink": "audit", "only_if": "true", "template": "all{{ payload.n }}"}]},
    ]
    port, config = setup(sinks, routes, defaults={"all": {"only_if": "payload.n != 3"}})
    async with daemon(redis_server, tmp_path, config) as router:
        router.publish("notification", *[{"n": n} for n in (1, 2, 3)])
        await over(router, port, "audit", 9)
        await over(router, port, "plain", 3)
        told = await asyncio.to_thread(book, router, "audit")
        assert told["by_reason"]["suppressed"] == {"only_if": 2}
        assert await router.stop() == 0
    assert written(router) == ["2", "3", "all1", "all2", "all3", "odd1", "odd3"]
    assert written(router, "plain") == ["1"]


async def test_a_route_with_one_of_its_own_is_merged_with_no_other(redis_server, tmp_path):
    routes = [
        {"id": "first", "sinks": ["audit"]},
        {"id": "own", "sinks": [{"sink": "audit", "only_if": "payload.vip"}]},
        {"id": "last", "sinks": ["audit"]},
    ]
    port, config = setup({"audit": log_sink(template="{{ route }}-{{ payload.n }}")}, routes)
    async with daemon(redis_server, tmp_path, config) as router:
        router.publish("notification", {"n": 1}, {"n": 2, "vip": True})
        await over(router, port, "audit", 4)
        told = await asyncio.to_thread(book, router, "audit")
        assert (told["delivered"], told["by_reason"]["suppressed"]) == (3, {"only_if": 1})
        assert await router.stop() == 0
    assert written(router) == ["first-1", "first-2", "own-2"]


async def test_a_default_holds_for_every_sink_without_its_own(redis_server, tmp_path):
    sinks = {"audit": log_sink(), "own": log_sink("own", only_if="true")}
    port, config = setup(sinks, defaults={"all": {"only_if": "payload.n > 1"}})
    async with daemon(redis_server, tmp_path, config) as router:
        router.publish("notification", {"n": 1}, {"n": 2})
        await over(router, port, "audit", 2)
        await over(router, port, "own", 2)
        assert await router.stop() == 0
    assert (written(router), written(router, "own")) == (["2"], ["1", "2"])


@pytest.mark.parametrize("queue", ["memory", "redis"])
async def test_a_fallback_asks_its_own_and_nothing_that_the_route_overrides(redis_server, tmp_path, queue):
    sinks = {
        "audit": log_sink(only_if="1 / payload.n", fallback=["other"], queue=queue),
        "other": log_sink("other", only_if="on(payload.vip, false)", template="{{ payload.vip }}", queue=queue),
    }
    direct = {"sink": "other", "only_if": "payload.n == 1", "template": "direct{{ payload.n }}"}
    port, config = setup(sinks, [{"id": "all", "sinks": ["audit", direct]}])
    async with daemon(redis_server, tmp_path, config) as router:
        router.publish(
            "notification", {"n": 0, "vip": "yes"}, {"n": 0}, {"n": 1, "vip": "no"}, {"n": 0, "vip": "xyzzy"}
        )
        await over(router, port, "audit", 4)
        await over(router, port, "other", 4 + 3)
        told = await asyncio.to_thread(book, router, "audit")
        assert (told["delivered"], told["handed_over"], told["suppressed"]) == (1, 3, 0)
        other = await asyncio.to_thread(book, router, "other")
        assert (other["delivered"], other["dead_lettered"], other["by_reason"]["suppressed"]) == (2, 1, {"only_if": 4})
        await router.until(router.letters)
        [letter] = router.letters()
        assert letter["key"] == f"{letter['event_id']}:all:other"
        assert (letter["reason"], letter["route"], letter["fallback"]) == ("template", "all", "1")
        replayed = await asyncio.to_thread(run, "dlq", "replay", "-c", router.folder / "config.yaml", cwd=router.folder)
        assert replayed.code == 0, replayed.err
        await over(router, port, "other", 4 + 3 + 1)
        await router.until(router.letters)
        [again] = router.letters()
        assert (again["id"], again["detail"], again["fallback"]) == (letter["id"], letter["detail"], "1")
        assert await router.stop() == 0
    assert (written(router), written(router, "other")) == (["1"], ["direct1", "yes"])


async def reload(router, config):
    (router.folder / "config.yaml").write_text(
        json.dumps({"version": 1, "redis": {"url": router.server.url}, **config})
    )
    seen = len(router.process.notify.messages)
    router.process.signal(signal.SIGHUP)
    await router.until(lambda: any("READY=1" in each for each in router.process.notify.messages[seen:]))


async def test_a_reload_adds_it_changes_it_in_a_route_and_takes_it_away(redis_server, tmp_path):
    port, config = setup({"audit": log_sink()})
    own = {"sink": "audit", "template": "own{{ payload.n }}"}
    steps = [
        {},
        {"sinks": {"audit": log_sink(only_if="payload.n != 1")}},
        {"routes": [{"id": "all", "sinks": [{**own, "only_if": "payload.n != 2"}]}]},
        {"routes": [{"id": "all", "sinks": [{**own, "only_if": "payload.n != 0"}]}]},
        {},
    ]
    async with daemon(redis_server, tmp_path, config) as router:
        for number, change in enumerate(steps):
            await reload(router, {**config, **change})
            router.publish("notification", *[{"n": n} for n in range(5)])
            await over(router, port, "audit", 5 * (number + 1))
        told = await asyncio.to_thread(book, router, "audit")
        assert told["by_reason"]["suppressed"] == {"only_if": 3}
        assert await router.stop() == 0
    plain = ["0", "0", "0", "1", "1", "2", "2", "2", "3", "3", "3", "4", "4", "4"]
    assert written(router) == [*plain, "own0", "own1", "own1", "own2", "own3", "own3", "own4", "own4"]


async def test_deliver_print_shows_what_is_suppressed(redis_server, tmp_path):
    async with stand_in() as bot:
        bot.default = Reply(json={"ok": True})
        chat = {"type": "chat", "service": "telegram", "token": "123:abc", "api": bot.url, "allow_private": True}
        chat |= {"to": "{{ payload.n }}", "text": "hello", "only_if": WANTS}
        port, config = setup({"chat": chat}, deliver={"only": ["4?"], "others": "print"})
        async with daemon(redis_server, tmp_path, config) as router:
            router.publish("notification", {"n": 41}, {"n": 42, "wants": "no"}, {"n": 54}, {"n": 55, "wants": False})
            await over(router, port, "chat", 4)
            told = await asyncio.to_thread(book, router, "chat")
            assert (told["delivered"], told["printed"], told["suppressed"]) == (1, 1, 2)
            assert await router.stop() == 0
    assert router.process.out.count("notification → all → chat (chat) → suppressed (only_if)") == 2
    assert [request.json["chat_id"] for request in bot.requests] == [41]


async def test_a_replayed_letter_is_asked_again(redis_server, tmp_path):
    port, config = setup({"audit": log_sink(only_if=WANTS)})
    async with daemon(redis_server, tmp_path, config) as router:
        router.publish("notification", {"n": 1, "wants": "maybe"}, {"n": 2, "wants": "perhaps"})
        await router.until(lambda: len(router.letters()) == 2)
        await reload(router, {**config, "sinks": {"audit": log_sink(only_if="payload.wants == 'perhaps'")}})
        dlq = ("dlq", "replay", "-c", router.folder / "config.yaml")
        dry = await asyncio.to_thread(run, *dlq, "--dry-run", cwd=router.folder)
        assert "to 1 recipient; 1 letter would reach nobody; suppressed: only_if (1)" in dry.err
        replayed = await asyncio.to_thread(run, *dlq, cwd=router.folder)
        assert replayed.code == 0, replayed.err
        await over(router, port, "audit", 4)
        told = await asyncio.to_thread(book, router, "audit")
        assert (told["delivered"], told["by_reason"]["suppressed"]) == (1, {"only_if": 1})
        assert await router.stop() == 0
    assert written(router) == ["2"]


async def test_an_order_that_can_not_be_told_is_counted(redis_server, tmp_path):
    port, config = setup({"audit": log_sink(order_by="1 / payload.n")})
    async with daemon(redis_server, tmp_path, config) as router:
        router.publish("notification", {"n": 0}, {"n": 1}, {"n": 0}, {})
        await over(router, port, "audit", 4)
        status = json.loads(asked(port, "/api/status"))
        assert status["expression_failures"] == {"sinks.audit.order_by": 2}
        assert await router.stop() == 0
    said = [json.loads(line) for line in router.process.err.splitlines() if "an expression could not" in line]
    assert [(line["error"], line["sink"], line["effect"]) for line in said] == [
        ("order_by: division by zero", "audit", "the delivery is attempted without an order")
    ]
