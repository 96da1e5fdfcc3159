"""`event-router status` and what it draws; the admin side of a real daemon."""

import asyncio
import contextlib
import io
import json
import os
import pty
import re
import signal
import stat
import subprocess
import threading
import urllib.request
from pathlib import Path

import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from router.admin.admin_client import Client
from router.admin.sockets import default_address
from router.cli.operate.sink_troubles import span
from router.cli.operate.status import Rates, drawn
from router.config.scalars import Address
from router.core.accounts.snapshot import document
from router.errors import RouterError
from tests.support.daemon import daemon
from tests.support.process import COMMAND, Process, environment, run
from tests.support.redis import free_port
from tests.support.status import SINK, SNAPSHOT
from tests.support.waiting import PATIENCE, wait_until

SOURCES = {"web-app": {"type": "pubsub", "channels": ["notification", "orders"]}}
SCHEMAS = [{"channels": ["notification"], "file": "notification.json"}]
AUDIT = {"type": "log", "path": "audit.jsonl"}
GOOD = {"user_id": 42, "message": "Your order is on its way!"}
NOBODY = {
    "type": "email",
    "host": "127.0.0.1",
    "port": 1,
    "tls": "none",
    "from": "shop@example.org",
    "to": "ops@example.org",
    "subject": "News",
    "text": "Hi",
    "queue": "memory",
}


BALANCED = "The books balance."


def setup(*, sinks=None, **keys):
    sinks = sinks or {"audit": AUDIT}
    routes = [{"id": "all", "channels": ["notification"], "sinks": list(sinks)}]
    return {"sources": SOURCES, "schemas": SCHEMAS, "sinks": sinks, "routes": routes, **keys}


def socket_of(router, instance="default"):
    return default_address(router.folder / "state" / "event-router", instance)


def told_by(router):
    return Client(socket_of(router)).get("/api/status")


def status(router, *arguments):
    return run("status", *arguments, cwd=router.folder)


async def ready(client):
    """What /readyz says: its code and its document."""
    with contextlib.suppress(RouterError):
        return 200, await asyncio.to_thread(client.get, "/readyz")
    return 503, None


@pytest.fixture
def server(start_server):
    return start_server("valkey")


async def test_its_numbers_are_those_of_what_was_published(server, tmp_path):
    nowhere = {**NOBODY, "to": "{{ payload.message }}"}
    sinks = {"audit": AUDIT, "mail": nowhere, "slow": NOBODY}
    async with daemon(server, tmp_path, setup(sinks=sinks, shutdown={"drain": "1s"})) as router:
        router.publish("notification", *[GOOD] * 300, *[{"user_id": 0}] * 20, *[b"{"] * 10)
        router.publish("orders", *[GOOD] * 40)
        await router.until(lambda: told_by(router)["books"]["sinks"]["mail"]["dead_lettered"] == 300)
        await router.until(lambda: told_by(router)["sinks"]["slow"]["breaker_open"])
        done = status(router, "--json")
        told = json.loads(done.out)
        assert done.code == 0
        assert told["balanced"] is True
        assert told["books"]["sources"]["web-app"] == {
            "received": 370,
            "rejected": 30,
            "unmatched": 40,
            "routed": 300,
            "by_reason": {"rejected": {"decode": 10, "schema": 20}},
            "balanced": True,
        }
        over = {"delivered": 0, "dead_lettered": 0, "dropped": 0, "suppressed": 0, "handed_over": 0, "pending": 0}
        for name, expected in (("audit", "delivered"), ("mail", "dead_lettered"), ("slow", "pending")):
            book = told["books"]["sinks"][name]
            assert book["accepted"] == 300
            assert {column: book[column] for column in over} == {**over, expected: 300}
        assert told["books"]["sinks"]["mail"]["by_reason"]["dead_lettered"] == {"address": 300}
        assert told["sinks"]["audit"]["fault"] is None
        assert "no connection to 127.0.0.1:1" in told["sinks"]["slow"]["fault"]["why"]
        assert told["sources"]["web-app"]["up"] is True
        assert (told["pid"], told["instance"], told["ready"]) == (router.process.pid, "default", True)

        drawn = status(router)
        assert drawn.code == 0
        assert re.search(r"^web-app +up +370 +30: decode 10, schema 20 +40 +300 +0$", drawn.out, re.MULTILINE)
        assert re.search(r"^audit +ok +0 +300 +0 +0 +0 +0$", drawn.out, re.MULTILINE)
        assert re.search(r"^slow +breaker open +300( \(\d+ to be retried\))? +0 +0", drawn.out, re.MULTILINE)
        assert "The books balance." in drawn.out
        assert "! sink slow: " in drawn.out


