"""The fields of the payload that a template needs."""

import pytest

from router.core.rendering import TemplateEnvironment
from router.core.rendering.syntax.checking import parse
from router.core.rendering.syntax.reads import fields_read
from router.options import TemplateFile

SANDBOX = TemplateEnvironment().plain


def needed(text):
    return {read.path: read.always for read in fields_read(parse(text, SANDBOX))}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nothing", {}),
        ("{{ payload }}", {}),
        ("{{ event.id }}", {}),
        ("{{ payload.a }}", {("a",): True}),
        ("{{ payload.a.b[0]['c d'] }}", {("a", "b", 0, "c d"): True}),
        ("{{ payload.a | upper | default('x') }}", {("a",): True}),  # the filter before fails
        ("{{ payload.a | default('x') }}", {}),
        ("{{ payload.a | d(payload.b) }}", {("b",): True}),
        ("{{ payload.a.b | default(0) }} {{ payload.a.b.c }}", {}),
        ("{{ payload.a.b | default(0) }} {{ payload.a }}", {("a",): True}),
        ("{% if payload.a is defined %}{{ payload.a }}{% endif %}", {}),
        ("{% if payload.a %}{{ payload.b }}{% endif %}", {("a",): True, ("b",): False}),
        ("{{ payload.b if payload.a else payload.c }}", {("a",): True, ("b",): False, ("c",): False}),
        ("{{ payload.a or payload.b }}", {("a",): True, ("b",): False}),
        ("{% if 'a' in payload %}{{ payload.a }}{% endif %}", {}),
        ("{% if 'a' not in payload.o %}{% else %}{{ payload.o.a }}{% endif %}", {("o",): True}),
        ("{% for x in payload.all %}{{ x.y }}{{ payload.z }}{% endfor %}", {("all",): True, ("z",): False}),
        ("{{ payload.get('a') }}", {}),
        ("{{ payload.a.upper() }}", {("a",): True}),
        ("{{ payload.a.replace(payload.b, 'x') }}", {("a",): True, ("b",): True}),
        ("{{ payload[event.channel] }}", {}),
        ("{% set payload = event %}{{ payload.a }}", {}),
        ("{% if event.id %}{{ payload.a }}{% endif %}{{ payload.a }}", {("a",): True}),
        ("{% macro m() %}{{ payload.a }}{% endmacro %}{{ payload.b }}", {("a",): False, ("b",): True}),
    ],
)
def test_what_is_needed(text, expected):
    assert needed(text) == expected


def test_the_line_is_of_the_template_or_stands_with_its_file():
    (read,) = fields_read(parse("\n\n{{ payload.a }}", SANDBOX))
    assert (read.line, read.file) == (3, "")
    other = "{{ payload.b }}"
    text = TemplateFile("{% include 'x.txt' %}\n{{ payload.a }}", name="mail.txt", read=lambda _: other)
    first, second = fields_read(parse(text, SANDBOX))
    assert (first.path, first.line, first.file) == (("a",), None, "mail.txt:2")
    assert (second.path, second.line, second.file, second.always) == (("b",), None, "x.txt:1", False)
