"""Our own methods of text give what Python's give, and nothing takes more than linear time on what an event brings."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from contextlib import suppress
from time import process_time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router.core.accounts.dead_letter_filter import DeadLetterFilter
from router.core.rendering import TemplateEnvironment
from router.core.rendering.expressions import Expression
from router.core.rendering.sandbox.environments import _OF_TEXT as TEXT_METHODS
from router.core.rendering.sandbox.textual import METHODS, wordwrap
from router.errors import TemplateError
from router.events import DeadLetter
from tests.support.rendering import NOW, chat, event, html, subject

SHORT = st.text(alphabet="ab -\n\t", max_size=40)
PART = st.text(alphabet="ab -", min_size=1, max_size=3)


@given(SHORT, PART)
@example("aaa", "aa")
def test_methods_from_the_right_are_pythons(whole: str, part: str) -> None:
    assert METHODS["rfind"](whole, part) == whole.rfind(part)
    assert METHODS["rpartition"](whole, part) == whole.rpartition(part)
    assert METHODS["rsplit"](whole, part) == whole.rsplit(part)
    assert METHODS["rsplit"](whole, part, 1) == whole.rsplit(part, 1)
    assert METHODS["rsplit"](whole) == whole.rsplit()
    for name in ("strip", "lstrip", "rstrip"):
        assert METHODS[name](whole) == getattr(whole, name)()
        assert METHODS[name](whole, part) == getattr(whole, name)(part)


def wrapped(line: str, width: int, break_long_words: bool) -> list[str]:
    """The lines that the standard library makes of one line, without the spaces it leaves before a long word."""
    lines = textwrap.wrap(
        line,
        width,
        expand_tabs=False,
        replace_whitespace=False,
        break_long_words=break_long_words,
        break_on_hyphens=False,
    )
    return [each.rstrip() for each in lines]


@given(st.text(alphabet="abc  -", max_size=60), st.integers(1, 12), st.booleans())
@example("aaaa bb", 3, True)
def test_wordwrap_gives_the_lines_of_textwrap(line: str, width: int, break_long_words: bool) -> None:
    line = line.strip()
    own = wordwrap(line, width, break_long_words, "\n", False)
    assert own.split("\n") == (wrapped(line, width, break_long_words) or [""])


def test_wordwrap_keeps_line_breaks_and_breaks_at_hyphens() -> None:
    assert wordwrap("well-known words\n\nin lines", 6) == "well-\nknown\nwords\n\nin\nlines"
    with pytest.raises(TemplateError, match="the width must be at least 1"):
        subject("{{ 'a' | wordwrap(0) }}")


LARGE = 1024**2
SMALL = LARGE // 16
"""What is quadratic is ten times too slow at 64 KiB already; the whole table at 1 MiB would take minutes."""

COPY = 0.03
"""Seconds of CPU for 1 MiB below which a cost is not worth telling: a list of its characters."""

PLAIN = "Your order is on its way and will be there by noon. " * (LARGE // 52 + 1)
PATTERNS = [
    "a ", "%(", "%s", "((((", "[", "<", "<!--", "<a>", "&lt;", "&", '"', "'", "\\", '\\\\"', "-", "--a", " ", "\n",
    "\t ", "\r\n", "*", "_", "`", "~", "|", "](", "![](", "://", "http://a", "@", "a@", ",", ";", ":", "{{", "{%", "0",
    "9", "1e", "\u0000", "\u001b[", "\u202e", "\u0301", "\u00df", "\u0130", "\U0001f468\u200d", "\U0001f1e9",
]  # fmt: skip
"""What is repeated to a megabyte: openings without an end, escapes, separators, text that grows or has no words."""

FILTERS = [
    "capitalize", "center(80)", "e", "escape", "filesizeformat", "float", "indent", "int", "length", "list | length", "lower",
    "markup", "reverse", "striptags", "string", "title", "trim", "trim('a%( ')", "truncate(80)", "truncate(80, true)",
    "upper", "url", "urlencode", "wordcount", "wordwrap", "wordwrap(1)", "wordwrap(79, false)",
    "replace('a', 'b')", "replace('%(', '')", "json", "default('')", "batch(2) | length", "batch(1000) | list | length",
    "slice(3) | list | length", "unique | list | length", "map('upper') | first", "select | first",
    "join", "ago", "local", "time", "local(payload.x)", "first", "last", "min", "max", "sum", "round", "abs",
]  # fmt: skip
ARGUMENTS = {
    "count": "(payload.x[:9])", "endswith": "(payload.x)", "find": "(payload.x[1:])", "partition": "(payload.x[9:])",
    "removeprefix": "(payload.x)", "removesuffix": "(payload.x)", "rfind": "('b' ~ payload.x[:30000])",
    "rpartition": "('b' ~ payload.x[:30000])", "rsplit": "('b' ~ payload.x[:30000])", "split": "(payload.x[:9])",
    "startswith": "(payload.x)", "strip": "(payload.x[:9])", "lstrip": "(payload.x[:9])", "rstrip": "(payload.x[:9])",
}  # fmt: skip
METHOD_CALLS = [f"payload.x.{name}{ARGUMENTS.get(name, '()')}" for name in sorted(TEXT_METHODS)]
OPERATIONS = [
    "payload.x % 2", "payload.x in payload.x", "payload.x == payload.x ~ ''", "payload.x < payload.x ~ 'a'",
    "payload.x ~ payload.x", "payload.x + payload.x", "payload.x[1:]", "payload.x[::-1]", "payload.x", "[payload.x]",
    "'%s' % payload.x", "'%r' % payload.x", "'%.9s' | format(payload.x)",
]  # fmt: skip


def cost(run: Callable[[str], object], text: str) -> float:
    """The CPU time in seconds of one run on this text; that it fails for it is fine."""
    started = process_time()
    with suppress(TemplateError, AssertionError):
        run(text)
    return process_time() - started


def slow(run: Callable[[str], object], size: int = SMALL) -> dict[str, float]:
    """The patterns that cost more than ten times what a plain text of this size costs, with their ratio."""
    base = max(min(cost(run, PLAIN[:size]) for _ in range(3)), size / 1024**2 * COPY)
    found = {}
    for pattern in PATTERNS:
        text = (pattern * (size // len(pattern) + 1))[:size]
        if cost(run, text) > 10 * base and (again := min(cost(run, text) for _ in range(3))) > 10 * base:
            found[pattern] = again / base
    return found


@pytest.mark.drawn(3)
@pytest.mark.parametrize("kind", [subject, html, chat])
def test_a_value_costs_the_same_whatever_it_is(kind: Callable[..., str]) -> None:
    assert not slow(lambda text: kind("{{ payload.x }}", {"x": text}), LARGE)


@pytest.mark.drawn(3)
@pytest.mark.parametrize("filter_", FILTERS)
def test_no_filter_is_slow_for_what_an_event_brings(filter_: str) -> None:
    assert not slow(lambda text: subject(f"{{{{ payload.x | {filter_} }}}}", {"x": text}))


@pytest.mark.drawn(3)
@pytest.mark.parametrize("expression", [*METHOD_CALLS, *OPERATIONS])
def test_no_method_or_operator_is_slow_for_what_an_event_brings(expression: str) -> None:
    assert not slow(lambda text: subject(f"{{{{ {expression} }}}}", {"x": text}))


def letter(text: str) -> DeadLetter:
    """A dead letter of an event with this text."""
    at = "2025-11-23T22:00:00Z"
    return DeadLetter("1-0", "e", "exhausted", "gone", "web-app", "notification", at, at, event({"x": text}).raw)


@pytest.mark.parametrize("expression", ["payload.x % 2", "'b' in payload.x", METHOD_CALLS[-3]])
def test_no_expression_is_slow_for_what_an_event_brings(expression: str) -> None:
    asked = Expression(expression, TemplateEnvironment())
    wanted = DeadLetterFilter(where=asked)
    assert not slow(lambda text: asked.key(event({"x": text}), NOW))
    assert not slow(lambda text: wanted.chosen([letter(text)], NOW))


def test_lists_are_added_once() -> None:
    """`sum` of lists copied the growing list for each of them."""
    with pytest.raises(TemplateError, match="sum adds only numbers"):
        subject("{{ payload.x | sum(start=[]) }}", {"x": [[1]] * 10})
    assert (
        subject("{{ payload.x | sum(start=1) }}{{ payload.y | sum(attribute='a') }}", {"x": [1, 2], "y": [{"a": 5}]})
        == "45"
    )
