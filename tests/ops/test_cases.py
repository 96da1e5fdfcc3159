"""Tests of a configuration: what they send, what they compare, what they reach, and which changes they notice."""

import json

import pytest

from router.config.cases import START, moment_of
from router.errors import ConfigError
from router.ops.cases.coverage import coverage
from router.ops.cases.mutants import Mutation
from router.ops.cases.running import CaseRunner
from router.ops.loading import Cases, load, read_case_file

CONFIG = """\
version: 1
sources:
  web-app: {type: pubsub, channels: [notification, "orders.*"]}
  billing: {type: stream, streams: [billing]}
  shell: {type: pubsub, channels: [command], format: text}
sinks:
  audit: {type: log, path: audit.jsonl}
  user-mail:
    {type: email, host: smtp.example.org, from: shop@example.org, to: "{{ payload.mail | default('') }}", subject: News,
     text: "{{ payload.message }} ({{ event.received_at | time('%H:%M') }})", only_if: "not payload.quiet"}
  ops-mail:
    {type: email, host: smtp.example.org, from: shop@example.org, to: [ops@example.org, duty@example.org], subject: News,
     text: "{{ payload.message }}"}
routes:
  - {id: everything, sinks: [audit]}
  - {id: user, channels: [notification], sinks: [user-mail], expires: 15m}
  - {id: urgent, match: {severity: [high, critical]}, when: payload.count > 1, sinks: [ops-mail], final: true}
  - {id: rest, channels: ["orders.*"], sinks: [{sink: ops-mail, text: "order {{ payload.id }}"}]}
tests:
"""


def loaded(folder, tests, *, config=CONFIG):
    """The configuration with tests, each a mapping as JSON."""
    entries = "".join(f"  - {json.dumps({'name': f'test {number}'} | test)}\n" for number, test in enumerate(tests))
    (folder / "config.yaml").write_text(config + entries)
    return load(folder / "config.yaml", environ={}, tests=Cases())


def results(folder, *tests, config=CONFIG):
    found = loaded(folder, tests, config=config)
    return found, list(CaseRunner(found).run(found.cases))


def missed(folder, event, expect):
    """What one test misses: by key what was wanted and what came, and the reasons."""
    _, [result] = results(folder, {"event": event, "expect": expect})
    misses = [miss for step in result.steps for miss in step.misses]
    assert result.holds == (not misses)
    return {miss.key: (miss.wanted, miss.got) for miss in misses}, [line for miss in misses for line in miss.why]


USER = {"channel": "notification", "payload": {"message": "hi", "mail": "a@example.org"}}
URGENT = {"channel": "orders.new", "payload": {"message": "down", "severity": "high", "count": 2}}


@pytest.mark.parametrize(
    ("event", "expect"),
    [
        (USER, {"sinks": ["user-mail", "audit"], "not_sinks": ["ops-mail"], "routes": ["user", "everything"]}),
        (USER, {"to": {"user-mail": "a@example.org"}, "text": {"user-mail": "hi (12:00)"}}),
        (USER | {"at": "2026-05-01T23:30:00+02:00"}, {"text": {"user-mail": "hi (21:30)"}}),
        (USER, {"contains": {"user-mail": ["hi", "12:"]}, "unmatched": False, "rejected": False}),
        (URGENT, {"to": {"ops-mail": ["duty@example.org", "ops@example.org"]}, "text": {"ops-mail": ["down"]}}),
        ({"channel": "notification", "payload": {"message": "hi"}}, {"suppressed": {"user-mail": "no_address"}}),
        (
            {"channel": "notification", "payload": {"message": "hi", "quiet": True}},
            {"suppressed": {"user-mail": "only_if"}, "sinks": ["audit"]},
        ),
        ({"channel": "notification", "payload": {"mail": "a@example.org"}}, {"dead": {"user-mail": "template"}}),
        ({"channel": "notification", "payload": "{broken"}, {"rejected": "decode"}),
        ({"channel": "notification", "payload": ""}, {"rejected": True}),
        ({"channel": "command", "payload": "restart"}, {"routes": ["everything"]}),
        ({"channel": "billing", "source": "billing", "payload": [1, None]}, {"sinks": ["audit"]}),
    ],
)
def test_what_holds(tmp_path, event, expect):
    assert missed(tmp_path, event, expect) == ({}, [])