async def test_a_scrape_has_the_same_numbers(server, tmp_path):
    port = free_port()
    config = setup(sinks={"audit": {**AUDIT, "batch": {"max_events": 1}}}, admin={"listen": f"127.0.0.1:{port}"})
    async with daemon(server, tmp_path, config) as router:
        router.publish("notification", *[GOOD] * 50, {"user_id": 0})
        router.publish("orders", GOOD)
        await router.until(lambda: router.count() == 50)

        def scrape():
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as answer:
                families = text_string_to_metric_families(answer.read().decode())
            return {
                (sample.name.removeprefix("event_router_"), *sorted(sample.labels.values())): sample.value
                for family in families
                for sample in family.samples
            }

        samples = {}

        def settled():
            samples.update(scrape())
            return samples["deliveries_total", "", "audit", "delivered"] == 50

        await router.until(settled)
        assert samples["events_received_total", "web-app"] == 52
        assert samples["events_rejected_total", "schema", "web-app"] == 1
        assert samples["events_unmatched_total", "web-app"] == 1
        assert samples["delivery_attempts_total", "audit", "delivered"] == 50
        assert samples["delivery_seconds_count", "audit"] == 50  # each delivery was a batch of its own
        assert samples["event_age_seconds_count", "audit"] == 50
        assert samples["event_age_seconds_bucket", "60.0", "audit"] == 50
        assert samples["queue_events", "audit"] == 0
        assert samples["source_up", "web-app"] == 1
        assert samples["ready",] == samples["books_balanced",] == 1
        found = status(router, "-c", tmp_path / "config.yaml", "--json")
        assert json.loads(found.out)["pid"] == router.process.pid


async def test_readiness_follows_redis(server, tmp_path):
    async with daemon(server, tmp_path, setup()) as router:
        client = Client(socket_of(router))
        assert await ready(client) == (200, {"ready": True, "reasons": [], "warnings": []})
        server.stop()
        await router.until(lambda: not told_by(router)["ready"], "for the loss to be noticed")
        assert (await ready(client))[0] == 503
        await router.until(lambda: len(told_by(router)["reasons"]) == 2, "for both reasons")
        told = told_by(router)
        assert [reason.partition(":")[0] for reason in told["reasons"]] == ["redis", "source web-app"]
        assert told["redis"]["up"] is told["sources"]["web-app"]["up"] is False
        down = status(router)
        assert down.code == 1
        assert "not ready" in down.out
        assert "✗ source web-app: " in down.out
        server.start()
        await router.until(lambda: told_by(router)["ready"], "for the way back")
        assert (await ready(client))[0] == 200
        assert told_by(router)["sources"]["web-app"]["gaps"] == 1


async def test_its_own_redis_counts_where_the_sources_are_elsewhere(server, start_server, tmp_path):
    own = start_server("valkey")
    sources = {"web-app": {"type": "pubsub", "channels": ["notification"], "url": server.url}}
    async with daemon(server, tmp_path, setup(sources=sources, redis={"url": own.url})) as router:
        assert told_by(router)["redis"] == {"address": own.url, "up": True, "reason": None}
        own.pause()
        await router.until(lambda: told_by(router)["reasons"] == [f"redis: {own.url}: no answer in time"])
        own.resume()
        await router.until(lambda: told_by(router)["ready"])


