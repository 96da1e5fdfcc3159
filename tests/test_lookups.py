"""Lookups under the real daemon: who is reached, what becomes of a delivery without its record, an unavailable store."""

from __future__ import annotations

import json
import signal
import time
import urllib.request

import pytest

from tests.support.daemon import daemon
from tests.support.http import Reply, stand_in
from tests.support.redis import free_port
from tests.support.smtp import smtp_server
from tests.support.waiting import PATIENCE

SOURCES = {"web": {"type": "pubsub", "channels": ["notification"]}}
USER = {"type": "redis-hash", "key": "user:{{ payload.user_id }}"}


def mail(port, **keys):
    return {
        "type": "email",
        "host": "127.0.0.1",
        "port": port,
        "tls": "none",
        "from": "shop@example.org",
        "to": "{{ user.email }}",
        "subject": "News for {{ user.name }}",
        "text": "{{ payload.message }}",
        "retry": {"initial": "50ms", "max_delay": "200ms"},
        **keys,
    }


def line(name="audit", template="{{ payload.user_id }} {{ user.name }}", **keys):
    quick = {"retry": {"initial": "50ms", "max_delay": "200ms"}}
    return {"type": "log", "path": f"{name}.txt", "template": template, **quick, **keys}


def setup(sinks, lookups=None, **keys):
    routes = [{"id": "all", "sinks": list(sinks)}]
    admin = {"listen": f"127.0.0.1:{free_port()}"}
    found = {"user": USER} if lookups is None else lookups
    return {"sources": SOURCES, "lookups": found, "sinks": sinks, "routes": routes, "admin": admin, **keys}


def users(server, **hashes):
    with server.client() as client:
        for key, fields in hashes.items():
            client.hset(f"user:{key.lstrip('u')}", mapping=fields)


def event(user_id, message="hello"):
    return {"user_id": user_id, "message": message}


def written(router, name="audit"):
    file = router.folder / f"{name}.txt"
    return file.read_text().splitlines() if file.exists() else []


def status(router):
    """The status as the admin side tells it."""
    listen = json.loads((router.folder / "config.yaml").read_text())["admin"]["listen"]
    with urllib.request.urlopen(f"http://{listen}/api/status", timeout=PATIENCE) as answer:
        return json.load(answer)


async def settled(router, sink, number):
    """Wait until so many deliveries of a sink are over; return the status and the sink's book."""

    def over():
        book = status(router)["books"]["sinks"][sink]
        return book["accepted"] == number and not book["pending"]

    await router.until(over)
    told = status(router)
    assert told["balanced"], told["books"]
    return told, told["books"]["sinks"][sink]


async def test_user_42_is_reached_and_nobody_else(redis_server, tmp_path):
    users(
        redis_server, u42={"email": "jane@example.org", "name": "Jane"}, u43={"email": "joe@example.org", "name": "Joe"}
    )
    async with smtp_server() as box, daemon(redis_server, tmp_path, setup({"mail": mail(box.port)})) as router:
        router.publish("notification", event(42, "your parcel has arrived"))
        await router.until(lambda: box.taken)
        told, _ = await settled(router, "mail", 1)
        assert told["lookups"]["user"] == {
            "type": "redis-hash",
            "up": True,
            "fault": None,
            "hits": 0,
            "misses": 1,
            "fetches": 1,
            "errors": 0,
            "size": 1,
        }
    [found] = box.taken
    assert (found.recipients, found.message["Subject"]) == (["jane@example.org"], "News for Jane")
    assert found.text().strip() == "your parcel has arrived"


async def test_each_address_of_a_list_is_settled_on_its_own(redis_server, tmp_path):
    (tmp_path / "users.json").write_text(
        json.dumps([{"id": 42, "name": "Jane", "email": ["jane@example.org", "gone@example.org"]}])
    )
    lookups = {"user": {"type": "file", "path": "users.json", "by": "id", "key": "{{ payload.user_id }}"}}
    async with (
        smtp_server() as box,
        daemon(redis_server, tmp_path, setup({"mail": mail(box.port)}, lookups)) as router,
    ):
        box.recipients["gone@example.org"] = ["550 no such mailbox"]
        router.publish("notification", event(42))
        await router.until(router.letters)
    assert [found.recipients for found in box.taken] == [["jane@example.org"]]
    [letter] = router.letters()
    assert (letter["address"], letter["reason"]) == ("gone@example.org", "permanent")


