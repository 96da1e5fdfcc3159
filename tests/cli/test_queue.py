"""`event-router queue`: what waits is listed, moved and given up, of sinks that are gone too, and nothing is lost."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from router.admin.admin_client import Client
from router.admin.sockets import default_address
from router.core.accounts.records import Reader, pack
from router.events import History
from tests.support.daemon import DEAD, daemon
from tests.support.engine import make_event
from tests.support.process import Process, run
from tests.support.terminal import Terminal
from tests.support.waiting import wait_until

PREFIX = "{event-router}"
LOG = {"type": "log", "path": "audit.jsonl"}
CONFIG = {
    "sources": {"web-app": {"type": "pubsub", "channels": ["notification"]}},
    "sinks": {
        "audit": LOG,
        "kept": {"type": "log", "path": "kept.jsonl", "queue": {"type": "redis", "max_events": 5000}},
    },
    "routes": [{"id": "notify", "sinks": ["audit", "kept"]}],
}


class Desk:
    """A folder with a configuration, a server with queues, and the command."""

    def __init__(self, server, folder):
        self.server = server
        self.folder = folder
        self.write()

    def write(self, **changes):
        whole = {"version": 1, "redis": {"url": self.server.url}, **CONFIG, **changes}
        (self.folder / "config.yaml").write_text(json.dumps(whole))

    def put(self, sink, count, *, begin=0, ago=10.0, prefix=PREFIX, **fields):
        """Let deliveries wait as the hand-over leaves them."""
        at = datetime.now(UTC) - timedelta(seconds=ago)
        numbers = range(begin, begin + count)
        events = [
            make_event(json.dumps({"user_id": n + 1}).encode(), id=f"e-{n}", received_at=at, **fields) for n in numbers
        ]
        records = pack(events)
        with self.server.client() as client:
            pipeline = client.pipeline()
            for record in records:
                pipeline.xadd(f"{prefix}:queue:{sink}", {"d": record})
            pipeline.hincrby(f"{prefix}:books:{sink}", "accepted", count)
            pipeline.hincrby(f"{prefix}:books:{sink}", "bytes", sum(map(len, records)))
            pipeline.execute()

    def delay(self, sink, number, due, **fields):
        """Let one be due later."""
        event = make_event(b'{"user_id": 1}', id=f"e-{number}", **fields)
        (record,) = pack([event])
        with self.server.client() as client:
            client.zadd(f"{PREFIX}:later:{sink}", {b"1-%d/0 %s" % (number, record): due * 1000})
            client.hincrby(f"{PREFIX}:books:{sink}", "accepted", 1)
            client.hincrby(f"{PREFIX}:books:{sink}", "bytes", len(record))

    def ids(self, sink):
        with self.server.client() as client:
            records = [fields[b"d"] for _, fields in client.xrange(f"{PREFIX}:queue:{sink}")]
            records += [m.partition(b" ")[2] for m in client.zrange(f"{PREFIX}:later:{sink}", 0, -1)]
        return [Reader(sink).read(record, None)[0].id for record in records]

    def book(self, sink):
        with self.server.client() as client:
            found = client.hgetall(f"{PREFIX}:books:{sink}")
        return {name.decode(): int(value) for name, value in found.items() if name != b"epoch"}

    def balances(self, sink):
        book = self.book(sink)
        over = sum(value for name, value in book.items() if name not in {"accepted", "bytes"})
        return book.get("accepted", 0) - over == len(self.ids(sink))

    def queue(self, *words, **how):
        return run("queue", *words, cwd=self.folder, **how)

    def told(self, *words, code=0):
        """The object that a command prints."""
        done = self.queue(*words, "--json")
        assert done.code == code, done.err
        return json.loads(done.out)

    def listed(self):
        done = self.queue("list", "--json")
        assert done.code == 0, done.err
        return {line["sink"]: line for line in map(json.loads, done.out.splitlines())}

    def letters(self):
        with self.server.client() as client:
            return [{k.decode(): v.decode() for k, v in fields.items()} for _, fields in client.xrange(DEAD)]


@pytest.fixture
def desk(redis_server, tmp_path):
    return Desk(redis_server, tmp_path)


@pytest.fixture
def quick(start_server, tmp_path):
    """The same on one server alone, for what the server has no part in."""
    return Desk(start_server("valkey"), tmp_path)


# list


def test_the_queues_of_sinks_that_work_that_are_gone_and_that_moved_to_memory(desk):
    desk.put("kept", 3, ago=601)
    desk.put("gone", 2, ago=7200)
    failed = History(time.time() - 60, calls=3, last_error="HTTP 503", failed_at=time.time())
    desk.delay("gone", 5, time.time() + 100, received_at=datetime.now(UTC) - timedelta(days=3), _history=failed)
    desk.put("audit", 1)
    desk.delay("later-only", 1, time.time() + 100)
    done = desk.queue("list")
    assert done.code == 0
    header, *rows = (line.split() for line in done.out.splitlines())
    assert header == ["sink", "state", "waiting", "delayed", "in", "flight", "oldest", "next", "due", "last", "error"]
    table = {row[0]: row[1:] for row in rows}
    assert list(table) == ["kept", "audit", "gone", "later-only"]
    assert table["kept"][:4] == ["ok", "3", "0", "0"]
    assert table["kept"][4] == "10m"
    assert table["gone"][:6] == ["gone", "2", "1", "0", "3d", "in"]
    assert table["gone"][7:] == ["HTTP", "503"]
    assert table["kept"][5:] == ["-", "-"]
    assert table["audit"][:2] == ["memory", "1"]
    assert "5 deliveries wait in queues that no sink" in done.err
    listed = desk.listed()
    assert list(listed) == ["kept", "audit", "gone", "later-only"]
    assert listed["gone"] == {
        "sink": "gone",
        "state": "gone",
        "waiting": 2,
        "delayed": 1,
        "in_hand": 0,
        "oldest": listed["gone"]["oldest"],
        "next_due": {"at": listed["gone"]["next_due"]["at"], "attempts": 3, "error": "HTTP 503"},
    }
    assert listed["kept"]["next_due"] is None
    assert listed["later-only"]["next_due"]["error"] is None  # it has not failed
    due = datetime.fromisoformat(listed["gone"]["next_due"]["at"]) - datetime.now(UTC)
    assert timedelta(seconds=10) < due < timedelta(seconds=100)
    age = datetime.now(UTC) - datetime.fromisoformat(listed["gone"]["oldest"])
    assert timedelta(days=3) < age < timedelta(days=3, minutes=5)


def test_a_queue_that_was_emptied_is_listed_only_where_its_sink_works(quick):
    quick.put("gone", 2)
    quick.put("kept", 1)
    assert list(quick.listed()) == ["kept", "gone"]
    assert quick.queue("move", "gone", "kept").code == 0
    assert list(quick.listed()) == ["kept"]
    assert [line.split()[0] for line in quick.queue("list").out.splitlines()] == ["sink", "kept"]


def test_what_a_living_router_has_let_go_of_is_not_said_to_be_a_dead_ones(quick):
    quick.put("gone", 2)
    stream = f"{PREFIX}:queue:gone"
    with quick.server.client() as client:
        client.xgroup_create(stream, "event-router", id="0")
        taken = client.xreadgroup("event-router", "alive", {stream: ">"})[0][1]
        for entry, _ in taken:  # as a router sets free what it has in flight, when a reload takes the sink away
            client.execute_command("XCLAIM", stream, "event-router", "alive", 0, entry, "IDLE", 10**8, "RETRYCOUNT", 0)
    done = quick.queue("move", "gone", "kept")
    assert done.code == 0
    assert "2 that are no longer in flight in any router" in done.err
    assert "dead" not in done.err


def test_a_sink_with_nothing_in_redis_is_listed_and_an_empty_redis_is_no_error(desk):
    assert desk.listed() == {
        "kept": {
            "sink": "kept",
            "state": "ok",
            "waiting": 0,
            "delayed": 0,
            "in_hand": 0,
            "oldest": None,
            "next_due": None,
        }
    }
    desk.write(sinks={"audit": LOG}, routes=[{"id": "notify", "sinks": ["audit"]}])
    done = desk.queue("list")
    assert (done.code, done.out) == (0, "")
    assert "there are no queues in Redis" in done.err


def test_no_redis_is_69_and_a_wrong_type_is_78(quick):
    quick.server.do("SET", f"{PREFIX}:queue:gone", "x")
    done = quick.queue("list")
    assert done.code == 78
    assert "WRONGTYPE" in done.err
    quick.write(redis={"url": "redis://127.0.0.1:1"})
    for words in (["list"], ["move", "gone", "kept"], ["dead-letter", "gone"]):
        assert quick.queue(*words).code == 69
    quick.write(redis={"url": "embedded"})
    assert "the embedded server is not running" in quick.queue("list").err


def test_the_prefix_is_the_configurations(quick):
    quick.write(redis={"url": quick.server.url, "key_prefix": "shop"})
    quick.put("gone", 2, prefix="{shop}")
    quick.put("gone", 5)
    assert quick.listed()["gone"]["waiting"] == 2
    assert quick.told("move", "gone", "kept")["moved"] == 2
    assert quick.server.do("XLEN", "{shop}:queue:kept") == 2
    assert quick.told("dead-letter", "kept")["dead_lettered"] == 2
    assert quick.server.do("XLEN", "{shop}:dead") == 2


# move


def test_what_waits_for_a_sink_that_is_gone_is_moved_to_another(desk):
    due = time.time() + 1000
    desk.put("gone", 40, ago=7200)
    desk.delay("gone", 100, due)
    desk.put("kept", 3, begin=200)
    done = desk.queue("move", "gone", "kept", "--dry-run")
    assert done.code == 0
    assert "would move 41 deliveries of gone (1 due later, the oldest " in done.err
    assert len(desk.ids("gone")) == 41
    done = desk.queue("move", "gone", "kept")
    assert done.code == 0
    assert "moving 41 deliveries of gone" in done.err
    assert "moved 41 deliveries" in done.err
    assert done.out == ""
    assert desk.ids("kept") == [*(f"e-{n}" for n in range(200, 203)), *(f"e-{n}" for n in range(40)), "e-100"]
    with desk.server.client() as client:
        ((_, score),) = client.zrange(f"{PREFIX}:later:kept", 0, -1, withscores=True)
    assert score == due * 1000
    assert desk.book("gone") == {"accepted": 41, "handed_over": 41, "bytes": 0}
    assert desk.book("kept")["accepted"] == 44
    assert desk.balances("kept")
    done = desk.queue("move", "gone", "kept")
    assert done.code == 0
    assert "no delivery can be taken out of the queue of gone now" in done.err


def test_json_is_one_object(quick):
    quick.put("gone", 5)
    nothing = {"in_hand": 0, "unreadable": 0, "full": False}
    ways = {"from": "gone", "to": "kept"}
    assert quick.told("move", "gone", "kept", "--dry-run") == (
        {**ways, "found": 5, "moved": 0, "left": 5, **nothing, "dry_run": True}
    )
    assert quick.told("move", "gone", "kept", "--limit", "2") == (
        {**ways, "found": 2, "moved": 2, "left": 3, **nothing, "dry_run": False}
    )
    assert quick.told("dead-letter", "gone") == {
        "sink": "gone",
        "reason": "orphaned",
        "found": 3,
        "dead_lettered": 3,
        "left": 0,
        **nothing,
        "dry_run": False,
    }
    assert quick.told("move", "gone", "kept")["found"] == 0


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (("move", "gone", "kpt"), "did you mean `kept`", 2),
        (("move", "gone", "audit"), "has its queue in memory", 2),
        (("move", "kept", "kept"), "the same sink", 2),
        (("move", "gone"), "Missing argument 'TO'", 2),
        (("move", "gone", "kept", "--limit", "0"), "--limit", 2),
        (("move", "gnoe", "kept"), "there is no queue 'gnoe' in Redis (did you mean `gone`?)", 1),
        (("dead-letter", "gnoe"), "there is no queue 'gnoe' in Redis (did you mean `gone`?)", 1),
    ],
)
def test_what_can_not_be_is_refused_with_a_hint(quick, words, said, code):
    quick.put("gone", 1)
    done = quick.queue(*words)
    assert done.code == code
    assert said in " ".join(done.err.split())
    assert quick.ids("gone") == ["e-0"]


def test_a_full_queue_takes_what_it_has_room_for_and_the_rest_waits(quick):
    quick.put("kept", 4990)
    quick.put("gone", 30, begin=10_000)
    done = quick.queue("move", "gone", "kept")
    assert done.code == 1
    assert "there is room for only 10 deliveries; then kept is full (max_events 5000" in done.err
    assert "moved 10 deliveries" in done.err
    assert "20 deliveries remain in the queue, because kept is full" in done.err
    assert quick.ids("gone") == [f"e-{n}" for n in range(10_010, 10_030)]
    told = quick.told("move", "gone", "kept", code=1)
    assert (told["moved"], told["left"], told["full"]) == (0, 20, True)
    assert quick.balances("gone")
    assert quick.balances("kept")


def test_what_a_newer_router_wrote_is_left_and_said(quick):
    quick.put("gone", 2)
    quick.server.do("XADD", f"{PREFIX}:queue:gone", "*", "d", b"\x91\x63")
    done = quick.queue("move", "gone", "kept")
    assert done.code == 0
    assert (
        "warning: 1 delivery was left in the queue, because this version of event-router can't read them; a newer version"
        in done.err
    )
    assert quick.server.do("XLEN", f"{PREFIX}:queue:gone") == 1


# dead-letter


def test_what_waits_for_a_sink_that_is_gone_becomes_dead_letters(desk):
    desk.put("gone", 20, route="notify")
    desk.delay("gone", 100, time.time() + 1000, attempt=3, _history=History(1.0, 2, "503"), route="notify")
    done = desk.queue("dead-letter", "gone")
    assert done.code == 0
    assert "making dead letters of 21 deliveries of gone" in done.err
    assert "made dead letters of 21 deliveries" in done.err
    letters = desk.letters()
    assert [letter["event_id"] for letter in letters] == [*(f"e-{n}" for n in range(20)), "e-100"]
    assert {(letter["reason"], letter["sink"], letter["route"]) for letter in letters} == {
        ("orphaned", "gone", "notify")
    }
    assert letters[0]["detail"] == "the sink gone was removed from the configuration"
    assert letters[-1]["detail"] == "the sink gone was removed from the configuration (last error: 503)"
    assert (letters[0]["attempts"], letters[-1]["attempts"]) == ("0", "2")
    assert desk.book("gone") == {"accepted": 21, "dead_lettered:orphaned": 21, "bytes": 0}
    listed = run("dlq", "list", "--sink", "gone", "--reason", "orphaned", "--json", cwd=desk.folder)
    assert len(listed.out.splitlines()) == 21


def test_of_a_sink_that_is_there_they_are_exhausted_and_of_one_in_memory_orphaned(quick):
    quick.put("kept", 2)
    quick.put("audit", 1)
    assert quick.told("dead-letter", "kept", "--limit", "1")["reason"] == "exhausted"
    assert quick.told("dead-letter", "audit")["reason"] == "orphaned"
    first, second = quick.letters()
    assert (first["reason"], first["detail"], first["sink"]) == ("exhausted", "given up by an operator", "kept")
    assert (second["reason"], second["detail"]) == ("orphaned", "the sink audit has its queue in memory now")
    assert quick.book("kept")["dead_lettered:exhausted"] == 1
    assert quick.balances("kept")


def test_no_dead_letter_makes_room(quick):
    quick.write(dead_letters={"max_events": 5})
    quick.put("gone", 8)
    done = quick.queue("dead-letter", "gone", "--dry-run")
    assert "there is room for only 5 deliveries" in done.err
    done = quick.queue("dead-letter", "gone")
    assert done.code == 1
    assert (
        "3 deliveries remain in the queue, because the stream of dead letters is full (dead_letters.max_events 5)"
        in done.err
    )
    assert [letter["event_id"] for letter in quick.letters()] == [f"e-{n}" for n in range(5)]
    assert quick.ids("gone") == ["e-5", "e-6", "e-7"]


# On a terminal, and killed.


@pytest.mark.parametrize("words", [("move", "gone", "kept"), ("dead-letter", "gone")])
def test_a_person_is_asked_above_a_hundred_and_sees_a_bar(quick, words):
    quick.put("gone", 101)
    terminal = Terminal("queue", *words, cwd=quick.folder)
    terminal.until("[y/N]")
    assert b"101 deliveries of gone" in terminal.shown
    terminal.type("n\n")
    assert terminal.end() == 1
    assert len(quick.ids("gone")) == 101
    terminal = Terminal("queue", *words, cwd=quick.folder)
    terminal.until("[y/N]")
    terminal.type("y\n")
    assert terminal.end() == 0
    assert b"101/101" in terminal.shown
    assert quick.ids("gone") == []
    for number, more in ((101, ["--yes"]), (100, [])):
        quick.put("gone", number, begin=200)
        terminal = Terminal("queue", *words, *more, cwd=quick.folder)
        assert terminal.end() == 0
        assert b"[y/N]" not in terminal.shown


def test_a_terminal_gets_a_drawn_table(quick):
    quick.put("gone", 1)
    terminal = Terminal("queue", "list", cwd=quick.folder)
    assert terminal.end() == 0
    assert "─".encode() in terminal.shown


@pytest.mark.parametrize("words", [("move", "gone", "kept"), ("dead-letter", "gone")])
def test_kill_9_of_the_command_loses_and_doubles_nothing(desk, words):
    desk.write(sinks={**CONFIG["sinks"], "kept": {**CONFIG["sinks"]["kept"], "queue": "redis"}})
    total = 12_000
    desk.put("gone", total)

    def left():
        return desk.server.do("XLEN", f"{PREFIX}:queue:gone")

    for most in (11_500, 11_000):
        with Process("queue", *words, "--yes", cwd=desk.folder) as command:
            wait_until(lambda end=most: left() <= end, "some deliveries to go")
            command.signal(9)
            command.wait()
        others = desk.ids("kept") if words[0] == "move" else [letter["event_id"] for letter in desk.letters()]
        assert Counter(desk.ids("gone") + others) == Counter(f"e-{n}" for n in range(total))
        assert desk.balances("gone")
        assert desk.balances("kept")
    assert left(), "it was killed in the middle"
    assert desk.queue(*words, "--yes").code == 0
    assert left() == 0


# With running routers.


async def test_a_router_delivers_what_was_moved_and_says_what_is_left_behind(redis_server, tmp_path):
    desk = Desk(redis_server, tmp_path)
    desk.put("gone", 300, route="notify")
    desk.put("audit", 1, begin=500, route="notify")
    async with daemon(redis_server, tmp_path, CONFIG) as router:
        await router.until(lambda: "300 deliveries wait in the queue of gone" in router.process.err)
        client = Client(default_address(tmp_path / "state" / "event-router", "default"))
        told = client.get("/api/status")
        assert told["orphaned"] == {"audit": 1, "gone": 300}
        assert told["ready"]
        assert any("300 deliveries wait in the queue of gone" in warning for warning in told["warnings"])
        assert any("1 delivery waits in the queue of audit" in warning for warning in told["warnings"])
        assert "! 300 deliveries wait in the queue of gone" in run("status", cwd=tmp_path).out
        assert desk.told("move", "gone", "kept", "--yes")["moved"] == 300
        await router.until(lambda: router.count("kept.jsonl") == 300)
        assert [line["id"] for line in router.lines("kept.jsonl")] == [f"e-{n}" for n in range(300)]
        assert {line["route"] for line in router.lines("kept.jsonl")} == {"notify"}
        await router.until(lambda: desk.book("kept")["delivered"] == 300)
        told = client.get("/api/status")
        assert (told["balanced"], told["orphaned"]) == (True, {"audit": 1})
        assert await router.stop() == 0
    assert router.closing()["dropped"] == {}


async def test_what_a_running_router_has_in_hand_is_left_to_it(redis_server, tmp_path):
    slow = {"type": "email", "host": "127.0.0.1", "port": 1, "tls": "none", "from": "a@b.c", "to": "b@b.c"}
    slow |= {"subject": "x", "text": "x", "concurrency": 1, "breaker": {"failures": 1, "reset": "1h"}}
    config = {**CONFIG, "sinks": {**CONFIG["sinks"], "slow": slow}}
    config["routes"] = [{"id": "notify", "sinks": ["slow"]}]
    async with daemon(redis_server, tmp_path, config) as router:
        router.publish("notification", *[{"user_id": n} for n in range(200)])
        desk = Desk(redis_server, tmp_path)
        await router.until(lambda: desk.book("slow").get("accepted") == 200)
        await router.until(lambda: redis_server.do("XPENDING", f"{PREFIX}:queue:slow", "event-router")["pending"])
        desk.write()  # the sink is gone from the file, and not from the router
        done = desk.queue("move", "slow", "kept", "--yes")
        assert done.code == 0
        assert re.search(
            r"note: \d+ deliver(y was|ies were) left in the queue, because they are in flight in a running router",
            done.err,
        )
        moved, left = desk.book("kept")["accepted"], len(desk.ids("slow"))
        assert left > 0
        assert moved + left == 200
        assert desk.balances("slow")
        assert await router.stop() == 0
    told = desk.told("move", "slow", "kept")
    assert (told["moved"], told["in_hand"], told["left"]) == (left, 0, 0), "what a router left at its end is free"
    reached = [line["id"] for line in router.lines("kept.jsonl")] + desk.ids("kept")
    assert len(reached) == len(set(reached)) == 200
