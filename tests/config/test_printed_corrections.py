"""Each line that is printed as the correction of a slip is YAML where it stands."""

import re
from pathlib import Path

import pytest
import yaml

from router.ops.loading.reading.nodes import SourceFile
from router.ops.loading.reading.problems import Problems
from router.ops.loading.reading.yaml_nodes import parse

BAD = Path(__file__).parent / "bad"
TEXT = """\
version: 1
sources:
  web-app: {type: pubsub, channels: [notification, "orders.*"]}
sinks:
  audit: {type: log, path: audit.jsonl}
  user-chat:
    type: chat
    url: "https://hooks.example.org"
    to: ["{{ payload.user_id }}", 'x']
    text: 'Order: {{ payload.message }}'
  mail: {type: email,
    host: h, to: "{{ payload.mail }}"}
routes:
  - {id: notify, match: {severity: [high], order.total: {gt: 100}}, sinks: [user-chat, {sink: audit, template: "x y"}]}
  - id: all
    sinks: [audit]
"""


def problems_of(text):
    problems = Problems()
    parse(text, SourceFile("c.yaml", Path("/c.yaml")), problems)
    return problems.all()


def corrections(text):
    """The printed lines by their numbers from 0, with the indentation that the line has where it is printed without."""
    lines = text.splitlines()
    found = {}
    for problem in problems_of(text):
        if problem.excerpt and problem.excerpt.startswith("write: ") and len(problem.excerpt) < 300:
            printed, number = problem.excerpt.removeprefix("write: "), problem.line - 1
            if printed[0] != " " and "indentation" not in problem.message:
                printed = re.match(r"\s*", lines[number])[0].replace("\t", "  ") + printed
            found[number] = printed
    return found


def judge(text):
    """Fail where a printed line can't be parsed: an error may only be found further down, with nothing open up to there."""
    printed = corrections(text)
    lines = [printed.get(number, line) for number, line in enumerate(text.splitlines())]
    try:
        yaml.compose("\n".join(lines), Loader=yaml.CSafeLoader)
    except yaml.reader.ReaderError:
        assert not printed
    except yaml.MarkedYAMLError as error:
        opened = error.context_mark.line if "flow" in str(error.context) or "quoted" in str(error.context) else 1e9
        span = range(int(min(opened, error.problem_mark.line)), error.problem_mark.line + 1)
        broken = [printed[number] for number in span if number in printed]
        assert not broken, f"{broken} in\n{text}"
    return printed


@pytest.mark.parametrize("file", sorted(BAD.glob("*.yaml")), ids=lambda file: file.stem)
def test_of_every_faulty_file(file):
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return
    judge(text)


def test_of_every_sign_that_is_left_out_or_doubled():
    printed = 0
    for at, sign in enumerate(TEXT):
        if sign in ",:\"'{}[]-":
            printed += len(judge(TEXT[:at] + TEXT[at + 1 :])) + len(judge(TEXT[:at] + sign + TEXT[at:]))
    assert printed > 50


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("a: {type: pubsub channels: [x]}", "a: {type: pubsub, channels: [x]}"),
        ("a: {type: pubsub, channels: [x] url: y}", "a: {type: pubsub, channels: [x], url: y}"),
        ("a: {type: 'pubsub' channels: [x] url: y}", "a: {type: 'pubsub', channels: [x], url: y}"),
        ("a: {b: {x: y} c: d}", "a: {b: {x: y}, c: d}"),
        ("a:\n  {type: pubsub  # the kind\n  channels: [x]}", "{type: pubsub,  # the kind"),
        ("a:\n  {type: [pubsub]\n  channels: [x]}", "{type: [pubsub],"),
        ("a: {text: Order: 5, b: 1}", 'a: {text: "Order: 5", b: 1}'),
        ("a: {text: Order: 5, b: Order: 6}", 'a: {text: "Order: 5", b: "Order: 6"}'),
    ],
)
def test_a_missing_comma_is_put_in(slip, meant):
    assert {problem.excerpt for problem in problems_of(f"{slip}\n")} == {f"write: {meant}"}
    judge(f"{slip}\n")


def test_a_line_that_no_correction_makes_yaml_is_not_printed():
    excerpts = [
        p.excerpt for p in problems_of('a: {b: c,\n  host: h,, to: "x"}\nroutes:\n  - {id: x}\n') if p.line == 2
    ]
    assert excerpts
    assert set(excerpts) == {None}
