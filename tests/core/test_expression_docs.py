"""Every example of docs/expressions.md gives what it says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from router.core.rendering import TemplateEnvironment
from router.core.rendering.expressions import Expression
from router.core.rendering.sandbox.functions import FUNCTIONS
from tests.support.rendering import NOW, event

PAGE = (Path(__file__).parents[2] / "docs" / "expressions.md").read_text()
[PAYLOAD] = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]
BLOCKS = "".join(re.findall(r"```jinja\n(.*?)```", PAGE, re.DOTALL))
EXAMPLES = re.findall(r"^(.*?) +\{# gives: (.*) #\}$", BLOCKS, re.MULTILINE)


def test_every_line_is_an_example() -> None:
    assert len(EXAMPLES) == len(BLOCKS.splitlines()) > 25


@pytest.mark.parametrize(("source", "gives"), EXAMPLES)
def test_an_example(source: str, gives: str) -> None:
    value = Expression(source, TemplateEnvironment()).value(event(PAYLOAD), NOW)
    assert value == (None if gives == "missing" else json.loads(gives))


def test_every_function_is_documented() -> None:
    assert all(f"`{name}(" in PAGE for name in FUNCTIONS)
