"""A message is simulated by the rules that the daemon goes by, and each "no" names its step."""

import json

import pytest

from router.core.conditions.route_checks import Step
from router.core.lookups.given_records import from_mapping
from router.errors import Reason
from router.ops.loading import load
from router.ops.simulation import Ending, Message, Simulator

NOW = 1_770_000_000.0
SCHEMA = {"type": "object", "required": ["user_id"], "properties": {"user_id": {"type": "integer"}}}
SINKS = {
    "audit": {"type": "log", "path": "audit.jsonl"},
    "mail": {
        "type": "email",
        "host": "smtp.example.org",
        "from": "shop@example.org",
        "to": "{{ payload.email }}",
        "subject": "News for {{ payload.user_id }}",
        "text": "{{ payload.message }}",
        "password": "hunter-two-and-a-half",
        "username": "shop",
    },
    "team": {
        "type": "chat",
        "service": "slack",
        "url": "https://hooks.slack.com/secret-path",
        "text": "{{ payload.message }}",
    },
}
GOOD = {"user_id": 42, "message": "hello", "email": "jane@example.org", "order": {"total": 99.5}}


@pytest.fixture
def simulate(tmp_path):
    def simulated(routes, payload=GOOD, channel="orders.new", *, now=None, source=None, sinks=None, given=None, **keys):
        document = {
            "version": 1,
            "sources": {
                "web": {"type": "pubsub", "channels": ["orders.*", "orders.exact", "loose"], "patterns": ["plain"]},
                "jobs": {"type": "list", "keys": ["jobs", "orders.new"]},
                "shell": {"type": "stream", "streams": ["text"], "format": "text"},
                "shop": {"type": "pubsub", "channels": ["shop"], "format": "cloudevents"},
            },
            "schemas": [{"channels": ["orders.*"], "file": "schema.json"}],
            "sinks": sinks or SINKS,
            "routes": routes,
            **keys,
        }
        (tmp_path / "config.yaml").write_text(json.dumps(document))
        (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
        raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        loaded = load(tmp_path / "config.yaml", environ={}, placeholders=True)
        return Simulator(loaded, given).simulate(Message(channel.encode(), raw, NOW, source=source, now=now))

    return simulated


def route(id_, *sinks, **keys):
    return {"id": id_, "sinks": list(sinks) or ["audit"], **keys}


def decided(found, route_id):
    (verdict,) = [each for each in found.routes if each.id == route_id]
    return verdict.decided_by


def test_a_message_that_is_routed_says_who_gets_what(simulate):
    found = simulate([route("all", "audit", "mail", "team")])
    assert found.ending is Ending.ROUTED
    assert (found.schema.file, found.schema.mode, found.schema.valid) == ("schema.json", "enforce", True)
    assert (found.event.source, found.event.channel, found.event.pattern) == ("web", "orders.new", "orders.*")
    audit, mail, team = found.deliveries
    assert all(each.delivers for each in found.deliveries)
    assert mail.to == ("jane@example.org",)
    assert mail.text == "hello"
    assert mail.rendered == {
        "host": "smtp.example.org",
        "from": "shop@example.org",
        "to": ["jane@example.org"],
        "subject": "News for 42",
        "text": "hello",
        "password": "***",
        "username": "shop",
        "separate": True,
    }
    assert team.rendered["url"] == "***"
    assert audit.rendered == {"path": "audit.jsonl"}


def test_a_secret_is_hidden_wherever_it_lands(simulate):
    sinks = {**SINKS, "mail": {**SINKS["mail"], "subject": "it is hunter-two-and-a-half"}}
    (mail,) = simulate([route("all", "mail")], sinks=sinks).deliveries
    assert mail.rendered["subject"] == "it is ***"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [(b"{", Reason.DECODE), (b"1" * 2_000_000, Reason.TOO_LARGE), ({"user_id": "x"}, Reason.SCHEMA)],
)
def test_a_message_that_is_rejected_asks_no_route(simulate, payload, reason):
    found = simulate([route("all")], payload)
    assert found.ending is Ending.REJECTED
    assert found.rejected.reason is reason
    assert not found.routes
    assert not found.deliveries
    assert found.schema.valid is (False if reason is Reason.SCHEMA else None)
    assert bool(found.schema.violations) is (reason is Reason.SCHEMA)