def test_a_payload_is_what_was_written(tmp_path):
    big = 123456789012345678901234567890
    (tmp_path / "raw.json").write_bytes(b'{"n": 1.50}')
    found = loaded(
        tmp_path,
        [
            {"event": {"channel": "billing", "payload": payload}, "expect": {"sinks": ["audit"]}}
            for payload in ({"n": big, "é": [1.5, True, None]}, big, ' {"a": 1}', None)
        ]
        + [{"event": {"channel": "billing", "file": "raw.json"}, "expect": {"sinks": ["audit"]}}],
    )
    assert [step.raw for case in found.cases for step in case.steps] == [
        b'{"n":123456789012345678901234567890,"\xc3\xa9":[1.5,true,null]}',
        b"123456789012345678901234567890",
        b' {"a": 1}',
        b"null",
        b'{"n": 1.50}',
    ]
    assert (tmp_path / "raw.json") in found.files


@pytest.mark.parametrize(
    ("event", "expect", "keys"),
    [
        (USER, {"sinks": ["audit"]}, {"sinks": (["audit"], ["audit", "user-mail"])}),
        (
            USER,
            {"sinks": ["audit", "audit", "user-mail"]},
            {"sinks": (["audit", "audit", "user-mail"], ["audit", "user-mail"])},
        ),
        (USER, {"not_sinks": ["audit", "ops-mail"]}, {"not_sinks": (["audit", "ops-mail"], ["audit"])}),
        (USER, {"routes": ["everything"]}, {"routes": (["everything"], ["everything", "user"])}),
        (USER, {"to": {"user-mail": "b@example.org"}}, {"to user-mail": (["b@example.org"], ["a@example.org"])}),
        (
            URGENT,
            {"to": {"ops-mail": "ops@example.org"}},
            {"to ops-mail": (["ops@example.org"], ["ops@example.org", "duty@example.org"])},
        ),
        (USER, {"text": {"user-mail": "hi"}}, {"text user-mail": ("hi", "hi (12:00)")}),
        (USER, {"contains": {"user-mail": ["hi", "ho"]}}, {"contains user-mail": (["hi", "ho"], "hi (12:00)")}),
        (USER, {"suppressed": {"user-mail": "only_if"}}, {"suppressed user-mail": ("only_if", None)}),
        (USER, {"unmatched": True}, {"unmatched": (True, False)}),
        (USER, {"rejected": "decode"}, {"rejected": ("decode", False)}),
        ({"channel": "notification", "payload": "{"}, {"rejected": "schema"}, {"rejected": ("schema", "decode")}),
    ],
)
def test_what_does_not_hold(tmp_path, event, expect, keys):
    assert missed(tmp_path, event, expect)[0] == keys


@pytest.mark.parametrize(
    ("event", "expect", "keys"),
    [
        ({"channel": "notification", "payload": "{"}, {"sinks": []}, {"rejected": (False, "decode")}),
        (
            {"channel": "notification", "payload": {"mail": "a@example.org"}},
            {"not_sinks": ["ops-mail"]},
            {"dead user-mail": (None, "template")},
        ),
        (
            {"channel": "orders.x", "payload": {"severity": "high", "count": 2}},
            {"sinks": ["audit", "ops-mail"]},
            {"text ops-mail": ("the rendered text", "the JSON line of the event")},
        ),
    ],
    ids=["rejected", "dead letter", "text that fails"],
)
def test_a_failure_that_is_not_expected_is_a_miss(tmp_path, event, expect, keys):
    assert missed(tmp_path, event, expect)[0] == keys


def test_a_miss_says_why_the_sink_does_not_get_it(tmp_path):
    _, why = missed(
        tmp_path, {"channel": "orders.new", "payload": {"severity": "low", "id": 7}}, {"contains": {"user-mail": "x"}}
    )
    assert len(why) == 1
    assert why[0].startswith("route user does not take the event: wanted channel ")
    assert why[0].endswith(" notification, got orders.new")
    _, why = missed(
        tmp_path,
        {"channel": "notification", "payload": {"severity": "low", "mail": ""} | USER["payload"]},
        {"sinks": ["audit", "user-mail", "ops-mail"]},
    )
    assert why[0].partition(", at ")[0] == (
        'route urgent does not take the event: wanted severity is one of "high", "critical", got "low"'
    )
    assert f"{tmp_path}/config.yaml:17:" in why[0]
    assert why[1].startswith("route rest does not take the event: wanted channel ")


