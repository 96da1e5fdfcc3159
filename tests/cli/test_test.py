"""`event-router test`."""

import json
from xml.etree import ElementTree as ET

import pytest

from tests.support.process import run
from tests.support.terminal import Terminal

TESTS = """\
tests:
  - name: everybody is logged
    event: {channel: notification, payload: {user_id: 1, message: hi}}
    expect: {sinks: [audit], routes: [everything]}
  - name: no message
    event: {channel: notification, payload: {user_id: 1}}
    expect: {rejected: schema}
"""
MISSES = (
    TESTS
    + """\
  - name: nobody
    event: {channel: command, payload: ls}
    expect: {sinks: []}
"""
)


@pytest.fixture
def tested(folder):
    with (folder / "config.yaml").open("a") as file:
        file.write(TESTS)
    return folder


@pytest.fixture
def missing(folder):
    with (folder / "config.yaml").open("a") as file:
        file.write(MISSES)
    return folder


def test_all_hold(tested):
    done = run("test", "config.yaml", cwd=tested)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "config.yaml",
        "  ✓ everybody is logged",
        "  ✓ no message",
        "2 tests: 2 passed",
    ]


def test_the_configuration_is_found_as_by_every_command(tested):
    assert run("test", cwd=tested).code == 0
    assert run("test", "-c", "config.yaml", cwd=tested).code == 0
    assert run("test", cwd=tested, env={"EVENT_ROUTER_CONFIG": str(tested / "config.yaml")}).code == 0


def test_a_miss_is_shown_with_what_was_wanted_and_what_came(missing):
    done = run("test", "config.yaml", cwd=missing)
    assert done.code == 1
    line = (missing / "config.yaml").read_text().splitlines().index("  - name: nobody") + 1
    assert done.out.splitlines()[3:] == [
        f"  ✗ nobody (config.yaml:{line})",
        "      sinks",
        "        wanted: nothing",
        "        got:    audit",
        "        audit gets the event from the route everything",
        "3 tests: 2 passed, 1 missed",
    ]


def test_json(missing):
    done = run("test", "config.yaml", "--json", "--coverage", "--mutate", cwd=missing)
    assert done.code == 1
    [document] = json.loads(done.out)
    assert [test["ok"] for test in document["tests"]] == [True, True, False]
    assert document["tests"][2]["misses"] == [
        {
            "step": None,
            "key": "sinks",
            "wanted": [],
            "got": ["audit"],
            "why": ["audit gets the event from the route everything"],
        }
    ]
    assert (document["config"], document["passed"], document["missed"]) == ("config.yaml", 2, 1)
    assert document["coverage"] == {
        "routes": 1,
        "routes_reached": 1,
        "sinks": 1,
        "sinks_reached": 1,
        "percent": 100.0,
        "missed": [],
    }
    assert document["mutants"] is None
    assert "no mutant was tried" in done.err


def test_there_are_no_tests(folder):
    done = run("test", "config.yaml", cwd=folder)
    assert done.code == 1
    assert done.out == ""
    assert "config.yaml has no tests: write tests below `tests:`" in done.err
    assert json.loads(run("test", "config.yaml", "--json", cwd=folder).out)[0]["tests"] == []


def test_faults_of_tests_and_configuration_are_errors_of_the_configuration(missing):
    text = (missing / "config.yaml").read_text().replace("sinks: []", "sinks: [adit]")
    (missing / "config.yaml").write_text(text)
    done = run("test", "config.yaml", cwd=missing)
    assert done.code == 78
    assert 'unknown sink "adit", allowed: audit (did you mean `audit`?)' in done.err
    assert run("check", "config.yaml", cwd=missing).code == 78
    assert run("publish", "--help", cwd=missing).code == 0
    assert run("test", "none.yaml", cwd=missing).code == 78
    assert run("test", "--jnit", "x", cwd=missing).code == 2


def test_files_of_tests_are_run_with_the_configuration_they_name(tested):
    (tested / "more").mkdir()
    more = tested / "more" / "shell_test.yaml"
    more.write_text(
        "config: ../config.yaml\n"
        "tests:\n"
        "  - {name: shell, event: {channel: command, payload: ls}, expect: {sinks: [audit]}}\n"
    )
    alone = run("test", "more/shell_test.yaml", cwd=tested)
    assert (alone.code, alone.err) == (0, "")
    assert alone.out.splitlines() == ["more/../config.yaml", "  ✓ shell", "1 test: 1 passed"]
    both = run("test", "config.yaml", "more/shell_test.yaml", "config.yaml", cwd=tested)
    assert both.out.splitlines()[-2:] == ["  ✓ shell", "3 tests: 3 passed"]
    assert run("check", "more/shell_test.yaml", cwd=tested).code == 0
    more.write_text(more.read_text().replace("[audit]", "[audi]").replace("config:", "confg:"))
    for command in ("test", "check"):
        done = run(command, "more/shell_test.yaml", cwd=tested)
        assert done.code == 78
        assert "more/shell_test.yaml:1:1: confg: unknown key" in done.err + done.out


def test_it_needs_no_secrets_and_shows_none(folder):
    (folder / "config.yaml").write_text(
        "version: 1\n"
        "sources: {web-app: {type: pubsub, channels: [a]}}\n"
        "sinks: {page: {type: chat, service: slack, url: '${HOOK}', text: '{{ payload.x }} ${WORD:-none}'}}\n"
        "routes: [{id: all, match: {x: '${file:word}'}, sinks: [page]}]\n"
        "tests:\n"
        "  - {name: one, event: {channel: a, payload: {x: 1}}, expect: {sinks: [page]}}\n"
    )
    (folder / "word").write_text("hidden-in-a-file\n")
    (folder / "word").chmod(0o600)
    done = run("test", "config.yaml", "--json", "--junit", "junit.xml", cwd=folder)
    assert done.code == 1
    assert '"got":[]' in done.out
    assert "hidden-in-a-file" not in done.out + done.err + (folder / "junit.xml").read_text()
    assert "***" in done.out