@pytest.mark.parametrize("queue", ["memory", "redis"])
async def test_a_missing_record_is_a_dead_letter_or_suppressed_or_empty(redis_server, tmp_path, queue):
    users(redis_server, u42={"name": "Jane"})
    lookups = {policy.replace("-", "_"): {**USER, "missing": policy} for policy in ("dead-letter", "suppress", "empty")}
    sinks = {
        name: line(
            name, f"{{{{ payload.user_id }}}} {{{{ {name}.name }}}}|{{{{ {name}.age | default('?') }}}}", queue=queue
        )
        for name in lookups
    }
    async with daemon(redis_server, tmp_path, setup(sinks, lookups)) as router:
        router.publish("notification", event(1), event(42))
        _, dead = await settled(router, "dead_letter", 2)
        _, suppressed = await settled(router, "suppress", 2)
        await settled(router, "empty", 2)
        await router.until(router.letters)
    assert dead["by_reason"]["dead_lettered"] == {"lookup": 1}
    assert suppressed["by_reason"]["suppressed"] == {"lookup": 1}
    assert sorted(written(router, "empty")) == ["1 |?", "42 Jane|?"]
    assert written(router, "dead_letter") == written(router, "suppress") == ["42 Jane|?"]
    [letter] = router.letters()
    assert (letter["reason"], letter["detail"]) == (
        "lookup",
        "lookup dead_letter: there is no record with the key 'user:1'",
    )
    assert "user:1" not in router.process.err  # the key quotes the payload: it is for the dead letter alone


async def test_a_field_that_the_record_lacks_is_empty_in_an_address_and_a_dead_letter_elsewhere(redis_server, tmp_path):
    users(redis_server, u42={"name": "Jane"}, u43={"email": "joe@example.org"})
    async with smtp_server() as box, daemon(redis_server, tmp_path, setup({"mail": mail(box.port)})) as router:
        router.publish("notification", event(42), event(43))
        _, book = await settled(router, "mail", 2)
        await router.until(router.letters)
    assert book["by_reason"]["suppressed"] == {"no_address": 1}
    [letter] = router.letters()
    assert (letter["reason"], letter["detail"]) == ("template", "subject: user.name is missing")
    assert not box.taken


@pytest.mark.parametrize("queue", ["memory", "redis"])
async def test_a_store_that_is_away_loses_nothing_and_delays_nobody_else(redis_server, start_server, tmp_path, queue):
    store = start_server("valkey", options={"appendonly": "yes"})
    users(store, **{f"u{number}": {"name": f"n{number}"} for number in range(20)})
    lookups = {"user": {**USER, "url": store.url}}
    twice = {"attempts": 2, "initial": "50ms", "max_delay": "200ms"}
    sinks = {"audit": line(queue=queue, retry=twice), "plain": line("plain", "{{ payload.user_id }}")}
    async with daemon(redis_server, tmp_path, setup(sinks, lookups)) as router:
        store.stop()
        router.publish("notification", *(event(number) for number in range(20)))
        await router.until(lambda: len(written(router, "plain")) == 20)  # while the store is away
        assert not written(router)
        # A try of which the store is asked, and tries of which it is not: none of them is an attempt.
        await router.until(lambda: status(router)["lookups"]["user"]["misses"] > 20 * twice["attempts"] * 3)
        told = status(router)
        assert told["ready"]
        [warning] = [each for each in told["warnings"] if each.startswith("lookup user: ")]
        assert warning == f"lookup user: {store.url}: connection refused"
        assert not told["sinks"]["audit"]["breaker_open"]
        assert told["sinks"]["audit"]["fault"] is None
        store.start()
        _, book = await settled(router, "audit", 20)
        told = status(router)
        assert told["lookups"]["user"]["up"]
        assert await router.stop() == 0
    assert book["delivered"] == 20
    assert sorted(written(router)) == sorted(f"{number} n{number}" for number in range(20))
    away = "a lookup fails: the deliveries that need its records wait"
    assert router.process.err.count(away) == 1
    assert router.process.err.count("the lookup works again") == 1


async def test_a_changed_file_is_in_force_for_the_next_delivery_and_a_broken_one_is_noticed_without_any(
    redis_server, tmp_path
):
    file = tmp_path / "users.csv"

    def write(text):
        (tmp_path / "new").write_text(text)
        (tmp_path / "new").replace(file)

    write("id,name\n42,Jane\n")
    lookups = {"user": {"type": "file", "path": "users.csv", "by": "id", "key": "{{ payload.user_id }}", "ttl": "0s"}}
    broken = "the router continues with the earlier records"
    async with daemon(redis_server, tmp_path, setup({"audit": line()}, lookups)) as router:

        async def said(*lines):
            router.publish("notification", event(42))
            await router.until(lambda: len(written(router)) == len(lines))
            assert written(router) == list(lines)

        await said("42 Jane")
        write("id,name\n42,Joan\n")
        await said("42 Jane", "42 Joan")
        write("id,nom\n42,Jeanne,x\n")
        await router.until(lambda: broken in router.process.err)
        [warning] = status(router)["warnings"]
        assert warning == "lookup user: users.csv:2: this row has 3 fields, but the first line names 2 columns"
        await said("42 Jane", "42 Joan", "42 Joan")
        write("id,name\n42,Jeanne\n")
        await router.until(lambda: "the lookup works again" in router.process.err)
        assert not status(router)["warnings"]
        await said("42 Jane", "42 Joan", "42 Joan", "42 Jeanne")
    assert router.process.err.count(broken) == 1


