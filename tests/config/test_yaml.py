"""YAML to a tree: scalars, marks, aliases, refusals; and a fuzz of the whole loader."""

import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from router.errors import ConfigError
from router.ops.loading import Loaded, load
from router.ops.loading.reading.nodes import SourceFile, name_paths, plain, resolve, scalars
from router.ops.loading.reading.problems import Problems
from router.ops.loading.reading.yaml_nodes import parse

HERE = Path(__file__).parent


def tree(text):
    problems = Problems()
    return parse(text, SourceFile("c.yaml", Path("/c.yaml")), problems), problems.all()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("12:30:45", "12:30:45"),
        ("010", "010"),
        ("0755", "0755"),
        ("1_000", "1_000"),
        ("2026-01-02", "2026-01-02"),
        ("0o14", 12),
        ("0x1F", 31),
        ("-17", -17),
        ("+3", 3),
        ("0", 0),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1.10", 1.1),
        ("-.inf", float("-inf")),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("1" * 5000, "1" * 5000),
        ("1.2.3", "1.2.3"),
        ("e3", "e3"),
    ],
)
def test_plain_scalars_follow_yaml_1_2(text, value):
    resolved = resolve(text)
    assert resolved == value
    assert type(resolved) is type(value)


def test_quoted_scalars_are_text():
    root, problems = tree("a: '1'\nb: \"true\"\nc: |\n  5\nd: >-\n  null\n")
    assert plain(root) == {"a": "1", "b": "true", "c": "5\n", "d": "null"}
    assert problems == ()


def test_marks_and_paths():
    root, _ = tree('sinks:\n  audit: {path: x, "a b": [1, {c: 2}]}\n')
    name_paths(root)
    places = {node.path: (node.mark.line, node.mark.column) for node in scalars(root)}
    assert places == {
        "sinks.audit.path": (2, 17),
        'sinks.audit."a b"[0]': (2, 28),
        'sinks.audit."a b"[1].c': (2, 35),
    }


def test_anchors_and_aliases_work():
    root, problems = tree("a: &a {x: &x [1]}\nb: *a\nc: *x\n")
    assert plain(root) == {"a": {"x": [1]}, "b": {"x": [1]}, "c": [1]}
    assert problems == ()


def test_a_byte_order_mark_is_no_fault(tmp_path):
    text = (HERE / "good" / "minimal.yaml").read_text()
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert load(tmp_path / "bom.yaml", environ={}).config.version == 1


@pytest.mark.parametrize(
    "text",
    [
        (HERE / "bad" / "alias-bomb.yaml").read_text(),
        "a: &a [*a, *a]\n",
        "".join(f"k{n}: &k{n} [{', '.join([f'*k{n - 1}'] * 9)}]\n" if n else "k0: &k0 x\n" for n in range(40)),
        "a: &a {" + ", ".join(f"k{n}: v" for n in range(9_000)) + "}\nb: *a\nc: *a\n",
        "a: " + "[" * 100_000,
        "a: " + "{a: " * 100_000,
        "- " * 100_000,
    ],
    ids=["bomb", "recursive", "forty-levels", "wide", "brackets", "braces", "dashes"],
)
def test_bombs_are_refused_at_once(text):
    started = time.process_time()
    root, problems = tree(text)
    assert time.process_time() - started < 5  # a bomb that went off would take all memory first
    assert root is None
    assert problems


def test_several_slips_of_one_file_are_told_together():
    _, problems = tree("a: {{ x }}\nb: @c\nc: Order: 5\nd: [*]\nd: 1\ne: !x y\nf: {{ y }} z\n")
    assert [(problem.line, problem.path) for problem in problems] == [
        (1, "a"),
        (2, "b"),
        (3, "c"),
        (4, "d"),
        (5, "d"),
        (6, "e"),
        (7, "f"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "a: x  # {{ y }} was here\n",
        "a: {{x: 1}: 2}\n",
        "a: x # the channel\n",
        "a: 25 #smtp\n",
        'a: "x #y"\n',
        "a: |\n  x #y {{ z }}\n",
        "a: http://x/#y\n",
        "a: it's #1\n",
        "a: b:c\n",
        "a: Hi {{ x }}\n",
        "a: ${X}\n",
        "a: x-@-y\n",
        "a: 5 * 3\n",
        "a: [x, # one\n  y]\n",
        "a: -x\n",
        "a: .*\n",
        "? a\n: b\n",
    ],
)
def test_what_is_legal_stays_legal(text):
    root, problems = tree(text)
    if "{{x" in text:  # a mapping as key, which YAML allows and a configuration does not
        assert problems
    else:
        assert root is not None
        assert problems == ()


