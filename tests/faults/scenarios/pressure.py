"""Scenarios with more events than sinks, queues or Redis can accept.

Dropped events and trimmed entries must be counted exactly.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

from tests.faults.flows import Flow
from tests.faults.recorder import LATER, OK, PUBSUB, STREAM
from tests.faults.registry import scenario
from tests.faults.stage import KEYS, Stage, channels, every, resident, sink, stream
from tests.support.process import Process

CHANNELS = ["one", "two", "three"]


def finish_counting(stage: Stage, router: Process, flow: Flow, sinks: list[str], *, reason: str) -> None:
    """Compare the events published on each channel with the events that arrived and with the drops in the books."""
    stage.step("comparing")
    stage.until(
        lambda: _received(stage) >= len(flow.heard), "the router to process all events that were published to it"
    )
    stage.until(lambda: all(_over(stage, name) for name in sinks), "the queues to be empty")
    told = stage.status()
    found = stage.found
    received = told["books"]["sources"]["web-app"]["received"]
    stage.check(received == len(flow.heard), f"{received} of {len(flow.heard)} events were received")
    stage.check(len(flow.heard) == len(flow.events), f"{len(flow.events) - len(flow.heard)} events had no subscriber")
    published = Counter(map(flow.channel, flow.events))
    for name in sinks:
        counts = stage.recorder.numbers(name, PUBSUB)
        arrived = Counter(map(flow.channel, counts))
        gone = {channel: published[channel] - arrived[channel] for channel in published}
        dropped = told["sinks"][name]["dropped_by_channel"]
        stage.check(
            {channel: number for channel, number in gone.items() if number} == dropped,
            f"{name}: missing events by channel: {gone}, drops in the books: {dropped}",
        )
        book = told["books"]["sinks"][name]
        stage.check(book["by_reason"]["dropped"] == {reason: sum(gone.values())}, f"{name}: {book}, gone {gone}")
        stage.check(book["accepted"] == len(flow.events), f"{name} accepted {book['accepted']} of {len(flow.events)}")
        again = counts.total() - len(counts)
        stage.check(not again, f"{name}: {again} events were repeated")
        found.delivered[name], found.repeated[name] = len(counts), again
        found.lost[name] = sum(gone.values()) - sum(dropped.values())
        stage.figure(f"deliveries to `{name}` that were dropped and counted", sum(dropped.values()), unit="")
        stage.check(sum(gone.values()), f"{name}: nothing was dropped, so the scenario proves nothing")
    found.published, found.dropped = len(flow.events), sum(book["dropped"] for book in told["books"]["sinks"].values())
    found.balanced = told["balanced"]
    stage.check(told["balanced"], f"the books do not balance: {told['warnings']}")
    _not_cut_off(stage, told)
    stage.check(
        stage.recorder.spoiled == 0, f"{stage.recorder.spoiled} deliveries had other bytes than the published events"
    )
    stage.stop(router)
    stage.read_logs(1 if not stage.full else 2)


def _not_cut_off(stage: Stage, told: dict) -> None:
    """Check that Redis did not disconnect the router, and that the subscription has no gap."""
    with stage.server.client() as client:
        cut = client.info("stats").get("client_output_buffer_limit_disconnections", 0)
    gaps = told["sources"]["web-app"]["gaps"]
    stage.figure("disconnections of the router by the server", cut, 0, unit="")
    stage.check(gaps == 0, f"{gaps} gaps")


def _received(stage: Stage) -> int:
    return int(stage.status()["books"]["sources"]["web-app"]["received"])


def _over(stage: Stage, name: str) -> bool:
    told = stage.status()
    return not told["books"]["sinks"][name]["pending"] and not told["sinks"][name]["waiting"]


@scenario(
    "Pub/sub events on three channels go to a fast sink and to two slow sinks (one queue in memory, one in Redis), at ten "
    "times the rate of the slow sinks. Redis disconnects subscribers that are 1 MB behind",
    "Redis never disconnects the router; drops are counted exactly for each channel; the memory of the router grows by at "
    "most 64 MiB; the fast sink gets every event",
)
def slow_sinks(stage: Stage) -> None:
    events = stage.of(6_000, 180_000)
    stage.serve(**{"client-output-buffer-limit": "pubsub 1mb 1mb 0"})
    bound = stage.of(500, 5_000)
    sinks = {
        "in-memory": sink({"type": "memory", "max_events": bound}),
        "in-redis": sink({"type": "redis", "max_events": bound}),
        "quick": {"type": "log", "path": "quick.jsonl"},
    }
    stage.configure({"web-app": channels(*CHANNELS)}, sinks)
    rate = stage.of(3_000, 3_000)
    for name in ("in-memory", "in-redis"):  # eight workers each
        stage.recorder.delay[name] = 8 / (rate / 10)
    router = stage.start()
    before, peak = resident(router), [0.0]
    with every(0.2, lambda: peak.append(resident(router))):
        flow = stage.flow(PUBSUB, events, rate=rate, key=" ".join(CHANNELS))
        flow.wait()
    stage.figure("memory before the load", before, unit="MiB")
    stage.figure("growth of the memory", max(peak) - before, 64, unit="MiB")
    stage.recorder.delay.clear()  # the load is over, so the remaining deliveries may be fast
    lines = stage.config.parent / "quick.jsonl"
    stage.until(lambda: lines.read_bytes().count(b"\n") >= events, "the quick sink to have everything")
    stage.check(numbers_in(lines) == list(flow.events), "the quick sink has not got every event once, in order")
    finish_counting(stage, router, flow, ["in-memory", "in-redis"], reason="full")


@scenario(
    "Redis is out of memory for some time, under load from pub/sub, with queues in Redis and an outage buffer of "
    "256 KiB",
    "events that the buffer can't hold are dropped and counted exactly for each channel; all other events arrive once",
)
def out_of_memory(stage: Stage) -> None:
    events = stage.of(4_000, 30_000)
    stage.serve()
    own = {"url": stage.server.url, "outage_buffer": "256KiB"}
    stage.configure({"web-app": channels(*CHANNELS)}, {"first": sink(), "second": sink()}, redis=own)
    router = stage.start()
    flow = stage.flow(PUBSUB, events, rate=stage.of(2_000, 1_000), key=" ".join(CHANNELS))
    stage.until(lambda: stage.recorder.count("first", PUBSUB) > events // 10, "a tenth of the events")
    stage.server.do("CONFIG", "SET", "maxmemory", "1")
    stage.until(lambda: flow.sent > events * 0.8, "most of it to be published")
    stage.server.do("CONFIG", "SET", "maxmemory", "0")
    flow.wait()
    finish_counting(stage, router, flow, ["first", "second"], reason="outage")


@scenario(
    "A burst of 100,000 events on one pub/sub channel, as fast as they can be published, goes to a log file (see also the "
    "comparison below)",
    "lost 0, repeated 0, in order",
)
def burst(stage: Stage) -> None:
    events = stage.of(20_000, 100_000)
    stage.serve()
    stage.configure({"web-app": channels()}, {"audit": {"type": "log", "path": "audit.jsonl"}})
    router = stage.start()
    lines = stage.config.parent / "audit.jsonl"
    flow = stage.flow(PUBSUB, events).wait()
    stage.until(lambda: lines.exists() and lines.read_bytes().count(b"\n") >= events, "all lines")
    found = numbers_in(lines)
    stage.found.lost["audit"] = len(set(flow.events) - set(found))
    stage.found.repeated["audit"] = len(found) - len(set(found))
    stage.found.delivered["audit"] = len(set(found))
    stage.check(found == sorted(found), "lines have changed places")
    audited(stage, len(found))
    stage.finish(router, faults=1, sinks=[], exact_books=False)


def audited(stage: Stage, lines: int) -> None:
    """Check that the books of the sink `audit` count all its lines.

    The queue of this sink is in memory, so the books are exact only if the router was never restarted.
    """
    stage.until(lambda: _over(stage, "audit"), "all lines to be in the books")
    book = stage.status()["books"]["sinks"]["audit"]
    stage.check(
        (book["accepted"], book["delivered"]) == (lines, lines),
        f"{lines} lines were written, but the books have {book}",
    )


def numbers_in(*files: Path) -> list[int]:
    """Return the numbers of the events in the files of a log sink, in the order of the lines."""
    return [json.loads(line)["payload"]["n"] for file in files for line in file.read_bytes().splitlines()]


def _trimmed(stage: Stage, max_in_flight: int) -> dict:
    """Fill the queue of a sink that is down, trim the stream, and let the sink work again.

    Return the status of the source.
    """
    events, left, bound = 900, 60, 150
    idle, down = stage.of((2.0, 4.0), (12.0, 22.0))
    stage.serve()
    source = stream(claim={"idle": f"{idle:g}s"}, max_in_flight=max_in_flight)
    queue = {"type": "redis", "max_events": bound, "when_full": "block"}
    stage.configure({"billing": source}, {"first": sink(queue)})
    router = stage.start()
    stage.recorder.answer = lambda _name, _number: LATER
    began = time.monotonic()
    stage.flow(STREAM, events).wait()
    wanted = min(events, max_in_flight + bound)
    stage.until(lambda: _received_of(stage, "billing") >= wanted, "the router to have as much in flight as it may")
    stage.server.do("XTRIM", KEYS[STREAM], "MAXLEN", left)
    time.sleep(max(0.0, began + down - time.monotonic()))  # longer than `claim.idle`
    stage.recorder.answer = lambda _name, _number: OK
    stage.until(lambda: not stage.pending() and _over(stage, "first"), "the remaining entries to be delivered")
    stage.until(lambda: _received_of(stage, "billing") + _source_of(stage, "billing")["trimmed"] >= events, "the rest")
    told = _source_of(stage, "billing")
    got = stage.recorder.count("first", STREAM)
    stage.figure("entries that were trimmed unread, and counted", told["trimmed"], unit="")
    stage.check(
        got + told["trimmed"] == events, f"{got} arrived and {told['trimmed']} are counted as trimmed, of {events}"
    )
    stage.check(told["trimmed_exact"] is True, "`trimmed_exact` is not true")
    stage.check(told["possibly_repeated"] == 0, f"{told['possibly_repeated']} entries are counted as possibly repeated")
    process = stage.status()["books"]["process"]
    stage.check(
        process["planned"] == process["accepted"] == got, f"{got} arrived, but the books of the process have {process}"
    )
    # Entries that were trimmed unread did not arrive. The figures above account for these entries.
    gone = set(stage.flows[0].events) - stage.recorder.numbers("first", STREAM).keys()
    stage.check(
        len(gone) == told["trimmed"], f"{len(gone)} did not arrive, but {told['trimmed']} are counted as trimmed"
    )
    stage.finish(router, faults=1, sinks=[], exact_books=False, trimmed=told["trimmed"])
    stage.found.delivered["first"], stage.found.lost["first"] = got, events - got - told["trimmed"]
    stage.found.repeated["first"] = stage.recorder.numbers("first", STREAM).total() - got
    stage.check(not stage.found.repeated["first"], f"{stage.found.repeated['first']} events were repeated")
    return told


def _source_of(stage: Stage, name: str) -> dict:
    told: dict = stage.status()["sources"][name]
    return told


def _received_of(stage: Stage, name: str) -> int:
    return int(stage.status()["books"]["sources"][name]["received"])


@scenario(
    "A queue in Redis is full, so its stream is not read. During that time the stream is trimmed to 60 entries. (900 entries, "
    "a queue for 150 deliveries, the sink down for 22 s, `claim.idle: 12s`)",
    "lost 0, repeated 0: entries that the router has read are delivered, although Redis no longer has these entries",
)
def trimmed(stage: Stage) -> None:
    told = _trimmed(stage, 1_000)
    stage.check(not told["trimmed"], f"{told['trimmed']} entries are counted as trimmed, but all had been read")


@scenario(
    "The queue is full and the stream is trimmed as in the previous row, but at most 100 entries may be in flight",
    "entries that the router has read are delivered once; entries that were trimmed unread are counted exactly",
)
def trimmed_unread(stage: Stage) -> None:
    told = _trimmed(stage, 100)
    stage.check(told["trimmed"], "nothing was trimmed unread, so the scenario proves nothing")
