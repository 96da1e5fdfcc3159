"""The plugin guide says what is true: its hooks are all of them, its plugins work."""

import inspect
import re
from pathlib import Path

import pytest

from router import api, hookspecs
from router.plugin_loading.plugin_manager import load_plugins
from tests.support.sinks import FakeContext, make_event

GUIDE = (Path(__file__).parents[1] / "docs" / "plugins.md").read_text()
BLOCKS = re.findall(r"(?:^`plugins/(\S+/\S+)`:\n\n)?^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
PLUGINS = [text for name, text in BLOCKS if "@hookimpl" in text and not name]
MODULES = [(name, text) for name, text in BLOCKS if name]


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


def write_plugin(folder, name, text):
    file = folder / name
    file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o644)


@pytest.mark.parametrize("text", PLUGINS)
def test_the_plugins_of_the_guide_load(tmp_path, text):
    write_plugin(tmp_path / "plugins", "example.py", text)
    plugins = load_plugins([tmp_path / "plugins"], entry_points=False)
    assert plugins.failures == []
    assert {"shout", "archive"} & set(plugins.sinks)


async def test_the_folder_of_the_guide_loads_and_delivers(tmp_path):
    for name, text in MODULES:
        write_plugin(tmp_path / "plugins", name, text)
    plugins = load_plugins([tmp_path / "plugins"], entry_points=False)
    assert plugins.failures == []
    kind, context = plugins.sinks["megaphone"], FakeContext()
    await kind.sink(make_event({}), kind.options.model_validate({"text": "hello"}), context)
    assert [entry["event"] for entry in context.logged] == ["HELLO!"]


def test_everything_a_plugin_may_import_is_exported_and_documented():
    for name in api.__all__:
        assert hasattr(api, name)
        assert f"`{name}" in GUIDE or f" {name}" in GUIDE
