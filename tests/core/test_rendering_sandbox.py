"""What a template can't do: reach into objects, change the event, fill the memory, go on for ever."""

from __future__ import annotations

from time import process_time
from typing import Any

import pytest

from router.core.rendering import TemplateFaults
from router.errors import TemplateError
from tests.support.rendering import NOW, chat, compiled, event, html, subject

BIG = "a" * 500_000
DOUBLED = "{% for i in range(40) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}"
"""A list of two, each a list of two, and so on: no memory is used until it is written."""

PAYLOAD: dict[str, Any] = {
    "x": "text",
    "f": "{0.__class__} %s",
    "list": [1, 2],
    "map": {"a": 1},
    "huge": 10**9,
    "digits": 10**4000,
    "big": BIG,
    "many": list(range(50_000)),
    "characters": "".join(map(chr, range(0x100, 0x200))),
}


@pytest.mark.parametrize(
    "template",
    [
        "{{ payload.x.__class__ }}",
        "{{ payload.x['__class__'] }}",
        "{{ payload['__class__'] }}",
        "{{ payload.x.format }}",
        "{{ payload.x.format(1) }}",
        "{{ payload.f.format(payload) }}",
        "{{ payload.f.format_map(payload) }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{{ payload.x.encode() }}",
        "{{ payload.x.join(payload.list) }}",
        "{{ payload.x.translate(payload.map) }}",
        "{{ payload.x.ljust(10) }}{{ payload.x.zfill(10) }}",
        "{{ ().__class__.__mro__ }}",
        "{{ payload.list.append(3) }}",
        "{{ payload.list.__class__ }}",
        "{{ payload.map.pop('a') }}",
        "{{ payload.update({}) }}",
        "{{ event['_event' if payload.x else ''] }}",
        "{{ event['_payload' if payload.x else ''] }}",
        "{{ event['__class__' if payload.x else ''] }}",
        "{{ event.received_at.__class__ }}",
        "{{ event.received_at.replace(year=1) }}",
        "{{ event.received_at.tzinfo }}",
        "{{ self.__init__ }}",
        "{{ self._TemplateReference__context }}",
        "{{ range.__class__ }}",
        "{{ dict.fromkeys(payload.list) }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ namespace.__init__ }}",
        "{{ joiner.__init__ }}",
        "{% macro m() %}{% endmacro %}{{ m._func }}",
        "{% macro m() %}{% endmacro %}{{ m.__call__ }}",
        "{% macro m() %}{% endmacro %}{{ m }}",
        "{% for a in payload.list %}{{ loop._iterable }}{% endfor %}",
        "{{ payload.list | map(attribute='__class__') | list }}",
        "{{ payload.list | sort(attribute='__class__') }}",
        "{{ ['a'] | map(attribute='format') | list }}",
        "{{ payload.list | groupby('__class__') }}",
        "{{ payload.x() }}",
        "{{ range }}{{ payload.x.upper }}",
    ],
)
def test_no_way_into_objects(template: str) -> None:
    before = event(PAYLOAD)
    with pytest.raises(TemplateError):
        compiled(subject=template).render(before, NOW)
    assert before.payload == PAYLOAD


