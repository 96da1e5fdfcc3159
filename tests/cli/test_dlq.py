"""`event-router dlq`: which letters are meant, what is shown, removed, sent again, and that nothing is sent twice."""

from __future__ import annotations

import contextlib
import json
import re
import time
from datetime import UTC, datetime
from functools import partial

import pytest

from tests.support.daemon import DEAD, daemon
from tests.support.process import Process, run
from tests.support.smtp import smtp_server
from tests.support.terminal import Terminal
from tests.support.waiting import wait_until

REPLAY = "{event-router}:replay"
QUEUE = "{event-router}:queue:audit"
CONFIG = {
    "version": 1,
    "sources": {
        "web-app": {"type": "pubsub", "channels": ["notification", "orders.*"]},
        "shell": {"type": "pubsub", "channels": ["command"], "format": "text"},
    },
    "schemas": [{"channels": ["notification"], "file": "notification.json"}],
    "sinks": {"audit": {"type": "log", "path": "audit.jsonl"}, "other": {"type": "log", "path": "other.jsonl"}},
    "routes": [{"id": "notify", "sinks": ["audit"]}, {"id": "both", "channels": ["orders.*"], "sinks": ["other"]}],
}
SCHEMA = {"type": "object", "required": ["user_id"], "properties": {"user_id": {"type": "integer"}}}
VIOLATIONS = [{"pointer": "/user_id", "keyword": "type", "message": '"42" is not of type "integer"'}]


def stamp(ago: float) -> str:
    return datetime.fromtimestamp(time.time() - ago, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def letter(number: int, ago: float = 10.0, payload: object = None, **changes: object) -> dict[str, object]:
    fields = {
        "version": "1",
        "id": f"l-{number}",
        "event_id": f"e-{number}",
        "reason": "exhausted",
        "detail": "503 from the other side",
        "source": "web-app",
        "channel": "notification",
        "route": "notify",
        "sink": "audit",
        "key": f"e-{number}:notify:audit",
        "attempts": 3,
        "received_at": stamp(ago + 5),
        "failed_at": stamp(ago),
        "payload": payload
        if isinstance(payload, bytes)
        else json.dumps(payload or {"user_id": number, "message": "hi"}),
    }
    return {name: value for name, value in (fields | changes).items() if value is not None}


def of_event(number: int, **changes: object) -> dict[str, object]:
    """A letter of an event that never was a delivery."""
    fields = {"reason": "schema", "detail": json.dumps(VIOLATIONS), "route": None, "sink": None, "key": None}
    return letter(number, **{**fields, "attempts": 0, "id": f"e-{number}", **changes})


@pytest.fixture
def desk(redis_server, tmp_path):
    """A folder with a configuration, a server with letters, and the command."""
    return Desk(redis_server, tmp_path)


class Desk:
    def __init__(self, server, folder):
        self.server = server
        self.folder = folder
        self.write()

    def write(self, **changes):
        whole = {**CONFIG, "redis": {"url": self.server.url}, **changes}
        (self.folder / "config.yaml").write_text(json.dumps(whole))
        (self.folder / "notification.json").write_text(json.dumps(SCHEMA))

    def put(self, *letters):
        with self.server.client() as client:
            pipeline = client.pipeline(transaction=False)
            for one in letters:
                pipeline.xadd(DEAD, one)
            pipeline.execute()

    def ids(self, key=DEAD):
        with self.server.client() as client:
            return [fields[b"id"].decode() for _, fields in client.xrange(key)]

    def dlq(self, *words, **how):
        return run("dlq", *words, cwd=self.folder, **how)

    def lines(self, *words):
        done = self.dlq(*words, "--json")
        assert done.code == 0, done.err
        return [json.loads(line) for line in done.out.splitlines()]

    def listed(self, *words):
        return [line["id"] for line in self.lines("list", *words)]


def several() -> list[dict[str, object]]:
    return [
        letter(1, ago=86400 * 3),
        letter(2, ago=7200, reason="address", channel="orders.7", route="both", sink="other", address="a@b"),
        of_event(3, ago=600),
        letter(4, ago=60, payload={"user_id": 42, "tags": ["vip"]}, source="shell", channel="command"),
        letter(5, ago=1, payload=b"\xff{", channel="orders.8"),
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", "l-1 l-2 e-3 l-4 l-5"),
        ("--newest", "l-5 l-4 e-3 l-2 l-1"),
        ("--limit 2", "l-1 l-2"),
        ("--limit 2 --newest", "l-5 l-4"),
        ("--sink other", "l-2"),
        ("--sink other --sink audit", "l-1 l-2 l-4 l-5"),
        ("--route both", "l-2"),
        ("--reason schema", "e-3"),
        ("--reason schema --reason address", "l-2 e-3"),
        ("--source shell", "l-4"),
        ("--channel orders.*", "l-2 l-5"),
        ("--channel orders.[0-7] --channel command", "l-2 l-4"),
        ("--since 1h", "e-3 l-4 l-5"),
        ("--until 1h", "l-1 l-2"),
        ("--since 3h --until 5m", "l-2 e-3"),
        ("--since 2020-01-31 --until 2020-02-01T00:00:00+01:00", ""),
        ("--where payload.user_id==42", "l-4"),
        ("--where 'vip'|in(payload.tags)", None),
        ("--where 'vip'in(payload.tags)", "l-4"),
        ("--where payload.user_id>2", "e-3 l-4"),
        ("--where event.address", "l-2"),
        ("--where not(payload.user_id)", "l-5"),
        ("--sink audit --where payload.user_id<4 --limit 1", "l-1"),
        ("--sink nobody", ""),
    ],
)
def test_every_filter_chooses(start_server, tmp_path, options, expected):
    desk = Desk(start_server("valkey"), tmp_path)
    desk.put(*several())
    if expected is None:
        assert desk.dlq("list", *options.split()).code == 2
    else:
        assert desk.listed(*options.split(" ") if options else ()) == expected.split()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--since", "yesterday"), "'yesterday' is not a time"),
        (("--since", "2026-01-31T12:00:00"), "with its zone"),
        (("--where", "payload."), "--where"),
        (("--where", "paylod.x"), "did you mean `payload`"),
        (("--limit", "0"), "--limit"),
        (("--reason", "nope"), "--reason"),
    ],
)
def test_what_is_no_filter_is_refused(desk, options, said):
    done = desk.dlq("list", *options)
    assert done.code == 2
    assert said in " ".join(done.err.split())


