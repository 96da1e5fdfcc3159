"""The scenario in which the router's keys contain invalid records and dead letters that no router wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count

import msgspec

from router.core.accounts.records import pack
from tests.faults.flows import ENTRY_TIME, numbers
from tests.faults.judging import judge_counts
from tests.faults.recorder import LIST, STREAM, payload
from tests.faults.registry import scenario
from tests.faults.stage import DEAD, KEYS, SINKS, Stage, items, sink, stream
from tests.support.engine import make_event

REPLAY = "{event-router}:replay"
AT = "2026-01-02T03:04:05.000006Z"
_unique = count(1)
DEEP = b"\x91" * 5000 + b"\xc0"


def records(number: int) -> Iterator[bytes]:
    """Yield this number of records that no router can read."""
    (good,) = pack([make_event(payload(0))])
    fields = msgspec.msgpack.decode(good)
    names = ("version", "id", "received_at", "raw", "route", "overridden", "source", "channel", "pattern", "format")
    changes = [
        {"format": "xml"},
        {"received_at": 1e300},
        {"received_at": float("nan")},
        {"id": "a\r\nBcc: b"},
        {"raw": b"no json"},
        {"version": 99},
    ]
    made = [msgspec.msgpack.encode([*(dict(zip(names, fields, strict=False)) | change).values()]) for change in changes]
    made += [msgspec.msgpack.encode([*fields[:11], 2**63, *fields[12:]]), DEEP, b"", b"\xc1", good[:-30]]
    for place in range(number):
        yield made[place % len(made)]


def letters(number: int) -> Iterator[dict[str, object]]:
    """Yield this number of dead letters that no router wrote."""
    good = letter(0)
    changes: list[dict[str, object]] = [
        {"attempts": "9" * 5000},
        {"version": "9" * 5000},
        {"received_at": "0001-01-01T00:00:00+14:00"},
        {"failed_at": "\x1b[2J"},
        {"headers": "[" * 5000},
        {"event_id": "a\r\nBcc: b"},
    ]
    for place in range(number):
        yield {"foo": "bar"} if place % 7 == 0 else good | changes[place % len(changes)]


def letter(number: int) -> dict[str, object]:
    """Return a valid dead letter. Its event is delivered to all sinks when it is replayed."""
    about: dict[str, object] = {"version": 1, "reason": "unmatched", "detail": "", "source": "billing"}
    times: dict[str, object] = {"received_at": AT, "failed_at": AT, "attempts": 0}
    return {"id": f"l{number}", "event_id": f"e{number}", **about, **times, "channel": "x", "payload": payload(number)}


@scenario(
    "Invalid records are added to the queues, to a stream, to a list and to the dead letters. These records have other versions, "
    "unknown formats, times and numbers out of bounds, deep nesting or random bytes. The stream, the list and the dead letters "
    "also have 1,000 valid records each",
    "all valid records are delivered, the books balance, and the router is ready and reports the number of "
    "unreadable records",
)
def junk(stage: Stage) -> None:
    events, bad = stage.of((200, 22), (1_000, 220))
    stage.serve()
    stage.configure(
        {"billing": stream(), "jobs": items()}, {name: sink(concurrency=4, timeout="30s") for name in SINKS}
    )
    replayed = numbers(STREAM, events, 500_000)
    spoil(stage, bad, f"{ENTRY_TIME - 1}-{{}}")
    with stage.server.client() as client:
        for number in replayed:
            client.xadd(DEAD, letter(number))  # type: ignore[arg-type]
    router = stage.start()
    stage.flow(STREAM, events // 2)
    stage.flow(LIST, events // 2)
    for flow in stage.flows:
        flow.wait()
    stage.step("more junk, and the other half")
    spoil(stage, bad, f"{ENTRY_TIME}-{{}}")
    stage.flow(STREAM, events - events // 2, first=10_000)
    stage.flow(LIST, events - events // 2, first=events // 2)
    done = stage.command("dlq", "replay", "--yes")
    stage.check(done.code == 0, f"replay ended with {done.code}: {done.err}")
    stage.everything()
    wanted = {kind: set[int]() for kind in (STREAM, LIST)}
    for flow in stage.flows:
        wanted[flow.kind] |= set(flow.events)
    wanted[STREAM] |= set(replayed)
    for kind, good in wanted.items():
        stage.until(
            lambda kind=kind, good=good: all(good <= stage.recorder.numbers(name, kind).keys() for name in SINKS),
            "every valid record at every sink",
        )
    stage.until(lambda: all(_left(stage, name) == 3 * 2 * bad for name in SINKS), "only invalid records to be left")
    _compare(stage, wanted)
    stage.stop(router)
    stage.check(
        not stage.recorder.spoiled, f"{stage.recorder.spoiled} deliveries had other bytes than the published events"
    )
    stage.found.dead = int(stage.server.do("XLEN", DEAD))
    stage.read_logs(faults=2 * bad)


def spoil(stage: Stage, number: int, entry: str) -> None:
    """Add invalid records to every key of the router. `entry` is the format of the ids of the stream's entries."""
    ids = map(entry.format, count(1_000))
    with stage.server.client() as client:
        pipe = client.pipeline(transaction=False)
        for name in SINKS:
            queue, later, books = (f"{{event-router}}:{key}:{name}" for key in ("queue", "later", "books"))
            for record in records(number):
                unique = b"%d/0 " % next(_unique)
                pipe.xadd(queue, {"d": record})
                pipe.xadd(queue, {"x": record})
                pipe.zadd(later, {unique + record if len(record) % 2 else record + unique.strip(): 1})
            pipe.hset(books, mapping={"junk": "x", "dead_lettered:nonsense": "y", "\xff": "1e9"})
        for one in letters(number):
            pipe.xadd(DEAD, one)  # type: ignore[arg-type]
            pipe.xadd(REPLAY, one)  # type: ignore[arg-type]
        for record in records(number):
            pipe.xadd(KEYS[STREAM], {"payload": record}, id=next(ids))
            pipe.xadd(KEYS[STREAM], {"x" * 1000: record}, id=next(ids))
            pipe.lpush(KEYS[LIST], record + b"\xff")
        pipe.hset("{event-router}:handed-over", mapping={"junk": "x"})
        pipe.execute()