@pytest.mark.parametrize("value", ["{{ 7 * 7 }}", "{% for a in b %}", "{#", "{{ payload }}", "{0.__class__}", "%(x)s"])
def test_data_of_an_event_is_never_a_template(value: str) -> None:
    for template in (
        "{{ payload.x }}",
        "{{ '%s' | format(payload.x) }}",
        "{% set y %}{{ payload.x }}{% endset %}{{ y }}",
    ):
        assert subject(template, {"x": value}) == value


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'x' * 10 ** 9 }}",
        "{{ payload.huge * 'x' }}",
        "{{ [1] * payload.huge }}",
        "{{ payload.huge * payload.list }}",
        "{{ 10 ** (10 ** 10) }}",
        "{{ 2 ** payload.huge }}",
        "{{ payload.huge ** payload.huge }}",
        "{{ payload.digits * payload.digits * payload.digits * payload.digits * payload.digits }}",
        "{{ payload.digits * 10 ** 300 }}",
        "{{ 'x' | center(payload.huge) }}",
        "{{ 'x' | center(width=payload.huge) }}",
        "{{ 'x' | indent(payload.huge, true) }}",
        "{{ 'x' | indent(payload.huge * 1.0) }}",
        "{{ 'x\n' * 9999 | indent(900) }}",
        "{{ ('x\n' * 9999) | indent(900) }}",
        "{{ ('x\n' * 9999) | indent(payload.big) }}",
        "{{ [1] | batch(payload.huge, 'x') | list }}",
        "{{ [1] | slice(payload.huge) | list }}",
        "{{ 1.5 | round(payload.huge, 'floor') }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '%.999999999f' % 1 }}",
        "{{ '%*d' | format(payload.huge, 1) }}",
        "{{ '%(a)999999999d' | format(a=1) }}",
        "{{ range(payload.huge) | list }}",
        "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}",
        "{% for i in payload.many %}{% for j in payload.many %}{% endfor %}{% endfor %}",
        "{% for i in payload.many | map('string') %}{% for j in payload.many %}{% endfor %}{% endfor %}",
        "{% for i in payload.many %}{{ payload.big }}{% endfor %}",
        "{% for i in payload.many %}" + "x" * 10_000 + "{% endfor %}",
        "{% macro m() %}{% for i in payload.many %}{{ payload.big }}{% endfor %}{% endmacro %}{{ m() }}",
        "{% set y %}{% for i in payload.many %}{{ payload.big }}{% endfor %}{% endset %}{{ y }}",
        "{% set n = namespace(a='xx') %}{% for i in range(99) %}{% set n.a = n.a ~ n.a %}{% endfor %}",
        "{% set n = namespace(a='xx') %}{% for i in range(99) %}{% set n.a = n.a + n.a %}{% endfor %}",
        "{% set n = namespace(a='xx') %}{% for i in range(99) %}{% set n.a = [n.a, n.a] | join %}{% endfor %}",
        "{% set n = namespace(a=[1, 2]) %}{% for i in range(99) %}{% set n.a = n.a + n.a %}{% endfor %}",
        "{% set n = namespace(a=9) %}{% for i in range(99) %}{% set n.a = n.a * n.a %}{% endfor %}",
        "{{ payload.many | join(payload.big) }}",
        "{{ payload.big | replace('a', payload.big) }}",
        "{{ payload.big.replace('a', payload.big) }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro m(n) %}{% if n > 0 %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
        "{% for i in [1, 2] recursive %}{% if loop.depth < 60 %}{{ loop([1, 2]) }}{% endif %}{% endfor %}",
        "{% for i in payload.many %}{% set ns.l = [ns.l, payload.big[1:]] %}{% endfor %}",
        "{{ ([payload.big] * 9999) | map('upper') | list | length }}",
        "{{ ([payload.big] * 9999) | map('wordwrap', 20) | list | length }}",
        "{{ ([payload.big] * 9999) | map('trim', 'b') | list | length }}",
        "{{ (['%s' % payload.big] * 9999) | map('e') | list | length }}",
        "{% set ns.l = '' %}{% for i in payload.many %}{% set ns.l = [ns.l, payload.big.title()] %}{% endfor %}",
        "{% set y %}{% for i in payload.many %}" + "x" * 10_000 + "{% endfor %}{% endset %}{{ y | length }}",
        "{{ '%s' * 999 % payload.list * 999 }}",
        "{{ ('%(a)s' * 99) | format(a=payload.big) }}",
        "{{ (payload.big ~ payload.big) | wordwrap(1, true, '-' * 900) }}",
        "{{ payload.many | time('%c' * 999) }}",
        "{{ event.received_at | time(payload.big) }}",
        "{{ event.received_at.strftime(payload.big) }}",
        "{{ payload.big | trim(payload.characters) }}",
        "{{ payload.big.strip(payload.characters) }}",
        "{{ ([[1]] * 9999) | sum(start=[]) }}",
    ],
)
@pytest.mark.parametrize("kind", [subject, html, chat])
def test_no_template_fills_the_memory_or_goes_on_for_ever(kind: Any, template: str) -> None:
    is_refused_in_time(kind, template)


