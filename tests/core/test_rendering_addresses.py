"""Who gets it: addresses from templates and literal ones."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any

import pytest
from msgspec.json import encode
from msgspec.structs import replace

from router.core.rendering import TemplateEnvironment, TemplateFaults, compile_options
from router.core.rendering.addresses import urls_in
from router.core.rendering.adjustments import restricted
from router.errors import AddressError, Reason, TemplateError
from router.options import Addresses, SinkOptions
from tests.support.cost import cost, mebibyte
from tests.support.rendering import NOW, Message, compiled, event, render


class Devices(SinkOptions):
    """Recipients that are mappings, as push subscriptions are."""

    devices: Annotated[list[Any], Addresses(known_by="token")]


ONE, OTHER = {"token": "a", "os": 1}, {"token": "b", "os": {"name": "x"}}


def devices(to: Any, payload: Any, **fields: Any) -> tuple[Any, tuple[str, ...]]:
    """The mappings that the plugin gets, and the addresses of the delivery."""
    compiled = compile_options(Devices.model_validate({"devices": to}), TemplateEnvironment())
    rendered: Any = compiled.render(replace(event(payload), **fields), NOW)
    assert compiled.recipients(rendered.options) == rendered.addresses
    return rendered.options.devices, rendered.addresses


@pytest.mark.parametrize(
    ("to", "payload", "expected"),
    [
        ("{{ payload }}", ONE, [ONE]),
        ("{{ payload.d }}", {"d": [ONE, OTHER, ONE | {"os": 2}]}, [ONE, OTHER]),
        ("{{ payload.d }}", {"d": encode([ONE, OTHER]).decode()}, [ONE, OTHER]),
        ("{{ payload.d | map(attribute='it') }}", {"d": [{"it": ONE}]}, [ONE]),
        ('{"token": "{{ payload.t }}", "os": 1}', {"t": "a"}, [ONE]),
        (["{{ payload.d }}", encode(OTHER).decode()], {"d": ONE}, [ONE, OTHER]),
        (encode([ONE, OTHER]).decode(), {}, [ONE, OTHER]),
        (["{{ payload.d }}"], {"d": None}, []),
    ],
)
def test_recipients_that_are_mappings(to: Any, payload: Any, expected: list[Any]) -> None:
    assert devices(to, payload) == (expected, tuple(each["token"] for each in expected))


def masked(url: str) -> str:
    """The address of a URL with a credential."""
    scheme, _, rest = url.partition("://")
    if not rest:
        raise ValueError("a URL has no scheme")
    return f"{scheme}://{len(rest)}"


class Targets(SinkOptions):
    """Recipients that are URLs with credentials."""

    urls: Annotated[list[str], Addresses(known_by=masked)]


def targets(to: Any, payload: Any, **fields: Any) -> tuple[list[str], tuple[str, ...]]:
    """The URLs that the plugin gets, and the addresses of the delivery."""
    compiled = compile_options(Targets.model_validate({"urls": to}), TemplateEnvironment())
    rendered: Any = compiled.render(replace(event(payload), **fields), NOW)
    assert compiled.recipients(rendered.options) == rendered.addresses
    return rendered.options.urls, rendered.addresses


@pytest.mark.parametrize(
    ("to", "payload", "expected"),
    [
        ("a://x?to=b,c,d;e", {}, ["a://x?to=b,c,d;e"]),
        ("a://x,b://y , c://z", {}, ["a://x", "b://y", "c://z"]),
        ("{{ payload.u }}", {"u": "a://x\n b://y\n"}, ["a://x", "b://y"]),
        ("{{ payload.u }}", {"u": ["a://x,b://y", "a://x", None, ""]}, ["a://x", "b://y"]),
        ("a://{{ payload.u }}/b c://d", {"u": "x"}, ["a://x/b", "c://d"]),
        (["{{ payload.u }}", "c://d"], {"u": "a://x"}, ["a://x", "c://d"]),
    ],
)
def test_recipients_that_are_urls_are_known_by_another_text(to: Any, payload: Any, expected: list[str]) -> None:
    assert targets(to, payload) == (expected, tuple(map(masked, expected)))
    assert targets(to, payload, address=masked(expected[-1])) == (expected[-1:], (masked(expected[-1]),))


@pytest.mark.parametrize("url", ["s3cret-token", "a://s3cret\x00token", "a://s3cret-token/" + "x" * 8192])
def test_what_is_no_url_is_refused_without_a_quote(url: str) -> None:
    with pytest.raises(AddressError) as raised:
        targets("{{ payload.u }}", {"u": url})
    assert "s3cret" not in str(raised.value)
    with pytest.raises(TemplateFaults) as faults:
        targets(url, {})
    assert "s3cret" not in str(faults.value)


def test_a_text_of_many_urls_costs_no_more_than_a_plain_one() -> None:
    for pattern in (",", ", ", ",a", " ,", "a://b,"):
        assert cost(urls_in, mebibyte(pattern)) < 20 * cost(urls_in, mebibyte("a://b?c=d e://f "))


def test_a_delivery_for_one_address_keeps_its_mapping_alone() -> None:
    assert devices("{{ payload }}", [ONE, OTHER], address="b") == ([OTHER], ("b",))


@pytest.mark.parametrize(
    "value", [7, True, "a", "[[]]", '"{}"', '["{}"]', [[ONE]], {"os": 1}, {"token": ""}, {"token": "a\n"}]
)
def test_what_is_no_mapping_with_an_address_is_refused(value: Any) -> None:
    with pytest.raises(AddressError, match=r"^devices: "):
        devices("{{ payload.d }}", {"d": value})
    if isinstance(value, str):
        with pytest.raises(TemplateFaults):
            devices(value, {})


class Bot(SinkOptions):
    """Addresses of any kind, as a chat has them."""

    to: Addresses


def ids(to: Any, payload: Any) -> list[str]:
    options = Bot.model_validate({"to": to})
    rendered: Any = compile_options(options, TemplateEnvironment()).render(event(payload), NOW)
    assert rendered.options.to == list(rendered.addresses)
    return list(rendered.options.to)


@pytest.mark.parametrize(
    ("to", "payload", "expected"),
    [
        ("{{ payload.user_id }}", {"user_id": 42}, ["42"]),
        ("{{ payload.user_id }}", {"user_id": -10012345678901234567890}, ["-10012345678901234567890"]),
        ("{{ payload.user_id }}", {"user_id": "@jane"}, ["@jane"]),
        (" {{ payload.user_id }} ", {"user_id": " 42 "}, ["42"]),
        ("{{ payload.users }}", {"users": [1, "2", None, " ", 3]}, ["1", "2", "3"]),
        ("{{ payload.users }}", {"users": ["a, b", "c"]}, ["a", "b", "c"]),
        ("{{ payload.users }}", {"users": "a, b,, c,"}, ["a", "b", "c"]),
        ("{{ payload.users | map(attribute='id') }}", {"users": [{"id": 1}, {"id": 2}]}, ["1", "2"]),
        ("{{ payload.users | map(attribute='id') | list }}", {"users": [{"id": 1}, {"id": 2}]}, ["1", "2"]),
        ("{{ payload.users if payload.all else payload.one }}", {"users": [1, 2], "all": True}, ["1", "2"]),
        ("{{ payload.a }}, {{ payload.b }}", {"a": 1, "b": 2}, ["1", "2"]),
        ("#{{ payload.a }}", {"a": "ops"}, ["#ops"]),
        ("x{{ payload.users }}", {"users": [1, 2]}, ["x1", "2"]),
        ("{% for u in payload.users %}\n  {{ u }},\n{% endfor %}\n", {"users": [1, 2]}, ["1", "2"]),
        (["{{ payload.a }}", "{{ payload.b }}", "c, d"], {"a": 1, "b": [2, 1]}, ["1", "2", "c", "d"]),
        (["{{ payload.a | default('') }}", "b"], {}, ["b"]),
        (["b", "a", "b"], {}, ["b", "a"]),
        (123456789, {}, ["123456789"]),
        ([1, "2, 3"], {}, ["1", "2", "3"]),
        ("team:ops", {}, ["team:ops"]),
        ('"a, b"', {}, ['"a, b"']),
        ('5" nail, b', {}, ['5" nail', "b"]),
    ],
)
def test_addresses(to: Any, payload: Any, expected: list[str]) -> None:
    assert ids(to, payload) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("jane@example.org", ["jane@example.org"]),
        ("Jane Doe <jane@example.org>", ["Jane Doe <jane@example.org>"]),
        ('"Doe, Jane" <jane@example.org>, j@example.org', ['"Doe, Jane" <jane@example.org>', "j@example.org"]),
        ('"Doe, \\"J\\"" <jane@example.org>', ['"Doe, \\"J\\"" <jane@example.org>']),
        ("<jane@example.org>", ["<jane@example.org>"]),
        ("jane+tag@sub.example.org", ["jane+tag@sub.example.org"]),
        ("o'brien@example.org", ["o'brien@example.org"]),
        ('"a b"@example.org', ['"a b"@example.org']),
        ("root@localhost", ["root@localhost"]),
        ("jane@[192.0.2.1]", ["jane@[192.0.2.1]"]),
        ("jürgen@bücher.example", ["jürgen@bücher.example"]),
        ("a@example.org, a@EXAMPLE.org, A <a@example.org>", ["a@example.org"]),
        ("A@example.org, a@example.org", ["A@example.org", "a@example.org"]),
    ],
)
def test_mail_addresses(value: str, expected: list[str]) -> None:
    rendered: Any = render({"a": value}, to="{{ payload.a }}")
    assert rendered.options.to == expected
    assert compiled(to=value).static.to == expected  # type: ignore[union-attr]


NOT_ANY = [
    "x\r\nBcc: y",
    "x\ny",
    "x\n",
    "\rx",
    "x\0",
    "x\ty",
    "x\x7f",
    "x\x85y",
    "x\u2028y",
    "friends: a@example.org, b@example.org;",
    "undisclosed-recipients:;",
    "a;b",
    "x" * 1001,
    {"a": 1},
    True,
    [["a"]],
    [{"a": 1}],
    [True],
]


@pytest.mark.parametrize("value", NOT_ANY)
def test_what_is_no_address(value: Any) -> None:
    with pytest.raises(AddressError, match=r"^to: "):
        ids("{{ payload.x }}", {"x": value})


@pytest.mark.parametrize("value", [value for value in NOT_ANY if isinstance(value, str)])
def test_what_is_no_address_within_more_text(value: str) -> None:
    with pytest.raises(AddressError):
        ids("a, {{ payload.x }}", {"x": value})


@pytest.mark.parametrize(
    "value",
    [
        "jane",
        "@example.org",
        "jane@",
        "jane@@example.org",
        "a@b@example.org",
        "jane doe@example.org",
        "jane@example..org",
        "jane@-example.org",
        ".jane@example.org",
        "jane@exa mple.org",
        "jane@example.org>",
        "<jane@example.org",
        "Jane <jane@example.org> x",
        "Jane <jane>",
        "Doe, Jane <jane@example.org>",
        "jane@example.org (Jane)",
        "name: jane@example.org",
        '"jane@example.org',
        "a" * 65 + "@example.org",
        "a@" + "b." * 150 + "org",
        "42",
        42,
    ],
)
def test_what_is_no_mail_address(value: Any) -> None:
    with pytest.raises(AddressError, match=r"^to: "):
        render({"a": value}, to="{{ payload.a }}")


def test_a_literal_that_is_no_address_is_a_fault_of_the_configuration() -> None:
    with pytest.raises(TemplateFaults) as caught:
        compiled(to=["a@example.org", "b, c@example.org"], cc="d;")
    assert [(fault.path, fault.message) for fault in caught.value.faults] == [
        (("to", 1), "'b' is not a mail address"),
        (("cc", 0), "'d;' is a group of addresses; write each address of the group instead"),
    ]


def test_an_error_shows_an_address_short_and_harmless() -> None:
    with pytest.raises(AddressError) as caught:
        ids("{{ payload.x }}", {"x": "\x1b[31m" + "y" * 100_000})
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_missing_field_is_a_failure_and_default_makes_it_empty() -> None:
    with pytest.raises(TemplateError, match=r"^to: payload\.email is missing$"):
        render({}, to="{{ payload.email }}")
    with pytest.raises(TemplateError, match=r"^to: payload\.email is missing$"):
        render({}, to="a@example.org, {{ payload.email }}")
    assert render({}, to="{{ payload.email | default('') }}").suppressed is Reason.NO_ADDRESS


@pytest.mark.parametrize("value", ["", " ", None, [], [None, ""], ",", " , ,"])
def test_no_address_at_all_is_suppressed(value: Any) -> None:
    rendered = render({"a": value}, to="{{ payload.a }}")
    assert rendered.suppressed is Reason.NO_ADDRESS
    assert rendered.addresses == ()


def test_no_address_means_over_all_recipients_together() -> None:
    both: Any = render({"a": ""}, to="{{ payload.a }}", cc="boss@example.org")
    assert both.suppressed is None
    assert both.addresses == ("boss@example.org",)
    assert both.options.to == []
    alone = render({"a": ""}, to="{{ payload.a }}", reply_to="boss@example.org")
    assert alone.suppressed is Reason.NO_ADDRESS


def test_options_that_name_nobody_are_not_suppressed() -> None:
    assert render({"x": 1}, subject="{{ payload.x }}").suppressed is None
    assert render({"x": 1}, subject="plain").suppressed is None


def test_the_addresses_of_all_fields_each_once() -> None:
    rendered = render({"a": "a@example.org"}, to="{{ payload.a }}", cc=["b@example.org", "a@example.org"])
    assert rendered.addresses == ("a@example.org", "b@example.org")


def test_a_delivery_for_one_address_keeps_only_that() -> None:
    template = compiled(
        to="{{ payload.a }}", cc="c@example.org, b@example.org", reply_to="r@example.org", text="{{ payload.a }}"
    )
    one: Any = template.render(event({"a": "a@example.org, b@example.org"}, address="b@example.org"), NOW)
    assert (one.options.to, one.options.cc, one.options.reply_to) == (
        ["b@example.org"],
        ["b@example.org"],
        ["r@example.org"],
    )
    assert one.addresses == ("b@example.org",)
    assert one.options.text == "a@example.org, b@example.org"


def test_a_delivery_for_one_address_of_literal_options_keeps_only_that() -> None:
    template = compiled(to="a@example.org, b@example.org", text="hello")
    one: Any = template.render(event({}, address="b@example.org"), NOW)
    assert (one.options.to, one.addresses, one.text) == (["b@example.org"], ("b@example.org",), "hello")
    assert template.static.to == ["a@example.org", "b@example.org"]  # type: ignore[union-attr]


def test_a_delivery_for_an_address_that_is_no_longer_there_is_suppressed() -> None:
    for to in ("{{ payload.a }}", "a@example.org"):
        gone = compiled(to=to).render(event({"a": "a@example.org"}, address="b@example.org"), NOW)
        assert gone.suppressed is Reason.NO_ADDRESS


def test_a_delivery_for_one_address_where_options_name_nobody_is_rendered() -> None:
    rendered = compiled(text="{{ payload.a }}").render(event({"a": 1}, address="b@example.org"), NOW)
    assert (rendered.suppressed, rendered.text) == (None, "1")


def test_a_failure_names_the_template_that_failed() -> None:
    with pytest.raises(TemplateError, match=r"^to: payload\.b\.mail is missing$"):
        render({"a": {"mail": "a@example.org"}, "b": {}}, to=["{{ payload.a.mail }}", "{{ payload.b.mail }}"])


HOSTILE = [
    '""', '"a" ', '"\\"', '"', "\\", '"\\', "a,", ",", '"a",', "a@b.example,", "a@", "@", ".", "a.", "<", "a <", "(", "[",
    ";", '";"', " ", "x ", "ü", "xn--", "<a@b.example>", "a@b.example <",
]  # fmt: skip


@pytest.mark.parametrize("pattern", HOSTILE)
@pytest.mark.parametrize("address", [Message, Bot])
def test_a_mebibyte_of_any_pattern_costs_little_more_than_plain_text(address: type[SinkOptions], pattern: str) -> None:
    options = address.model_validate({"to": "{{ payload.a }}"} | ({"text": "x"} if address is Message else {}))
    template = compile_options(options, TemplateEnvironment())

    def take(value: str) -> None:
        with suppress(AddressError):
            template.render(event({"a": value}), NOW)

    assert cost(take, mebibyte(pattern)) < 10 * cost(take, mebibyte("plain words of a text, "))


def test_one_event_names_a_thousand_addresses_at_most() -> None:
    thousand = [f"a{number}@example.org" for number in range(1000)]
    assert len(render({"a": [*thousand, "a7@EXAMPLE.org"]}, to="{{ payload.a }}").addresses) == 1000
    with pytest.raises(AddressError, match="more than 1,000 addresses"):
        render({"a": [*thousand, "b@example.org"]}, to="{{ payload.a }}")


class Several(SinkOptions):
    """Recipients that are more than their address."""

    devices: Annotated[list[Any], Addresses(known_by="id")]
    urls: Annotated[list[str], Addresses(known_by=lambda url: url.partition("://")[0])]
    to: Annotated[list[str], Addresses()]


def test_only_the_allowed_recipients_are_kept_by_their_addresses() -> None:
    options = Several.model_construct(devices=[{"id": "a"}, {"id": "b"}], urls=["x://1", "y://2"], to=["a", "c"])
    kept = restricted(options, {"a", "x"})
    assert (kept.devices, kept.urls, kept.to) == ([{"id": "a"}], ["x://1"], ["a"])
