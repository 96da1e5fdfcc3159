"""What a `match` means, and what is said of one that means nothing."""

import pytest

from router.core.conditions import BrokenMatchError, compile_match
from router.core.conditions.clauses import shown
from router.core.conditions.paths import EACH, PathError, parse
from router.core.conditions.paths import shown as written
from router.core.conditions.why import why

ORDER = {
    "severity": "high",
    "order": {"total": 99.5, "items": 3, "paid": False, "note": None},
    "tags": ["vip", "new"],
    "lines": [{"sku": "A-1", "price": 5}, {"sku": "B-2", "price": 50}, {"price": 7}],
    "a.b": {"*": 1, "0": "zero"},
    "any": "field",
}

HOLDS = [
    {"severity": "high"},
    {"severity": ["low", "high"]},
    {"severity": {"ne": "low"}},
    {"severity": {"in": ["high"], "prefix": "hi", "suffix": "gh", "contains": "ig", "regex": "^h.{2}h$"}},
    {"severity": {"prefix": ["lo", "hi"]}},
    {"severity": {"contains": ["x", "g"]}},
    {"order.total": {"gt": 99, "lt": 100}},
    {"order.total": {"gte": 99.5, "lte": 99.5}},
    {"order.items": 3.0},
    {"order.paid": False},
    {"order.note": None},
    {"order.note": {"exists": True}},
    {"order.discount": {"exists": False}},
    {"order.discount": {"not": {"eq": 1}}},
    {"order.discount": {"not": [1, 2]}},
    {"tags": {"contains": "vip"}},
    {"tags": {"contains": ["old", "new"]}},
    {"tags.*": "new"},
    {"tags.1": "new"},
    {"tags.*": {"not": {"prefix": "x"}}},
    {"lines.*.sku": {"prefix": "B"}},
    {"lines.0.sku": "A-1"},
    {"lines.*.price": {"gt": 6, "lt": 8}},
    {"lines.*.color": {"exists": False}},
    {"lines.*.sku": {"not": {"eq": "C-3"}}},
    {'"a.b"."*"': 1},
    {'"a.b"."0"': "zero"},
    {'"any"': "field"},
    {"any": [{"severity": "low"}, {"order.paid": False, "severity": "high"}]},
]

DOES_NOT = [
    {"severity": "HIGH"},
    {"order.items": "3"},
    {"order.items": True},
    {"order.paid": 0},
    {"order.note": {"exists": False}},
    {"order.note": {"ne": None}},
    {"order.discount": {"ne": 1}},
    {"order.discount": None},
    {"order.total": {"gt": 99.5}},
    {"order.total": {"lt": 99.5}},
    {"severity": {"gt": 1}},
    {"tags.2": {"exists": True}},
    {"tags": "vip"},
    {"severity.0": "h"},
    {"tags.*": {"not": {"eq": "vip"}}},
    {"lines.*.price": {"gt": 8, "lt": 50}},
    {"lines.*.sku": {"exists": False}},
    {"lines.*.sku": {"prefix": "A", "suffix": "2"}},
    {"order.items": {"contains": 3}},
    {"any": [{"severity": "low"}, {"severity": "high", "order.paid": True}]},
]


@pytest.mark.parametrize("match", HOLDS, ids=str)
def test_it_holds(match):
    assert compile_match(match).holds(ORDER)


@pytest.mark.parametrize("match", DOES_NOT, ids=str)
def test_it_does_not_hold(match):
    assert not compile_match(match).holds(ORDER)


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        (r"\d", "٣", False),
        (r"\w", "é", False),
        (r"[\w.]", "é", False),
        ("^b", "a\nb", False),
        ("a$", "a\n", False),
        ("b", "abc", True),
        ("(?i)ABC", "xabcx", True),
    ],
)
def test_a_regex_is_found_anywhere_and_its_classes_are_ascii(pattern, text, found):
    assert compile_match({"a": {"regex": pattern}}).holds({"a": text}) is found


@pytest.mark.parametrize("text", ["a.b", "(", "[x]", "^a$", "a|b", "\\d", "{1}", "a+b*?", "$"])
@pytest.mark.parametrize("operator", ["prefix", "suffix", "contains"])
def test_a_text_is_meant_as_it_is_written(operator, text):
    match = compile_match({"a": {operator: text}})
    assert match.holds({"a": text})
    assert not match.holds({"a": "aab"})


