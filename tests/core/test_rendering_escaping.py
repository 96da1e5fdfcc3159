"""The values of an event are escaped for the sink whatever a template does with them; its own words never are."""

from __future__ import annotations

import re
from html import unescape
from typing import Annotated, Any

import pytest

from router.core.rendering import TemplateEnvironment, compile_options
from router.options import Html, SinkOptions, Text
from tests.support.rendering import CLEAN, NOW, chat, event, html, starred

EVIL = "<i>&*_"
PAYLOAD: dict[str, Any] = {
    "x": EVIL,
    "list": [EVIL, EVIL],
    "map": {EVIL: EVIL},
    "people": [{"name": EVIL}, {"name": "b"}],
    "format": "%s{0}",
}


@pytest.mark.parametrize("template", CLEAN)
def test_html_never_has_a_character_of_an_event_bare(template: str) -> None:
    text = html(template, PAYLOAD)
    assert "<" not in text
    assert not re.search(r"&(?!(?:amp|AMP|lt|LT|gt|GT|#34|#39);)", text)


@pytest.mark.parametrize("template", CLEAN)
def test_a_sinks_own_escaping_never_has_a_character_of_an_event_bare(template: str) -> None:
    assert not re.search(r"[*_]", re.sub(r"\\[\\*_]", "", chat(template, PAYLOAD)))


@pytest.mark.parametrize(
    ("template", "expected_html", "expected_chat"),
    [
        ("<b>*x*</b> &", "<b>*x*</b> &", "<b>*x*</b> &"),
        ("*<b>{{ payload.x }}</b>*", "*<b>&lt;i&gt;&amp;*_</b>*", "*<b><i>&\\*\\_</b>*"),
        ("{{ '<b>*' | markup }}", "<b>*", "<b>*"),
        ("{{ payload.x | markup }}", EVIL, EVIL),
        ("{{ payload.list | map('markup') | join('*' | markup) }}", f"{EVIL}*{EVIL}", f"{EVIL}*{EVIL}"),
        ("{{ '<b>*' }}", "&lt;b&gt;*", "<b>\\*"),
        ("{{ '<b>*' ~ payload.nope | default('_') }}", "&lt;b&gt;*_", "<b>\\*\\_"),
        (
            "{% macro b(a) %}*<b>{{ a }}</b>*{% endmacro %}{{ b(payload.x) }}",
            "*<b>&lt;i&gt;&amp;*_</b>*",
            "*<b><i>&\\*\\_</b>*",
        ),
        ("{% set y %}*<b>{{ payload.x }}{% endset %}{{ y }}", "*<b>&lt;i&gt;&amp;*_", "*<b><i>&\\*\\_"),
        ("{% set y | trim %} *<b>{{ payload.x }}{% endset %}{{ y }}", "*<b>&lt;i&gt;&amp;*_", "*<b><i>&\\*\\_"),
        ("{% filter trim %} *<b>{{ payload.x }}{% endfilter %}", "*<b>&lt;i&gt;&amp;*_", "*<b><i>&\\*\\_"),
        ("{% block y %}*<b>{{ payload.x }}{% endblock %}", "*<b>&lt;i&gt;&amp;*_", "*<b><i>&\\*\\_"),
        ("{{ payload.x | replace('i', '<br>*' | markup) }}", "&lt;<br>*&gt;&amp;*_", "<<br>*>&\\*\\_"),
        ("{{ payload.x ~ ('<br>*' | markup) }}", "&lt;i&gt;&amp;*_<br>*", "<i>&\\*\\_<br>*"),
        ("{{ ('*%s<br>' | markup) | format(payload.x) }}", "*&lt;i&gt;&amp;*_<br>", "*<i>&\\*\\_<br>"),
        ("{{ payload.people[1].name | markup | upper }}*", "B*", "B*"),
        ("{% for a in ['<', '*'] %}{{ a }}{{ loop.index }}*{% endfor %}", "&lt;1**2*", "<1*\\*2*"),
        ("{% raw %}{{ <*> }}{% endraw %}{{ payload.x[0] }}", "{{ <*> }}&lt;", "{{ <*> }}<"),
    ],
)
def test_a_templates_own_words_are_kept(template: str, expected_html: str, expected_chat: str) -> None:
    assert html(template, PAYLOAD) == expected_html
    assert chat(template, PAYLOAD) == expected_chat


@pytest.mark.parametrize(
    "value",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        '" onmouseover="alert(1)',
        "' onmouseover='alert(1)",
        "</title><svg/onload=alert(1)>",
        "&lt;script&gt;",
        "&#60;script&#62;",
        "<<script>",
        "<!--<script>-->",
        "]]><script>",
        "{{ 7 * 7 }}<b>",
        "\u2028<script>",
        "\0<script>",
    ],
)
def test_html_shows_an_attack_as_the_text_it_is(value: str) -> None:
    page = html('<p title="{{ payload.x }}">{{ payload.x }}</p>', {"x": value})
    found = re.fullmatch(r'<p title="([^"<>]*)">([^<>]*)</p>', page, re.DOTALL)
    assert found is not None
    expected = value.replace("\0", "\ufffd")
    assert unescape(found[1]).replace("\0", "\ufffd") == expected
    assert unescape(found[2]).replace("\0", "\ufffd") == expected


def test_both_ways_stand_beside_each_other_in_one_model() -> None:
    class Both(SinkOptions):
        page: Html
        chat: Annotated[str, Text(escape=starred)]
        other: Annotated[str, Text(escape=str.upper)]
        plain: Text

    template = "{{ payload.x }}"
    options = Both(page=template, chat=template, other=template, plain=template)
    rendered: Any = compile_options(options, TemplateEnvironment()).render(event({"x": "<a*"}), NOW).options
    assert (rendered.page, rendered.chat, rendered.other, rendered.plain) == ("&lt;a*", "<a\\*", "<A*", "<a*")


def test_html_with_an_escape_of_its_own_uses_that() -> None:
    class Own(SinkOptions):
        page: Annotated[str, Html(escape=starred)]

    rendered: Any = compile_options(Own(page="{{ payload.x }}"), TemplateEnvironment()).render(event({"x": "<*"}), NOW)
    assert rendered.options.page == "<\\*"