def test_every_match_is_listed_over_many_pages(desk):
    desk.put(*[letter(number) for number in range(1, 1236)])
    assert desk.listed() == [f"l-{number}" for number in range(1, 1236)]
    assert desk.listed("--newest") == [f"l-{number}" for number in range(1235, 0, -1)]
    done = desk.dlq("list")
    assert done.out.count("\n") == 1236
    assert "1235 dead letters" in done.err


def test_the_table_shows_what_is_asked_first_and_no_control_characters(desk):
    desk.put(*several(), letter(6, detail="\x1b[31mred\nsecond line"))
    done = desk.dlq("list")
    assert done.out.splitlines()[0].split() == [
        *("id", "age", "reason", "source", "channel", "route", "sink", "address", "detail"),
    ]
    assert re.search(r"^l-1 +3d +exhausted +web-app +notification +notify +audit +- +503 from", done.out, re.MULTILINE)
    assert re.search(r"^l-2 .* a@b ", done.out, re.MULTILINE)
    assert re.search(r'^e-3 +10m +schema .* /user_id "42" is not of type', done.out, re.MULTILINE)
    assert "\x1b" not in done.out
    assert "red second line" in done.out


def test_json_lines_hold_the_whole_letter(desk):
    desk.put(of_event(3, headers=json.dumps({"traceparent": "00-1"}), pattern="n*"), several()[4])
    first, second = desk.lines("list")
    assert first["detail"] == VIOLATIONS
    assert first["payload"] == {"user_id": 3, "message": "hi"}
    assert first["headers"] == {"traceparent": "00-1"}
    assert (first["sink"], first["pattern"], first["event_id"]) == (None, "n*", "e-3")
    assert second["payload"] == "\\xff{"
    assert second["attempts"] == 3


def test_an_empty_stream_is_no_error(desk):
    done = desk.dlq("list")
    assert (done.code, done.out) == (0, "")
    assert "there are no dead letters" in done.err
    assert "no dead letter matches" in desk.dlq("list", "--sink", "x").err
    assert desk.dlq("list", "--json").out == ""