def test_many_digits_are_compared_exactly():
    big = 10**400
    assert compile_match({"n": big}).holds({"n": big})
    assert not compile_match({"n": big}).holds({"n": big + 1})
    assert compile_match({"n": {"gt": big}}).holds({"n": big + 1})
    assert not compile_match({"n": {"gt": big}}).holds({"n": big})


FAULTS = [
    ({}, (), "must not be empty: write a path"),
    ([{"a": 1}], (), "write alternatives as `any: [{…}, {…}]`"),
    ({"a": []}, ("a",), "a list of values must not be empty"),
    ({"a": {}}, ("a",), "must not be empty: write at least one of the operators"),
    ({"a": [[1]]}, ("a", 0), "not a list"),
    ({"a": {"in": 1}}, ("a", "in"), "the value of `in` must be a list, not the number 1; for a single value, use `eq`"),
    ({"a": {"in": []}}, ("a", "in"), "must not be empty"),
    ({"a": {"eq": [1]}}, ("a", "eq"), "for several values write `in: […]`"),
    ({"a": {"ne": [1]}}, ("a", "ne"), "write `not: {in: […]}`"),
    ({"a": {"eq": {"b": 1}}}, ("a", "eq"), "the value of `eq` must be a single value, not a mapping"),
    ({"a": {"gt": "5"}}, ("a", "gt"), 'not the string "5"; remove the quotes'),
    ({"a": {"lt": True}}, ("a", "lt"), "the value of `lt` must be a number, not true"),
    ({"a": {"gte": float("inf")}}, ("a", "gte"), "the value of `gte` must be a number"),
    ({"a": float("nan")}, ("a",), "JSON has neither infinity nor NaN"),
    ({"a": {"exists": "yes"}}, ("a", "exists"), "the value of `exists` must be true or false"),
    ({"a": {"prefix": 5}}, ("a", "prefix"), "the value of `prefix` must be a string, not the number 5"),
    ({"a": {"suffix": ["x", None]}}, ("a", "suffix", 1), "the value of `suffix` must be a string, not null"),
    ({"a": {"regex": ""}}, ("a", "regex"), "must not be empty"),
    ({"a": {"regex": "(?=b)"}}, ("a", "regex"), "has look-around or back-references"),
    ({"a": {"regex": ["a", r"(a)\1"]}}, ("a", "regex", 1), "has look-around or back-references"),
    ({"a": {"regex": "("}}, ("a", "regex"), '"(" is not a regular expression: missing )'),
    ({"a": {"contains": {"b": 1}}}, ("a", "contains"), "not a mapping"),
    ({"a": {">": 1}}, ("a", ">"), "(did you mean `gt`?)"),
    ({"a": {"startswith": "x"}}, ("a", "startswith"), "(did you mean `prefix`?)"),
    ({"a": {"sufix": "x"}}, ("a", "sufix"), "(did you mean `suffix`?)"),
    ({"a": {"nin": [1]}}, ("a", "nin"), "(did you mean `not: {in: […]}`?)"),
    ({"a": {"any": [1]}}, ("a", "any"), "alternative values must be written as a list; write `a: [1]`"),
    ({"a": {"any": 1}}, ("a", "any"), "write `any` in the place of a path"),
    ({"order": {"total": 5}}, ("order", "total"), "to name a field of an object, write a dot: `order.total`"),
    ({"a": {"not": {"gt": "x"}}}, ("a", "not", "gt"), "the value of `gt` must be a number"),
    ({"any": {"a": 1}}, ("any",), "if a field has this name, write it in double quotes"),
    ({"any": []}, ("any",), "must not be empty"),
    ({"any": [{}]}, ("any", 0), "must not be empty"),
    ({"any": [{"a": 1}, {"b": {"gt": None}}]}, ("any", 1, "b", "gt"), "the value of `gt` must be a number, not null"),
    ({"a..b": 1}, ("a..b",), "a part of the path is empty"),
    ({"a*": 1}, ("a*",), 'must be written in double quotes: "a*"'),
    ({'a"b': 1}, ('a"b',), r'must be written in double quotes: "a\"b"'),
    ({'"a': 1}, ('"a',), "is not closed"),
    ({'"a"b': 1}, ('"a"b',), "a key in double quotes must be followed by a dot or by the end of the path"),
    ({"-1": 1}, ("-1",), "an index must not be negative"),
    ({"01": 1}, ("01",), "an index must not have leading zeros"),
    ({"1000": 1}, ("1000",), "the largest index is 999"),
    ({".".join("a" * 33): 1}, (".".join("a" * 33),), "the path has 33 parts, but at most 32 are allowed"),
    ({"a": "\ud800"}, ("a",), "half of a surrogate pair"),
    ({"\ud800": 1}, ("\ud800",), "half of a surrogate pair"),
]


