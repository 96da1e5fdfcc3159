"""One sink at work: what becomes of deliveries that succeed, fail, hang, raise and split."""

import asyncio
import contextlib
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated

import msgspec
import pytest
import structlog
from msgspec.structs import replace

from router.engine.calling.plugin_processes import PluginProcesses
from router.errors import GoneError, PartialError, PermanentError, PluginError, Reason, SinkError, TransientError
from router.options import Addresses, SinkOptions, Template, Text
from tests.support.engine import SteppedClock, bench, make_event
from tests.support.waiting import block, stays, until


class Recorder:
    """An async sink that keeps what it got and does what it is told first."""

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)
        self.got = []

    async def __call__(self, event, options):
        self.got.append((event, options))
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if outcome is not None:
            raise outcome

    @property
    def ids(self):
        return [event.id for event, _ in self.got]


async def test_deliveries_come_in_order():
    sink = Recorder()
    async with bench(sink) as at:
        events = [make_event() for _ in range(50)]
        at.put(*events)
        await at.settled()
    assert sink.ids == [event.id for event in events]
    assert (at.book.accepted, at.book.delivered, at.book.pending) == (50, 50, 0)


async def test_a_transient_failure_is_tried_again_with_the_next_attempt_and_the_same_key():
    sink = Recorder(TransientError("not now"), TransientError("not now"))
    async with bench(sink) as at:
        at.put(make_event())
        await at.settled()
    assert [event.attempt for event, _ in sink.got] == [1, 2, 3]
    assert len({event.key for event, _ in sink.got}) == 1
    assert at.book.delivered == 1
    assert at.letters.kept == []


async def test_a_permanent_failure_is_a_dead_letter_at_once():
    sink = Recorder(PermanentError("no such user"))
    async with bench(sink) as at:
        event = make_event(b'{"a": 1}')
        at.put(event, make_event())
        await at.settled()
    (letter,) = at.letters.kept
    assert (letter.reason, letter.detail, letter.attempts) == ("permanent", "no such user", 1)
    assert (letter.event_id, letter.sink, letter.route, letter.key) == (event.id, "s", "r", event.key)
    assert letter.payload == b'{"a": 1}'
    assert at.book.dead_lettered == {Reason.PERMANENT: 1}
    assert at.book.delivered == 1


async def test_attempts_end_as_exhausted():
    sink = Recorder(*[TransientError("down")] * 9)
    async with bench(sink, retry={"initial": "1ms", "attempts": 3}) as at:
        at.put(make_event())
        await at.settled()
    assert len(sink.got) == 3
    assert [(letter.reason, letter.attempts) for letter in at.letters.kept] == [("exhausted", 3)]


async def test_a_sink_at_fault_counts_no_attempt():
    sink = Recorder(*[SinkError("HTTP 401")] * 4)
    async with bench(sink, retry={"initial": "1ms", "max_delay": "1ms", "attempts": 1}) as at:
        at.put(make_event())
        await at.settled()
    assert [event.attempt for event, _ in sink.got] == [1, 1, 1, 1, 1]
    assert at.book.delivered == 1


@pytest.mark.parametrize("error", [ValueError("bug"), SystemExit(3), asyncio.CancelledError(), KeyboardInterrupt()])
async def test_whatever_a_plugin_raises_fails_this_delivery_alone(error):
    sink = Recorder(error)
    async with bench(sink, retry={"initial": "1ms", "attempts": 1}) as at:
        at.put(make_event(), make_event())
        await at.settled()
    assert at.book.delivered == 1
    assert len(at.letters.kept) == 1
    assert at.letters.kept[0].reason in {"plugin", "exhausted"}


async def nothing():
    raise AssertionError("nobody awaits it")


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (nothing, "the plugin returned a coroutine that did not run: write `await` before the call"),
        (lambda: PermanentError("no such user"), "instead of raising it: PermanentError: no such user"),
    ],
)
async def test_what_a_sink_returns_by_mistake_is_not_delivered(returned, said):
    async def sink(event, options):
        return returned()

    async with bench(sink) as at:
        at.put(make_event())
        await at.settled()
    [letter] = at.letters.kept
    assert (at.book.delivered, letter.reason) == (0, "plugin")
    assert said in letter.detail