def test_show_finds_a_letter_by_any_of_its_ids(desk):
    desk.put(*several())
    with desk.server.client() as client:
        entry = client.xrange(DEAD)[2][0].decode()
    for name in ("e-3", entry):
        done = desk.dlq("show", name)
        assert done.code == 0
        assert '/user_id type: "42" is not of type "integer"' in done.out
        assert '  "user_id": 3' in done.out
    assert "503 from the other side" in desk.dlq("show", "e-4").out
    assert json.loads(desk.dlq("show", "l-2", "--json").out)["address"] == "a@b"
    done = desk.dlq("show", "nothing")
    assert (done.code, done.out) == (1, "")
    assert "there is no dead letter 'nothing'" in done.err


def test_secrets_do_not_show(desk):
    desk.write(
        sinks={
            **CONFIG["sinks"],
            "chat": {"type": "chat", "service": "slack", "text": "x", "url": "https://h.example/T/xyzzy42"},
        }
    )
    desk.put(letter(1, detail="https://h.example/T/xyzzy42 said 500"))
    for words in (("list",), ("list", "--json"), ("show", "l-1")):
        assert "xyzzy42" not in desk.dlq(*words).out


def test_a_short_secret_leaves_names_and_payloads_alone(desk):
    pager = {"type": "chat", "service": "telegram", "token": "${TOKEN}", "to": "1", "text": "x"}
    desk.write(sinks={**CONFIG["sinks"], "chat": pager})
    desk.put(letter(1, detail="the key 42 was refused: e", payload={"user_id": 42, "message": "e"}))
    for token in ("key", "e", "42", "audit", "l-1"):
        [line] = [json.loads(line) for line in desk.dlq("list", "--json", env={"TOKEN": token}).out.splitlines()]
        assert line["id"] == "l-1"
        assert line["sink"] == "audit"
        assert line["key"] == "e-1:notify:audit"
        assert line["payload"] == {"user_id": 42, "message": "e"}
        assert token not in line["detail"].split()


def test_purge_removes_what_matches_and_says_so(desk):
    desk.put(*several())
    done = desk.dlq("purge", "--sink", "audit", "--dry-run")
    assert "would remove 3 dead letters (3 audit exhausted), 1s to 3d old" in re.sub(r"\d+s to", "1s to", done.err)
    assert len(desk.ids()) == 5
    done = desk.dlq("purge", "--sink", "audit")
    assert "removed 3 dead letters" in done.err
    assert desk.ids() == ["l-2", "e-3"]
    assert [line["outcome"] for line in desk.lines("purge")] == ["purged", "purged"]
    assert desk.ids() == []
    assert "there are no dead letters" in desk.dlq("purge").err


def test_replay_without_a_router_waits_and_says_so(desk):
    desk.put(*several())
    done = desk.dlq("replay", "--dry-run", "--json")
    assert [json.loads(line)["outcome"] for line in done.out.splitlines()] == ["would_replay"] * 5
    assert "would replay 5 dead letters" in done.err
    assert desk.server.do("EXISTS", REPLAY) == 0
    done = desk.dlq("replay", "--limit", "2")
    assert done.code == 0
    assert "queued for replay: 2 dead letters" in done.err
    assert "no running router has taken 2 dead letters yet" in done.err
    assert desk.ids() == ["e-3", "l-4", "l-5"]
    assert desk.ids(REPLAY) == ["l-1", "l-2"]
    assert "2 dead letters to be replayed, as soon as a router runs" in desk.dlq("list").err


def test_replay_counts_recipients_with_the_configuration_at_hand(desk):
    mail = {"type": "email", "host": "h", "from": "a@b.c", "to": "{{ payload.mail }}", "subject": "x", "text": "x"}
    desk.write(
        sinks={**CONFIG["sinks"], "mail": mail},
        routes=[{"id": "notify", "sinks": ["audit", "mail"]}],
    )
    people = [letter(n, sink="mail", payload={"mail": f"user{n % 7}@example.org"}) for n in range(20)]
    desk.put(*people, letter(20, sink="gone"), letter(21, sink="mail", payload={"mail": ""}))
    done = desk.dlq("replay", "--dry-run")
    assert "to 7 recipients; 2 letters would reach nobody" in done.err
    desk.dlq("purge")
    desk.put(
        of_event(1), of_event(2, payload={"user_id": 2, "mail": "x@example.org"}), of_event(3, payload={"user_id": "3"})
    )
    done = desk.dlq("replay", "--dry-run")
    assert "to 2 recipients; 1 letter would reach nobody" in done.err  # the log, and x@example.org


