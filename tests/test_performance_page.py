"""docs/performance.md: its table, its plot and benchmarks/results.json agree, and how figures get there."""

import json
import re
from xml.etree import ElementTree as ET

import pytest

from benchmarks import quick, report
from benchmarks.bench import IN_TURN
from benchmarks.plot import MOST, Bar, svg
from benchmarks.ratios import median_interval
from benchmarks.results import Figure, Reading, Results

STORED = report.load()


def test_page_and_plot_are_drawn_from_the_stored_figures():
    assert report.page(report.PAGE.read_text(), STORED) == report.PAGE.read_text()
    assert svg(report.bars(STORED)) == report.PLOT.read_text()


def test_every_stored_figure_is_of_a_benchmark_that_exists():
    assert STORED.keys() <= IN_TURN.keys()
    assert set(re.findall(r"\(`(\w+)`\)", report.PAGE.read_text())) <= IN_TURN.keys()


def results(**values):
    """The results of one round: a base, a figure with a goal for its ratio, and one with a goal for its value."""
    figures = [
        Figure("base", "µs"),
        Figure("dear", "µs", base="base", goal=1.5),
        Figure("lost", "events", goal=0, goal_of="value"),
        Figure("other", "µs", goal=1, goal_of="other"),
    ]
    made = Results(figures, ["this"])
    made.add("this", {name: Reading(value) for name, value in values.items()})
    return made


def test_a_benchmark_replaces_its_own_figures_alone():
    first = report.merged({}, "start", "start --rounds 1", results(base=2.0, dear=4.0, lost=0, other=1))
    second = report.merged(first, "webhook", "webhook", results(base=1234.6, dear=1, lost=3, other=1))
    third = report.merged(second, "start", "start", results(base=1.0, dear=1.0, lost=0, other=1))
    assert third["webhook"] == second["webhook"]
    assert third["start"]["command"] == "start"
    base, dear, lost, other = second["webhook"]["figures"]
    assert base == {"figure": "base", "unit": "µs", "value": 1235, "rounds": 1}
    assert dear["base"] == "base"
    assert dear["ratio"] == pytest.approx([0.00081] * 3)
    assert (report.share_of_goal(base), report.share_of_goal(other)) == (None, None)
    assert report.share_of_goal(first["start"]["figures"][1]) == pytest.approx(2 / 1.5)
    assert (report.share_of_goal(lost), report.share_of_goal(third["start"]["figures"][2])) == (float("inf"), 0)
    shown = report.table(second)
    assert "| `start` | dear | 4 µs | 2.00 | base | ≤ 1.5: **missed** |" in shown
    assert "| `webhook` | lost | 3 events |  |  | ≤ 0 events: **missed** |" in shown
    assert "`make bench ARGS='start --rounds 1'`" in shown


def test_the_figures_survive_their_file(tmp_path):
    stored = report.merged({}, "start", "start", results(base=2.0, dear=4.0, lost=0, other=1))
    report.save(stored, tmp_path / "results.json")
    assert report.load(tmp_path / "results.json") == stored
    assert report.load(tmp_path / "none.json") == {}


def test_a_page_without_a_place_for_the_table_is_refused():
    with pytest.raises(ValueError, match="results: begin"):
        report.page("# Performance\n", {})


def test_the_plot_is_well_formed_and_cuts_long_bars_off():
    drawn = svg([Bar("a < b", 0.5, "fine"), Bar("long " * 40, MOST * 3, "far off"), Bar("none", 0, "0")])
    root = ET.fromstring(drawn)
    kinds = [each.get("class") for each in root.iter() if each.tag.endswith("rect")]
    widths = [float(each.get("width")) for each in root.iter() if each.tag.endswith("rect")]
    assert kinds == ["met", "missed", "met"]
    assert widths[1] == 4 * widths[0]
    assert len([each for each in root.iter() if each.tag.endswith("path")]) == 1
    assert "2 of 3 figures" in drawn
    assert "prefers-color-scheme: dark" in drawn


@pytest.mark.parametrize(
    ("ratios", "stored", "expected"),
    [
        ([1.0, 1.1, 1.2], 1.0, quick.OK),
        ([1.2, 1.3, 1.4], 1.0, quick.DEARER),
        ([1.1, 1.3, 1.4], 1.0, quick.OK),  # one round was not more expensive: the machine may have been busy
        ([0.7, 0.8, 0.86], 1.0, quick.CHEAPER),
        ([0.7, 0.8, 0.9], 1.0, quick.OK),
        ([5.0], None, quick.NEW),
    ],
)
def test_a_job_is_more_expensive_if_every_round_is(ratios, stored, expected):
    known = {} if stored is None else {"job": stored}
    (verdict,) = quick.judge({"job": median_interval(ratios)}, known, 0.15)
    assert verdict.result == expected
    assert quick.table([verdict]).row_count == 1


def test_what_is_stored_is_what_is_compared(tmp_path):
    file = tmp_path / "baseline.json"
    assert quick.stored_in(file) == {}
    quick.store(file, {"job": median_interval([1, 2, 3])})
    assert quick.stored_in(file) == {"job": 2}


def test_every_job_of_the_guard_has_a_stored_ratio():
    jobs = {figure.name for case in quick.cases(1) for figure in case.figures if figure.base}
    assert json.loads(quick.BASELINE.read_text())["ratios"].keys() == jobs