async def test_what_came_back_while_another_blocked_the_loop_is_no_timeout():
    calls, began = [], asyncio.Event()

    async def answers(event, options, context):
        calls.append(event.attempt)
        began.set()
        await context.run_blocking(time.sleep, 0.05)

    async with bench(answers, timeout="300ms") as at:
        at.put(make_event())
        await began.wait()
        block(1.0)
        await at.settled()
    assert calls == [1]
    assert at.book.delivered == 1


async def test_what_does_not_come_back_after_the_loop_was_blocked_ends_at_its_timeout():
    calls = []

    async def hangs(event, options):
        calls.append(event.attempt)
        if event.attempt == 1:
            await asyncio.Event().wait()

    async with bench(hangs, timeout="200ms") as at:
        at.put(make_event())
        await until(lambda: calls)
        block(1.0)
        await at.settled()
    assert calls == [1, 2]


async def test_a_worker_without_a_call_under_way_checks_no_deadlines(monkeypatch):
    loop, checks, release = asyncio.get_running_loop(), [], asyncio.Event()
    later = loop.call_later

    def spied(delay, call, *rest, **more):
        if "_check" in getattr(call, "__name__", ""):
            checks.append(delay)
        return later(delay, call, *rest, **more)

    async def answers(event, options):
        if event.raw == b"2":
            await release.wait()

    monkeypatch.setattr(loop, "call_later", spied)
    async with bench(answers) as at:
        at.put(make_event(b"1"))
        await at.settled()
        await stays(lambda: len(checks) == 1, 0.5)  # what looks after the call; it has found none
        at.put(make_event(b"2"))
        await until(lambda: len(checks) > 3)
        release.set()
        await at.settled()
    assert max(checks) <= 0.15


async def test_a_hanging_attempt_ends_at_its_timeout_and_others_go_on():
    started = []

    async def hangs(event, options):
        started.append(event)
        if len(started) == 1:
            await asyncio.Event().wait()

    async with bench(hangs, timeout="100ms") as at:
        at.put(make_event(), make_event())
        await at.settled()
    assert at.book.delivered == 2
    assert len(started) == 3


async def test_a_plugin_that_swallows_its_cancellation_is_left_behind():
    release = asyncio.Event()
    calls = []

    async def stubborn(event, options):
        calls.append(event.id)
        if len(calls) == 1:
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue

    async with bench(stubborn, timeout="50ms") as at:
        first, second = make_event(), make_event()
        at.put(first, second)
        await at.settled()
        assert at.book.delivered == 2
        assert calls == [first.id, second.id, first.id]
        release.set()
        await asyncio.sleep(0)
    assert at.book.delivered == 2


async def test_a_plugin_that_never_awaits_gives_others_their_turn():
    async def computes(event, options):
        block(0.006)

    other = Recorder()
    async with bench(computes) as greedy, bench(other) as at:
        greedy.put(*[make_event() for _ in range(300)])
        at.put(*[make_event() for _ in range(20)])
        await at.settled()
        assert greedy.book.delivered < 100


async def test_a_plain_function_runs_in_a_daemon_thread():
    threads = []

    def blocks(event, options):
        threads.append(threading.current_thread())
        block(0.01)

    async with bench(blocks, concurrency=2) as at:
        at.put(*[make_event() for _ in range(6)])
        await at.settled()
    assert at.book.delivered == 6
    assert len(set(threads)) == 2
    assert all(thread.daemon for thread in threads)
    assert threading.main_thread() not in threads


async def test_a_plain_function_that_hangs_harms_itself_alone():
    release = threading.Event()

    def hangs(event, options):
        release.wait(30)

    sink = Recorder()
    async with bench(hangs, timeout="50ms") as stuck, bench(sink) as other:
        stuck.put(*[make_event() for _ in range(3)])
        other.put(*[make_event() for _ in range(1000)])
        await other.settled()
        assert other.book.delivered == 1000
        assert stuck.book.delivered == 0
        release.set()


async def test_def_that_returns_a_coroutine_is_the_plugins_fault():
    async def inner():
        """Never awaited."""

    def wrong(event, options):
        return inner()

    async with bench(wrong) as at:
        at.put(make_event())
        await at.settled()
    assert [letter.reason for letter in at.letters.kept] == ["plugin"]
    assert "async def" in at.letters.kept[0].detail


async def test_a_third_parameter_named_context_gets_it():
    names = []

    async def sink(event, options, context):
        names.append(context.name)

    async with bench(sink, name="pager") as at:
        at.put(make_event())
        await at.settled()
    assert names == ["pager"]