@pytest.mark.parametrize(
    ("kind", "written"),
    [
        (subject, "{{ ns.l | json }}"),
        (chat, "{{ '%s' % ns.l }}"),
        (chat, "{{ {'a': ns.l} | json }}"),
    ],
)
def test_no_doubled_list_is_written_out(kind: Any, written: str) -> None:
    """Each costs seconds, and the text is too long before it comes to the escaping of a kind: one kind each is enough."""
    is_refused_in_time(kind, DOUBLED + written)


def is_refused_in_time(kind: Any, template: str) -> None:
    started = process_time()
    with pytest.raises((TemplateError, AssertionError)) as caught:
        kind("{% set ns = namespace(l=[]) %}" + template, PAYLOAD)
    assert process_time() - started < 20  # for ever would be longer
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "template",
    [
        "{{ payload.x % 2 }}",
        "{{ payload.f % 2 }}",
        "{{ payload.f | format(2) }}",
        "{{ ('' ~ payload.f) % 2 }}",
        "{{ ['%s'] | map('format', 2) | list }}",
        "{% set f = payload.f %}{{ f % 2 }}",
    ],
)
def test_what_an_event_brings_is_no_format(template: str) -> None:
    with pytest.raises(TemplateError, match=r'must be a literal, such as "%\.2f" in "%\.2f" % payload\.price'):
        subject(template, PAYLOAD)


def test_numbers_have_a_remainder() -> None:
    assert subject("{{ payload.list[1] % 2 }}{{ 7 % 4 }}{{ '%d' % 7 }}{{ payload.huge % 7 }}", PAYLOAD) == "0376"


def test_what_fits_the_bounds_is_fine() -> None:
    assert len(subject("{{ payload.big }}{{ payload.big }}", PAYLOAD)) == 1_000_000
    assert len(subject("{% for i in payload.many %}{{ i }}{% endfor %}", PAYLOAD)) == 238_890
    assert subject("{{ payload.digits * 10 ** 200 }}", PAYLOAD) == "1" + "0" * 4200
    assert subject("{{ 'x' | center(5) }}{{ '%5.1f' | format(1) }}{{ 1.25 | round(1) }}") == "  x    1.01.2"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ payload | attr('items') }}", "there is no filter `attr`"),
        ("{{ payload.x | safe }}", "there is no filter `safe` (write `markup`)"),
        ("{{ payload.x | tojson }}", "there is no filter `tojson` (write `json`)"),
        ("{{ payload.x | xmlattr }}", "there is no filter `xmlattr`"),
        ("{{ payload.x | urlize }}", "there is no filter `urlize`"),
        ("{{ payload.x | map('attr', 'y') }}", "there is no filter `attr`"),
        ("{{ payload.x | random }}", "there is no filter `random`"),
        ("{{ lipsum() }}", "there is no `lipsum`"),
        ("{% debug %}", "there is no tag `debug`"),
        ("{% include 'x' %}", "only a template that is in a file"),
        ("{% include payload.x %}", "the name of an included file must be written as a literal in quotes"),
        ("{% extends payload.x %}", "the name of an included file must be written as a literal in quotes"),
        ("{% import payload.x as y %}", "the name of an included file must be written as a literal in quotes"),
        ("{% autoescape false %}{{ payload.x }}{% endautoescape %}", "a template can't change `autoescape`"),
    ],
)
def test_what_a_template_may_not_say(template: str, message: str) -> None:
    with pytest.raises(TemplateFaults) as caught:
        compiled(html=template)
    assert message in caught.value.faults[0].message