LINE = st.sampled_from(
    [
        "version: 1",
        "sources:",
        "  web: {type: pubsub, channels: [a]}",
        "sinks:",
        "  audit: {type: log, path: x}",
        "routes:",
        "  - {id: a, sinks: [audit]}",
        "  - id: b",
        "    sinks: [audit, {sink: audit, template: '{{ payload }}'}]",
        "deliver: print",
        "unmatched: [audit]",
        "defaults: {log: {timeout: 5s}}",
        "include: '*.none'",
        "schemas: [{channels: [a], file: x}]",
        "  x: &x [1, *x]",
        "a: *x",
        "\tb: c",
        "  - ",
        "}",
        "'",
        '"',
        "---",
        "x: {{ y }}",
        "x: ${A:-${B:-}}",
        "x: $${",
        "? ",
        "!t",
        ": ",
        "#",
        "  template: |",
        "      {% if %}",
    ]
)
SPICE = st.text(alphabet="{}[]:,-#&*!|>'\"%@`$~ \t\n\x00\x85\u2028aé\ufeff0", max_size=12)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["audit", "log", "5s"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "path", "id", "sinks", "sink", "channels", "file", "url", "queue", "retry", "to", "template"]
            )
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
SECTIONS = st.dictionaries(
    st.sampled_from(
        [
            "version",
            "sources",
            "sinks",
            "routes",
            "deliver",
            "unmatched",
            "defaults",
            "schemas",
            "redis",
            "plugins",
            "timezone",
            "shutdown",
            "include",
        ]
    ),
    VALUES,
)
RELAXED = settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def outcome(folder, data):
    """Load what was made up. Anything but these two outcomes is a failure."""
    file = folder / "fuzz.yaml"
    file.write_bytes(data)
    try:
        return load(file, environ={"A": "1"})
    except ConfigError as error:
        refused = error
    assert any(problem.severity == "error" for problem in refused.problems)
    assert str(refused)
    return refused


@RELAXED
@given(data=st.binary(max_size=200))
@example(data=b"\xff\xfe\x00")
@example(data=b"a: \xc2\x85b\n\xe2\x80\xa8c: d")
def test_any_bytes_load_or_are_refused(tmp_path, data):
    assert isinstance(outcome(tmp_path, data), Loaded | ConfigError)


@RELAXED
@given(lines=st.lists(st.tuples(LINE, SPICE), max_size=14))
def test_any_mix_of_lines_loads_or_is_refused(tmp_path, lines):
    text = "\n".join(line + spice for line, spice in lines)
    assert isinstance(outcome(tmp_path, text.encode("utf-8", "replace")), Loaded | ConfigError)


@RELAXED
@given(document=SECTIONS)
def test_any_structure_loads_or_is_refused(tmp_path, document):
    from router.ops.loading.effective import dump

    base = {
        "version": 1,
        "sources": {"web": {"type": "pubsub", "channels": ["a"]}},
        "sinks": {"audit": {"type": "log", "path": "x"}},
        "routes": [{"id": "a", "sinks": ["audit"]}],
    }
    text = dump({**base, **document})
    assert isinstance(outcome(tmp_path, text.encode("utf-8", "replace")), Loaded | ConfigError)


@RELAXED
@given(cut=st.integers(min_value=0), spice=SPICE, length=st.integers(min_value=0, max_value=5))
def test_a_good_file_with_one_place_changed_loads_or_is_refused(tmp_path, cut, spice, length):
    text = (HERE / "good" / "everything.yaml").read_text().replace("../plugins", str(HERE / "plugins"))
    at = cut % len(text)
    changed = text[:at] + spice + text[at + length :]
    assert isinstance(outcome(tmp_path, changed.encode("utf-8", "replace")), Loaded | ConfigError)
