"""The plugin guide says what is true: its hooks are all of them, its plugins work."""

import inspect
import re
from pathlib import Path

import pytest

from router import api, hookspecs, testing
from router.testing import lookup_conformance, sink_conformance

GUIDE = (Path(__file__).parents[1] / "docs" / "plugins.md").read_text()


def hooks():
    return {name: spec for name, spec in vars(hookspecs.Hooks).items() if not name.startswith("_")}


@pytest.mark.parametrize("name", hooks())
def test_every_hook_stands_in_the_guide_with_its_arguments(name):
    arguments = ", ".join(list(inspect.signature(hooks()[name]).parameters)[1:])
    assert f"### `{name}({arguments})`" in GUIDE


def test_the_signature_of_register_stands_in_the_guide():
    signature = inspect.signature(hookspecs.RegisterSink.__call__, eval_str=False)
    shown = []
    for parameter in list(signature.parameters.values())[1:]:
        if parameter.kind is parameter.KEYWORD_ONLY:
            if "*" not in shown:
                shown.append("*")
            default = f'"{parameter.default}"' if isinstance(parameter.default, str) else parameter.default
            shown.append(f"{parameter.name}={default}")
        else:
            shown.append(parameter.name)
    assert f"`register({', '.join(shown)})`" in GUIDE


def test_everything_a_plugin_may_import_is_exported_and_documented():
    for name in api.__all__:
        assert hasattr(api, name)
        assert is_named(name, GUIDE), name


def test_everything_of_the_test_kit_is_documented():
    section = GUIDE.partition("## Testing your plugin")[2].partition("\n## ")[0]
    for name in testing.__all__:
        assert hasattr(testing, name)
        assert is_named(name, section), name


def test_every_check_is_documented():
    section = GUIDE.partition("### Every rule")[2].partition("\n### ")[0]
    for name in {*sink_conformance.RULES, *lookup_conformance.RULES}:
        assert re.search(rf"^\| .*`{name}`.* \|", section, re.MULTILINE), name


def is_named(name, text):
    """Whether a page names it as code: within backquotes, or in a block. A word of a sentence is not a valid name."""
    code = re.findall(r"^```.*?^```|`[^`\n]+`", text, re.MULTILINE | re.DOTALL)
    return any(re.search(rf"(?<![\w.]){name}\b", piece) for piece in code)


def test_a_word_of_a_sentence_is_no_name():
    assert not is_named("Event", "Each Event is new, an `Eventful` one too.")
    assert is_named("Event", "Each `Event` is new.")
    assert is_named("json_line", "`json_line(event)`")
