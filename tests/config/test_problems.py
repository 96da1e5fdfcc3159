"""The collection of problems: which of too many are shown, and how severe the line about the others is."""

import pytest

from router.ops.loading.reading.problems import Problems


@pytest.mark.parametrize(
    ("added", "shown", "line", "severity"),
    [
        ({"error": 1, "warning": 300, "note": 0}, {"error": 1, "warning": 199}, "and 101 more warnings", "warning"),
        ({"error": 250, "warning": 0, "note": 1}, {"error": 200}, "and 50 more errors, 1 more note", "error"),
        ({"error": 200, "warning": 0, "note": 5}, {"error": 200}, "and 5 more notes", "note"),
        ({"error": 0, "warning": 201, "note": 0}, {"warning": 200}, "and 1 more warning", "warning"),
        ({"error": 0, "warning": 1, "note": 200}, {"warning": 1, "note": 199}, "and 1 more note", "note"),
    ],
)
def test_the_worst_are_shown_and_the_line_about_the_others_is_as_severe_as_they_are(added, shown, line, severity):
    problems = Problems()
    for kind in ("note", "warning", "error"):
        for each in range(added[kind]):
            problems.add(f"{kind} {each}", severity=kind)
    *found, last = problems.all()
    assert {kind: sum(each.severity == kind for each in found) for kind in {each.severity for each in found}} == shown
    assert (last.message, last.severity) == (line, severity)
    assert {kind: sum(each.number(kind) for each in problems.all()) for kind in added} == added
