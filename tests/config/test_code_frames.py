"""The faulty line and the caret below it, which a problem shows; no secret of that line is seen."""

import re

import pytest

from router.errors import ConfigError
from router.ops.loading import load

SOUND = """\
version: 1
sources:
  web-app: {type: pubsub, channels: [notification]}
sinks:
  audit: {type: log, path: audit.jsonl}
routes:
  - {id: notify, sinks: [audit]}
"""


def problems(tmp_path, text, environ=None):
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load(file, environ=environ or {})
    return raised.value.problems


def test_the_caret_stands_below_the_place(tmp_path):
    (problem,) = problems(tmp_path, SOUND.replace("path:", "pth:"))
    assert (problem.line, problem.column) == (5, 22)
    assert problem.excerpt == "  audit: {type: log, pth: audit.jsonl}\n" + " " * 21 + "^"
    assert str(problem).splitlines()[1:] == [
        "  5 |   audit: {type: log, pth: audit.jsonl}",
        "    | " + " " * 21 + "^",
    ]


def test_of_a_long_line_the_part_around_the_place_is_shown(tmp_path):
    long = ", ".join(f"channel-{number}" for number in range(100))
    (problem,) = problems(tmp_path, SOUND.replace("[notification]", f"[{long}], pattens: x"))
    line, caret = problem.excerpt.split("\n")
    assert len(line) <= 72
    assert line.startswith("…")
    assert line[caret.index("^") :].startswith("pattens: x")


def test_wide_characters_and_tabs_do_not_move_the_caret_away(tmp_path):
    (problem,) = problems(tmp_path, SOUND.replace("{type: log, path", '{type: log, "日本":\t1, path'))
    assert problem.excerpt == '  audit: {type: log, "日本": 1, path: audit.jsonl}\n' + " " * 21 + "^"
    (problem,) = problems(tmp_path, SOUND.replace("{type: log, path: ", '{type: log, path: "日本", pth: '))
    line, caret = problem.excerpt.split("\n")
    assert len(caret) - 1 == line.index("pth") + len("日本")


@pytest.mark.parametrize(
    "sink",
    [
        '{type: chat, service: telegram, token: "hunter2", to: "1", txt: hi}',
        "{type: chat, service: telegram, token: hunter2, to: '1', txt: hi}",
        '{txt: hi, type: chat, service: telegram, to: "1", token: hunter2}',
        '{type: chat, service: telegram, token: "${TOKEN:-hunter2}", to: "1", txt: hi}',
        '{type: chat, service: telegram, token: "first\n    hunter2", to: "1", txt: hi}',
        '{type: chat, service: slack, url: "https://hooks.slack.com/services/hunter2", txt: hi}',
        "{type: email, host: smtp, from: a@b.c, to: [a@b.c], text: x, password: 'a,hunter2', txt: hi}",
        "{type: email, host: smtp, from: a@b.c, to: [a@b.c], text: x, password: [hunter2], txt: hi}",
        '{type: nobody-knows, api_token: "a,hunter2", txt: hi}',
        "{type: nobody-knows, signing_secret: [a, hunter2], txt: hi}",
        "{type: nobody-knows, signing_secret:\n  [a, hunter2], txt: hi}",
        '{type: nobody-knows, headers: {Authorization: "Bearer hunter2"}, txt: hi}',
        '{type: log, path: "redis://:hunter2@cache/0", txt: hi}',
        '{type: log, path: "redis://:a/b hunter2@cache/0", txt: hi}',
    ],
)
def test_no_secret_of_the_line_is_shown(tmp_path, sink):
    text = SOUND.replace("{type: log, path: audit.jsonl}", sink)
    found = problems(tmp_path, text)
    assert any(problem.excerpt for problem in found)
    for problem in found:
        assert "hunter2" not in str(problem)
        line, _, caret = (problem.excerpt or "").partition("\n")
        assert len(caret) <= len(line) + 1


def test_where_secrets_before_it_were_hidden_the_caret_still_stands_below_the_place(tmp_path):
    sink = '{type: nobody-knows, api_token: "a,hunter2", url: "https://u:hunter2@x/", service: log, path: x}'
    text = SOUND.replace("{type: log, path: audit.jsonl}", sink).replace(
        "sinks: [audit]}", "password: hunter2, sinks: [adit]}"
    )
    for problem in problems(tmp_path, text):
        line, caret = problem.excerpt.split("\n")
        assert line[caret.index("^") :].startswith(
            {"sinks.audit.type": "nobody"}.get(problem.path, line[caret.index("^")])
        )
        if problem.path == "routes[0].sinks[0]":
            assert line[caret.index("^") :] == "adit]}"
        assert "hunter2" not in line


def test_the_value_of_a_variable_is_in_no_excerpt(tmp_path):
    text = SOUND.replace("path: audit.jsonl", 'timeout: "${SECRET}", path: audit.jsonl')
    (problem,) = problems(tmp_path, text, {"SECRET": "hunter2hunter2"})
    assert 'timeout: "${SECRET}"' in problem.excerpt
    assert "hunter2" not in str(problem)


def test_of_many_allowed_words_the_near_ones_are_named_and_all_are_in_the_message(tmp_path):
    (problem,) = problems(tmp_path, SOUND.replace("path:", "concurency: 1, path:"))
    brief = problem.headline()
    assert re.search(
        r"\(did you mean `concurrency`\?\); \d+ others are allowed; `check --verbose` lists all of them", brief
    )
    assert "fallback" not in brief
    assert "fallback" in problem.headline(verbose=True)
    assert "fallback" in problem.message


def test_of_few_allowed_words_all_are_named(tmp_path):
    (problem,) = problems(tmp_path, SOUND.replace("[audit]", "[adit]"))
    assert problem.headline() == problem.headline(verbose=True)
    assert 'unknown sink "adit", allowed: audit (did you mean `audit`?)' in problem.headline()


def test_where_no_allowed_word_is_near_their_number_is_told(tmp_path):
    (problem,) = problems(tmp_path, SOUND.replace("path:", "zzzz: 1, path:"))
    assert re.search(r'unknown key "zzzz"; \d+ are allowed; `check --verbose` lists them', problem.headline())