@pytest.mark.parametrize(("match", "at", "message"), FAULTS, ids=[str(each[0]) for each in FAULTS])
def test_a_fault_says_where_it_is_and_what_to_write(match, at, message):
    with pytest.raises(BrokenMatchError) as raised:
        compile_match(match)
    (fault,) = raised.value.faults
    assert fault.at == at
    assert message in fault.message


def test_every_fault_is_found_at_once():
    with pytest.raises(BrokenMatchError) as raised:
        compile_match({"a": {"gt": "x", "like": 1}, "b": [], "any": [{"c": {}}]})
    assert [fault.at for fault in raised.value.faults] == [("a", "gt"), ("a", "like"), ("b",), ("any", 0, "c")]


def test_what_is_nested_without_end_is_refused():
    deep = {"a": 1}
    for _ in range(5000):
        deep = {"any": [deep]}
    with pytest.raises(BrokenMatchError, match="nested too deeply"):
        compile_match(deep)


def test_patterns_that_are_too_large_together_are_refused():
    with pytest.raises(BrokenMatchError):
        compile_match({"a": {"regex": "a{1000}{1000}"}})


def test_nulls_are_remembered_with_their_places():
    match = compile_match({"a": None, "b": ["x", None], "c": {"not": {"eq": None}}})
    assert match.nulls == (("a",), ("b", 1), ("c", "not", "eq"))


PATHS = [
    ("a", ("a",)),
    ("a.b", ("a", "b")),
    ("a.*.0.b", ("a", EACH, 0, "b")),
    ('"a.b".c', ("a.b", "c")),
    ('"*"."0"', ("*", "0")),
    (r'"a\"b\\c"', ('a"b\\c',)),
    ('""', ("",)),
    ("user-id.größe.x y", ("user-id", "größe", "x y")),
]


@pytest.mark.parametrize(("text", "path"), PATHS)
def test_a_path_is_read_and_written(text, path):
    assert parse(text) == path
    assert written(path) == text
    assert parse(written(path)) == path


def test_a_key_that_is_called_any_is_written_in_quotes():
    assert written(("any",)) == '"any"'
    with pytest.raises(PathError):
        parse("")


def test_why_names_every_clause_and_what_it_saw():
    match = compile_match(
        {
            "severity": ["high", "critical"],
            "order.total": {"gt": 100, "lt": 200},
            "lines.*.price": {"gt": 8, "lt": 40},
            "order.discount": {"exists": False},
            "tags": {"not": {"contains": "old"}},
            "any": [{"severity": "low"}, {"order.discount": {"ne": 1}}],
        },
        lambda at: "/".join(map(str, at)),
    )
    assert [tuple(reason)[:4] for reason in why(match, ORDER)] == [
        ('severity is one of "high", "critical"', True, '"high"', "severity"),
        ("order.total > 100", False, "99.5", "order.total/gt"),
        ("order.total < 200", True, "99.5", "order.total/lt"),
        ("lines.*.price > 8 and < 40", False, "5, 50, 7", "lines.*.price"),
        ("order.discount does not exist", True, "nothing", "order.discount/exists"),
        ('not (tags contains "old")', True, '["vip","new"]', "tags/not"),
        (
            '(severity == "low") or (order.discount != 1)',
            False,
            'severity: "high", order.discount: nothing',
            "any",
        ),
    ]


def test_what_is_shown_of_a_payload_is_bounded():
    assert len(shown("x" * 1000)) == 60
    assert shown(10**5000).startswith("a value that is too long")
    (reason,) = why(compile_match({"a.*": 1}), {"a": list(range(100))})
    assert reason.saw == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …"
    (reason,) = why(compile_match({"a": ["x" * 50] * 10}), {})
    assert len(reason.clause) == 200


@pytest.mark.parametrize(
    "match",
    [
        {"severity": ["high", "low"], "order.total": {"gte": 5}},
        {"a": {"regex": "x"}},
        {"a": "ä"},
        {"a": 2**60},
        {"a": {"not": 1}},
    ],
)
def test_only_the_schemas_of_simple_clauses_are_compiled_when_they_are_first_needed(match):
    compiled = compile_match(match)

    assert ("holds" in vars(compiled)) is (len(match) == 1)
    assert compiled.holds({}) is ("not" in str(match))
