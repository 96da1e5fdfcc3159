"""The benchmarks: what they make of their figures, what they count, and that each of them runs."""

import io
import itertools
import json
import os
import socket
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.progress import Progress

from benchmarks import harness
from benchmarks.harness import Lines, counted, cpu_seconds, send, server, wire
from benchmarks.ratios import median_interval, ratios
from benchmarks.results import OTHER, THIS, Case, Figure, Reading, Results, in_turn
from tests.support.process import ROOT, environment
from tests.support.waiting import wait_until


def test_a_ratio_is_that_of_a_pair():
    assert ratios([2, 9, 5], [1, 3, 10]) == [2, 3, 0.5]
    assert ratios([1, 2], [0, 4]) == [0.5]
    with pytest.raises(ValueError, match="shorter"):
        ratios([1, 2], [1])


@pytest.mark.parametrize(
    ("count", "low", "high", "coverage"),
    [(1, 1, 1, 0), (3, 1, 3, 0.75), (6, 1, 6, 0.969), (7, 1, 7, 0.984), (9, 2, 8, 0.961), (20, 6, 15, 0.959)],
)
def test_the_interval_is_between_two_of_the_values(count, low, high, coverage):
    found = median_interval(range(count, 0, -1))
    assert (found.median, found.low, found.high) == ((count + 1) / 2, low, high)
    assert found.coverage == pytest.approx(coverage, abs=0.001)


@pytest.mark.parametrize("count", range(1, 13))
def test_the_coverage_is_what_coins_say(count):
    """The median lies outside when more values than were left inside are on one side of it: all cases, counted."""
    found = median_interval(range(1, count + 1))
    tosses = [sum(sides) for sides in itertools.product((0, 1), repeat=count)]
    within = [below for below in tosses if found.low <= below < found.high]
    assert found.coverage == pytest.approx(len(within) / len(tosses))


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40))
def test_the_median_is_within_its_interval(values):
    found = median_interval(values)
    assert found.low <= found.median <= found.high
    assert len(values) < 6 or found.coverage >= 0.95


def test_there_is_no_median_of_nothing():
    with pytest.raises(ValueError, match="no values"):
        median_interval([])


def results(*figures, base="base", **readings):
    """Results of the figures, by command the values of each."""
    made = Results(figures, list(readings), base)
    for command, rounds in readings.items():
        for values in rounds:
            made.add(command, {figure.name: Reading(value) for figure, value in zip(figures, values, strict=True)})
    return made


ALONE = Figure("alone", "µs")
TWICE = Figure("twice", "µs", base="alone", goal=2)
CHEAP = Figure("cheap", "µs", goal=1.03, goal_of="other")
FEW = Figure("few", "per s", goal=25, goal_of="value")


def test_a_figure_is_held_against_its_base_round_by_round():
    made = results(ALONE, TWICE, this=[(1, 2), (10, 15), (2, 6)])
    assert made.to_base(ALONE) is None
    assert (made.to_base(TWICE).median, made.to_base(TWICE).low, made.to_base(TWICE).high) == (2, 1.5, 3)
    assert made.met(ALONE) is None
    assert made.met(TWICE) is True
    assert results(ALONE, TWICE, this=[(1, 2.1)]).met(TWICE) is False


def test_a_figure_is_held_against_the_other_command():
    assert results(CHEAP, this=[(1,)]).met(CHEAP) is None
    made = results(CHEAP, this=[(3,), (1,), (2,)], other=[(1,), (1,), (2,)])
    assert made.to_other(CHEAP).median == 1
    assert made.met(CHEAP) is True
    assert results(CHEAP, this=[(1.1,)], other=[(1,)]).met(CHEAP) is False


def test_a_figure_is_held_against_a_number():
    assert results(FEW, this=[(25,), (90,), (1,)]).met(FEW) is True
    assert results(FEW, this=[(26,), (90,), (1,)]).met(FEW) is False


