"""What lookups decide: the order of dependencies, cycles, the cache, keys, and what a record that lacks a field gives."""

from __future__ import annotations

import pytest

from router.core.lookups.dependencies import cycle, in_order
from router.core.lookups.lookup_key import LONGEST, LookupKey
from router.core.lookups.record_cache import MOST, RecordCache
from router.core.rendering import TemplateEnvironment, compile_options
from router.core.rendering.expressions import BrokenExpressionError, Expression
from router.core.rendering.sandbox.lookup_records import ABSENT, Record
from router.errors import AddressError, Reason, TemplateError
from tests.support.rendering import NOW, Message, event

ENVIRONMENT = TemplateEnvironment(lookups={"user", "company"}).with_lookups
JANE = Record({"name": "Jane", "address": {"city": "Ghent"}, "email": "jane@example.org"})


def test_groups_hold_what_is_needed_first():
    needs = {"a": ["b", "c"], "b": ["d"], "c": [], "d": [], "e": ["a"]}
    assert in_order(needs, ["a"]) == (("c", "d"), ("b",), ("a",))
    assert in_order(needs, ["b", "c"]) == (("c", "d"), ("b",))
    assert in_order(needs, []) == ()


def test_a_cycle_is_found_through_any_number_of_lookups():
    needs = {"a": ["b"], "b": ["x", "c"], "c": ["a"], "x": [], "s": ["s"], "t": ["a"]}
    assert cycle(needs, "a") == ["a", "b", "c", "a"]
    assert cycle(needs, "s") == ["s", "s"]
    assert cycle(needs, "t") == cycle(needs, "x") == []  # it leads into a cycle, and is not part of it
    with pytest.raises(ValueError, match="cycle"):
        in_order(needs, ["a"])


def test_the_cache_forgets_after_its_time_and_remembers_what_is_not_there():
    cache = RecordCache(ttl=60.0)
    cache.put([("42", JANE)], 100.0)
    cache.put([("43", None)], 100.0)
    assert cache.get(["42", "43", "44"], 159.9) == ({"42": JANE, "43": None}, ["44"])
    assert cache.get(["42", "43"], 160.0) == ({}, ["42", "43"])
    assert len(cache) == 0


def test_the_cache_is_bounded_and_the_oldest_make_room():
    cache = RecordCache(ttl=60.0)
    for number in range(MOST + 5):
        cache.put([(str(number), JANE)], 0.0)
    cache.put([("6", None)], 1.0)
    cache.put([("new", JANE)], 1.0)
    assert len(cache) == MOST == 10_000
    # "6" was fetched again, and is among the newest
    assert cache.get(["4", "5", "6", "7"], 1.0) == ({"6": None, "7": JANE}, ["4", "5"])


def test_nothing_is_kept_without_time_to_live():
    cache = RecordCache(ttl=0.0)
    cache.put([("42", JANE)], 0.0)
    assert len(cache) == 0


@pytest.mark.parametrize(
    "template", ["u:{{ payload.id }}", "{{ payload.a.id }}:u", "a{{ payload.items }}b", "{{payload.id}}\n"]
)
@pytest.mark.parametrize(
    "value", [42, -1, 0, 2**62, 2**64, 1.5, True, None, "", "x<&>\n", "é" * 300, [1, "2"], {"id": 3}, {"x": 1}, []]
)
def test_a_key_without_the_template_engine_is_the_same_as_with_it(template, value):
    key = LookupKey(template, ENVIRONMENT, "lookups.user.key")
    rendered = LookupKey("{{ '' }}" + template, ENVIRONMENT, "lookups.user.key")
    assert key.sole_field is not None
    assert rendered.sole_field is None
    for payload in ({"id": value}, {"a": value}, {"a": {"id": value}}, {"items": value}, value):
        outcomes = []
        for one in (key, rendered):
            try:
                outcomes.append(one.render(event(payload), NOW, {}))
            except TemplateError as error:
                outcomes.append(str(error))
        assert outcomes[0] == outcomes[1]