def test_a_fallback_is_replayed_by_its_own_templates(desk):
    mail = {"type": "email", "host": "h", "from": "a@b.c", "to": "own@example.org", "subject": "x", "text": "own"}
    direct = {"sink": "mail", "text": "direct", "only_if": "false"}
    desk.write(
        sinks={"audit": {**CONFIG["sinks"]["audit"], "fallback": ["mail"]}, "mail": mail},
        routes=[{"id": "notify", "sinks": ["audit", direct]}],
    )
    desk.put(letter(1, sink="mail"), letter(2, sink="mail", fallback="1"))
    assert [each["fallback"] for each in desk.lines("list")] == [False, True]
    assert "sink         mail (as a fallback)\n" in desk.dlq("show", "l-2").out
    assert "to 1 recipient; 1 letter would reach nobody; suppressed: only_if (1)" in desk.dlq("replay", "--dry-run").err
    explain = ("explain", "-c", desk.folder / "config.yaml", "--dlq")
    assert "mail (email) by notify: suppressed (only_if)" in run(*explain, "l-1", cwd=desk.folder).out
    done = " ".join(run(*explain, "l-2", cwd=desk.folder).out.split())
    assert "one delivery of the route notify, only to the sink mail, as a fallback" in done
    assert "own@example.org" in done


def test_an_expression_that_fails_is_no_match_and_is_told(desk):
    desk.put(letter(1, payload={"n": 0}), letter(2, payload={"n": 4}), letter(3), letter(4, payload={"n": "xyzzy"}))
    done = desk.dlq("list", "--where", "8 / payload.n == 2", "--json")
    assert [json.loads(line)["id"] for line in done.out.splitlines()] == ["l-2"]
    assert "warning: --where: division by zero (for 1 dead letter, which the command leaves out)" in done.err
    assert (
        "warning: --where: unsupported operand type(s) for /: 'int' and 'str' (for 1 dead letter, which the command leaves out)"
        in done.err
    )
    assert desk.dlq("purge", "--where", "not (8 / payload.n)", "--yes").code == 0
    assert desk.ids() == ["l-1", "l-2", "l-4"]  # of l-3 the field is missing, and so is what is made of it


def test_replay_counts_those_whom_the_conditions_of_routes_let_reach(desk):
    mail = {"type": "email", "host": "h", "from": "a@b.c", "subject": "x", "text": "x"}
    desk.write(
        sinks={name: mail | {"to": f"{name}@example.org"} for name in ("large", "late", "both")},
        routes=[
            {"id": "large", "match": {"total": {"gt": 100}}, "sinks": ["large", "both"]},
            {"id": "late", "when": "event.headers.late and event.id != 'e-3'", "sinks": ["late", "both"]},
        ],
    )
    headers = json.dumps({"late": "yes"})
    desk.put(
        of_event(1, payload={"user_id": 1, "total": 100}),
        of_event(2, payload={"user_id": 1, "total": 101}),
        of_event(3, payload={"user_id": 1, "total": 5}, headers=headers),
    )
    done = desk.dlq("replay", "--dry-run")
    assert "to 2 recipients; 2 letters would reach nobody" in done.err
    desk.put(of_event(4, payload={"user_id": 1, "total": 5}, headers=headers))
    done = desk.dlq("replay", "--dry-run")
    assert "to 3 recipients; 2 letters would reach nobody" in done.err


def test_letters_of_a_newer_router_are_left_alone(desk):
    desk.put(letter(1, version="2"), letter(2))
    done = desk.dlq("replay")
    assert "1 dead letter of a newer event-router" in done.err
    assert desk.ids() == ["l-1"]
    assert desk.ids(REPLAY) == ["l-2"]


