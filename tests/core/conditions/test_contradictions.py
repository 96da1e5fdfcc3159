"""Clauses that can't hold together are found, and none that may."""

import pytest

from router.core.conditions import compile_match
from router.core.conditions.contradictions import contradictions
from tests.core.conditions.test_match_properties import cases, interpreted


def found(match):
    return [
        (" & ".join(clause.text for clause in each.clauses), each.effect)
        for each in contradictions(compile_match(match).clauses)
    ]


def test_no_payload_meets_a_match_that_is_said_never_to_hold():
    said = [(match, payload) for match, payload in cases(11, 4000) if any(e == "match" for _, e in found(match))]
    assert len(said) > 50
    assert not [(match, payload) for match, payload in said if interpreted(match, payload)]


@pytest.mark.parametrize(
    ("match", "clauses", "effect"),
    [
        ({"a": {"gt": 5, "lt": 3}}, "a > 5 & a < 3", "match"),
        ({"a": {"gt": 5, "lte": 5}}, "a > 5 & a <= 5", "match"),
        ({"a": {"gte": 2**60, "lt": 2**60}}, f"a >= {2**60} & a < {2**60}", "match"),
        ({"a": {"eq": 1, "in": [True]}}, "a == 1 & a is one of true", "match"),
        ({"a": {"in": [5, 6], "ne": 5, "not": 6}}, "a is one of 5, 6 & a != 5 & not (a == 6)", "match"),
        ({"a": {"ne": 1, "exists": False}}, "a != 1 & a does not exist", "match"),
        ({"a": {"exists": False}, "a.0.b": 5}, "a does not exist & a.0.b == 5", "match"),
        ({"a": {"contains": "x"}, "a.b": 5}, 'a contains "x" & a.b == 5', "match"),
        ({"a": {"gt": 3, "not": {"gte": 3}}}, "a > 3 & not (a >= 3)", "match"),
        (
            {"a": {"regex": "x", "not": {"regex": "x"}}},
            'a matches the regex "x" & not (a matches the regex "x")',
            "match",
        ),
        ({"a.*": {"gt": 5, "prefix": "x"}}, 'a.* > 5 and starts with "x"', "match"),
        ({"a": 1, "any": [{'"a"': 2}, {"b": 1}]}, "a == 1 & a == 2", "alternative"),
        ({"any": [{"any": [{"a": 1, '"a"': 2}]}]}, "a == 1 & a == 2", "alternative"),
        ({"a": {"not": {"gt": 5, "lt": 3}}}, "a > 5 and < 3", "not"),
    ],
)
def test_what_can_not_hold_is_named(match, clauses, effect):
    assert found(match) == [(clauses, effect)]


@pytest.mark.parametrize(
    "match",
    [
        {"a": {"gt": 5, "lt": 6}},
        {"a": {"gte": 5, "lte": 5}},
        {"a": {"eq": 2**60, "gt": 2**60 - 1}},
        {"a": {"eq": 1, "ne": True}},
        {"a": {"eq": 5, "in": [5.0, 7]}},
        {"a": {"eq": None, "exists": True}},
        {"a": {"contains": "5", "prefix": "x"}},
        {"a": {"contains": 5}, "a.0": 6},
        {"a": {"gt": 3, "not": {"gt": 5}}},
        {"a": {"exists": True}, "a.b": {"exists": False}},
        {"a": {"not": {"exists": True}}, "a.b": {"not": 5}},
        {"a.*": 5, '"a".*': 6},
        {"a.*": 5, '"a".*.b': 6},
        {"a.*": {"ne": 5, "not": {"gt": 6}}},
    ],
)
def test_what_may_hold_is_not(match):
    assert found(match) == []