class Batches:
    """A class that takes batches and answers each as it is told."""

    results = None

    def __init__(self, options):
        self.batches = []
        type(self).made = self

    async def deliver_batch(self, batch):
        self.batches.append([event for event, _ in batch])
        results, type(self).results = type(self).results, None
        return results


async def test_batches_hold_what_is_there():
    async with bench(Batches, batch=4, start=False) as at:
        events = [make_event() for _ in range(10)]
        at.put(*events)
        at.worker.start()
        await at.settled()
    assert [len(batch) for batch in Batches.made.batches] == [4, 4, 2]
    assert [event for batch in Batches.made.batches for event in batch] == events


async def test_max_wait_fills_a_batch():
    async with bench(Batches, batch=3, max_wait="5s") as at:
        at.put(make_event())
        await asyncio.sleep(0)
        at.put(make_event(), make_event())
        await at.settled()
    assert [len(batch) for batch in Batches.made.batches] == [3]


async def test_one_result_for_each_event_of_a_batch():
    async with bench(Batches, start=False) as at:
        Batches.results = [None, PermanentError("no"), TransientError("later")]
        events = [make_event() for _ in range(3)]
        at.put(*events)
        at.worker.start()
        await at.settled()
    assert at.book.delivered == 2
    assert [letter.event_id for letter in at.letters.kept] == [events[1].id]
    assert [event.id for event in Batches.made.batches[1]] == [events[2].id]


async def test_some_of_a_batch_are_answered_and_some_fail():
    async with bench(Batches, start=False) as at:
        Batches.results = ["id 1", PermanentError("no"), None]
        events = [make_event() for _ in range(3)]
        at.put(*events)
        at.worker.start()
        await at.settled()
    assert at.book.delivered == 2
    assert [letter.event_id for letter in at.letters.kept] == [events[1].id]


async def test_a_sink_that_answers_again_is_no_longer_in_trouble():
    answers = [TransientError("away"), "id 1"]

    async def sink(event, options):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with structlog.testing.capture_logs() as lines:
        async with bench(sink, breaker={"failures": 100}) as at:
            at.put(make_event())
            await at.settled()
            assert at.worker.fault is None
    assert [line["event"] for line in lines] == ["delivery failed", "the sink delivers again"]


@pytest.mark.parametrize("results", [[], [None], "wrong", "ok", b"ok", 42, [1, 2]])
async def test_a_wrong_answer_of_a_batch_is_the_plugins_fault(results):
    async with bench(Batches, start=False) as at:
        Batches.results = results
        at.put(make_event(), make_event())
        at.worker.start()
        await at.settled()
    assert at.book.dead_lettered == {Reason.PLUGIN: 2}


async def test_opening_is_tried_until_it_succeeds_and_nothing_is_lost():
    opened = []

    class Opens:
        def __init__(self, options):
            pass

        async def open(self, context):
            opened.append(context.name)
            if len(opened) < 2:
                raise OSError("not yet")

        async def deliver(self, event, options):
            assert len(opened) == 2

        async def close(self):
            opened.append("closed")

    async with bench(Opens, concurrency=3) as at:
        at.put(*[make_event() for _ in range(5)])
        await at.settled()
        assert at.book.delivered == 5
    assert opened == ["s", "s", "closed"]


class To(SinkOptions):
    to: Addresses = Addresses()
    text: Text = Text()
    subject: Template = Template()


async def test_options_are_rendered_for_each_delivery_and_routes_override_them():
    sink = Recorder()
    options = To(to="{{ payload.to }}", text="{{ payload.m }}")
    urgent = To(to="{{ payload.to }}", text="URGENT {{ payload.m }}")
    async with bench(sink, options=options, overrides={"urgent": urgent}) as at:
        at.put(make_event(b'{"to": 42, "m": "hi"}'), make_event(b'{"to": 43, "m": "now"}', route="urgent"))
        await at.settled()
    assert [(options.to, options.text) for _, options in sink.got] == [(["42"], "hi"), (["43"], "URGENT now")]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [(b'{"to": "1"}', "template"), (b'{"m": "x"}', "template"), (b'{"to": "x\\r\\nBcc: y", "m": "x"}', "address")],
)
async def test_what_can_not_be_rendered_is_a_dead_letter(raw, reason):
    sink = Recorder()
    async with bench(sink, options=To(to="{{ payload.to }}", text="{{ payload.m }}")) as at:
        at.put(make_event(raw), make_event(b'{"to": "2", "m": "good"}'))
        await at.settled()
    assert [letter.reason for letter in at.letters.kept] == [reason]
    assert at.letters.kept[0].attempts == 0
    assert [options.to for _, options in sink.got] == [["2"]]