def test_the_command_keeps_its_rate(desk):
    desk.put(*[letter(number) for number in range(300)])
    began = time.monotonic()
    assert desk.dlq("replay", "--rate", "100", "--yes").code == 0
    assert time.monotonic() - began > 2.5
    desk.dlq("purge", "--yes")


def test_kill_9_of_the_command_loses_and_doubles_nothing(desk):
    desk.put(*[letter(number) for number in range(2000)])
    for least in (100, 200):
        with Process("dlq", "replay", "--rate", "500", "--yes", cwd=desk.folder) as command:
            wait_until(lambda end=least: desk.server.do("XLEN", REPLAY) >= end, "some letters to be moved")
            command.signal(9)
            command.wait()
        assert sorted(desk.ids() + desk.ids(REPLAY)) == sorted(f"l-{number}" for number in range(2000))
    assert desk.ids()


def test_no_redis_is_69_and_a_wrong_type_is_78(desk, tmp_path):
    desk.server.do("SET", DEAD, "x")
    done = desk.dlq("list")
    assert done.code == 78
    assert "WRONGTYPE" in done.err
    desk.write(redis={"url": "redis://127.0.0.1:1"})
    done = desk.dlq("list")
    assert done.code == 69
    desk.write(redis={"url": "embedded"})
    assert "the embedded server is not running" in desk.dlq("list").err


def test_the_prefix_is_the_configurations(desk):
    desk.write(redis={"url": desk.server.url, "key_prefix": "shop"})
    with desk.server.client() as client:
        client.xadd("{shop}:dead", letter(1))
    assert desk.listed() == ["l-1"]
    desk.dlq("replay")
    assert desk.ids("{shop}:replay") == ["l-1"]


# With a running router.


def config(**changes):
    return {name: value for name, value in {**CONFIG, **changes}.items() if name not in {"version", "redis"}}


async def test_letters_with_a_sink_go_there_and_the_others_the_whole_way(redis_server, tmp_path):
    async with daemon(redis_server, tmp_path, config()) as router:
        desk = Desk(redis_server, tmp_path)
        desk.put(
            letter(1, channel="orders.1", route="both", sink="other"),
            of_event(2, channel="orders.2", payload={"user_id": 2}, pattern="orders.*"),
            of_event(3, payload={"user_id": "still wrong"}),
            letter(4, source="shell", channel="command", payload=b"plain text"),
        )
        received = stamp(15)[:16]
        done = desk.dlq("replay")
        assert "no running router" not in done.err
        await router.until(lambda: router.count("other.jsonl") == 2 and router.count() == 2 and desk.ids() == ["e-3"])
        await router.until(lambda: redis_server.do("XLEN", REPLAY) == 0, "for the replayed letters to be removed")
        by_id = {line["id"]: line for line in router.lines("other.jsonl")}
        assert by_id["e-1"]["channel"] == "orders.1"
        assert by_id["e-1"]["received_at"].startswith(received[:13])
        assert by_id["e-2"]["pattern"] == "orders.*"
        assert {line["id"] for line in router.lines()} == {"e-2", "e-4"}
        assert next(line for line in router.lines() if line["id"] == "e-4")["payload"] == "plain text"
        (again,) = router.letters()
        assert (again["reason"], again["event_id"]) == ("schema", "e-3")
        assert await router.stop() == 0
    closing = router.closing()
    assert (closing["received"], closing["delivered"], closing["rejected"]) == (2, 4, {"schema": 1})


async def test_what_waits_is_taken_when_a_router_starts_and_what_is_gone_is_orphaned(redis_server, tmp_path):
    desk = Desk(redis_server, tmp_path)
    desk.put(
        letter(1),
        letter(2, sink="gone"),
        letter(3, route="gone"),
        letter(4, route="both"),
        of_event(5, source="gone"),
    )
    desk.dlq("replay")
    async with daemon(redis_server, tmp_path, config()) as router:
        await router.until(lambda: router.count() == 1 and len(desk.ids()) == 4)
        orphans = {one["id"]: one for one in router.letters()}
        assert {one["reason"] for one in orphans.values()} == {"orphaned"}
        assert (
            "the configuration has no route 'notify' to a sink 'gone' (before the replay: exhausted: 503"
            in orphans["l-2"]["detail"]
        )
        assert "there is no source 'gone'" in orphans["e-5"]["detail"]
        assert orphans["l-3"]["sink"] == "audit"
        assert orphans["l-4"]["payload"] == '{"user_id": 4, "message": "hi"}'
        await router.until(lambda: redis_server.do("XLEN", REPLAY) == 0)
        desk.dlq("replay", "--reason", "orphaned")
        await router.until(lambda: len(desk.ids()) == 4)
        assert all(one["detail"].count("before the replay:") == 1 for one in router.letters())