async def test_the_key_of_a_lookup_may_use_another_lookup(redis_server, tmp_path):
    users(redis_server, u42={"name": "Jane", "company": "7"}, u43={"name": "Joe", "company": ""})
    redis_server.do("HSET", "company:7", "name", "ACME")
    lookups = {
        "company": {
            "type": "redis-hash",
            "key": "{% if user.company %}company:{{ user.company }}{% endif %}",
            "missing": "empty",
        },
        "user": USER,
    }
    config = setup({"audit": line(template="{{ user.name }} of {{ company.name | default('nowhere') }}")}, lookups)
    async with daemon(redis_server, tmp_path, config) as router:
        router.publish("notification", event(42), event(43))
        await settled(router, "audit", 2)
        told = status(router)
    assert sorted(written(router)) == ["Jane of ACME", "Joe of nowhere"]
    assert told["lookups"]["company"]["misses"] == 1  # the empty key was not asked for


async def test_only_if_asks_a_lookup_and_what_it_suppresses_needs_no_other_record(redis_server, tmp_path):
    users(
        redis_server,
        u42={"name": "Jane", "wants_mail": "no"},
        u43={"name": "Joe"},
        u44={"name": "Jim", "wants_mail": "1"},
    )
    lookups = {"user": USER, "company": {"type": "redis-hash", "key": "company:{{ payload.user_id }}"}}
    redis_server.do("HSET", "company:43", "name", "ACME")
    redis_server.do("HSET", "company:44", "name", "ACME")
    sink = line(template="{{ user.name }} of {{ company.name }}", only_if="on(user.wants_mail, true)")
    async with daemon(redis_server, tmp_path, setup({"audit": sink}, lookups)) as router:
        router.publish("notification", event(42), event(43), event(44))
        told, book = await settled(router, "audit", 3)
    assert sorted(written(router)) == ["Jim of ACME", "Joe of ACME"]
    assert book["by_reason"]["suppressed"] == {"only_if": 1}
    assert told["lookups"]["company"]["misses"] == 2


async def test_a_reload_keeps_the_cache_of_a_lookup_that_stays_the_same(redis_server, tmp_path):
    users(redis_server, u42={"name": "Jane"})
    config = setup({"audit": line()}, {"user": {**USER, "ttl": "1h"}})
    async with daemon(redis_server, tmp_path, config) as router:

        async def reloaded(number, **lookup):
            lookups = {"user": {**USER, "ttl": "1h", **lookup}, "other": {**USER, "ttl": f"{number}h"}}
            whole = {"version": 1, "redis": {"url": redis_server.url}, **config, "lookups": lookups}
            (router.folder / "config.yaml").write_text(json.dumps(whole))
            router.process.signal(signal.SIGHUP)
            await router.until(lambda: router.process.err.count("the new configuration has taken effect") == number)

        router.publish("notification", event(42))
        await router.until(lambda: len(written(router)) == 1)
        users(redis_server, u42={"name": "Joan"})
        await reloaded(1)
        router.publish("notification", event(42))
        await router.until(lambda: len(written(router)) == 2)
        assert status(router)["lookups"]["user"]["hits"] == 1
        await reloaded(2, ttl="2h")
        router.publish("notification", event(42))
        await router.until(lambda: len(written(router)) == 3)
        assert status(router)["lookups"]["user"]["fetches"] == 1
    assert written(router) == ["42 Jane", "42 Jane", "42 Joan"]


async def test_deliver_print_looks_up_too(redis_server, tmp_path):
    users(redis_server, u42={"email": "jane@example.org", "name": "Jane"})
    config = setup({"mail": mail(1)}, {"user": {**USER, "missing": "suppress"}}, deliver="print")
    async with daemon(redis_server, tmp_path, config) as router:
        router.publish("notification", event(42), event(1))
        await router.until(lambda: router.process.out.count("\n") >= 2)
    assert "to jane@example.org: hello" in router.process.out
    assert "→ suppressed (lookup)" in router.process.out