def test_steps_share_a_clock(tmp_path):
    late = {
        "at": "+20m",
        "event": USER | {"at": "+5m"},
        "expect": {"dead": {"user-mail": "expired"}, "sinks": ["audit"]},
    }
    early = {"at": "+20m", "event": USER | {"at": "+5m1s"}, "expect": {"text": {"user-mail": "hi (12:05)"}}}
    begun = {"at": "2026-03-01T08:00:00Z", "event": USER, "expect": {"text": {"user-mail": "hi (08:00)"}}}
    then = {"event": USER, "expect": {"text": {"user-mail": "hi (08:00)"}}}
    after = {"at": "+90m", "event": USER, "expect": {"text": {"user-mail": "hi (09:30)"}}}
    _, found = results(tmp_path, {"steps": [late]}, {"steps": [early]}, {"steps": [begun, then, after]})
    assert [[miss for step in each.steps for miss in step.misses] for each in found] == [[], [], []]
    assert moment_of("+1m30s", START) == START + 90


def test_a_router_never_looks_at_them(tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG + "  - {nonsense: '${NOT_SET} ${'}\n")
    assert load(tmp_path / "config.yaml", environ={}).cases == ()
    (tmp_path / "more.yaml").write_text("tests: [nonsense]\n")
    (tmp_path / "config.yaml").write_text(f"include: more.yaml\n{CONFIG}")
    assert load(tmp_path / "config.yaml", environ={}).cases == ()
    with pytest.raises(ConfigError, match=r"more\.yaml:1:9: tests\[0\]: must be a mapping"):
        load(tmp_path / "config.yaml", environ={}, tests=Cases())


def test_those_of_included_files_are_run_too(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "more.yaml").write_text(
        "tests: [{name: b, event: {channel: billing, file: b.json}, expect: {sinks: [audit]}}]\n"
    )
    (tmp_path / "parts" / "b.json").write_text("1")
    found = loaded(
        tmp_path, [{"event": USER, "expect": {"unmatched": False}}], config=f"include: parts/*.yaml\n{CONFIG}"
    )
    assert [(case.name, case.steps[0].raw) for case in found.cases][1:] == [("b", b"1")]


def test_a_file_of_tests_names_its_configuration(tmp_path):
    (tmp_path / "config.yaml").write_text(
        CONFIG + f"  - {json.dumps({'name': 'own', 'event': USER, 'expect': {'unmatched': False}})}\n"
    )
    file = tmp_path / "user_test.yaml"
    file.write_text(
        "config: config.yaml\n"
        f"tests: [{json.dumps({'name': 'of file', 'event': USER, 'expect': {'unmatched': False}})}]\n"
    )
    cases = read_case_file(file)
    assert cases.config == tmp_path / "config.yaml"
    assert [c.name for c in load(cases.config, environ={}, tests=Cases(own=False, files=[cases])).cases] == ["of file"]
    cases = read_case_file(file)
    assert [c.name for c in load(cases.config, environ={}, tests=Cases(files=[cases])).cases] == ["own", "of file"]
    assert read_case_file(tmp_path / "config.yaml") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tests: []\n", "`config` is required: write the path of the configuration that is tested"),
        ("config: config.yaml\n", "`tests` is required: list the tests"),
        ("config: config.yaml\ntests: []\nsinks: {}\n", 'unknown key "sinks", allowed: config, tests'),
        ("config: [a]\ntests: []\n", "config: must be a string, not a list"),
    ],
)
def test_a_faulty_file_of_tests(tmp_path, text, message):
    (tmp_path / "a_test.yaml").write_text(text)
    with pytest.raises(ConfigError) as raised:
        read_case_file(tmp_path / "a_test.yaml")
    [problem] = raised.value.problems
    assert message in problem.headline()
    assert problem.line is not None


def test_a_whole_configuration_may_have_such_a_name(tmp_path):
    (tmp_path / "a_test.yaml").write_text(CONFIG)
    assert read_case_file(tmp_path / "a_test.yaml") is None


def test_coverage_names_what_no_test_reaches(tmp_path):
    found, ran = results(tmp_path, {"event": USER, "expect": {"unmatched": False}})
    covered = coverage(found, ran)
    assert covered.missed_routes == ("urgent", "rest")
    assert covered.missed_sinks == (("urgent", "ops-mail"), ("rest", "ops-mail"))
    assert (len(covered.routes), len(covered.sinks), covered.percent) == (4, 4, 50.0)


def test_a_suppressed_delivery_reaches_the_route_and_not_the_sink(tmp_path):
    event = {"channel": "notification", "payload": {"message": "hi"}}
    found, ran = results(tmp_path, {"event": event, "expect": {"unmatched": False}})
    covered = coverage(found, ran)
    assert "user" not in covered.missed_routes
    assert ("user", "user-mail") in covered.missed_sinks