def test_a_schema_that_warns_lets_pass_and_keeps_its_violations(simulate):
    found = simulate([route("all")], {}, schemas=[{"channels": ["*"], "file": "schema.json", "mode": "warn"}])
    assert found.ending is Ending.ROUTED
    assert found.schema.valid is False
    assert [each.keyword for each in found.schema.violations] == ["required"]


def test_a_channel_that_no_source_reads_goes_nowhere(simulate):
    found = simulate([route("all")], channel="nowhere")
    assert found.ending is Ending.UNREAD
    assert not found.delivers
    assert simulate([route("all")], channel="shop", source="jobs").ending is Ending.UNREAD


@pytest.mark.parametrize(
    ("channel", "source", "reader", "pattern"),
    [
        ("orders.exact", None, "web", None),
        ("orders.new", None, "web", "orders.*"),
        ("orders.new", "jobs", "jobs", None),
        ("loose", None, "web", None),
        ("plain", None, "web", "plain"),
        ("text", None, "shell", None),
    ],
)
def test_the_source_and_the_pattern_are_those_of_the_daemon(simulate, channel, source, reader, pattern):
    found = simulate([route("all")], channel=channel, source=source)
    assert (found.event.source, found.event.pattern) == (reader, pattern)


def test_an_envelope_gives_the_event_its_id_and_payload(simulate):
    envelope = {"specversion": "1.0", "id": "7", "source": "/shop", "type": "sold", "data": GOOD}
    found = simulate([route("all", "mail")], envelope, "shop")
    assert found.event.id == "/shop#7"
    assert found.deliveries[0].rendered["subject"] == "News for 42"


ROUTES = [
    route("off", enabled=False),
    route("elsewhere", sources=["jobs"]),
    route("deaf", channels=["shop", "billing.*"]),
    route("rich", match={"user_id": 42, "order.total": {"gt": 100}}),
    route("guarded", when="payload.order.total > 100"),
    route("broken", when="payload.order.total / 0 > 1"),
    route("last", "audit", "team", final=True),
    route("after", match={"user_id": 42}),
]


def test_each_route_that_does_not_take_the_event_names_the_step_that_decided(simulate):
    found = simulate(ROUTES)
    assert [each.id for each in found.routes if each.matched] == ["last"]
    assert {each.id: each.decided_by.step for each in found.routes if each.decided_by} == {
        "off": Step.ENABLED,
        "elsewhere": Step.SOURCE,
        "deaf": Step.CHANNEL,
        "rich": Step.MATCH,
        "guarded": Step.WHEN,
        "broken": Step.WHEN,
        "after": Step.FINAL,
    }
    rich = next(each for each in found.routes if each.id == "rich")
    assert (rich.held, len(rich.checks)) == (1, 2)
    assert (rich.decided_by.clause, rich.decided_by.saw) == ("order.total > 100", "99.5")
    assert rich.decided_by.place.endswith("config.yaml:1:" + rich.decided_by.place.rsplit(":", 1)[1])
    assert decided(found, "broken").saw.startswith("it failed: when: ")
    assert decided(found, "after").saw == "last"
    assert decided(found, "elsewhere").saw == "web"
    assert decided(found, "deaf").saw == "orders.new"


def test_a_when_that_the_router_would_not_ask_does_not_fail(simulate):
    found = simulate([route("a", match={"user_id": 1}, when="1 / 0 > 1")])
    assert [check.step for check in found.routes[0].checks] == [Step.MATCH]


def test_the_nearest_route_of_an_event_that_none_takes(simulate):
    found = simulate(
        [
            route("deaf", channels=["shop"]),
            route("far", match={"user_id": 1, "order.total": 1}),
            route("near", match={"user_id": 42, "message": "hello", "order.total": {"gt": 100}}),
        ]
    )
    assert found.ending is Ending.UNMATCHED
    assert found.nearest.id == "near"
    assert simulate([route("all")]).nearest is None