def test_commands_and_cases_take_turns(tmp_path):
    order = []

    def measured(name):
        def measure(command):
            for turn in range(2):
                order.append((name, command.name, turn))
                yield
            return {name: Reading(len(order), {"peak": len(order)}, {"more": 1})}

        return Case(name, [Figure(name, "µs")], measure)

    commands = {THIS: tmp_path / "new", OTHER: tmp_path / "old"}
    made = in_turn([measured("a"), measured("b")], commands, 2, Progress(disable=True))
    assert order == 2 * [(case, command, turn) for case in "ab" for turn in (0, 1) for command in ("old", "new")]
    assert made.values("a", OTHER) == made.values("a") == [4, 12]
    (first, second) = made.as_dict()["figures"]
    assert first["this"] == [4, 12]
    assert second["other"] == [8, 16]
    assert first["to_other"]["median"] == 1
    assert first["beside"] == {"peak": 12}
    assert first["detail"] == {"more": 1}


def test_an_early_end_keeps_the_rounds_that_were_whole(tmp_path):
    def interrupted(after):
        values = iter(range(after))

        def measure(_command):
            value = next(values, None)
            yield
            if value is None:
                raise KeyboardInterrupt
            return {"a": Reading(value)}

        return [Case("a", [Figure("a", "µs")], measure)]

    commands = {THIS: tmp_path, OTHER: tmp_path}
    made = in_turn(interrupted(after=5), commands, 9, Progress(disable=True))
    assert made.values("a", OTHER) == [0, 2]
    assert made.values("a") == [1, 3]
    with pytest.raises(KeyboardInterrupt):
        in_turn(interrupted(after=1), commands, 9, Progress(disable=True))


def test_the_table_says_what_was_met():
    made = results(ALONE, TWICE, CHEAP, FEW, base="alone", this=[(1, 3, 1, 7)] * 7, other=[(1, 1, 1, 1)] * 7)
    console = Console(width=200, file=io.StringIO())
    with console.capture() as captured:
        console.print(made.table("title"))
    shown = captured.get()
    for text in ("÷ alone", "this ÷ other", "3.00 (3.00 to 3.00)", "≤ 2: missed", "≤ 1.03: met", "≤ 25 per s: met"):
        assert text in shown
    assert "98.4%" in shown


def test_commands_within_scripts_are_told_apart():
    with server() as at:
        at.client.ping()
        with counted(at) as commands:
            send(at, [wire(b"SET", b"a\r\nb", b"\x00"), *[wire(b"GET", b"none")] * 3])
            for _ in range(2):
                at.client.eval("redis.call('GET', 'x') redis.call('XLEN', 's') return redis.call('XLEN', 's')", 0)
    assert commands.sent == {"set": 1, "get": 3, "eval": 2}
    assert commands.inside == {"get": 2, "xlen": 4}


def test_a_line_counts_when_it_is_whole(tmp_path):
    file = tmp_path / "out"
    lines = Lines(file, os.getpid())
    assert lines.count() == 0
    with file.open("a") as out:
        for text, count in (("one\ntwo\nthr", 2), ("ee\n", 3)):
            out.write(text)
            out.flush()
            assert lines.count() == count
    assert lines.wait(3)[0] == 3


def test_a_process_that_works_is_waited_for(tmp_path, monkeypatch):
    file, used = tmp_path / "out", itertools.chain([1.0, 2.0, 3.0], itertools.repeat(4.0))

    def cpu(_pid):
        seconds = next(used)
        if seconds == 4.0:
            file.write_text("late\n")
        return seconds

    monkeypatch.setattr(harness, "PATIENCE", 0.001)
    monkeypatch.setattr(harness, "cpu_seconds", cpu)
    assert Lines(file, os.getpid()).wait(2, every=0.001)[0] == 1


def test_a_subscriber_that_is_cut_off_is_counted():
    with server(cuts_off=True) as at, socket.create_connection(("127.0.0.1", at.port)) as slow:
        at.client.config_set("client-output-buffer-limit", "pubsub 1mb 0 0")
        slow.sendall(wire(b"SUBSCRIBE", b"bench"))
        assert slow.recv(10)
        assert at.cut_off == 0
        for _ in range(100):
            at.client.publish("bench", bytes(2**18))
        wait_until(lambda: at.cut_off == 1, "the log of the server")


