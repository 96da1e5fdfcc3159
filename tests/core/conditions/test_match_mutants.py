"""The property tests of `match` notice every small change to its compiler and to its index, but for those that change nothing."""

from functools import partial

import jsonschema_rs
import pytest

from router.core.conditions import compile_match, index, match_schema
from router.core.conditions.match import holding
from tests.core.conditions.test_match_properties import NUMBERS, SCALARS, cases, interpreted
from tests.support.mutants import mutants

SIGNS = "\\^$.|?*+()[]{}"
SPELLED = [
    *({"a": {operator: f"x{sign}y"}} for sign in SIGNS for operator in ("prefix", "suffix", "contains")),
    {"a": {"prefix": ["x", "q"]}},
    {"a": {"suffix": "y"}},
    {"a.1.b": 5},
]
TEXTS = [f"x{sign}y" for sign in SIGNS] + ["xy", "xxy", "x", "zxy", "xyz", "", "x+y~", "q"]
PAYLOADS = [
    *({"a": text} for text in TEXTS),
    {"a": [{"b": 5}, {"b": 6}]},
    {"a": [{"b": 6}, {"b": 5}]},
    {"a": [{"b": 5}]},
]

COMPILER = [*cases(3, 1200), *((match, payload) for match in SPELLED for payload in PAYLOADS)]
"""Matches with payloads; enough that no change to the compiler goes unnoticed."""

SIMPLE = [{"a": 1}, {"a": ["x", 2]}, {"a.0": {"gt": 1, "gte": 2, "lt": 5, "lte": 4}}, {"a": {"eq": None, "in": [None]}}]
OTHERS = [{"a": {"ne": 1}}, {"a.*": 1}, {"a": 2**53}, {"a": {"gt": -(2**53)}}, {"a": {"not": 1}}, {"any": [{"a": 1}]}]
"""Matches whose clauses the index answers, and matches whose clauses it does not."""

CHANGES_NOTHING = {
    match_schema: {
        r"module: _SIGNS = frozenset('\\^$.|?*+()[]{}')  ->  _SIGNS = frozenset('\\^$.|?*+()[]{}~')": r"`\~` is `~`",
    },
    index: {
        "Index.__init__: self._paths.sort(key=lambda each: -each.users.bit_count())  ->  "
        "self._paths.sort(key=lambda each: +each.users.bit_count())": "the order says how soon no route is left, not which",
        "_segments: for begin, end in zip(begins, ends, strict=True):  ->  "
        "for begin, end in zip(begins, ends, strict=False):": "they are equally long",
    },
}
"""The changes that no test can notice, and why."""


def test_the_compiler():
    made = [(compile_match(match).clauses, payload, interpreted(match, payload)) for match, payload in COMPILER]

    def noticed(module):
        return any(
            jsonschema_rs.validator_for(
                module.document(clauses), pattern_options=jsonschema_rs.RegexOptions()
            ).is_valid(payload)
            is not wanted
            for clauses, payload, wanted in made
        )

    assert not noticed(match_schema)
    assert survivors(match_schema, noticed) == CHANGES_NOTHING[match_schema].keys()


ALIKE = [
    [{"a": value} for value in SCALARS],
    [{"a": {operator: value}} for value in NUMBERS for operator in ("gt", "gte", "lt", "lte")],
    [{"a": {"gte": value, "lt": value + 1}} for value in NUMBERS],
    [{"a": {"gt": value, "lte": value}} for value in NUMBERS],
]
"""Routes that ask the same of one path."""


@pytest.fixture(scope="module")
def groups():
    """Routes that are asked together: their clauses, and for each payload which of the clauses hold."""
    payloads = [*({"a": value} for value in (*SCALARS, [1], {"b": 1})), {}, [1], 5]
    groups = [(matches, payloads) for matches in ALIKE]
    groups += [([match for match, _ in made], [payload for _, payload in made]) for made in map(some, range(25))]
    found = []
    for matches, seen in groups:
        clauses = {number: compile_match(match).clauses for number, match in enumerate(matches)}
        asked = {node: holding((node,)) for nodes in clauses.values() for node in nodes}
        found.append((clauses, [(each, {node: holds(each) for node, holds in asked.items()}) for each in seen]))
    return found


def some(seed):
    return list(cases(seed, 12))


def test_the_index(groups):
    assert not notices(groups, index)
    skipped = frozenset({"equalities"})  # for `check` alone, in tests/config/test_double_deliveries.py
    assert survivors(index, partial(notices, groups), without=skipped) == CHANGES_NOTHING[index].keys()


def notices(groups, module):
    """Whether the index of this module decides anything else than the clauses by themselves, or asks more than it has to."""
    for matches, simple in ((SIMPLE, True), (OTHERS, False)):
        if any(module.is_simple(node) is not simple for match in matches for node in compile_match(match).clauses):
            return True
    for clauses, payloads in groups:
        found = module.Index(clauses)
        routes = (1 << len(clauses)) - 1
        paths = found.asked_by(routes)
        if found.asked_by(0):
            return True
        for payload, held in payloads:
            left = routes
            for path in paths:
                left &= path.left(payload)
            for number, nodes in clauses.items():
                decided = bool(left >> number & 1) and all(held[node] for node in nodes if not module.is_simple(node))
                if decided is not all(held[node] for node in nodes):
                    return True
    return False


def survivors(module, notices, **how):
    """The changes to a module that were not noticed; one that makes it fail was."""
    found = set()
    for name, changed in mutants(module, **how):
        try:
            if not notices(changed):
                found.add(name)
        except Exception:  # noqa: BLE001  # whatever the change has broken
            continue
    return found