async def test_http_404_is_missing_another_4xx_is_dead_and_the_rest_is_tried_again(redis_server, tmp_path):
    async with stand_in() as service:
        answers = {
            "/u/1": [Reply(500), Reply(json={"name": "Jane"})],
            "/u/2": [Reply(404)],
            "/u/3": [Reply(403)],
            "/u/4": [Reply(json=["no", "object"])],
            "/u/a%2Fb": [Reply(json={"name": "Slash"})],
        }
        service.rule = lambda seen: answers[seen.target].pop(0)
        lookups = {
            "user": {
                "type": "http",
                "url": f"{service.url}/u/{{{{ payload.user_id }}}}",
                "headers": {"Authorization": "Bearer ${TOKEN}"},
                "allow_private": True,
            }
        }
        config = setup({"audit": line()}, lookups)
        async with daemon(redis_server, tmp_path, config, TOKEN="sesame-open") as router:
            router.publish("notification", *map(event, (1, 2, 3, 4, "a/b")))
            await settled(router, "audit", 5)
            await router.until(lambda: len(router.letters()) == 3)
    assert sorted(written(router)) == ["1 Jane", "a/b Slash"]
    assert {seen.headers["Authorization"] for seen in service.requests} == {"Bearer sesame-open"}
    details = {letter["detail"].partition(" (")[0].partition("http")[0] for letter in router.letters()}
    assert details == {
        "lookup user: there is no record with the key '",
        "lookup user: HTTP 403",
        "lookup user: the response is not a JSON object",
    }
    assert "sesame" not in router.process.err


async def test_a_service_that_asks_for_time_is_not_asked_before_and_no_attempt_is_used_up(redis_server, tmp_path):
    answered = []
    replies = [Reply(408), Reply(425), Reply(429, headers={"Retry-After": "2"}), Reply(json={"name": "Jane"})]

    def rule(_seen):
        answered.append(time.monotonic())
        return replies[len(answered) - 1]

    async with stand_in() as service:
        service.rule = rule
        url = f"{service.url}/u/{{{{ payload.user_id }}}}"
        lookups = {"user": {"type": "http", "url": url, "allow_private": True}}
        retry = {"attempts": 1, "initial": "50ms", "max_delay": "100ms"}
        async with daemon(redis_server, tmp_path, setup({"audit": line(retry=retry)}, lookups)) as router:
            router.publish("notification", event(1))
            _, book = await settled(router, "audit", 1)
    assert book["delivered"] == 1
    assert written(router) == ["1 Jane"]
    assert answered[3] - answered[2] >= 1.9
    assert '"lookup":"user","error":"HTTP 429"' in router.process.err


CRM = """
from router.api import LookupOptions, PermanentError, TransientError, hookimpl


class Options(LookupOptions):
    city: str = "Ghent"


async def crm(key, options, context):
    context.log.info("asked", key=key)
    if key == "5":
        raise PermanentError("not for us")
    if key == "6":
        raise KeyError("oops")
    return {"name": f"n{key}", "city": options.city} if int(key) < 9 else None


def blocking(key, options):
    return {"name": f"b{key}"}


class Many:
    def __init__(self, options):
        self.opened = False

    async def open(self, context):
        self.opened = True

    async def fetch_many(self, keys):
        return [{"name": f"m{key}{self.opened}"} for key in keys]

    async def close(self):
        print("closed the store")


@hookimpl
def register_lookups(register):
    register("crm", crm, options=Options)
    register("blocking", blocking)
    register("many", Many)
"""


async def test_a_plugin_finds_records(redis_server, tmp_path):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "crm.py").write_text(CRM)
    key = "{{ payload.user_id }}"
    lookups = {
        "user": {"type": "crm", "key": key, "city": "Bruges", "missing": "suppress"},
        "other": {"type": "blocking", "key": key},
        "third": {"type": "many", "key": key},
    }
    template = "{{ user.name }} {{ user.city }} {{ other.name }} {{ third.name }}"
    sink = line(template=template, retry={"attempts": 1, "initial": "50ms", "max_age": "1s"})
    async with daemon(redis_server, tmp_path, setup({"audit": sink}, lookups)) as router:
        router.publish("notification", *map(event, (1, 5, 6, 9)))
        _, book = await settled(router, "audit", 4)
        await router.until(lambda: len(router.letters()) == 2)
        assert await router.stop() == 0
    assert written(router) == ["n1 Bruges b1 m1True"]
    assert book["by_reason"]["suppressed"] == {"lookup": 1}
    assert sorted((letter["reason"], letter["detail"]) for letter in router.letters()) == [
        ("exhausted", "lookup user: KeyError: 'oops' (plugins/crm.py, line 14)"),
        ("lookup", "lookup user: not for us (key '5')"),
    ]
    assert "closed the store" in router.process.out + router.process.err