def test_junit_holds_hostile_names(tested):
    with (tested / "config.yaml").open("a") as file:
        file.write(
            '  - {name: "<b> & \\"q\\" \\u001b]]>", event: {channel: command, payload: "<x>&\\u0007"}, expect: {sinks: []}}\n'
        )
    done = run("test", "config.yaml", "--junit", "out/junit.xml", cwd=tested)
    assert done.code == 1
    assert "can't write out/junit.xml" in done.err
    kept = (tested / "config.yaml").read_text()
    assert run("test", "config.yaml", "--junit", "config.yaml", cwd=tested).code == 2
    assert (tested / "config.yaml").read_text() == kept
    done = run("test", "config.yaml", "--junit", "junit.xml", cwd=tested)
    assert "\x1b" not in done.out
    root = ET.parse(tested / "junit.xml").getroot()
    assert (root.tag, root.get("tests"), root.get("failures")) == ("testsuites", "3", "1")
    [suite] = root
    assert (suite.get("name"), suite.get("errors"), suite.get("skipped")) == ("config.yaml", "0", "0")
    assert float(suite.get("time")) >= 0
    assert [case.get("name") for case in suite] == ["everybody is logged", "no message", '<b> & "q" \\u001b]]>']
    assert [case.get("file") for case in suite] == ["config.yaml"] * 3
    [failure] = suite[2]
    assert failure.get("message") == "missed: sinks"
    assert failure.text.splitlines() == [
        "sinks",
        "  wanted: nothing",
        "  got:    audit",
        "  audit gets the event from the route everything",
    ]


NOT_TAKEN = (
    "no test has an event that this route takes: add such a test (`explain` shows why the route does not take an event)"
)


def test_coverage_and_mutants(tested):
    text = (tested / "config.yaml").read_text()
    text = text.replace("tests:\n", "  - {id: more, channels: [command], match: {a: 1}, sinks: [audit]}\ntests:\n", 1)
    (tested / "config.yaml").write_text(text)
    line = text.splitlines().index("  - {id: more, channels: [command], match: {a: 1}, sinks: [audit]}") + 1
    assert run("test", "config.yaml", "--coverage", cwd=tested).code == 0
    done = run("test", "config.yaml", "--coverage", "--mutate", cwd=tested)
    assert (done.code, done.err) == (1, "")
    assert [each.rstrip() for each in done.out.splitlines()[4:]] == [
        "coverage: 50 %: 1 of 2 routes, 1 of 2 sinks of routes; not reached:",
        "route  sink",
        "more   -",
        "more   audit",
        "3 mutants: 1 noticed, 2 survived. All tests pass with each of these changes:",
        f"  ✗ config.yaml:{line}:45: route more: `match` negated: a == 1",
        f"    {NOT_TAKEN}",
        f"  ✗ config.yaml:{line}:5: route more removed",
    ]
    [document] = json.loads(run("test", "config.yaml", "--mutate", "--json", cwd=tested).out)
    assert document["mutants"]["tried"] == 3
    assert document["mutants"]["survived"][1] == {
        "place": f"config.yaml:{line}:5", "change": "route more removed", "hint": NOT_TAKEN,
    }  # fmt: skip


@pytest.mark.parametrize("env", [{}, {"NO_COLOR": "1"}], ids=["colours", "NO_COLOR"])
def test_colours_and_a_bar_on_a_terminal(tested, env):
    terminal = Terminal("test", "config.yaml", "--mutate", cwd=tested, env=env)
    assert terminal.end() == 0
    shown = terminal.shown.decode()
    assert ("\x1b[32m" in shown) == (not env)
    assert "2 tests: 2 passed" in shown
    assert "1/1" in shown


def test_other_commands_pass_them_over(tested):
    (tested / "config.yaml").write_text((tested / "config.yaml").read_text().replace("rejected: schema", "rejcted: 5"))
    assert run("graph", "-c", "config.yaml", cwd=tested).code == 0
    assert run("check", "config.yaml", cwd=tested).code == 78


@pytest.mark.parametrize(
    ("channel", "payload"),
    [
        ("notification", '{"user_id": 42, "message": "${hi} $ 12345678901234567890"}'),
        ("notification", '{"user_id": "nobody"}'),
        ("orders.new", "[1, null]"),
        ("command", "restart\n{{ now }}"),
    ],
)
def test_what_explain_writes_holds(folder, channel, payload):
    text = (folder / "config.yaml").read_text()
    mail = (
        "  mail: {type: email, host: h, from: a@b.org, to: [c@d.org], subject: s, text: 'to {{ payload.user_id }}'}\n"
    )
    text = text.replace("routes:\n", f"{mail}routes:\n  - {{id: one, channels: [notification], sinks: [mail]}}\n")
    (folder / "config.yaml").write_text(text)
    written = run("explain", "-c", "config.yaml", "--channel", channel, "--as-test", payload, cwd=folder)
    (folder / "config.yaml").write_text(f"{text}tests:\n{written.out}")
    done = run("test", "config.yaml", cwd=folder)
    assert (done.code, done.err) == (0, ""), written.out + done.out
    assert "1 test: 1 passed" in done.out
