"""What templates show: names, values, filters, what is missing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import pytest

from router.core.rendering import TemplateEnvironment, compile_options
from router.core.rendering.templates import Compiled, CompiledValue
from router.errors import Reason, TemplateError
from router.events import json_line
from router.options import Addresses, Html, Secret, SinkOptions, Template, TemplateFile, Text
from tests.support.rendering import NOW, Message, compiled, event, html, render, subject


@pytest.mark.parametrize(
    ("template", "payload", "expected"),
    [
        ("{{ payload.message }}", {"message": "Your order is on its way!"}, "Your order is on its way!"),
        ("{{ payload.order.total }}", {"order": {"total": 12.5}}, "12.5"),
        ("{{ payload.n }}", {"n": 2**70}, str(2**70)),
        ("{{ payload.n }}", {"n": 10**4299}, "1" + "0" * 4299),
        ("[{{ payload.n }}]", {"n": None}, "[]"),
        ("[{{ payload.n ~ 'x' }}]", {"n": None}, "[x]"),
        ("{{ payload.yes }} {{ payload.no }}", {"yes": True, "no": False}, "true false"),
        ("{{ payload.tags }}", {"tags": ["a", "b", None, 3]}, "a, b, , 3"),
        ("{{ payload.tags | map('upper') }}", {"tags": ["a", "b"]}, "A, B"),
        ("{{ payload.tags[0] }} {{ payload.tags[-1] }} {{ payload.tags[1:] }}", {"tags": ["a", "b"]}, "a b b"),
        ("{{ payload.order }}", {"order": {"a": [1, None]}}, '{"a":[1,null]}'),
        ("{{ payload }}", {"b": 1, "a": 2}, '{"b":1,"a":2}'),
        ("{{ payload }}", "text", "text"),
        ("{{ payload[1] }}", ["a", "b"], "b"),
        ("{{ payload.items }} {{ payload.keys }} {{ payload.get }}", {"items": 1, "keys": 2, "get": 3}, "1 2 3"),
        ("{{ payload['a-b'] }}", {"a-b": 1}, "1"),
        ("{{ payload.message }}", {"message": "{{ 7 * 7 }} {% raw %} {# x #} ${HOME} %(x)s"}, None),
        ("{{ payload.name.upper() }} {{ payload.name.split(' ')[0] }}", {"name": "Jane Doe"}, "JANE DOE Jane"),
        ("{{ payload.a.replace('x', 'y') }}", {"a": "xx"}, "yy"),
        ("{% for t in payload.tags %}{{ loop.index }}{{ t }}{% endfor %}", {"tags": ["a", "b"]}, "1a2b"),
        ("{{ payload.o | default('none') }}", {}, "none"),
        ("{{ payload.o.p.q | default('none') }}", {}, "none"),
        ("{{ payload.o.p.q | default('none') }}", {"o": None}, "none"),
        ("{% if payload.o is defined %}yes{% else %}no{% endif %}", {}, "no"),
        ("{{ 1 / 4 }} {{ 'ab' * 2 }} {{ 2 ** 3 }} {{ '%.2f' % 1 }}", {}, "0.25 abab 8 1.00"),
        ("a\n{{ payload.x }}\n", {"x": 1}, "a\n1"),
    ],
)
def test_what_a_template_shows(template: str, payload: Any, expected: str | None) -> None:
    assert subject(template, payload) == (payload["message"] if expected is None else expected)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ route }} {{ sink }}", "notify user-chat"),
        ("{{ event.id }} {{ event.source }} {{ event.channel }}", "0193-1 web-app notification"),
        ("[{{ event.pattern }}] {{ event.attempt }} [{{ event.address }}]", "[] 1 []"),
        ("{{ event.key }}", "0193-1:notify:user-chat"),
        ("{{ event.received_at }}", "2025-11-23T21:55:00.000000Z"),
        ("{{ event.payload.user_id }} {{ event.raw }}", '42 {"user_id":42}'),
        ("{{ event.headers['redis-id'] | default('none') }}", "none"),
    ],
)
def test_what_a_template_knows_of_the_event(template: str, expected: str) -> None:
    assert subject(template, {"user_id": 42}) == expected


def test_the_event_as_json_has_the_time_as_everywhere() -> None:
    assert '"received_at":"2025-11-23T21:55:00.000000Z"' in subject("{{ event | json }}", {})


def test_headers_of_the_event() -> None:
    assert subject("{{ event.headers.traceparent }}", {}, headers={"traceparent": "00-1"}) == "00-1"


def test_a_text_payload() -> None:
    assert subject("{{ payload }}", raw=b"whoami", format="text") == "whoami"
    with pytest.raises(TemplateError, match=r"payload\.message is missing"):
        subject("{{ payload.message }}", raw=b"whoami", format="text")


def test_a_payload_that_no_template_reads_is_not_decoded() -> None:
    assert subject("{{ event.channel }}", raw=b"\xff") == "notification"
    with pytest.raises(TemplateError, match="the payload can't be decoded"):
        subject("{{ payload.x }}", raw=b"\xff")


@pytest.mark.parametrize(
    ("template", "timezone", "expected"),
    [
        ("{{ event.received_at | time }}", "UTC", "2025-11-23 21:55"),
        ("{{ event.received_at | time }}", "Europe/Berlin", "2025-11-23 22:55"),
        ("{{ event.received_at | time('%H:%M') }}", "Asia/Tokyo", "06:55"),
        ("{{ event.received_at | local('Europe/Berlin') | time('%H:%M %Z') }}", "Asia/Tokyo", "22:55 CET"),
        ("{{ event.received_at | local('UTC') | time('%H:%M') }}", "Asia/Tokyo", "21:55"),
        ("{{ event.received_at | local('Europe/Berlin') }}", "UTC", "2025-11-23 22:55:00+01:00"),
        ("{{ event.received_at | local }}", "Asia/Tokyo", "2025-11-24 06:55:00+09:00"),
        ("{{ '2025-07-01T12:00:00Z' | local('Europe/Berlin') | time('%H:%M') }}", "UTC", "14:00"),
        ("{{ '2025-07-01T12:00:00+02:00' | time('%H:%M') }}", "UTC", "10:00"),
        ("{{ '2025-07-01T12:00:00.25' | time('%H:%M:%S') }}", "UTC", "12:00:00"),
        ("{{ 1763935200 | time('%H:%M') }} {{ 1763935200.5 | time('%f') }}", "UTC", "22:00 500000"),
        ("{{ event.received_at | ago }}", "UTC", "5 minutes ago"),
        (
            "{{ 1763935199 | ago }}|{{ 1763935199.5 | ago }}|{{ 1763935201 | ago }}",
            "UTC",
            "1 second ago|just now|in 1 second",
        ),
        ("{{ '2025-11-23T20:00:00Z' | ago }}", "UTC", "2 hours ago"),
        ("{{ '2025-11-21' | ago }}", "UTC", "2 days ago"),
        ("{{ '2020-11-21' | ago }}", "UTC", "5 years ago"),
        ("{{ '2025-11-24T22:00:00Z' | ago }}", "UTC", "in 1 day"),
        ("{{ event.received_at.year }}", "UTC", "2025"),
    ],
)
def test_times(template: str, timezone: str, expected: str) -> None:
    rendered: Any = render({}, timezone=timezone, subject=template)
    assert rendered.options.subject == expected


def test_ago_is_never_worked_out_ahead() -> None:
    template = compiled(subject="{{ 1763935140 | ago }}")
    minute: Any = template.render(event(), NOW)
    compiled_later = compiled(subject="{{ 1763935140 | ago }}")
    hour: Any = compiled_later.render(event(), NOW + 3600)
    assert (minute.options.subject, hour.options.subject) == ("1 minute ago", "1 hour ago")


@pytest.mark.parametrize(
    ("template", "payload", "expected"),
    [
        ("{{ payload | json }}", {"a": "é\n", "n": 2**70}, '{"a":"é\\n","n":1180591620717411303424}'),
        ("{{ payload.x | json }}", {"x": 'a"b'}, '"a\\"b"'),
        ("{{ payload.x | url }}", {"x": "a/b c&d?é"}, "a%2Fb%20c%26d%3F%C3%A9"),
        ("{{ payload.x | url }}", {"x": 42}, "42"),
        ("{{ payload.x | truncate(9) }}", {"x": "one two three four"}, "one..."),
        ("{{ payload.x | truncate(5, true, '…', 0) }}", {"x": "abcdefgh"}, "abcd…"),
        ("{{ payload.x | truncate(3) }}", {"x": 12}, "12"),
        ("[{{ payload.x | upper }}{{ payload.x | trim }}{{ payload.x | replace('a', 'b') }}]", {"x": None}, "[]"),
        ("{{ payload.x | join(' + ') }}", {"x": [1, None, True]}, "1 +  + true"),
        ("{{ payload.x | join(', ', attribute='n') }}", {"x": [{"n": 1}, {"n": 2}]}, "1, 2"),
        ("{{ payload.x | map(attribute='n') | sum }}", {"x": [{"n": 1}, {"n": 2}]}, "3"),
        ("{{ '%05.1f' | format(payload.x) }}", {"x": 2.25}, "002.2"),
        ("{{ '%(a)s' | format(a=payload.x) }}", {"x": 1}, "1"),
        ("{{ payload.x | string | length }}", {"x": True}, "4"),
        ("{{ payload.x | markup }}", {"x": "<b>"}, "<b>"),
        ("{% filter upper %}a{{ payload.x }}{% endfilter %}", {"x": "b"}, "AB"),
        ("{% set y | upper | replace('A', '_') %}a{{ payload.x }}{% endset %}{{ y }}", {"x": "b"}, "_B"),
        ("{% for k, v in payload | dictsort %}{{ k }}{{ v }}{% endfor %}", {"b": 1, "a": 2}, "a2b1"),
        ("{% for k, v in payload | items %}{{ k }}{{ v }}{% endfor %}", {"b": 1, "a": 2}, "b1a2"),
    ],
)
def test_filters(template: str, payload: Any, expected: str) -> None:
    assert subject(template, payload) == expected


@pytest.mark.parametrize(
    ("template", "payload", "cause"),
    [
        ("{{ payload.mesage }}", {"message": 1}, "payload.mesage is missing"),
        ("{{ payload.order.total }}", {"order": {}}, "payload.order.total is missing"),
        ("{{ payload.order.total }}", {}, "payload.order is missing"),
        ("{{ payload.order.total }}", {"order": None}, "payload.order.total is missing"),
        ("{{ payload.a.name }}{{ payload.b.name }}", {"a": {"name": 1}, "b": {}}, "payload.b.name is missing"),
        ("{{ payload['a-b'].c }}", {"a-b": {}}, "payload['a-b'].c is missing"),
        ("{{ payload.tags[3] }}", {"tags": [1]}, "payload.tags[3] is missing"),
        ("{% for i in payload.x %}{{ i.price }}{% endfor %}", {"x": [{}]}, "i.price is missing"),
        ("{{ payload.x | upper }}", {}, "payload.x is missing"),
        ("{{ payload.x | json }}", {}, "payload.x is missing"),
        ("{{ payload.x | ago }}", {}, "payload.x is missing"),
        ("{{ payload.x | join }}", {}, "payload.x is missing"),
        ("{{ payload.x ~ 'y' }}", {}, "payload.x is missing"),
        ("{{ payload.x + 1 }}", {}, "payload.x is missing"),
        ("{% if payload.x %}{% endif %}", {}, "payload.x is missing"),
        ("{% for a in payload.x %}{% endfor %}", {}, "payload.x is missing"),
        ("{{ payload | map(attribute='n') | list | join }}", [{}], "n is missing"),
        ("{{ payload.message }}", [1], "payload.message is missing"),
        ("{{ payload.message }}", None, "payload.message is missing"),
        ("{{ event.headers.nope }}", {}, "event.headers.nope is missing"),
        ("{{ event[payload.x] }}", {"x": "nope"}, "nope is missing"),
        ("{{ 1 / payload.x }}", {"x": 0}, "division by zero"),
        ("{{ payload.x + 1 }}", {"x": "a"}, "can only concatenate str"),
        ("{{ payload.x < 1 }}", {"x": "a"}, "'<' not supported"),
        ("{{ payload.x | time }}", {"x": "soon"}, "'soon' is not a time"),
        ("{{ payload.x | time }}", {"x": True}, "'true' is not a time"),
        ("{{ payload.x | time }}", {"x": 1e300}, "is not a time"),
        ("{{ 1 | local(payload.x) }}", {"x": "Mars/Base"}, "there is no time zone 'Mars/Base'"),
        ("{{ 1 | local(payload.x) }}", {"x": "../../etc/passwd"}, "there is no time zone"),
        ("{{ range }}", {}, "can't be written as text"),
    ],
)
def test_what_a_template_runs_into(template: str, payload: Any, cause: str) -> None:
    with pytest.raises(TemplateError) as caught:
        subject(template, payload)
    assert str(caught.value).startswith("subject: ")
    assert cause in str(caught.value)


def test_a_failure_does_not_quote_the_payload_at_length() -> None:
    with pytest.raises(TemplateError) as caught:
        subject("{{ payload.x | time }}{{ payload.x }}", {"x": "secret " * 1000})
    assert len(str(caught.value)) < 300


def test_each_field_is_rendered_wherever_it_stands() -> None:
    class Part(SinkOptions):
        title: Text
        plain: str = "{{ payload.x }}"

    class Nested(SinkOptions):
        parts: list[Part]
        headers: dict[str, Template]
        pair: tuple[Template, str] = ("", "")
        one: Part | None = None
        either: bool | Text | list[Template] = False

    options = Nested.model_validate(
        {
            "parts": [{"title": "A {{ payload.x }}"}, {"title": "B"}],
            "headers": {"X-A": "{{ payload.x }}", "X-B": "b"},
            "pair": ("{{ payload.x }}", "{{ payload.x }}"),
            "one": {"title": "{{ payload.x }}"},
            "either": ["{{ payload.x }}", "c"],
        }
    )
    rendered: Any = compile_options(options, TemplateEnvironment()).render(event({"x": 1}), NOW).options
    assert [part.title for part in rendered.parts] == ["A 1", "B"]
    assert rendered.parts[0].plain == "{{ payload.x }}"
    assert rendered.headers == {"X-A": "1", "X-B": "b"}
    assert rendered.pair == ("1", "{{ payload.x }}")
    assert rendered.one.title == "1"
    assert rendered.either == ["1", "c"]
    assert type(rendered.headers["X-A"]) is str
    assert options.headers["X-A"] == "{{ payload.x }}"


def test_rendered_options_are_of_the_model_and_as_frozen() -> None:
    rendered: Any = render({"x": 1}, subject="{{ payload.x }}").options
    assert isinstance(rendered, Message)
    assert rendered.model_dump()["subject"] == "1"
    assert rendered.model_fields_set == {"subject"}
    with pytest.raises(ValueError, match="frozen"):
        rendered.subject = "2"


def test_options_without_templates_are_one_shared_object() -> None:
    template = compiled(subject="plain", to=["a@example.org, b@example.org"], text="hello")
    first, second = template.render(event(1), NOW), template.render(event(2), NOW)
    assert template.static is first.options is second.options
    assert template.static.to == ["a@example.org", "b@example.org"]
    assert first.addresses == ("a@example.org", "b@example.org")
    assert first.text == "hello"
    assert compiled(subject="{{ route }}").static is None


def test_a_template_in_a_plain_string_or_a_secret_is_text() -> None:
    class Options(SinkOptions):
        plain: str
        token: Secret

    options = Options(plain="{{ payload.x }}", token=Secret("{{ payload.x }}"))
    assert compile_options(options, TemplateEnvironment()).static is options


def test_the_text_that_is_shown_is_the_first_message_for_people() -> None:
    assert render({"x": 1}, html="<b>{{ payload.x }}</b>", text="T {{ payload.x }}").text == "T 1"
    assert render({"x": 1}, html="<b>{{ payload.x }}</b>").text == "<b>1</b>"
    assert render({"x": 1}, text="literal", subject="{{ payload.x }}").text == "literal"
    assert render({"x": 1}, subject="{{ payload.x }}").text == ""


def test_the_fields_to_show() -> None:
    fields = compiled(to="{{ payload.x }}", text="t", html="h").fields
    assert fields.addresses == ("to",)
    assert fields.texts == ("text", "html")


def test_a_text_for_a_team_that_fails_is_the_json_line() -> None:
    rendered: Any = render({"a": "<i>*"}, to="team@example.org", text="{{ payload.m }}", html="{{ payload.m }}")
    line = json_line(event({"a": "<i>*"})).decode()
    assert rendered.options.text == line
    assert rendered.text == line
    assert rendered.options.html == line.replace("<", "&lt;").replace(">", "&gt;").replace('"', "&#34;")
    assert rendered.degraded == "text: payload.m is missing; html: payload.m is missing"


def test_the_json_line_is_escaped_for_the_sink() -> None:
    rendered: Any = render({"a": "*x*"}, chat="{{ payload.m }}")
    assert '"a":"\\*x\\*"' in rendered.options.chat


def test_a_text_for_one_user_that_fails_is_a_failure() -> None:
    with pytest.raises(TemplateError, match=r"^text: payload\.m is missing$"):
        render({"a": "jane@example.org"}, to="{{ payload.a }}", text="{{ payload.m }}")


def test_a_reply_to_from_a_template_is_no_user() -> None:
    rendered = render({"a": "jane@example.org"}, to="t@example.org", reply_to="{{ payload.a }}", text="{{ payload.m }}")
    assert rendered.degraded == "text: payload.m is missing"
    assert not compiled(reply_to="{{ payload.a }}").templated_address


def test_any_other_template_that_fails_is_a_failure() -> None:
    with pytest.raises(TemplateError, match=r"^subject: payload\.m is missing$"):
        render({}, to="team@example.org", subject="{{ payload.m }}")
    with pytest.raises(TemplateError, match=r"^headers\.X-A: payload\.m is missing$"):
        render({}, headers={"X-A": "{{ payload.m }}"})


def test_nobody_to_reach_is_suppressed_before_a_text_can_fail() -> None:
    rendered = render({"a": None}, to="{{ payload.a }}", text="{{ payload.m }}")
    assert rendered.suppressed is Reason.NO_ADDRESS


def test_a_sinks_escape_may_be_a_method_of_the_options() -> None:
    class Shouted(SinkOptions):
        native: bool = False
        text: Annotated[str, Text(escape="shout")]

        def shout(self, text: str) -> str:
            return text.upper() if self.native else text

    environment = TemplateEnvironment()
    for native, expected in ((True, "say HI"), (False, "say hi")):
        options = Shouted(native=native, text="say {{ payload.x }}")
        rendered: Any = compile_options(options, environment).render(event({"x": "hi"}), NOW).options
        assert rendered.text == expected


def test_a_render_leaves_nothing_behind() -> None:
    template = compiled(subject="{% set x = payload.x %}{{ x }}{% for i in range(90000) %}{% endfor %}")
    for value in (1, 2, 3):
        rendered: Any = template.render(event({"x": value}), NOW).options
        assert rendered.subject == str(value)


def test_all_kinds_of_markers_are_found() -> None:
    class Options(SinkOptions):
        a: Template = Template("{{ payload.x }}")
        b: Text = Text("{{ payload.x }}")
        c: Html = Html("{{ payload.x }}")
        d: Addresses = Addresses(["{{ payload.x }}"])

    rendered: Any = compile_options(Options(), TemplateEnvironment()).render(event({"x": "<"}), NOW).options
    assert (rendered.a, rendered.b, rendered.c, rendered.d) == ("<", "<", "&lt;", ["<"])


def test_a_naive_time_is_utc() -> None:
    assert datetime.fromisoformat(subject("{{ '2025-01-01T00:00:00' | local }}")) == datetime(2025, 1, 1, tzinfo=UTC)


def test_html_of_a_value_is_text() -> None:
    assert html("<p>{{ payload.x }}</p>", {"x": "<b>&\"'"}) == "<p>&lt;b&gt;&amp;&#34;&#39;</p>"


def test_equal_templates_are_compiled_once_for_each_environment_and_kind() -> None:
    environment, text = TemplateEnvironment(), "{{ payload.a }}"
    first = Compiled.shared(text, environment.plain)
    assert Compiled.shared("{{ payload.a }}", environment.plain) is first
    assert Compiled.shared("{{ payload.b }}", environment.plain) is not first
    assert Compiled.shared(text, environment.html) is not first
    assert type(CompiledValue.shared(text, environment.plain)) is CompiledValue


def test_equal_templates_of_files_may_include_different_files() -> None:
    sandbox, text = TemplateEnvironment().plain, "{% include 'x' %}"
    one, other = (
        Compiled.shared(TemplateFile(text, name="mail", read=lambda _, part=part: part), sandbox) for part in ("1", "2")
    )
    assert (one.render({}), other.render({})) == ("1", "2")