@pytest.mark.parametrize("queue", ["memory", "redis"])
async def test_replay_under_kill_9_of_the_router_loses_nothing(start_server, tmp_path, queue):
    redis_server = start_server("redis", options={"appendonly": "yes"})
    desk = Desk(redis_server, tmp_path)
    setup = config(sinks={**CONFIG["sinks"], "audit": {"type": "log", "path": "audit.jsonl", "queue": queue}})
    total = 5000
    desk.put(*[letter(number) for number in range(total)])
    assert desk.dlq("replay", "--rate", "100000", "--yes").code == 0
    assert desk.ids() == []
    for least in (1, 1500, 3000):
        async with daemon(redis_server, tmp_path, setup) as router:
            await router.until(lambda end=least: router.count() >= end)
            router.process.signal(9)
            router.process.wait()
    async with daemon(redis_server, tmp_path, setup) as router:
        await router.until(lambda: redis_server.do("XLEN", REPLAY) == 0, "for the replayed letters to be removed")
        # A stop would leave the other deliveries in the Redis queue.
        await router.until(lambda: redis_server.do("XLEN", QUEUE) == 0, "for the queue to be empty")
        await router.stop()
    seen = []
    for line in (tmp_path / "audit.jsonl").read_text().splitlines():
        with contextlib.suppress(
            json.JSONDecodeError
        ):  # a line is torn where the router was killed in the middle of it
            seen.append(json.loads(line)["id"])
    assert set(seen) == {f"e-{number}" for number in range(total)}
    assert len(seen) - total <= 3 * 1000, "no more than was in hand each time it was killed"
    if queue == "redis":
        books = "{event-router}:books:audit"
        assert int(redis_server.do("HGET", books, "accepted")) == total, "each letter is queued once"
    assert desk.ids() == []


def reached(router, number):
    return router.count() >= number


async def test_a_stopped_router_leaves_nothing_half_done(redis_server, tmp_path):
    desk = Desk(redis_server, tmp_path)
    desk.put(*[letter(number) for number in range(3000)])
    desk.dlq("replay", "--rate", "100000", "--yes")
    seen = 0
    while redis_server.do("XLEN", REPLAY):
        async with daemon(redis_server, tmp_path, config()) as router:
            await router.until(partial(reached, router, min(seen + 500, 3000)))
            assert await router.stop() == 0
            seen = router.count()
    seen = [line["id"] for line in router.lines()]
    assert len(seen) == len(set(seen)) == 3000, "SIGTERM repeats nothing"


async def test_one_summary_of_new_letters_per_interval_and_none_of_its_own(redis_server, tmp_path):
    sinks = {**CONFIG["sinks"], "told": {"type": "log", "path": "told.log", "template": "{{ payload.message }}"}}
    bad = {
        "type": "email",
        "host": "127.0.0.1",
        "from": "a@b.c",
        "to": "{{ payload.mail }}",
        "subject": "x",
        "text": "x",
    }
    setup = config(
        sinks={**sinks, "bad": bad},
        routes=[{"id": "notify", "sinks": ["bad"]}],
        dead_letters={"notify": {"sinks": ["told", "bad"], "every": "3s"}},
    )
    async with daemon(redis_server, tmp_path, setup) as router:
        began = time.time()
        router.publish("notification", *[{"user_id": "x"}] * 7, *[{"user_id": 1, "message": "x"}] * 3)
        told = tmp_path / "told.log"
        await router.until(lambda: told.exists() and told.read_text().count("\n") == 1)
        assert time.time() - began >= 3
        text = told.read_text()
        assert text.startswith("10 dead letters since ")
        assert "7 rejected (schema), 3 of bad (template). To list them: event-router dlq list -c " in text
        # `bad` was told of the seven alone, and could not be: of that letter nobody is told.
        await router.until(lambda: len(router.letters()) == 11)
        (own,) = [one for one in router.letters() if one["source"] == "event-router"]
        summary = json.loads(own["payload"])
        assert (own["sink"], own["channel"], summary["count"]) == ("bad", "dead-letters", 7)
        assert summary["by"] == [{"sink": None, "reason": "schema", "count": 7}]
        command = summary["command"].split()
        done = run(*command[1:], cwd=tmp_path)
        assert done.code == 0
        assert done.out.count("template") + done.out.count("schema") >= 10
        router.publish("notification", {"user_id": "x"})
        await router.until(lambda: told.read_text().count("\n") == 2)
        assert told.read_text().splitlines()[1].startswith("1 dead letter since ")
        await router.stop()
    assert told.read_text().count("\n") == 2