@pytest.mark.parametrize(
    ("options", "raw"),
    [
        (To(to="{{ payload.to }}"), b'{"to": "SECRET;"}'),
        (To(to="{{ payload.to }}"), b'{"to": "SECRET\\u0007"}'),
        (To(to="x", subject="{{ payload.to | ago }}"), b'{"to": "SECRET"}'),
        (To(to="x", subject="{{ payload[payload.to].x }}"), b'{"to": "SECRET"}'),
        (To(to="x", subject="{{ payload.n.astimezone(payload.to) }}"), b'{"to": "SECRET", "n": "SECRET"}'),
    ],
)
async def test_the_log_is_not_told_what_an_event_brought_to_a_template(options, raw):
    with structlog.testing.capture_logs() as logs:
        async with bench(Recorder(), options=options) as at:
            at.put(make_event(raw))
            await at.settled()
    (letter,) = at.letters.kept
    assert letter.reason in {"template", "address"}
    (line,) = [line for line in logs if line["event"] == "delivery given up"]
    assert "SECRET" not in str(line)
    assert line["error"]


@pytest.mark.parametrize("text", ["x" * 1_000_000, "ü" * 1_000_000, "😀" * 1_000_000])
async def test_a_huge_error_of_a_plugin_is_cut_in_log_letter_and_fault(text):
    with structlog.testing.capture_logs() as logs:
        async with bench(Recorder(PermanentError(text), TransientError(text)), retry={"attempts": 1}) as at:
            at.put(make_event(), make_event())
            await at.settled()
    assert [len(letter.detail.encode()) <= 1024 for letter in at.letters.kept] == [True, True]
    assert len(str(logs)) < 10_000


async def test_an_empty_address_is_suppressed_and_counted():
    sink = Recorder()
    async with bench(sink, options=To(to="{{ payload.to | default('') }}", text="x")) as at:
        at.put(make_event(b"{}"), make_event(b'{"to": null}'))
        await at.settled()
    assert sink.got == []
    assert at.book.suppressed == {Reason.NO_ADDRESS: 2}
    assert at.letters.kept == []


async def test_a_text_that_fails_for_a_team_is_replaced_by_the_json_line_and_counted():
    sink = Recorder()
    async with bench(sink, options=To(to=["ops"], text="{{ payload.m }}")) as at:
        at.put(make_event(b'{"a": 1}'))
        await at.settled()
    ((_, options),) = sink.got
    assert '"payload":{"a": 1}' in options.text
    assert at.book.degraded == 1
    assert at.book.delivered == 1


async def test_addresses_that_failed_are_deliveries_of_their_own():
    failures = {"b": TransientError("later"), "c": PermanentError("no such user")}
    sink = Recorder(PartialError(failures))
    async with bench(sink, options=To(to=["a", "b", "c"], text="x")) as at:
        event = make_event()
        at.put(event)
        await at.settled()
    assert [options.to for _, options in sink.got] == [["a", "b", "c"], ["b"]]
    again = sink.got[1][0]
    assert (again.address, again.key, again.attempt) == ("b", f"{event.key}:b", 2)
    (letter,) = at.letters.kept
    assert (letter.reason, letter.address, letter.key) == ("permanent", "c", f"{event.key}:c")
    book = at.book
    assert (book.accepted, book.delivered, book.handed_over, book.pending) == (3, 1, 1, 0)


async def test_addresses_for_which_a_plugin_blames_the_sink_are_tried_again_each():
    sink = Recorder(PartialError({"b": SinkError("refused"), "c": SinkError("refused")}))
    async with bench(sink, options=To(to=["a", "b", "c"], text="x")) as at:
        at.put(make_event())
        await at.settled()
    assert [options.to for _, options in sink.got] == [["a", "b", "c"], ["b"], ["c"]]
    assert (at.book.delivered, at.book.pending, at.letters.kept) == (2, 0, [])