def test_the_cpu_of_another_process_is_read():
    burn = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        used = cpu_seconds(process.pid)
        process.communicate(b"\n")
    assert used >= 0.3


def bench(tmp_path, *words):
    """Run the benchmarks as `make bench` does."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.bench", *words],
        cwd=ROOT,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )


TINY = {
    "burst": ["--events", "400", "--rounds", "1"],
    "channels": ["--channels", "40", "--burst", "50", "--only", "100-globs", "burst", "--rounds", "1"],
    "conditions": ["--events", "400", "--only", "none", "match", "when", "10-tenants", "--rounds", "1"],
    "fanout": ["--events", "300", "--sinks", "3", "--rounds", "1"],
    "lookups": [
        "--events",
        "300",
        "--users",
        "200",
        "--rounds",
        "1",
        "--rate",
        "3000",
        "--only",
        "memory-none",
        "memory-miss",
    ],
    "lists": ["--flood", "40", "--trickle", "10", "--rounds", "1"],
    "trickle": ["--seconds", "0.05", "--rounds", "1", "--only", "1", "3"],
    "webhook": ["--events", "40", "--answer-after", "0.001", "--rounds", "1"],
    "mail": ["--events", "40", "--rounds", "1"],
    "idle": ["--settle", "0", "--seconds", "0.5"],
    "start": ["--rounds", "1"],
    "failures": ["--events", "40", "--rounds", "1"],
    "replay": ["--letters", "300", "--rounds", "1"],
    "waiting": ["--waiting", "200", "--rate", "100", "--seconds", "0.5"],
    "mixed": ["--minutes", "0.03", "--rate", "200"],
    "check": ["--routes", "10", "--rounds", "1"],
    "compare": ["--events", "300", "--rounds", "1", "--other", f"{sys.prefix}/bin/event-router"],
}


@pytest.mark.drawn(3)
@pytest.mark.parametrize("name", TINY)
def test_a_benchmark_runs(tmp_path, name):
    done = bench(tmp_path, name, *TINY[name], "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["benchmark"] == name
    for figure in told["figures"]:
        assert all(value >= 0 for value in figure["this"] if "memory" not in figure["figure"])
        assert figure["beside"].get("lost", 0) == 0
    lost = [figure for figure in told["figures"] if figure["unit"] == "events"]
    assert all(figure["this"] == [0] for figure in lost)
    if name == "lists":
        base = {f["figure"]: f["beside"] for f in told["figures"]}["flood, bare loop: server"]
        assert base["sent/item"] == pytest.approx(2, abs=0.5)
        assert base["in scripts/item"] == 0


def test_the_guard_compares_with_what_is_stored(tmp_path):
    baseline = tmp_path / "baseline.json"
    few = ["quick", "--events", "400", "--rounds", "1", "--baseline", str(baseline)]
    assert bench(tmp_path, *few, "--store").returncode == 0
    ratios = json.loads(baseline.read_text())["ratios"]
    baseline.write_text(json.dumps({"ratios": ratios | {"pubsub": ratios["pubsub"] / 1000}}))
    done = bench(tmp_path, *few, "--tolerance", "100")
    assert done.returncode == 1, done.stderr
    assert "more expensive" in done.stdout


def test_only_benchmarks_with_figures_are_reported(tmp_path):
    done = bench(tmp_path, "report", "quick")
    assert done.returncode == 1
    assert "quick has no figures for the report" in done.stderr


def test_the_first_benchmark_needs_no_name(tmp_path):
    done = bench(tmp_path, "--events", "2000", "--rounds", "1", "--rate", "200", "--svg", f"{tmp_path}/bars.svg")
    assert done.returncode == 0, done.stderr
    assert "redis-py" in done.stdout
    assert (tmp_path / "bars.svg").exists()
    assert "\x1b" not in done.stdout + done.stderr


def test_a_command_that_is_none_is_refused(tmp_path):
    done = bench(tmp_path, "compare", "--other", str(tmp_path))
    assert done.returncode == 2
    assert "is not a command" in done.stderr
    assert "Traceback" not in done.stderr