async def test_the_bounds_of_the_configuration_hold(redis_server, tmp_path):
    desk = Desk(redis_server, tmp_path)
    with redis_server.client() as client:
        client.xadd(DEAD, letter(1), id=f"{int((time.time() - 7200) * 1000)}-0")
    async with daemon(redis_server, tmp_path, config(dead_letters={"max_events": 5, "max_age": "1h"})) as router:
        await router.until(lambda: desk.ids() == [], "for the old letter to go")
        router.publish("notification", *[{"user_id": f"{number}"} for number in range(12)])
        await router.until(lambda: len(router.letters()) == 5)
        assert [json.loads(one["payload"])["user_id"] for one in router.letters()] == ["7", "8", "9", "10", "11"]
        await router.stop()
    assert "they are older than dead_letters.max_age" in router.process.err
    assert '"letters":7' in router.process.err.replace(" ", "")


async def test_a_letter_of_one_address_reaches_that_address_alone(redis_server, tmp_path):
    async with smtp_server() as box:
        mail = {"type": "email", "host": "127.0.0.1", "port": box.port, "tls": "none", "from": "a@b.c"}
        mail |= {"to": ["one@example.org", "two@example.org"], "subject": "literal", "text": "literal"}
        setup = config(sinks={"mail": mail}, routes=[{"id": "notify", "sinks": ["mail"]}])
        async with daemon(redis_server, tmp_path, setup) as router:
            desk = Desk(redis_server, tmp_path)
            desk.write(sinks=setup["sinks"], routes=setup["routes"])
            desk.put(letter(1, sink="mail", address="two@example.org"))
            assert "to 1 recipient" in desk.dlq("replay").err
            await router.until(lambda: box.taken)
            await router.until(lambda: redis_server.do("XLEN", REPLAY) == 0)
            await router.stop()
    assert box.reached == ["two@example.org"]


@pytest.mark.parametrize("command", ["purge", "replay"])
def test_a_person_is_asked_above_a_hundred_and_sees_a_bar(desk, command):
    desk.put(*[letter(number) for number in range(101)])
    terminal = Terminal("dlq", command, cwd=desk.folder)
    terminal.until("[y/N]")
    assert b"101 dead letters" in terminal.shown
    terminal.type("n\n")
    assert terminal.end() == 1
    assert len(desk.ids()) == 101
    terminal = Terminal("dlq", command, cwd=desk.folder)
    terminal.until("[y/N]")
    terminal.type("y\n")
    assert terminal.end() == 0
    assert b"101/101" in terminal.shown
    assert desk.ids() == []
    desk.put(*[letter(number) for number in range(101)])
    terminal = Terminal("dlq", command, "--yes", cwd=desk.folder)
    assert terminal.end() == 0
    assert b"[y/N]" not in terminal.shown
    desk.put(*[letter(number) for number in range(100)])
    terminal = Terminal("dlq", command, cwd=desk.folder)
    assert terminal.end() == 0
    assert b"[y/N]" not in terminal.shown


def test_a_terminal_gets_a_drawn_table(desk):
    desk.put(*several())
    terminal = Terminal("dlq", "list", cwd=desk.folder)
    assert terminal.end() == 0
    assert b"reason" in terminal.shown
    assert "─".encode() in terminal.shown