def test_the_sinks_of_unmatched_and_merged_routes_are_covered(tmp_path):
    config = CONFIG.replace(
        "tests:",
        "  - {id: again, channels: [billing], sinks: [audit]}\n  - {id: off, enabled: false, sinks: [audit]}\ntests:",
    )
    config = config.replace("{id: everything, sinks", "{id: everything, sources: [billing], sinks").replace(
        "routes:", "unmatched: [audit]\nroutes:"
    )
    event = {"channel": "billing", "payload": 1}
    found, ran = results(tmp_path, {"event": event, "expect": {"unmatched": False}}, config=config)
    covered = coverage(found, ran)
    assert covered.missed_routes == ("user", "urgent", "rest")
    assert ("unmatched", "audit") in covered.missed_sinks
    assert ("again", "audit") not in covered.missed_sinks
    assert "off" not in covered.routes
    found, ran = results(
        tmp_path, {"event": {"channel": "command", "payload": "x"}, "expect": {"unmatched": True}}, config=config
    )
    assert ("unmatched", "audit") not in coverage(found, ran).missed_sinks


ALL = [
    {"event": USER, "expect": {"routes": ["everything", "user"], "sinks": ["audit", "user-mail"]}},
    {"event": USER | {"payload": {"quiet": True}}, "expect": {"sinks": ["audit"]}},
    {"event": URGENT, "expect": {"routes": ["everything", "urgent"]}},
    {
        "event": URGENT | {"payload": {"severity": "high", "count": 1, "id": 7}},
        "expect": {"routes": ["everything", "rest"]},
    },
    {
        "event": {"channel": "orders.new", "payload": {"count": 3, "id": 7}},
        "expect": {"routes": ["everything", "rest"]},
    },
]


def survivors(folder, tests, config=CONFIG):
    found, ran = results(folder, *tests, config=config)
    assert all(each.holds for each in ran)
    mutation = Mutation(found, ran)
    ticks = []
    survived = list(mutation.survivors(ticks.append))
    assert ticks == [1] * len(mutation.mutants)
    return len(mutation.mutants), [(each.place.removeprefix(f"{folder}/"), each.change) for each in survived]


def test_every_change_is_noticed_by_some_test(tmp_path):
    assert survivors(tmp_path, ALL) == (8, [])


def test_without_a_test_its_changes_survive(tmp_path):
    _, survived = survivors(tmp_path, [test for number, test in enumerate(ALL) if number != 2])
    assert [change for _, change in survived] == ["route urgent: `final` removed", "route urgent removed"]


def test_what_survives_is_named_with_its_place(tmp_path):
    count, survived = survivors(tmp_path, [{"event": USER, "expect": {"rejected": False}}])
    assert count == 8
    lines = CONFIG.splitlines()

    def at(text):
        line = next(number for number, each in enumerate(lines) if text in each)
        return f"config.yaml:{line + 1}:{lines[line].index(text) + 1}"

    assert survived == [
        (at("{id: everything"), "route everything removed"),
        (at("{id: user,"), "route user removed"),
        (at("severity:"), 'route urgent: `match` negated: severity is one of "high", "critical"'),
        (at("when:"), "route urgent: `when` negated: payload.count > 1"),
        (at("final:"), "route urgent: `final` removed"),
        (at("{id: urgent"), "route urgent removed"),
        (at("{id: rest"), "route rest removed"),
        (at("only_if:"), "sink user-mail: `only_if` negated: not payload.quiet"),
    ]


def test_a_survivor_of_a_route_without_test_events_says_why(tmp_path):
    impossible = "  - {id: never, match: {severity: {gt: 5, lt: 3}}, sinks: [audit]}\n"
    config = CONFIG.replace("tests:", impossible + "tests:")
    found, ran = results(tmp_path, {"event": USER, "expect": {"rejected": False}}, config=config)
    hints = {mutant.change: mutant.hint for mutant in Mutation(found, ran).survivors()}
    assert hints["route everything removed"] == ""
    assert hints["route urgent removed"].startswith("no test has an event that this route takes: add such a test")
    both = "`severity > 5` and `severity < 3` can't both hold: this `match` never holds"
    assert (
        hints["route never removed"]
        == f"no test has an event that this route takes; `check` warns about this route: {both}"
    )
    assert hints["route never: `match` negated: severity > 5"] == hints["route never removed"]