async def test_it_answers_while_it_starts_and_while_it_drains(server, tmp_path):
    server.stop()
    slow = tmp_path / "plugins"
    slow.mkdir(mode=0o755)
    (slow / "slow.py").write_text(
        "import asyncio, os\n"
        "from router.api import hookimpl\n"
        "async def wait(event, options):\n"
        "    while not os.path.exists('go'):\n"
        "        await asyncio.sleep(0.01)\n"
        "@hookimpl\n"
        "def register_sinks(register):\n"
        "    register('slow', wait)\n"
    )
    config = {"version": 1, "redis": {"url": server.url}, **setup(sinks={"slow": {"type": "slow"}}, schemas=[])}
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    client = Client(default_address(tmp_path / "state" / "event-router", "default"))
    with Process("run", "-c", "config.yaml", cwd=tmp_path, notify=True) as process:
        wait_until(client.answers, "the socket")
        told = client.get("/api/status")
        assert (told["phase"], told["ready"], told["reasons"][0]) == ("starting", False, "the router is starting")
        server.start()
        process.wait_ready()
        wait_until(lambda: client.get("/api/status")["ready"], "ready")
        server.do("PUBLISH", "notification", "{}")
        wait_until(lambda: client.get("/api/status")["sinks"]["slow"]["in_hand"] == 1, "the delivery")
        process.signal()
        wait_until(lambda: client.get("/api/status")["phase"] == "draining", "the drain")
        told = client.get("/api/status")
        assert (told["ready"], told["balanced"]) == (False, True)
        assert told["books"]["sinks"]["slow"]["pending"] == 1
        (tmp_path / "go").touch()
        assert process.wait() == 0
    assert not client.answers()
    assert not Path(client.address.path).exists()


