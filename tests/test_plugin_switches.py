"""Plugins that are not loaded: switched off in the configuration, or written for a newer plugin API."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from router.errors import ConfigError
from router.ops.loading import load
from router.plugin_loading.plugin_manager import load_plugins
from tests.engine.test_worker import PROCESS_PLUGIN
from tests.support.engine import bench, make_event

PLUGIN = """
{before}
from pathlib import Path
from router.api import hookimpl

Path({trace!r}).write_text("imported")

async def pager(event, options): ...

async def find(key, options): ...

@hookimpl
def register_sinks(register):
    register("beeper", pager)

@hookimpl
def register_lookups(register):
    register("directory", find)
"""
CONFIG = """
version: 1
sources: {web: {type: pubsub, channels: [n]}}
sinks: {out: {type: TYPE}}
routes: [{id: all, sinks: [out]}]
plugins: {disable: DISABLE}
"""


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "trace"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "plugins"
    made.mkdir(mode=0o755)
    return made


def drop_in(folder: Path, trace: Path, before: str = "", name: str = "pager.py") -> None:
    file = folder / name
    file.write_text(PLUGIN.format(trace=str(trace), before=before))
    file.chmod(0o644)


def loaded(tmp_path: Path, kind: str, disable: str):
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG.replace("TYPE", kind).replace("DISABLE", disable))
    return load(file, environ={})


def faults(tmp_path: Path, kind: str, disable: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        loaded(tmp_path, kind, disable)
    return [problem.message for problem in raised.value.problems]


def test_a_plugin_that_is_switched_off_is_listed_and_not_imported(tmp_path, folder, trace):
    drop_in(folder, trace)
    found = loaded(tmp_path, "log, target: stdout", "[pager, chat]")
    assert not trace.exists()
    assert [plugin.name for plugin in found.plugins.loaded if plugin.disabled] == ["chat", "pager"]
    assert found.plugins.failures == []
    assert not {"chat", "beeper"} & found.plugins.sinks.keys()
    assert "directory" not in found.plugins.lookups


def test_a_package_is_switched_off_by_its_name(tmp_path, trace, monkeypatch):
    info = tmp_path / "beepers-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: beepers\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[event_router]\nbeepers = beepers_of_a_test\n")
    (tmp_path / "beepers_of_a_test.py").write_text(PLUGIN.format(trace=str(trace), before=""))
    monkeypatch.syspath_prepend(tmp_path)
    plugins = load_plugins(disable=lambda plugin: plugin.name == "beepers")
    assert plugins.disabled == ["beepers"]
    assert not trace.exists()
    assert "beepers_of_a_test" not in sys.modules


def test_a_folder_that_others_may_write_is_no_failure_once_it_is_switched_off(tmp_path, folder, trace):
    drop_in(folder, trace)
    (folder / "pager.py").chmod(0o666)
    assert loaded(tmp_path, "log, target: stdout", "[pager]").plugins.failures == []


def test_a_type_of_a_plugin_that_is_switched_off_names_the_cure(tmp_path):
    (message,) = faults(tmp_path, "chat", "[chat]")
    assert message.endswith("; the plugin chat is switched off: remove it from `plugins.disable` to use it")


def test_a_type_with_another_name_than_its_plugin_names_what_is_switched_off(tmp_path, folder, trace):
    drop_in(folder, trace)
    (message,) = faults(tmp_path, "beeper", "[chat, pager]")
    assert (
        "`plugins.disable` switches off chat, pager: if the type belongs to one of these plugins, remove the plugin from the list"
        in message
    )


def test_a_name_that_no_plugin_has_is_a_warning(tmp_path):
    (problem,) = loaded(tmp_path, "log, target: stdout", "[chta]").problems
    assert problem.severity == "warning"
    assert problem.path == "plugins.disable[0]"
    assert "chta" in problem.message
    assert "(did you mean `chat`?)" in problem.message


async def test_a_process_loads_no_plugin_but_its_own(tmp_path, folder, trace):
    drop_in(folder, trace)
    (folder / "work.py").write_text(PROCESS_PLUGIN)
    (folder / "work.py").chmod(0o644)
    kind = load_plugins([folder], entry_points=False, disable=lambda plugin: plugin.name == "pager").sinks["work"]
    out = tmp_path / "out"
    options = kind.options.model_validate({"to-file": f"{out}{{{{ '' }}}}"})
    how = {"execution": "process", "origin": kind.origin, "name": "work", "timeout": "20s"}
    async with bench(kind.sink, options=options, **how) as at:
        at.put(make_event(b'"good"'))
        await at.settled()
    assert out.read_text().endswith("good 1\n")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("requires_api = 1", None),
        ("requires_api: int = 1", None),
        (
            "from router.api import NewThing\nrequires_api = 2",
            "ValueError: the plugin requires version 2 of the plugin API",
        ),
        ("requires_api = 1 + 1", "the plugin requires version 2 of the plugin API"),
        ("requires_api = '1'", "such as 1, not '1'"),
        ("requires_api = True", "such as 1, not True"),
        ("requires_api = 0", "such as 1, not 0"),
        ("requires_api = (", "SyntaxError"),
    ],
)
def test_the_api_that_a_plugin_requires(folder, trace, before, said):
    drop_in(folder, trace, before)
    plugins = load_plugins([folder], entry_points=False)
    assert ("beeper" in plugins.sinks) == (said is None)
    assert [plugin.name for plugin in plugins.failures] == ([] if said is None else ["pager"])
    for plugin in plugins.failures:
        assert said in plugin.error


def test_a_plugin_for_a_newer_api_is_refused_with_the_cure(tmp_path, folder, trace):
    drop_in(folder, trace, "requires_api = 2")
    (message,) = faults(tmp_path, "beeper", "[]")
    assert str(folder / "pager.py") in message
    assert "upgrade event-router, or install an older version of the plugin" in message
    assert not trace.exists()


def test_a_package_for_a_newer_api_is_refused_before_it_is_imported(tmp_path, trace, monkeypatch):
    info = tmp_path / "newer-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: newer\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[event_router]\nnewer = newer_of_a_test\n")
    text = PLUGIN.format(trace=str(trace), before="from router.api import NewThing\nrequires_api = 3")
    (tmp_path / "newer_of_a_test.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    (failed,) = load_plugins().failures
    assert (failed.name, failed.origin) == ("newer", "package newer")
    assert "the plugin requires version 3 of the plugin API" in failed.error
