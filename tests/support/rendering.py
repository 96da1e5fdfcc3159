"""Events and options for tests of templates."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from pydantic import Field

from router.core.rendering import OptionsTemplate, Rendered, TemplateEnvironment, compile_options
from router.events import Event
from router.options import Addresses, Html, SinkOptions, Template, Text

NOW = 1_763_935_200.0
"""2025-11-23T22:00:00Z."""


CLEAN = [
    "{{ payload.x }}",
    "{{ payload['x'] }}",
    "{{ payload }}",
    "{{ payload.list }}",
    "{{ payload.map }}",
    "{{ event.payload.x }} {{ event.raw }}",
    "{{ event }}",
    "{{ payload.x ~ payload.x }}",
    "{{ payload.x + payload.x }}",
    "{{ payload.x * 2 }}",
    "{{ '%s' % payload.x }}",
    "{{ '%s' | format(payload.x) }}",
    "{{ payload.x.strip('q') ~ payload.x.rpartition('i')[2] ~ payload.x.rsplit('i') }}",
    "{{ ('%s' | markup) % payload.x }}",
    "{{ ('%s' | markup) | format(payload.x) }}",
    "{{ ('%(x)s' | markup) % payload }}",
    "{{ '' | markup ~ payload.x }}",
    "{{ ('' | markup) ~ payload.x }}",
    "{{ ('' | markup) + payload.x }}",
    "{{ payload.x + ('' | markup) }}",
    "{{ ('a' | markup) | replace('a', payload.x) }}",
    "{{ ('a' | markup).replace('a', payload.x) }}",
    "{{ payload.x | replace('i', 'j' | markup) }}",
    "{{ payload.x | replace('i' | markup, 'j') }}",
    "{{ payload.x.replace('i', 'j') }}",
    "{{ ('' | markup) | default(payload.x, true) }}",
    "{{ payload.nope | default(payload.x) }}",
    "{{ payload.x | default('y') }}",
    "{{ payload.x or 'y' }}",
    "{{ payload.x if true else 'y' }}",
    "{{ payload.list | join(payload.x) }}",
    "{{ ['a' | markup, payload.x] | join(payload.x) }}",
    "{{ payload.list | join(' ' | markup) }}",
    "{{ payload.people | join(', ', attribute='name') }}",
    "{{ payload.people | map(attribute='name') }}",
    "{{ payload.people | map(attribute='name') | join }}",
    "{{ payload.people | groupby('name') | list }}",
    "{{ payload.people | selectattr('name') | list }}",
    "{{ payload.list | map('upper') }}",
    "{{ payload.list | map('replace', 'i', 'j') | list }}",
    "{{ payload.list | first }}{{ payload.list | last }}{{ payload.list | max }}{{ payload.list | sort }}",
    "{{ payload.list | unique | list }}{{ payload.list | reverse | list }}{{ payload.x | reverse }}",
    "{{ payload.x | batch(2) | list }}{{ payload.x | slice(2) | list }}",
    "{{ payload.x | upper }}{{ payload.x | lower }}{{ payload.x | title }}{{ payload.x | capitalize }}",
    "{{ payload.x | trim }}{{ payload.x | string }}{{ payload.x | list }}{{ payload.x | striptags }}",
    "{{ payload.x | truncate(4, true, '') }}{{ payload.x | truncate(4, true, '' | markup, 0) }}",
    "{{ payload.x | indent(2, true) }}{{ payload.x | wordwrap(2) }}{{ payload.x | center(20) }}",
    "{{ payload.x | json }}{{ payload | json }}{{ [payload.x] | json }}",
    "{{ {'a': payload.x | markup} }}{{ [payload.x | markup] }}",
    "{{ payload.x.upper() }}{{ payload.x.split('i') }}{{ payload.x.strip('q') }}{{ payload.x[0] }}{{ payload.x[:4] }}",
    "{{ payload.x | e }}{{ payload.x | escape | e }}",
    "{{ payload.x | e | upper | lower }}",
    "{% set y = payload.x %}{{ y }}",
    "{% set y %}{{ payload.x }}{% endset %}{{ y }}{{ y ~ payload.x }}",
    "{% set y | upper %}{{ payload.x }}{% endset %}{{ y }}",
    "{% set y | striptags %}{{ payload.x }}{% endset %}{{ y }}",
    "{% set y | striptags | striptags %}{{ payload.x }}{% endset %}{{ y | striptags }}",
    "{% set y | string | trim %}{{ payload.x }}{% endset %}{{ y }}",
    "{% filter striptags %}{{ payload.x }}{% endfilter %}",
    "{% filter upper | striptags %}{{ payload.x }}{% endfilter %}",
    "{% filter replace('q', payload.x) %}q{% endfilter %}",
    "{% filter string %}{{ payload.x }}{% endfilter %}",
    "{% filter json %}{{ payload.x }}{% endfilter %}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(payload.x) }}{{ m(payload.x) ~ payload.x }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(payload.x) | striptags }}{{ m(m(payload.x)) }}",
    "{% macro m(a=payload.x) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m() }}{{ m('', payload.x, b=payload.x) }}",
    "{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}{{ payload.x }}{% endcall %}",
    "{% macro m() %}{{ caller(payload.x) }}{% endmacro %}{% call(a) m() %}{{ a }}{% endcall %}",
    "{% block b %}{{ payload.x }}{% endblock %}{{ self.b() }}{{ self.b() ~ payload.x }}",
    "{% for a in payload.list %}{{ a }}{{ loop.cycle(payload.x, a) }}{{ loop.previtem | default('') }}{% endfor %}",
    "{% for k, v in payload.map | items %}{{ k }}{{ v }}{% endfor %}",
    "{% for k, v in payload.map | dictsort %}{{ k }}{{ v }}{% endfor %}",
    "{% for a in payload.list recursive %}{{ a }}{% if loop.depth < 2 %}{{ loop(payload.list) }}{% endif %}{% endfor %}",
    "{% set n = namespace(a='') %}{% for a in payload.list %}{% set n.a = n.a ~ a %}{% endfor %}{{ n.a }}",
    "{% with a = payload.x %}{{ a }}{% endwith %}",
    "{% set c = cycler(payload.x, 'b') %}{{ c.next() }}{{ c.current }}",
    "{% set j = joiner(payload.x) %}{{ j() }}{{ j() }}",
    "{{ dict(a=payload.x) }}{{ dict(a=payload.x).a }}",
]
"""Templates that do all kinds of things with values, and whose own words have none of the characters to escape."""


def starred(text: str) -> str:
    """A sink's own escaping: `*`, `_` and backslash get a backslash."""
    return "".join(f"\\{char}" if char in "*_\\" else char for char in text)