async def test_the_socket_is_its_owners_and_outlives_kill_9_harmlessly(server, tmp_path):
    async with daemon(server, tmp_path, setup(), arguments=("--instance", "orders")) as router:
        path = Path(socket_of(router, "orders").path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert status(router).code == 69
        assert status(router, "--instance", "orders").code == 0
        router.process.signal(signal.SIGKILL)
        router.process.wait()
    assert path.is_socket()
    assert run("status", "--instance", "orders", cwd=tmp_path).code == 69
    async with daemon(server, tmp_path, setup(), arguments=("--instance", "orders")) as router:
        assert status(router, "--instance", "orders").code == 0


async def test_a_token_is_found_in_the_configuration(server, tmp_path):
    port = free_port()
    admin = {"listen": f"0.0.0.0:{port}", "token": "${ADMIN_TOKEN}"}
    async with daemon(server, tmp_path, setup(admin=admin), ADMIN_TOKEN="word-of-admin") as router:
        config = ("-c", str(tmp_path / "config.yaml"))
        assert run("status", *config, cwd=tmp_path, env={"ADMIN_TOKEN": "word-of-admin"}).code == 0
        wrong = run("status", *config, cwd=tmp_path)
        assert wrong.code == 1
        assert "refuses the token" in wrong.err
        assert "--env-file" in wrong.err
        assert "word-of-admin" not in router.process.err


async def test_an_address_that_is_taken_is_78(server, tmp_path):
    port = free_port()
    async with daemon(server, tmp_path, setup(admin={"listen": f"127.0.0.1:{port}"})):
        second = run("run", "-c", "config.yaml", "--instance", "second", cwd=tmp_path)
    assert second.code == 78
    assert f"admin.listen: can't listen at 127.0.0.1:{port}: address already in use" in second.err


async def test_slow_clients_do_not_hold_up_events(server, tmp_path):
    port = free_port()
    async with daemon(server, tmp_path, setup(admin={"listen": f"127.0.0.1:{port}"})) as router:
        opened = await asyncio.gather(
            *(asyncio.open_connection("127.0.0.1", port) for _ in range(300)), return_exceptions=True
        )
        writers = [one[1] for one in opened if not isinstance(one, BaseException)]
        for writer in writers:
            writer.write(b"GET /metrics HTTP/1.1\r\nX: ")
        router.publish("notification", *[GOOD] * 2000)
        await router.until(lambda: router.count() == 2000)
        for writer in writers:
            writer.transport.abort()
        await router.until(lambda: Client(Address(None, "127.0.0.1", port)).answers())
        assert router.process.running


def test_nobody_there(tmp_path):
    done = run("status", cwd=tmp_path)
    assert done.code == 69
    assert "no router runs here under the name 'default'" in done.err
    assert str(tmp_path / "state" / "event-router" / "default.sock") in done.err
    assert not (tmp_path / "state").exists()


def test_off(tmp_path):
    (tmp_path / "config.yaml").write_text(json.dumps({"version": 1, **setup(schemas=[], admin="off")}))
    done = run("status", cwd=tmp_path)
    assert done.code == 69
    assert "admin: off" in done.err


def test_a_configuration_that_is_not_there(tmp_path):
    done = run("status", "-c", "none.yaml", cwd=tmp_path)
    assert done.code == 78
    assert "none.yaml" in done.err


async def test_a_broken_configuration_does_not_hide_the_router(server, tmp_path):
    async with daemon(server, tmp_path, setup()) as router:
        (tmp_path / "config.yaml").write_text("version: 2\n")
        done = status(router, "-c", tmp_path / "config.yaml")
        assert done.code == 0
        assert "has faults" in done.err


# Watching.


async def test_watching_prints_one_look_a_second_and_survives_a_restart(server, tmp_path):
    async with daemon(server, tmp_path, setup()) as router:
        with Process("status", "--watch", "--json", cwd=tmp_path) as watch:

            def looks():
                return [json.loads(line) for line in watch.out.splitlines() if line.endswith("}")]

            await router.until(lambda: len(looks()) >= 2)
            assert {look["pid"] for look in looks()} == {router.process.pid}
            await router.stop()
            await asyncio.to_thread(wait_until, lambda: "error" in looks()[-1], "the loss")
            async with daemon(server, tmp_path, setup()) as again:
                await again.until(lambda: looks()[-1].get("pid") == again.process.pid)
            watch.signal(signal.SIGINT)
            assert watch.wait() == 130
            assert "Traceback" not in watch.err


async def test_watching_on_a_terminal_draws_rates_in_colour(server, tmp_path):
    async with daemon(server, tmp_path, setup()) as router:
        await asyncio.to_thread(watched_on_a_terminal, router)


def watched_on_a_terminal(router):
    ours, theirs = pty.openpty()
    env = {**environment(router.folder), "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
    command = [*COMMAND, "status", "--watch"]
    with subprocess.Popen(command, cwd=router.folder, env=env, stdin=theirs, stdout=theirs, stderr=theirs) as watch:
        os.close(theirs)
        seen = bytearray()

        def look():
            """Reads to the end: a terminal that nobody reads holds up whoever writes to it."""
            with contextlib.suppress(OSError):
                while data := os.read(ours, 100_000):
                    seen.extend(data)

        reader = threading.Thread(target=look, daemon=True)
        reader.start()
        try:
            wait_until(lambda: b"/s" in seen and b"received" in seen, "a picture with rates")
            router.publish("notification", *[GOOD] * 7)
            wait_until(lambda: re.search(rb"up\x1b\[0m +\d* +7 ", bytes(seen)), "the events")
            watch.send_signal(signal.SIGINT)
            assert watch.wait(PATIENCE) == 130
        finally:
            watch.kill()
    reader.join(PATIENCE)
    os.close(ours)
    assert b"\x1b[32mup" in seen
    assert b"Traceback" not in seen


def test_routes_are_drawn_and_of_many_those_with_the_most_events():
    def lines(routes, rates=None):
        told = document(replace(SNAPSHOT, routes=routes))
        screen = Console(width=80, file=io.StringIO())
        screen.print(drawn(told, rates and Rates(2.0, document(replace(SNAPSHOT, routes=rates)), told)))
        text = screen.file.getvalue()
        assert max(map(len, text.splitlines())) <= 80
        found = [line.rstrip() for line in text.splitlines()]
        return found[[line.split()[:1] for line in found].index(["route"]) :] if "route " in text else []

    assert lines({}) == []
    assert lines({"all": 1234, "urgent": 0}) == ["route   events", "all      1,234", "urgent       0", BALANCED]
    assert lines({"all": 9, "new": 1, "again": 3}, {"all": 5, "again": 90}) == [
        "route  events  /s",
        "all         9   2",
        "new         1",
        "again       3   0",
        BALANCED,
    ]
    many = lines({f"{'r' * 60}{n}": n for n in range(2003)})
    assert many[1] == f"{'r' * 60}1983   1,983"
    assert many[-2:] == ["1983 more routes (events together: 1,965,153); --json has each route", BALANCED]
    assert len(many) == 23
    older = {key: value for key, value in document(SNAPSHOT).items() if key != "routes"}
    assert "route " not in str(drawn(older, Rates(1.0, older, older)))


def test_a_footnote_says_which_counts_are_of_this_process():
    def drawn_with(**queues):
        told = document(replace(SNAPSHOT, sinks={name: replace(SINK, queue=queue) for name, queue in queues.items()}))
        screen = Console(width=80, file=io.StringIO())
        screen.print(drawn(told))
        text = screen.file.getvalue()
        assert max(map(len, text.splitlines())) <= 80
        return " ".join(text.split())

    assert "counted" not in drawn_with(audit="memory")
    assert (
        " Sinks: the counts are in Redis. They include all routers, and survive a restart. "
        "Sources and routes: the counts are those of this process since its start. "
    ) in drawn_with(mail="redis")
    assert (
        " Sinks with a queue in Redis (mail): the counts are in Redis. They include all routers, and survive a restart. "
        "Everything else: the counts are those of this process since its start. "
    ) in drawn_with(audit="memory", mail="redis")
    many = drawn_with(audit="memory", **{f"mail{number}": "redis" for number in range(9)})
    assert "(mail0, mail1, mail2, mail3, mail4 and 4 more)" in many


def test_rates():
    before = document(SNAPSHOT)
    after = document(replace(SNAPSHOT, sinks={"audit": replace(SINK, delivered=4_005), "new": SINK}))
    rates = Rates(2.0, before, after)
    assert rates.of("sinks", "audit", "delivered") == "2,000"
    assert rates.of("sources", "web", "received") == "0"
    assert rates.of("sinks", "new", "delivered") == ""
    assert Rates(2.0, before, {**after, "pid": 8}).of("sinks", "audit", "delivered") == ""


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        *((0, "0 s"), (0.9, "0 s"), (59.9, "59 s"), (60, "1 m 0 s"), (3599, "59 m 59 s"), (3600, "1 h 0 m")),
        *((86_399, "23 h 59 m"), (90_061, "1 d 1 h")),
    ],
)
def test_spans(seconds, shown):
    assert span(seconds) == shown


