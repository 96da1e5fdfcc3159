"""What holds for every event, whatever its payload."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.rendering import Rendered
from router.errors import AddressError, Reason, TemplateError
from tests.support.rendering import CLEAN, NOW, compiled, event

texts = st.text() | st.sampled_from(
    ["<", "&", "<script>", "&lt;", "*", "a@example.org", "x\r\nBcc: y@example.org", "{{ 1 }}"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
payloads = values | st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("x", "list", "map", "people", "format", "email"), values)
)
"""JSON of any shape; often with the fields that the templates ask for."""


BARE_HTML = re.compile(r"[<>\"']|&(?!(?:amp|AMP|lt|LT|gt|GT|#34|#39);)")


@cache
def html(template: str) -> Any:
    return compiled(html=template, to="{{ route }}@example.org")


@cache
def chat(template: str) -> Any:
    return compiled(chat=template, to="{{ route }}@example.org")


@cache
def plain(template: str) -> Any:
    return compiled(subject=template)


def outcome(template: Any, payload: Any) -> Rendered | None:
    """What became of it; None for a failure of one of the two kinds."""
    try:
        rendered = template.render(event(payload), NOW)
    except (TemplateError, AddressError):
        return None
    assert isinstance(rendered, Rendered)
    return rendered


@given(st.sampled_from(CLEAN), payloads)
def test_no_payload_gets_a_bare_character_into_html(template: str, payload: Any) -> None:
    rendered: Any = outcome(html(template), payload)
    if rendered is not None:
        assert "<" not in rendered.options.html
        assert ">" not in rendered.options.html


@given(payloads)
def test_no_payload_gets_a_bare_entity_into_html(payload: Any) -> None:
    rendered: Any = outcome(html(CLEAN[0]), {"x": payload})
    assert rendered is not None
    assert not BARE_HTML.search(rendered.options.html)


@given(st.sampled_from(CLEAN), payloads)
def test_no_payload_gets_a_bare_character_past_a_sinks_escaping(template: str, payload: Any) -> None:
    rendered: Any = outcome(chat(template), payload)
    if rendered is not None:
        assert not re.search(r"[*_]", re.sub(r"\\.", "", rendered.options.chat, flags=re.DOTALL))


ADDRESSES = [
    compiled(to=to, cc=cc, ids=ids)
    for to, cc, ids in [
        ("{{ payload }}", [], None),
        ("{{ payload.email }}", "{{ payload.x | default('') }}", None),
        ([], [], "{{ payload }}"),
        ([], [], "{{ payload.x }}, {{ payload.list | default('') }}"),
        ([], [], ["{{ payload.x ~ payload.email }}", "{% for a in payload.list %}{{ a }},\n{% endfor %}"]),
    ]
]


@given(st.sampled_from(ADDRESSES), payloads)
def test_no_address_has_a_control_character_or_is_empty_or_there_twice(template: Any, payload: Any) -> None:
    rendered = outcome(template, payload)
    if rendered is None:
        return
    assert (rendered.suppressed is Reason.NO_ADDRESS) == (not rendered.addresses)
    assert len(set(rendered.addresses)) == len(rendered.addresses)
    for address in rendered.addresses:
        assert address == address.strip() != ""
        assert not any(unicodedata.category(char) in {"Cc", "Zl", "Zp", "Cs"} for char in address)


IDS = compiled(ids="{{ payload.x }}")


@given(texts, texts)
def test_a_list_is_taken_apart_as_a_comma_list_is(first: str, second: str) -> None:
    apart = outcome(IDS, {"x": [first.replace('"', ""), second.replace('"', "")]})
    together = outcome(IDS, {"x": f"{first},{second}".replace('"', "")})
    assert (apart and apart.addresses) == (together and together.addresses)


@given(st.sampled_from([*CLEAN, "{{ payload.x | time }}", "{{ payload.x | ago }}"]), payloads)
def test_nothing_but_the_two_failures(template: str, payload: Any) -> None:
    rendered: Any = outcome(plain(template), payload)
    assert rendered is None or type(rendered.options.subject) is str


@given(texts)
def test_data_is_shown_as_it_is(value: str) -> None:
    rendered: Any = outcome(plain(CLEAN[0]), {"x": value})
    assert rendered.options.subject == value


@pytest.mark.parametrize("payload", [None, [], {}, "x", 0])
def test_a_text_for_a_team_is_never_a_failure(payload: Any) -> None:
    rendered = compiled(text="{{ payload.a.b }}", to="team@example.org").render(event(payload), NOW)
    assert rendered.degraded is not None