def test_an_event_that_no_route_takes_goes_to_the_sinks_of_unmatched(simulate):
    found = simulate([route("rich", match={"order.total": {"gt": 100}})], unmatched=["audit"])
    assert found.ending is Ending.UNMATCHED
    assert [(each.route, each.sink) for each in found.deliveries] == [("unmatched", "audit")]
    assert found.delivers


def test_one_message_once_names_the_routes_that_it_stands_for(simulate):
    own = {"sink": "mail", "text": "other"}
    found = simulate([route("a", "mail"), route("b", "mail", "audit"), route("c", own)])
    assert [(each.route, each.sink, each.merged) for each in found.deliveries] == [
        ("a", "mail", ("b",)),
        ("b", "audit", ()),
        ("c", "mail", ()),
    ]
    assert [each.text for each in found.deliveries] == ["hello", "", "other"]


@pytest.mark.parametrize(
    ("payload", "keys", "reason", "decided_by"),
    [
        ({**GOOD, "email": ""}, {}, Reason.NO_ADDRESS, "address"),
        ({**GOOD, "email": "no address"}, {}, Reason.ADDRESS, "address"),
        ({**GOOD, "email": "a@example.org\r\nBcc: b@example.org"}, {}, Reason.ADDRESS, "address"),
        ({"user_id": 1}, {}, Reason.TEMPLATE, "template"),
        (GOOD, {"only_if": "payload.user_id == 1"}, Reason.ONLY_IF, "only_if"),
        (GOOD, {"only_if": "1 / 0"}, Reason.TEMPLATE, "only_if"),
    ],
)
def test_a_delivery_that_is_not_made_says_why(simulate, payload, keys, reason, decided_by):
    found = simulate([route("a", "mail")], payload, sinks={**SINKS, "mail": {**SINKS["mail"], **keys}})
    (delivery,) = found.deliveries
    assert (delivery.refused.reason, delivery.refused.decided_by) == (reason, decided_by)
    suppressed = reason in {Reason.NO_ADDRESS, Reason.ONLY_IF}
    assert (delivery.suppressed, delivery.dead) == ((reason, None) if suppressed else (None, reason))
    assert delivery.rendered is None
    assert not found.delivers


def test_a_delivery_that_is_too_late_is_a_dead_letter(simulate):
    late = [route("a", "mail", expires="15m")]
    assert simulate(late, now=NOW + 899).delivers
    assert simulate(late, now=NOW + 900).deliveries[0].dead is Reason.EXPIRED


def test_a_text_that_fails_where_every_address_is_literal_is_the_json_line(simulate):
    (team,) = simulate([route("a", "team")], {"user_id": 1}).deliveries
    assert team.delivers
    assert "message" in team.degraded
    assert json.loads(team.text)["payload"] == {"user_id": 1}


@pytest.mark.parametrize(
    ("deliver", "to", "prints", "printed"),
    [
        ("send", ["jane@example.org"], False, ()),
        ("print", ["jane@example.org"], True, ("jane@example.org",)),
        ({"only": ["*@example.org"]}, ["jane@EXAMPLE.org"], False, ()),
        ({"only": ["*@example.org"]}, ["jane@example.org", "joe@example.com"], True, ("joe@example.com",)),
    ],
)
def test_what_deliver_prints_is_said(simulate, deliver, to, prints, printed):
    found = simulate([route("a", "mail", "audit")], {**GOOD, "email": to}, deliver=deliver)
    mail, audit = found.deliveries
    assert (mail.prints, mail.printed) == (prints, printed)
    assert mail.delivers
    assert not audit.prints


def test_a_simulation_of_an_unknown_source_is_an_error(simulate):
    with pytest.raises(KeyError):
        simulate([route("all")], source="nobody")