async def test_a_full_queue_drops_and_counts_by_channel():
    async with bench(Recorder(), queue={"max_events": 2}, start=False) as at:
        at.put(*[make_event() for _ in range(5)])
        at.put(make_event(channel="other"))
        assert at.book.dropped == {Reason.FULL: 4}
        assert at.book.dropped_by_channel == {"c": 3, "other": 1}
        at.worker.start()
        await at.settled()
    assert at.book.pending == 0


async def test_what_is_not_settled_at_the_end_is_dropped_by_shutdown():
    async def hangs(event, options):
        await asyncio.Event().wait()

    async with bench(hangs) as at:
        at.put(*[make_event() for _ in range(3)])
        await until(lambda: at.worker.in_flight)
        assert await at.worker.close() == 3
        assert at.book.dropped == {Reason.SHUTDOWN: 3}
        assert at.book.pending == 0


async def test_deliver_print_shows_and_sends_nothing():
    sink = Recorder()
    async with bench(sink, options=To(to="{{ payload.to }}", text="Hello\n{{ payload.m }}"), only=[]) as at:
        at.put(make_event(b'{"to": 42, "m": "you"}'), make_event(b'{"to": "", "m": "nobody"}'))
        await at.settled()
    assert sink.got == []
    assert at.shown == ["c → r → s (test) to 42: Hello you", "c → r → s (test) → suppressed (no_address)"]
    assert (at.book.accepted, at.book.printed, at.book.delivered, at.book.pending) == (2, 1, 0, 0)
    assert at.book.suppressed == {Reason.NO_ADDRESS: 1}


async def test_deliver_only_sends_to_those_and_shows_the_others():
    sink = Recorder()
    options = To(to="{{ payload.to }}", text="x")
    async with bench(sink, options=options, only=["*@example.org"]) as at:
        at.put(make_event(b'{"to": ["a@example.org", "b@elsewhere.net"]}'), make_event(b'{"to": "c@example.org"}'))
        await at.settled()
    assert sorted(options.to for _, options in sink.got) == [["a@example.org"], ["c@example.org"]]
    assert at.shown == ["c → r → s (test) to b@elsewhere.net: x"]
    book = at.book
    assert (book.accepted, book.delivered, book.printed, book.handed_over, book.pending) == (4, 2, 1, 1, 0)


class MailTo(SinkOptions):
    """Options of a sink that sends mail."""

    to: Annotated[list[str], Addresses(kind="mail")]


@pytest.mark.parametrize(
    ("only", "address", "sent"),
    [
        ("*@example.org", "Jane <jane@example.org>", True),
        ("*@example.org", "JANE@EXAMPLE.ORG", True),
        ("*@EXAMPLE.org", '"Doe, Jane" <jane@Example.Org>', True),
        ("*.Example.org", "jane@mail.example.ORG", True),
        ("jane@example.org", "Jane <jane@example.org>", True),
        ("jane@example.org", "JANE@example.org", False),
        ("Jane*", "Jane <x@elsewhere.net>", False),
        ("*jane@example.org*", '"jane@example.org" <x@elsewhere.net>', False),
        ("*@example.org", "x@example.org.elsewhere.net", False),
    ],
)
async def test_deliver_only_matches_the_mailbox_of_a_mail_address(only, address, sent):
    sink = Recorder()
    async with bench(sink, options=MailTo(to=["{{ payload.to }}"]), only=[only]) as at:
        at.put(make_event(msgspec.json.encode({"to": address})))
        await at.settled()
    assert [options.to for _, options in sink.got] == ([[address]] if sent else [])
    assert at.shown == ([] if sent else [f"c → r → s (test) to {address}"])


async def test_deliver_only_matches_other_addresses_as_they_are_written():
    sink = Recorder()
    async with bench(sink, options=To(to="{{ payload.to }}", text="x"), only=["C0*", "*@example.org"]) as at:
        at.put(
            *(
                make_event(msgspec.json.encode({"to": to}))
                for to in ("C0AB", "c0ab", "A <a@example.org>", "a@example.org")
            )
        )
        await at.settled()
    assert sorted(options.to for _, options in sink.got) == [["C0AB"], ["a@example.org"]]


