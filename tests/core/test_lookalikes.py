"""Texts that look the same, but are written with other code points."""

from __future__ import annotations

from unicodedata import normalize

import pytest

from router.core.conditions import compile_match
from router.core.conditions.lookalikes import HINT
from router.core.conditions.why import why
from router.ops.loading.reading.problems import did_you_mean


def decomposed(text):
    return normalize("NFD", text)


@pytest.mark.parametrize(
    "match",
    [
        {"name": "José"},
        {"name": ["Ann", "José"]},
        {"name": {"suffix": "sé"}},
        {"tags": {"contains": "é"}},
        {"naïve": 1},
        {"any": [{"name": "Ann"}, {"name": "José"}]},
        {"name": {"not": {"ne": "José"}}},
    ],
)
def test_a_clause_that_fails_for_the_form_of_a_text_says_so(match):
    payload = {decomposed("naïve"): 1, "name": decomposed("José"), "tags": [decomposed("é")]}
    (reason,) = why(compile_match(match), payload)
    assert (reason.held, reason.hint) == (False, HINT)


@pytest.mark.parametrize("match", [{"name": "Jose"}, {"name": "José "}, {"other": {"exists": True}}, {"age": 1}])
def test_any_other_clause_has_no_hint(match):
    (reason,) = why(compile_match(match), {"name": decomposed("José"), "age": "1"})
    assert (reason.held, reason.hint) == (False, "")


def test_a_clause_that_holds_has_no_hint():
    (reason,) = why(compile_match({"name": {"ne": "José"}}), {"name": decomposed("José")})
    assert (reason.held, reason.hint) == (True, "")


def test_the_nearest_word_is_said_to_look_the_same():
    assert did_you_mean(decomposed("café"), ["café"]) == f" (did you mean `café`? {HINT})"
    assert did_you_mean("café", ["café"]) == ""
