"""`match` against an interpreter that was written for this test alone, by made-up clauses and payloads."""

import os
import random
from decimal import Decimal

import msgspec
import pytest

from router.core.conditions import compile_match
from router.core.conditions.condition import Condition
from router.core.conditions.index import Index, is_simple
from router.core.conditions.why import why

PAIRS = int(os.environ.get("MATCH_PAIRS", "10000"))
"""How many clauses and payloads are made."""

BIG = 2**53
SCALARS = [
    None,
    True,
    False,
    0,
    1,
    5,
    5.0,
    -3,
    0.5,
    -0.0,
    "",
    "5",
    "a",
    "ab",
    "b.c",
    "é",
    "true",
    BIG,
    BIG + 1,
    float(BIG),
    2**64,
    2.0**64,
    2**64 + 1,
    10**30,
    10**30 + 1,
    1e30,
    -(2**63) - 1,
    99.5,
]
NUMBERS = [each for each in SCALARS if isinstance(each, int | float) and not isinstance(each, bool)]
TEXTS = ["a", "b", "ab", "5", ".", "é", "b.c"]
PATTERNS = {
    "^a": lambda t: t[:1] == "a",
    "b$": lambda t: t[-1:] == "b",
    r"\d": lambda t: "5" in t,
    ".": lambda t: t != "",
}
KEYS = ["a", "b", "x"]


def number(value):
    """The number that a value is, exactly as it is written in JSON; None for another value."""
    return Decimal(repr(value)) if isinstance(value, int | float) and not isinstance(value, bool) else None


def same(left, right):
    if number(left) is not None and number(right) is not None:
        return number(left) == number(right)
    return type(left) is type(right) and left == right


def reached(value, path):
    """Every value at a path, whose parts are as they are written."""
    found = [value]
    for part in path.split("."):
        below = []
        for each in found:
            if part == "*":
                below += each if isinstance(each, list) else []
            elif part.isdigit():
                below += each[int(part) : int(part) + 1] if isinstance(each, list) else []
            else:
                below += [each[part]] if isinstance(each, dict) and part in each else []
        found = below
    return found


def listed(wanted):
    return wanted if isinstance(wanted, list) else [wanted]


def meets(value, operator, wanted):
    if operator == "eq":
        return same(value, wanted)
    if operator == "ne":
        return not same(value, wanted)
    if operator == "in":
        return any(same(value, each) for each in wanted)
    if operator in {"gt", "gte", "lt", "lte"}:
        left, right = number(value), number(wanted)
        if left is None:
            return False
        return {"gt": left > right, "gte": left >= right, "lt": left < right, "lte": left <= right}[operator]
    if operator == "contains":
        if isinstance(value, list):
            return any(same(each, one) for each in value for one in listed(wanted))
        return isinstance(value, str) and any(isinstance(one, str) and one in value for one in listed(wanted))
    if operator == "exists":
        return True
    if not isinstance(value, str):
        return False
    tests = {"prefix": value.startswith, "suffix": value.endswith, "regex": lambda each: PATTERNS[each](value)}
    return any(tests[operator](each) for each in listed(wanted))


def holds(path, condition, payload):
    if isinstance(condition, list):
        condition = {"in": condition}
    if not isinstance(condition, dict):
        condition = {"eq": condition}
    values = reached(payload, path)
    own = {name: wanted for name, wanted in condition.items() if name != "not" and (name, wanted) != ("exists", False)}
    if own and not any(all(meets(value, *each) for each in own.items()) for value in values):
        return False
    if condition.get("exists") is False and values:
        return False
    return "not" not in condition or not holds(path, condition["not"], payload)


def interpreted(match, payload):
    """Return whether a payload meets a `match`."""
    for path, condition in match.items():
        if path == "any":
            if not any(interpreted(each, payload) for each in condition):
                return False
        elif not holds(path, condition, payload):
            return False
    return True