def _left(stage: Stage, name: str) -> int:
    told = stage.told("one")
    return -1 if told is None else int(told["books"]["sinks"][name]["pending"])


def _compare(stage: Stage, wanted: dict[int, set[int]]) -> None:
    """Compare the deliveries with the expected events, and check the books, the warnings and the dead letters."""
    found = stage.found
    found.published = sum(map(len, wanted.values()))
    for kind, good in wanted.items():
        judge_counts(found, {name: stage.recorder.numbers(name, kind) for name in SINKS}, dict.fromkeys(SINKS, good), 0)
    told = stage.status()
    found.balanced = bool(told["balanced"])
    stage.check(told["balanced"], f"the books do not balance: {told['warnings']}")
    stage.check(told["ready"], f"not ready: {told['reasons']}")
    for name in SINKS:
        left, pending = told["sinks"][name]["unreadable"], told["books"]["sinks"][name]["pending"]
        stage.check(left == pending, f"{name} reports {left} unreadable records, but {pending} are left")
        stage.check(
            f"sink {name}: {left} " in json.dumps(told["warnings"]),
            f"no warning names the unreadable records: {told['warnings']}",
        )
        stage.check(told["sinks"][name]["replaced"] == 0, f"workers of {name} had to be replaced")
    stage.figure("unreadable records left in each queue", left, unit="")
    listed = stage.command("dlq", "list", "--json")
    bad = [line for line in map(json.loads, listed.out.splitlines()) if line.get("unreadable")]
    stage.check(listed.code == 0, f"list ended with {listed.code}: {listed.err}")
    stage.figure("dead letters that `dlq list` shows as unreadable", len(bad), unit="")
