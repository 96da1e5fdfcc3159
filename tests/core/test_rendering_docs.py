"""Every example of docs/templates.md gives what it says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2.filters import FILTERS

from router.core.rendering import TemplateEnvironment, compile_options
from router.core.rendering.sandbox.bounds import MAX_BITS, MAX_MADE, MAX_OUTPUT, MAX_STEPS
from router.core.rendering.sandbox.filters import EACH
from router.options import Addresses, SinkOptions
from tests.support.rendering import NOW, compiled, event, html, subject

PAGE = (Path(__file__).parents[2] / "docs" / "templates.md").read_text()
[PAYLOAD] = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]


def examples(language: str, comment: str) -> list[tuple[str, str]]:
    blocks = "".join(re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL))
    return re.findall(rf"^(.*?) +{comment}$", blocks, re.MULTILINE)


TEXTS = examples("jinja", r"\{# gives: (.*) #\}")
PAGES = examples("html", r"\{# gives: (.*) #\}")
RECIPIENTS = examples("yaml", r"# gives: (.*)")


class To(SinkOptions):
    to: Addresses


def test_there_are_examples() -> None:
    assert (len(TEXTS), len(PAGES), len(RECIPIENTS)) == (25, 5, 7)


@pytest.mark.parametrize(("template", "gives"), TEXTS)
def test_texts(template: str, gives: str) -> None:
    assert subject(template, PAYLOAD) == gives


@pytest.mark.parametrize(("template", "gives"), PAGES)
def test_html(template: str, gives: str) -> None:
    assert html(template, PAYLOAD) == gives


@pytest.mark.parametrize(("line", "gives"), RECIPIENTS)
def test_addresses(line: str, gives: str) -> None:
    rendered: Any = compile_options(To.model_validate(yaml.safe_load(line)), TemplateEnvironment()).render(
        event(PAYLOAD), NOW
    )
    assert (", ".join(rendered.addresses) or "nobody") == gives


def test_every_filter_of_our_own_and_every_bound_is_documented() -> None:
    ours = {name for name in TemplateEnvironment().plain.filters if name != EACH and not name.startswith("_")}
    for name in ours - set(FILTERS):
        assert f"`{name}" in PAGE
    left_out = PAGE[PAGE.index("work, except") :].split("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", left_out)) - {"markup", "json"} == set(FILTERS) - ours
    assert f"{MAX_OUTPUT // 1024**2} Mi characters" in PAGE
    assert f"{MAX_MADE // 1024**2} Mi |" in PAGE
    assert f"{MAX_STEPS:,} rounds" in PAGE
    assert f"{MAX_BITS:,} bits" in PAGE


def test_the_names_of_the_event_are_those_documented() -> None:
    [row] = re.findall(r"^\| `event` \| (.*) \|$", PAGE, re.MULTILINE)
    for name in re.findall(r"`(\w+)`", row):
        assert compiled(subject=f"{{{{ event.{name} }}}}").render(event(PAYLOAD), NOW).suppressed is None