def test_keys_are_texts_and_those_in_a_url_are_encoded():
    key = LookupKey("user:{{ payload.id }}", ENVIRONMENT, "lookups.user.key")
    assert key.render(event({"id": 42}), NOW, {}) == key.render(event({"id": "42"}), NOW, {}) == "user:42"
    url = LookupKey("https://h/u/{{ payload.id }}?n={{ payload.id | url }}", ENVIRONMENT, "lookups.user.url", url=True)
    assert url.render(event({"id": "a/../é"}), NOW, {}) == "https://h/u/a%2F..%2F%C3%A9?n=a%2F..%2F%C3%A9"
    of_company = LookupKey("company:{{ user.company }}", ENVIRONMENT, "lookups.company.key")
    assert of_company.render(event({}), NOW, {"user": Record({"company": 7})}) == "company:7"
    with pytest.raises(TemplateError, match=r"lookups\.company\.key: user\.company is missing"):
        of_company.render(event({}), NOW, {"user": JANE})
    with pytest.raises(TemplateError, match="more than 4,096 characters"):
        key.render(event({"id": "x" * LONGEST}), NOW, {})


def test_places_without_lookups_know_their_names_for_the_message():
    with pytest.raises(BrokenExpressionError, match="`user` is a lookup: only the templates"):
        Expression("user.vip", TemplateEnvironment(lookups={"user"}), "when")
    with pytest.raises(BrokenExpressionError, match="there is no `usr` \\(did you mean `user`\\?\\)"):
        Expression("usr.vip", ENVIRONMENT, "only_if")


def rendered(record, **options):
    return compile_options(Message(**options), ENVIRONMENT).render(event({}), NOW, {"user": record})


def test_a_template_reads_a_record():
    found = rendered(JANE, to="{{ user.email }}", subject="{{ user.name }} of {{ user.address.city }}")
    assert found.addresses == ("jane@example.org",)
    assert found.options.subject == "Jane of Ghent"


@pytest.mark.parametrize(
    "address", ["{{ user.telegram }}", "{{ user.address.street.number }}", "{{ user['x'] | lower }}"]
)
def test_a_field_that_a_record_lacks_is_empty_in_an_address(address):
    assert rendered(JANE, to=address, text="{{ user.name }}").suppressed is Reason.NO_ADDRESS
    assert rendered(JANE, to=f"{address}, ops@example.org").addresses == ("ops@example.org",)


def test_a_list_of_a_record_is_several_addresses_and_a_bad_one_is_refused():
    record = Record({"emails": ["a@example.org", "b@example.org"], "bad": "a@example.org\nBcc: b@example.org"})
    assert rendered(record, to="{{ user.emails }}").addresses == ("a@example.org", "b@example.org")
    assert rendered(
        Record({"all": [{"mail": "a@example.org"}, {}]}), to="{{ user.all | map(attribute='mail') }}"
    ).addresses == ("a@example.org",)
    with pytest.raises(AddressError, match="control character"):
        rendered(record, to="{{ user.bad }}")


def test_a_field_that_a_record_lacks_is_an_error_elsewhere_unless_the_record_is_empty():
    with pytest.raises(TemplateError, match=r"subject: user\.title is missing"):
        rendered(JANE, to="a@example.org", subject="{{ user.title }}")
    with pytest.raises(TemplateError, match=r"subject: user\.address\.street is missing"):
        rendered(JANE, to="a@example.org", subject="{{ user.address.street }}")
    optional = rendered(JANE, to="a@example.org", subject="{{ user.title | default('Dear') }}")
    assert optional.options.subject == "Dear"
    text = "<{{ user.name }}|{{ user.a.b }}|{{ user.name | default('you') }}|{% for each in user.tags %}x{% endfor %}>"
    assert rendered(ABSENT, to="a@example.org", subject=text).options.subject == "<||you|>"
    assert rendered(ABSENT, to="{{ user.email }}").suppressed is Reason.NO_ADDRESS


@pytest.mark.parametrize(
    ("source", "record", "holds"),
    [
        ("on(user.wants_mail, true)", JANE, True),
        ("on(user.wants_mail, true)", ABSENT, True),
        ("on(user.wants_mail, true)", Record({"wants_mail": "no"}), False),
        ("user.address.city == 'Ghent'", JANE, True),
        ("user.address.street == 'Ghent' or user.x.y", JANE, False),
        ("user", ABSENT, False),
    ],
)
def test_a_condition_reads_a_record(source, record, holds):
    assert Expression(source, ENVIRONMENT, "only_if").holds(event({}), NOW, {"user": record}) is holds