def test_a_survivor_of_a_route_that_no_event_reaches_repeats_the_warning(tmp_path):
    config = CONFIG.replace("id: user, channels: [notification],", "id: user, final: true,")
    found, ran = results(tmp_path, {"event": USER, "expect": {"rejected": False}}, config=config)
    hints = {mutant.change: mutant.hint for mutant in Mutation(found, ran).survivors()}
    warned = "no test has an event that this route takes; `check` warns about this route: no event reaches this route: "
    assert hints["route rest removed"].startswith(warned)


def test_final_is_no_mutant_where_no_later_route_can_get_the_event(tmp_path):
    config = CONFIG.replace("tests:", "  - {id: last, sinks: [audit], final: true}\ntests:").replace(
        "id: urgent, match", "id: urgent, channels: [notification], match"
    )
    changes = survivors(tmp_path, [{"event": USER, "expect": {"rejected": False}}], config)[1]
    assert "route last: `final` removed" not in [change for _, change in changes]
    without = config.replace("  - {id: last, sinks: [audit], final: true}\n", "")
    changes = survivors(tmp_path, [{"event": USER, "expect": {"rejected": False}}], without)[1]
    assert not [change for _, change in changes if "final" in change]


def test_an_override_of_only_if_and_disabled_routes(tmp_path):
    config = CONFIG.replace(
        '{sink: ops-mail, text: "order {{ payload.id }}"}', '{sink: ops-mail, only_if: "payload.id"}'
    )
    config = config.replace("id: urgent,", "id: urgent, enabled: false,").replace(
        "id: user,", "id: user, enabled: false,"
    )
    count, survived = survivors(tmp_path, [{"event": USER, "expect": {"rejected": False}}], config)
    assert (count, [change for _, change in survived]) == (
        4,
        [
            "route everything removed",
            "route rest removed",
            "route rest, sink ops-mail: `only_if` negated: payload.id",
            "sink user-mail: `only_if` negated: not payload.quiet",
        ],
    )


WITH_LOOKUPS = CONFIG.replace(
    "sinks:\n",
    """lookups:
  user: {type: redis-hash, key: "user:{{ payload.user_id }}"}
  firm: {type: file, path: firms.json, key: "{{ user.firm }}", missing: suppress}
sinks:
  news: {type: email, host: h.example.org, from: a@example.org, subject: s, to: "{{ user.email }}", text: "{{ firm.name }}"}
""",
    1,
).replace("sinks: [user-mail]", "sinks: [news]")


def test_records_of_lookups_are_those_of_the_test_alone(tmp_path):
    (tmp_path / "firms.json").write_text('{"7": {"name": "of the file"}}')
    event = {"channel": "notification", "payload": {"user_id": 42}}
    user = {"user:42": {"email": "a@example.org", "firm": 7}}
    found, ran = results(
        tmp_path,
        {
            "event": event,
            "lookups": {"user": user, "firm": {"7": {"name": "Books"}}},
            "expect": {"to": {"news": "a@example.org"}, "text": {"news": "Books"}},
        },
        {"event": event, "lookups": {"user": user}, "expect": {"suppressed": {"news": "lookup"}}},
        {"event": event, "lookups": {"user": {"user:42": None}}, "expect": {"dead": {"news": "lookup"}}},
        {"event": event, "expect": {"sinks": ["audit", "news"]}},
        config=WITH_LOOKUPS,
    )
    assert [each.holds for each in ran] == [True, True, True, False]
    [sinks, dead] = ran[3].steps[0].misses
    assert (sinks.key, sinks.got, dead.key, dead.got) == ("sinks", ["audit"], "dead news", "lookup")
    assert "user:42" in dead.why[0]
    assert all(not mutant.change.startswith("route user") for mutant in Mutation(found, ran[:3]).survivors())


def test_keys_of_a_message_are_compared(tmp_path):
    key = "thread: \"{{ payload.order | default('') }}\", "
    config = CONFIG.replace(
        "{type: email, host: smtp.example.org, from", f"{{type: email, {key}host: smtp.example.org, from"
    )
    event = {"channel": "notification", "payload": {**URGENT["payload"], "mail": "a@example.org", "order": 7}}
    test = {"event": event, "expect": {"thread": {"user-mail": "7", "ops-mail": ["7"], "audit": ""}}}
    wrong = {"event": USER, "expect": {"thread": {"user-mail": "7", "ops-mail": "7"}}}
    _, [held, missed] = results(tmp_path, test, wrong, config=config)
    assert held.holds
    misses = {miss.key: (miss.wanted, miss.got) for step in missed.steps for miss in step.misses}
    assert misses == {"thread user-mail": ("7", ""), "thread ops-mail": ("7", [])}