PROCESS_PLUGIN = """
import os, resource, signal, time
from pydantic import Field
from router.api import PermanentError, PartialError, SinkOptions, Template, TransientError, hookimpl

class Options(SinkOptions):
    path: Template = Field(alias="to-file")

def work(event, options):
    what = event.payload
    if what == "exit" and event.attempt == 1:
        os._exit(9)
    if what == "segfault" and event.attempt == 1:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "hang" and event.attempt == 1:
        open(options.path + ".hangs", "w").close()
        time.sleep(600)
    if what == "permanent":
        raise PermanentError("never")
    if what == "wait" and not os.path.exists(options.path + ".asked"):
        open(options.path + ".asked", "w").close()
        raise TransientError("later", retry_after=0.01, scope="sink")
    with open(options.path, "a") as file:
        file.write(f"{os.getpid()} {what} {event.attempt}\\n")

@hookimpl
def register_sinks(register):
    register("work", work, options=Options, execution="process")
"""


def process_plugin(folder: Path, name: str, text: str = PROCESS_PLUGIN):
    """The sink type of a drop-in of one file, or of a folder with `doing.py`, and the options of a file to write."""
    from router.plugin_loading.plugin_manager import load_plugins

    file = folder / "plugins" / name
    file.parent.mkdir(mode=0o755, parents=True)
    (folder / "plugins").chmod(0o755)
    file.write_text(text)
    file.chmod(0o644)
    if name != "work.py":
        (file.parent / "__init__.py").write_text("from .doing import register_sinks\n")
        (file.parent / "__init__.py").chmod(0o644)
    kind = load_plugins([folder / "plugins"], entry_points=False).sinks["work"]
    return kind, kind.options.model_validate({"to-file": f"{folder / 'out'}{{{{ '' }}}}"})


@pytest.mark.parametrize("name", ["work.py", "work/doing.py"])
async def test_a_process_serves_crashes_and_is_killed_alone(tmp_path: Path, name):
    kind, options = process_plugin(tmp_path, name)
    out, clock = tmp_path / "out", SteppedClock()
    async with bench(
        kind.sink,
        options=options,
        execution="process",
        origin=kind.origin,
        sources=kind.sources,
        name="work",
        timeout="10m",  # no machine is so slow that a process is not started by then
        clock=clock,
    ) as at:
        for what in ("good", "exit", "segfault", "permanent", "wait", "hang"):
            at.put(make_event(f'"{what}"'.encode()))
        await until((tmp_path / "out.hangs").exists)
        clock.ahead = 600.0
        await at.settled()
    lines = sorted(line.split(" ", 1)[1] for line in out.read_text().splitlines())
    assert lines == ["exit 2", "good 1", "hang 2", "segfault 2", "wait 1"]
    assert [letter.detail for letter in at.letters.kept] == ["never"]


async def test_a_process_gives_the_answer_of_its_sink(tmp_path: Path):
    kind, options = process_plugin(
        tmp_path, "work.py", PROCESS_PLUGIN.replace('file.write(f"', 'return "id 1"; file.write(f"')
    )
    processes = PluginProcesses(kind)
    assert await processes.deliver(make_event(b'"good"'), options) == "id 1"
    await processes.close()


async def test_a_process_says_what_its_sink_returned_by_mistake(tmp_path: Path):
    text = PROCESS_PLUGIN.replace('file.write(f"', 'return PermanentError("never"); file.write(f"')
    kind, options = process_plugin(tmp_path, "work.py", text)
    processes = PluginProcesses(kind)
    with pytest.raises(PluginError, match="instead of raising it: PermanentError: never"):
        await processes.deliver(make_event(b'"good"'), options)
    await processes.close()


async def test_a_process_that_is_ended_is_no_zombie(tmp_path: Path):
    kind, options = process_plugin(tmp_path, "work.py")
    processes = PluginProcesses(kind)
    await processes.deliver(make_event(b'"good"'), options)
    [written] = tmp_path.glob("out*")
    pid = written.read_text().split()[0]
    assert Path(f"/proc/{pid}").exists()
    await processes.close()
    assert not Path(f"/proc/{pid}").exists()


async def test_a_process_says_that_an_address_is_gone(tmp_path: Path):
    raising = PROCESS_PLUGIN.replace("import PermanentError,", "import GoneError, PermanentError,").replace(
        'raise PermanentError("never")', 'raise GoneError("410")'
    )
    kind, options = process_plugin(tmp_path, "work.py", raising)
    processes = PluginProcesses(kind)
    with pytest.raises(GoneError, match="410"):
        await processes.deliver(make_event(b'"permanent"'), options)
    await processes.close()


