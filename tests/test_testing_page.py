"""The page on testing: its example holds, and its outputs are what the command says."""

import re

import pytest

from tests.support.process import ROOT, run

PAGE = (ROOT / "docs" / "testing.md").read_text()
EXAMPLE, *PARTS = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
BASE = """\
version: 1
sources: {web-app: {type: pubsub, channels: [notification]}}
defaults: {email: {host: smtp.example.org, from: shop@example.org, subject: News}}
"""
OPS_MAIL = "sinks: {ops-mail: {type: email, to: [ops@example.org], text: hi}}\n"


def test_the_example_holds_and_notices_every_change(tmp_path):
    (tmp_path / "config.yaml").write_text(EXAMPLE)
    done = run("test", "config.yaml", "--coverage", "--mutate", cwd=tmp_path)
    assert (done.code, done.err) == (0, ""), done.out
    assert "coverage: 100 %" in done.out
    assert run("check", "--strict", "config.yaml", cwd=tmp_path).code == 0


@pytest.mark.parametrize("part", PARTS, ids=range(len(PARTS)))
def test_the_other_examples_hold(part, tmp_path):
    (tmp_path / "config.yaml").write_text(f"{BASE}{part}" if "sinks:\n" in part else f"{BASE}{OPS_MAIL}{part}")
    done = run("test", "config.yaml", "--mutate", cwd=tmp_path)
    assert (done.code, done.err) == (0, ""), done.out


def test_the_survivor_of_the_page_is_that_of_its_example_without_two_tests(tmp_path):
    config, *tests = re.split(r"^(?=  - name:)", EXAMPLE, flags=re.MULTILINE)
    (tmp_path / "config.yaml").write_text("".join([config, *tests[1:-1]]))
    done = run("test", "config.yaml", "--mutate", cwd=tmp_path)
    assert done.code == 1
    shown = re.search(r"^\d+ mutants:.*?(?=^```)", PAGE, re.MULTILINE | re.DOTALL)
    assert shown is not None
    assert done.out.endswith(shown[0]), done.out