class Message(SinkOptions):
    """Options with one field of each kind."""

    to: Annotated[list[str], Addresses(kind="mail")] = Field(default_factory=list)
    cc: Annotated[list[str], Addresses(kind="mail")] = Field(default_factory=list)
    reply_to: Annotated[list[str], Addresses(kind="mail", recipients=False)] = Field(default_factory=list)
    ids: Addresses | None = None
    subject: Template = Template("")
    text: Text | None = None
    html: Html | None = None
    chat: Annotated[str, Text(escape=starred)] = ""
    headers: dict[str, Template] = Field(default_factory=dict)


def event(payload: Any = None, **fields: Any) -> Event:
    """An event with this payload, on channel `notification`."""
    known = {
        "id": "0193-1",
        "source": "web-app",
        "channel": "notification",
        "pattern": None,
        "received_at": datetime.fromtimestamp(NOW - 300, UTC),
        "raw": msgspec.json.encode(payload),
        "route": "notify",
        "sink": "user-chat",
    }
    return Event(**{**known, **fields})


def compiled(*, timezone: str = "UTC", **options: Any) -> OptionsTemplate:
    """`Message` options, compiled."""
    return compile_options(Message(**options), TemplateEnvironment(timezone=timezone))


def render(payload: Any, *, timezone: str = "UTC", **options: Any) -> Rendered:
    """`Message` options rendered for an event with this payload."""
    return compiled(timezone=timezone, **options).render(event(payload), NOW)


def subject(template: str, payload: Any = None, **fields: Any) -> str:
    """What a template without escaping gives."""
    options: Any = compiled(subject=template).render(event(payload, **fields), NOW).options
    return str(options.subject)


def html(template: str, payload: Any = None) -> str:
    """What an HTML template gives; it has to render."""
    rendered: Any = render(payload, html=template)
    assert rendered.degraded is None, rendered.degraded
    return str(rendered.options.html)


def chat(template: str, payload: Any = None) -> str:
    """What a template with a sink's own escaping gives; it has to render."""
    rendered: Any = render(payload, chat=template)
    assert rendered.degraded is None, rendered.degraded
    return str(rendered.options.chat)