class Maker:
    """Makes clauses and payloads that have something to do with each other."""

    def __init__(self, seed):
        self.chance = random.Random(seed)

    def payload(self, depth=3):
        pick = self.chance.random()
        if depth == 0 or pick < 0.3:
            return self.chance.choice(SCALARS)
        if pick < 0.5:
            return [self.payload(depth - 1) for _ in range(self.chance.randrange(4))]
        return {key: self.payload(depth - 1) for key in KEYS if self.chance.random() < 0.8}

    def path(self, payload):
        """A path that leads somewhere, more often than not."""
        parts = []
        while True:
            if isinstance(payload, dict) and payload:
                key = self.chance.choice(list(payload) if self.chance.random() < 0.9 else KEYS)
                parts.append(key)
                payload = payload.get(key)
            elif isinstance(payload, list) and payload:
                at = self.chance.randrange(len(payload))
                parts.append("*" if self.chance.random() < 0.6 else str(at))
                payload = payload[at]
            else:
                break
            if self.chance.random() < 0.1:
                break
        return (".".join(parts) or self.chance.choice(KEYS)), payload

    def wanted(self, near, among):
        fits = any(same(near, each) for each in among) and not isinstance(near, list | dict)
        return near if fits and self.chance.random() < 0.7 else self.chance.choice(among)

    def test(self, near):
        operators = ["eq", "ne", "in", "exists", "contains"]
        if number(near) is not None:
            operators += ["gt", "gte", "lt", "lte"] * 2
        if isinstance(near, str):
            operators += ["prefix", "suffix", "regex"] * 2
        operator = self.chance.choice(operators)
        if operator == "exists":
            return operator, self.chance.random() < 0.7
        if operator in {"gt", "gte", "lt", "lte"}:
            return operator, self.wanted(near, NUMBERS)
        if operator == "regex":
            return operator, self.chance.choice(list(PATTERNS))
        if operator in {"prefix", "suffix"}:
            return operator, self.several(lambda: self.chance.choice(TEXTS))
        if operator == "contains":
            inner = self.chance.choice(near) if isinstance(near, list) and near else near
            return operator, self.several(lambda: self.wanted(inner, SCALARS))
        if operator == "in":
            return operator, [self.wanted(near, SCALARS) for _ in range(self.chance.randrange(1, 4))]
        return operator, self.wanted(near, SCALARS)

    def several(self, make):
        return [make() for _ in range(self.chance.randrange(1, 3))] if self.chance.random() < 0.4 else make()

    def condition(self, near, depth=2):
        pick = self.chance.random()
        if pick < 0.2:
            return self.wanted(near, SCALARS)
        if pick < 0.3:
            return [self.wanted(near, SCALARS), self.chance.choice(SCALARS)]
        found = dict(self.test(near) for _ in range(self.chance.choice([1, 1, 2])))
        if depth and self.chance.random() < 0.15:
            found["not"] = self.condition(near, depth - 1)
        return found

    def match(self, payload, depth=1):
        found = {}
        for _ in range(self.chance.choice([1, 1, 1, 2])):
            path, near = self.path(payload)
            found[path] = self.condition(near)
        if depth and self.chance.random() < 0.15:
            found["any"] = [self.match(payload, depth - 1) for _ in range(self.chance.randrange(1, 3))]
        return found


def cases(seed, number):
    maker = Maker(seed)
    for _ in range(number):
        payload = {key: maker.payload() for key in KEYS}
        yield maker.match(payload), msgspec.json.decode(msgspec.json.encode(payload))


def test_a_match_decides_as_the_interpreter_does():
    matching = 0
    for match, payload in cases(1, PAIRS):
        wanted = interpreted(match, payload)
        assert compile_match(match).holds(payload) is wanted, (match, payload)
        matching += wanted
    assert matching >= 0.3 * PAIRS
    assert matching <= 0.8 * PAIRS


def test_every_clause_held_when_the_match_did():
    for match, payload in cases(2, PAIRS // 5):
        compiled = compile_match(match)
        reasons = why(compiled, payload)
        assert all(reason.held for reason in reasons) is compiled.holds(payload), (match, payload)


@pytest.mark.parametrize("routes", [1, 7, 70])
def test_the_index_and_what_it_leaves_decide_as_each_match_does(routes):
    """The clauses of many routes are answered together, for payloads that have to do with one of them."""
    simple = 0
    for seed in range(PAIRS // (20 * routes)):
        made = list(cases(seed, routes))
        matches = [compile_match(match) for match, _ in made]
        index = Index({number: match.clauses for number, match in enumerate(matches)})
        simple += sum(all(map(is_simple, match.clauses)) for match in matches)
        everybody = (1 << routes) - 1
        paths = index.asked_by(everybody)
        rests = [Condition(match).rest() for match in matches]
        for _, payload in made[:20]:
            left = everybody
            for path in paths:
                left &= path.left(payload)
            found = [bool(left >> n & 1) and (rest is None or rest(payload)) for n, rest in enumerate(rests)]
            assert found == [match.holds(payload) for match in matches]
    assert simple
