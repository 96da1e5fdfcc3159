"""What is said of a template before any event, and templates that stand in files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import pytest

from router.core.rendering import TemplateEnvironment, TemplateFault, TemplateFaults, compile_options
from router.errors import TemplateError
from router.options import SinkOptions, TemplateFile, Text
from tests.support.rendering import NOW, Message, chat, compiled, event


def faults(**options: Any) -> list[TemplateFault]:
    with pytest.raises(TemplateFaults) as caught:
        compiled(**options)
    return caught.value.faults


@pytest.mark.parametrize(
    ("template", "line", "message"),
    [
        ("{{ payload.x | uper }}", 1, "there is no filter `uper` (did you mean `upper`?)"),
        ("a\n\n{{ payload.x | trunkate(5) }}", 3, "there is no filter `trunkate` (did you mean `truncate`?)"),
        ("{{ payload.x | map('uper') | list }}", 1, "there is no filter `uper` (did you mean `upper`?)"),
        ("{{ payload.x | select('strin') | list }}", 1, "there is no test `strin` (did you mean `string`?)"),
        ("{{ payload.x | rejectattr('a', 'defind') }}", 1, "there is no test `defind` (did you mean `defined`?)"),
        ("a\n{% if payload.x is defind %}{% endif %}", 2, "there is no test `defind` (did you mean `defined`?)"),
        ("{{ paylod.x }}", 1, "there is no `paylod` (did you mean `payload`?)"),
        ("{{ user.email }}", 1, "there is no `user`; a template can use event, payload, route, sink"),
        ("{{ message }}", 1, "there is no `message`; a template can use event, payload, route, sink"),
        (
            "a\n{% for x in y %}{{ x }}{% endfor %}",
            2,
            "there is no `y`; a template can use event, payload, route, sink",
        ),
        ("\n{{ event.chanel }}", 2, "an event has no field `chanel` (did you mean `channel`?)"),
        ("{{ route.id }}", 1, "`route` is a string and has no field `id`; write `{{ route }}`"),
        ("\n{{ sink['name'] | upper }}", 2, "`sink` is a string and has no field `name`; write `{{ sink }}`"),
        ("{% if route.id == 'a' %}a{% endif %}", 1, "`route` is a string"),
        (
            "{{ event.channel.name }}",
            1,
            "`event.channel` is a string and has no field `name`; write `{{ event.channel }}`",
        ),
        ("{{ event['_event'] }}", 1, "an event has no field `_event`"),
        ("{{ event._payload }}", 1, "an event has no field `_payload`"),
        ("{{ event.__class__ }}", 1, "an event has no field `__class__`; its fields are address, attempt, channel"),
        ("{{ payload.user-id }}", 1, 'there is no `id`; if a key contains a hyphen, write payload["user-id"]'),
        ("{{ payload.a.b-c.d }}", 1, 'there is no `c`; if a key contains a hyphen, write payload.a["b-c"]'),
        ("{{ payload.x - y }}", 1, 'there is no `y`; if a key contains a hyphen, write payload["x-y"]'),
        ("{{ 3 - y }}", 1, "there is no `y`; a template can use event, payload, route, sink"),
        ("{{ 1 | local('Europe/Berln') }}", 1, "there is no time zone 'Europe/Berln'"),
        ("{% block a %}{% endblock %}{% block a %}{% endblock %}", 1, "block 'a' defined twice"),
        ("{{ " + "(" * 2000 + "1" + ")" * 2000 + " }}", None, "the template is nested too deeply"),
        ("{% if 1 %}" * 200 + "{% endif %}" * 200, None, ""),
        (
            "{% for a in [1] %}" * 30 + "{% endfor %}" * 30,
            None,
            "the template can't be compiled: too many statically nested blocks",
        ),
    ],
)
def test_one_fault(template: str, line: int | None, message: str) -> None:
    [fault] = faults(subject=template)
    assert fault.path == ("subject",)
    assert message in fault.message
    assert line is None or fault.line == line


def test_all_faults_at_once() -> None:
    found = faults(
        to="{{ usr.email }}",
        text="{{ paylod.x | uper }}\n{{ payload.x is foo }}",
        html="{% if %}",
        headers={"X-A": "fine", "X-B": "{{ nope }}"},
        reply_to=["a@example.org", "b"],
    )
    assert [(fault.path, fault.line) for fault in found] == [
        (("to", 0), 1),
        (("reply_to", 1), None),
        (("text",), 1),
        (("text",), 2),
        (("text",), 1),
        (("html",), 1),
        (("headers", "X-B"), 1),
    ]
    assert "headers.X-B: there is no `nope`" in str(TemplateFaults(found))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ payload.x", "`{{` is not closed: `}}` is missing"),
        ("{{", "`{{` is not closed: `}}` is missing"),
        ("{{ payload.x }", "this `}` closes nothing: `}}` closes `{{`, and `%}` closes `{%`"),
        ("{% if payload.x", "`{%` is not closed: `%}` is missing"),
        ("{% if payload.x %}", "`{% if %}` is not closed: `{% endif %}` is missing"),
        ("{% for a in payload.x %}{% if a %}{% endif %}", "`{% for %}` is not closed: `{% endfor %}` is missing"),
        ("{# payload.x", "`{#` begins a comment and is not closed: `#}` is missing"),
        ("{% endif %}", "there is nothing here that `{% endif %}` could close"),
        ("{% if payload.x %}{% endfor %}", "there is nothing here that `{% endfor %}` could close"),
        ("{% else %}", "there is nothing here that `{% else %}` could close"),
        ("{% iff payload.x %}", "there is no tag `iff` (did you mean `if`?)"),
        ("{{ payload.x }} {% quux %}", "there is no tag `quux`"),
        ("{% %}", "the name of a tag is missing after `{%`"),
        ("{{ payload. }}", "a name is missing after the `.`"),
        ("{{ payload.x | }}", "the name of a variable, or of a filter after `|`, is missing"),
        ("{{ }}", "an expression is missing"),
        ("{% if %}{% endif %}", "an expression is missing"),
        ("{{ payload.x == }}", "the expression is not complete"),
        ("{{ payload.x | truncate(3 }}", "`)` is missing"),
        ("{{ payload['x }}", "a quote is never closed"),
        ('{{ payload["x }}', "a quote is never closed"),
        (
            "{{ payload.x payload.y }}",
            "`payload` is not allowed here; an operator, a `|`, or the end of the expression is missing before it",
        ),
        ("{% if payload.x = 3 %}{% endif %}", "`=` is not allowed here; to compare two values, write `==`"),
        ("{{ payload.x && payload.y }}", "`&` has no meaning in an expression; write `and`"),
        ("{{ payload.x ? 1 : 2 }}", "`?` has no meaning in an expression; write `A if CONDITION else B`"),
        ("{{ payload.$x }}", "`$` has no meaning in an expression"),
        (
            "{{ {{ payload.x }} }}",
            "this `{` begins a mapping, such as `{key: value}`; don't write `{{` again inside `{{ … }}`",
        ),
        ("{% for x %}{% endfor %}", "`in` is missing: {% for each in payload.list %}"),
    ],
)
def test_a_fault_of_syntax_is_told_in_plain_words_with_its_cure(template: str, message: str) -> None:
    [fault] = faults(subject=template)
    assert (fault.message, fault.line) == (message, 1)


@pytest.mark.parametrize(
    "template",
    [
        "{% set a = 1 %}{{ a }}",
        "{% for a in [1] %}{{ a }}{{ loop.index }}{% endfor %}",
        "{% macro m(a, b=2) %}{{ a }}{{ b }}{{ varargs }}{{ kwargs }}{{ caller is defined }}{% endmacro %}{{ m(1) }}",
        "{% with a = 1 %}{{ a }}{% endwith %}",
        "{% set n = namespace(a=1) %}{% set n.a = 2 %}{{ n.a }}",
        "{% block b %}{{ payload.x }}{% endblock %}{{ self.b() }}",
        "{{ range(3) | list }}{{ dict(a=1) }}",
        "{% for event in [payload] %}{{ event.x }}{% endfor %}",
        "{% if payload.y is defined %}{{ payload.y }}{% endif %}",
    ],
)
def test_names_of_a_templates_own_are_known(template: str) -> None:
    assert compiled(subject=template).render(event({"x": 1}), NOW).suppressed is None


def test_an_escape_that_is_no_method_is_named() -> None:
    class Broken(SinkOptions):
        text: Annotated[str, Text(escape="mrkdown")]
        native: Annotated[str, Text(escape="text")] = "{{ payload.x }}"

    with pytest.raises(TemplateFaults) as caught:
        compile_options(Broken(text="{{ payload.x }}"), TemplateEnvironment())
    assert [fault.path for fault in caught.value.faults] == [("text",), ("native",)]
    assert "mrkdown" in caught.value.faults[0].message
    assert "`text` is not a method" in caught.value.faults[1].message


def test_an_escape_that_fails_is_a_failure_of_the_delivery() -> None:
    def fail(text: str) -> str:
        raise ValueError("not this one")

    class Options(SinkOptions):
        text: Annotated[str, Text(escape=fail)]

    with pytest.raises(TemplateError, match="text: not this one"):
        compile_options(Options(text="{{ payload.x }}"), TemplateEnvironment()).render(event({"x": 1}), NOW)


def file(files: Mapping[str, str], name: str = "mail/order.html") -> TemplateFile:
    """A template file among others."""

    def read(name: str) -> str:
        if name not in files:
            raise ValueError("there is no such file")
        return files[name]

    return TemplateFile(files[name], name=name, read=read)


def from_file(files: Mapping[str, str], payload: Any, field: str = "html") -> str:
    template = compile_options(Message(**{field: file(files)}), TemplateEnvironment())
    rendered: Any = template.render(event(payload), NOW)
    assert rendered.degraded is None, rendered.degraded
    return str(getattr(rendered.options, field))


def test_a_file_is_a_template_like_any_other() -> None:
    assert from_file({"mail/order.html": "<p>{{ payload.x }}</p>\n"}, {"x": "<"}) == "<p>&lt;</p>"
    assert from_file({"mail/order.html": "<p>x</p>\n"}, {}) == "<p>x</p>"


FILES = {
    "mail/order.html": (
        "{% extends 'base.html' %}{% from 'parts.html' import bold %}"
        "{% block body %}{{ super() }}{% set title = payload.x %}{% include 'head.html' %}{{ bold(payload.x) }}"
        "{% endblock %}"
    ),
    "base.html": "*<body>{% block body %}*<hr>{{ payload.x }}{% endblock %}",
    "head.html": "*<h1>{{ title }}",
    "parts.html": "{% macro bold(x) %}*<b>{{ x }}{% endmacro %}",
}


def test_files_include_extend_and_import_each_other() -> None:
    assert from_file(FILES, {"x": "<"}) == "*<body>*<hr>&lt;*<h1>&lt;*<b>&lt;"
    assert from_file(FILES, {"x": "*"}, "chat") == "*<body>*<hr>\\**<h1>\\**<b>\\*"
    assert from_file(FILES, {"x": "*<"}, "subject") == "*<body>*<hr>*<*<h1>*<*<b>*<"


def test_blocks_of_a_sinks_own_escaping() -> None:
    assert chat("{% block b %}*{{ payload.x }}{% endblock %}{{ self.b() }}", {"x": "*"}) == "*\\**\\*"


def test_faults_of_files_say_which_file() -> None:
    files = {
        "mail/order.html": "a\n{{ paylod.x }}{% include 'head.html' %}\n{% include 'nope.html' %}",
        "head.html": "\n\n{{ payload.x | uper }}",
    }
    with pytest.raises(TemplateFaults) as caught:
        compile_options(Message(html=file(files)), TemplateEnvironment())
    assert [(fault.message, fault.line) for fault in caught.value.faults] == [
        ("mail/order.html:3: nope.html: there is no such file", None),
        ("head.html:3: there is no filter `uper` (did you mean `upper`?)", None),
        ("mail/order.html:2: there is no `paylod` (did you mean `payload`?)", None),
    ]


def test_a_file_that_includes_itself_ends() -> None:
    files = {"mail/order.html": "{% include 'a.html' %}", "a.html": "{% include 'a.html' %}"}
    template = compile_options(Message(subject=file(files)), TemplateEnvironment())
    with pytest.raises(TemplateError, match="subject: "):
        template.render(event({}), NOW)


def test_a_file_that_cannot_be_read_is_a_fault() -> None:
    def read(name: str) -> str:
        raise PermissionError(13, "Permission denied")

    options = Message(html=TemplateFile("{% include 'a.html' ignore missing %}", name="b.html", read=read))
    with pytest.raises(TemplateFaults, match=r"b\.html:1: a\.html: .*Permission denied"):
        compile_options(options, TemplateEnvironment())