async def test_a_process_says_why_it_could_not_load_its_plugin(tmp_path: Path):
    kind, options = process_plugin(tmp_path, "work/doing.py")
    processes = PluginProcesses(replace(kind, sources={}))
    with pytest.raises(SinkError, match=r"could not load the plugin: ModuleNotFoundError: there is neither doing\.py"):
        await processes.deliver(make_event(b'"good"'), options)
    await processes.close()


class Faulty:
    """A queue whose `take` fails so often, as if a stored delivery were more than our code can bear."""

    def __init__(self, queue, failures):
        self._queue = queue
        self.failures = failures

    def __getattr__(self, name):
        return getattr(self._queue, name)

    async def take(self, most):
        if self.failures:
            self.failures -= 1
            raise OverflowError("date value out of range")
        return await self._queue.take(most)


async def hangs(released):
    while not released.is_set():
        with contextlib.suppress(asyncio.CancelledError):
            await released.wait()


async def exits(_released):
    raise SystemExit(7)


async def cancels(_released):
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("close", "said"),
    [
        (hangs, "the sink did not return from close() and was abandoned"),
        (exits, "the sink did not close"),
        (cancels, "the sink did not close"),
    ],
)
async def test_a_sink_that_does_not_close_holds_nobody_up(close, said):
    released = asyncio.Event()

    class Closing:
        def __init__(self, options): ...

        async def deliver(self, event, options): ...

        async def close(self):
            await close(released)

    with structlog.testing.capture_logs() as logs:
        async with bench(Closing, timeout="50ms") as at:
            at.put(make_event())
            await at.settled()
    released.set()
    assert said in [line["event"] for line in logs]
    assert at.book.delivered == 1


class SilentError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize("kind", ["single", "batch"])
async def test_an_error_that_has_no_text_is_a_failure_like_any_other(kind):
    async def sink(event, options):
        raise SilentError

    class Batches:
        def __init__(self, options): ...

        async def deliver_batch(self, batch):
            return [SilentError() for _ in batch]

    async with bench(sink if kind == "single" else Batches, retry={"attempts": 1}) as at:
        at.put(make_event())
        await at.settled()
        assert at.worker.replaced == 0
    assert at.book.dead_lettered == {Reason.PLUGIN: 1}
    assert at.letters.kept[0].detail.partition(" (")[0] == "SilentError"


async def test_workers_that_a_fault_of_ours_ended_are_replaced_and_counted():
    sink = Recorder()
    async with bench(sink, concurrency=4, queue_of=lambda queue: Faulty(queue, 6)) as at:
        at.put(*[make_event() for _ in range(20)])
        await at.settled()
        assert at.worker.replaced == 6
        assert not [sign for sign in at.worker.signs() if sign.ended]
    assert len(sink.got) == 20
    assert (at.book.delivered, at.book.pending) == (20, 0)


@pytest.mark.parametrize("attempts", [1, 2])
async def test_a_delivery_that_our_code_fails_at_is_given_up_in_the_end_and_the_others_go_on(attempts):
    """Four stored deliveries of an unknown format ended all four workers of a sink for good."""
    hostile = [make_event(b'{"to": "1"}', format="xml") for _ in range(4)]
    good = [make_event(b'{"to": "2"}') for _ in range(2)]
    sink = Recorder()
    retries = {"initial": "1ms", "max_delay": "1ms", "attempts": attempts}
    async with bench(sink, options=To(to="{{ payload.to }}"), concurrency=4, retry=retries) as at:
        at.put(*hostile, *good)
        await at.settled()
        assert at.worker.replaced == 4 * attempts
    assert {(letter.event_id, letter.reason) for letter in at.letters.kept} == {
        (one.id, "exhausted") for one in hostile
    }
    assert at.letters.kept[0].detail == "a fault of the router: KeyError"
    assert (at.book.delivered, at.book.pending) == (2, 0)


async def test_a_delivery_that_can_not_even_be_given_up_stays_in_hand_and_the_books_balance():
    """Its time is one that no date can hold."""
    hostile = make_event(route="late", received_at=datetime.min.replace(tzinfo=timezone(timedelta(hours=14))))
    sink = Recorder()
    async with bench(sink, expires={"late": 1.0}, retry={"initial": "1ms", "attempts": 1}) as at:
        at.put(make_event(), hostile, make_event())
        await until(lambda: at.book.delivered == 2)
        assert (at.worker.replaced, at.worker.in_flight, at.book.pending) == (1, 1, 1)
    assert (at.book.pending, at.book.dropped) == (0, {Reason.SHUTDOWN: 1})
