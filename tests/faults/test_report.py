"""The tables of docs/reliability.md, and the command that writes them."""

import json

import pytest

from tests.faults import report
from tests.faults.judging import Found, judge_counts, judge_lines, judge_log
from tests.faults.registry import SCENARIOS
from tests.faults.tables import PEERS, document

READY = [name for name, one in SCENARIOS.items()]


def test_the_page_shows_what_was_measured():
    page = report.PAGE.read_text()
    assert report.rendered(page) == page


def test_every_scenario_was_measured_in_full():
    results = report.measured()
    assert set(results) == set(READY)
    assert {result["scale"] for result in results.values()} == {"full"}


def test_the_peers_are_compared_with_scenarios_that_exist():
    assert {name for *_, name, _ in PEERS} <= set(SCENARIOS)


def test_a_broken_promise_is_shown():
    found = Found(
        "killed", published=10, lost={"first": 2}, repeated={"first": 1}, problems=["first lost 2 of 10: 3, 4"]
    )
    where = {"date": "2026-01-01", "version": "0.1.0", "server": "Redis 7", "python": "3.11", "cores": 2}
    text = document(SCENARIOS, {"killed": {**found.as_dict(), **where}})
    (row,) = [line for line in text.splitlines() if "killed with -9 ten times, and" in line]
    assert "| 10 | 2 | 1 (10.00%) |" in row
    assert "**do not**" in row
    assert "**no**: first lost 2 of 10" in row
    assert "0 of 1 promises were kept" in text
    assert "not measured" in text


def test_results_are_kept_beside_those_of_others(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "MEASURED", tmp_path / "measured.json")
    for name in ("stopped", "killed", "stopped"):
        report.keep(Found(name, problems=["a line\nand a long story"]), "valkey", "full")
    results = report.measured()
    assert list(results) == ["killed", "stopped"]
    assert results["killed"]["problems"] == ["a line"]
    assert results["killed"]["server"].startswith("Valkey ")


def test_the_command_lists_the_scenarios(capsys):
    assert report.main(["--list"]) == 0
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == READY


def test_a_name_that_is_none_is_refused(capsys):
    with pytest.raises(SystemExit):
        report.main(["--only", "kiled"])
    assert "kiled" in capsys.readouterr().err


def test_small_results_are_not_shown(capsys):
    with pytest.raises(SystemExit):
        report.main(["--scale", "small", "--write"])
    assert "full runs" in capsys.readouterr().err


# The checks of counts and logs.


def test_lost_repeated_and_unknown_events_are_told_apart():
    from collections import Counter

    found = Found("x")
    judge_counts(found, {"a": Counter([1, 2, 2, 3])}, {"a": range(5), "b": range(2)}, may_repeat=0)
    assert (found.lost, found.repeated, found.delivered) == ({"a": 2, "b": 2}, {"a": 1, "b": 0}, {"a": 3, "b": 0})
    assert [problem.split(":")[0] for problem in found.problems] == ["a lost 2 of 5", "b lost 2 of 2", "repeated {'a'"]


def line(**fields):
    return json.dumps({"level": "warning", "event": "lost", **fields}) + "\n"


def test_a_log_may_not_say_the_same_for_ever():
    found = Found("x")
    said = line(source="a") * 5 + line(source="b") + line(level="info") * 50
    judge_lines(found, judge_log(found, said, killed=False), faults=1)
    assert found.lines == 6
    assert found.problems == ["logged 5 times for 1 faults: lost a"]


def test_a_traceback_or_a_stray_line_in_the_log_is_a_problem():
    found = Found("x")
    judge_log(found, line(exception="Traceback …") + "Exception ignored in\n", killed=False)
    assert len(found.problems) == 2


def test_the_torn_last_line_of_a_killed_router_is_none():
    found = Found("x")
    judge_log(found, line() + '{"level": "war', killed=True)
    assert found.problems == []