LOOKUPS = {
    "user": {"type": "file", "path": "users.json", "key": "{{ payload.user_id }}"},
    "company": {"type": "file", "path": "users.json", "key": "c-{{ user.company }}", "missing": "suppress"},
}
KNOWING = {
    "mail": {
        **SINKS["mail"],
        "to": "{{ user.email }}",
        "subject": "For {{ user.name }} of {{ company.name }}",
        "only_if": "on(user.wants, true)",
    },
    "chat": {
        "type": "chat",
        "service": "telegram",
        "token": "t" * 20,
        "to": "{{ user.chat }}",
        "text": "<{{ user.name }}>",
    },
    "sums": {"type": "log", "path": "sums", "template": "{{ user.age + 1 }} {{ user.name }}"},
}
JANE = {"email": "jane@example.org", "name": "Jane", "company": 7, "chat": 42, "age": 41}


def test_one_lookup_is_named_in_the_singular(simulate, tmp_path):
    (tmp_path / "users.json").write_text("{}")
    sinks = {"sums": KNOWING["sums"]}
    (made,) = simulate([route("a", "sums")], sinks=sinks, lookups={"user": LOOKUPS["user"]}).deliveries
    assert made.unsure.startswith("the lookup user is not fetched; ")


def test_the_fields_of_lookups_appear_as_names(simulate, tmp_path):
    (tmp_path / "users.json").write_text("{}")
    found = simulate([route("a", *KNOWING)], sinks=KNOWING, lookups=LOOKUPS)
    mail, chat, sums = found.deliveries
    assert mail.to == ("{{ user.email }}",)
    assert mail.rendered["subject"] == "For {{ user.name }} of {{ company.name }}"
    assert mail.unsure == (
        "the lookups company, user are not fetched; `only_if` uses a lookup, and is assumed to be true"
    )
    assert (chat.to, chat.text) == (("{{ user.chat }}",), "<{{ user.name }}>")
    assert sums.delivers
    assert "without their records: template: " in sums.unsure
    assert "lookupfield" not in repr(found.deliveries)


def test_the_text_of_an_event_that_looks_like_a_mark_stays(simulate, tmp_path):
    (tmp_path / "users.json").write_text("{}")
    sinks = {"chat": {**KNOWING["chat"], "text": "{{ payload.message }} {{ user.name }}"}}
    payload = {**GOOD, "message": "qzlookupfieldz999z"}
    (chat,) = simulate([route("a", "chat")], payload, sinks=sinks, lookups=LOOKUPS).deliveries
    assert chat.text == "qzlookupfieldz999z {{ user.name }}"


def test_records_that_are_given_are_used_by_name_and_key(simulate, tmp_path):
    (tmp_path / "users.json").write_text("{}")
    given = from_mapping({"user": {"42": JANE}, "company": {"c-7": {"name": "ACME"}}})
    found = simulate([route("a", *KNOWING)], sinks=KNOWING, lookups=LOOKUPS, given=given)
    mail, chat, sums = found.deliveries
    assert mail.to == ("jane@example.org",)
    assert mail.rendered["subject"] == "For Jane of ACME"
    assert (chat.to, chat.text, sums.rendered["template"]) == (("42",), "<Jane>", "42 Jane")
    assert not any(each.unsure for each in found.deliveries)


@pytest.mark.parametrize(
    ("records", "end"),
    [
        ({}, (None, Reason.LOOKUP, "lookup")),
        ({"user": {"42": JANE}}, (Reason.LOOKUP, None, "lookup")),
        ({"user": {"42": {**JANE, "wants": "no"}}}, (Reason.ONLY_IF, None, "only_if")),
        ({"user": {"42": {"company": 7}}, "company": {"c-7": {"name": "ACME"}}}, (Reason.NO_ADDRESS, None, "address")),
        ({"user": {"42": {**JANE, "wants": "perhaps"}}}, (None, Reason.TEMPLATE, "only_if")),
    ],
)
def test_a_record_decides_about_a_delivery(simulate, tmp_path, records, end):
    (tmp_path / "users.json").write_text("{}")
    given = from_mapping(records)
    (mail,) = simulate([route("a", "mail")], sinks=KNOWING, lookups=LOOKUPS, given=given).deliveries
    assert (mail.suppressed, mail.dead, mail.refused.decided_by) == end