# A queue in Redis.


async def test_routers_that_share_a_queue_show_one_book_and_count_their_own(server, tmp_path):
    sinks = {"audit": {**AUDIT, "queue": "redis"}, "slow": {**NOBODY, "queue": "redis"}}
    config = setup(sinks=sinks)
    other = {**config, "sources": {"web-app": {"type": "pubsub", "channels": ["elsewhere"]}}}
    async with (
        daemon(server, tmp_path / "one", config) as one,
        daemon(server, tmp_path / "two", other, arguments=("--instance", "two")) as two,
    ):
        one.publish("notification", *[GOOD] * 200)
        await one.until(lambda: one.count() + two.count() == 200)

        def books():
            return [told_by(one)["books"]["sinks"], Client(socket_of(two, "two")).get("/api/status")["books"]["sinks"]]

        await one.until(lambda: all(book["audit"]["delivered"] == 200 for book in books()))
        for book in books():
            assert book["audit"]["accepted"] == 200
            assert (book["slow"]["accepted"], book["slow"]["pending"]) == (200, 200)
            assert book["audit"]["balanced"]
            assert book["slow"]["balanced"]
        told = told_by(one)
        assert (told["balanced"], told["sinks"]["audit"]["queue"]) == (True, "redis")
        assert any("append-only" in warning for warning in told["warnings"]), told["warnings"]

        def delivered(router, instance):
            connection = Client(socket_of(router, instance))
            return connection.get("/api/status")["books"]["sinks"]["audit"]["delivered"]

        assert delivered(one, "default") == delivered(two, "two") == 200
        one.process.signal(signal.SIGKILL)
        one.process.wait()
        async with daemon(server, tmp_path / "one", config) as again:
            book = told_by(again)["books"]["sinks"]
            assert (book["audit"]["accepted"], book["audit"]["delivered"]) == (200, 200)
            assert book["slow"]["pending"] == 200
            assert told_by(again)["balanced"]


def test_what_is_read_ahead_is_shown_while_there_is_something():
    console = Console(width=200, file=io.StringIO())

    def shown(**changes):
        (source,) = SNAPSHOT.sources.values()
        with console.capture() as captured:
            console.print(drawn(document(replace(SNAPSHOT, sources={"web": replace(source, **changes)}))))
        return captured.get()

    assert "read ahead" not in shown(read_ahead_peak=5)
    assert "read ahead" in shown(read_ahead_bytes=3 * 1024**2)
    assert "3.0 MiB" in shown(read_ahead_bytes=3 * 1024**2)
    assert "0.1 MiB" in shown(read_ahead_bytes=1)
