"""Plugins: found, guarded, named when they fail."""

import ast
import importlib.util
import os
import py_compile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from router.plugin_loading import plugin_manager
from router.plugin_loading.plugin_manager import builtins_folder, load_plugins

GOOD = """
from router.api import SinkOptions, hookimpl

class PagerOptions(SinkOptions):
    number: str

class Pager:
    def __init__(self, options): ...

    async def deliver_batch(self, batch): ...

@hookimpl
def register_sinks(register):
    register("pager", Pager, options=PagerOptions, queue="memory", concurrency=2, batch=7)
"""

SINK = "from router.api import hookimpl\n\nasync def sink(event, options): ...\n\n@hookimpl\ndef register_sinks(register):\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "plugins"
    made.mkdir()
    made.chmod(0o755)
    return made


def drop_in(folder, text, name="pager.py"):
    file = folder / name
    file.write_text(text)
    file.chmod(0o644)
    return file


def load(*folders):
    return load_plugins(folders, entry_points=False)


def failure(plugins):
    (failed,) = plugins.failures
    return failed


def test_a_drop_in_registers_its_sink(folder):
    file = drop_in(folder, GOOD)
    plugins = load(folder)
    kind = plugins.sinks["pager"]
    assert (kind.queue, kind.concurrency, kind.batch, kind.origin) == ("memory", 2, 7, str(file))
    assert kind.options.__name__ == "PagerOptions"
    assert plugins.failures == []


def test_builtins_are_there_and_load_like_any_other():
    plugins = load()
    assert {"log", "email", "chat", "redis"} <= set(plugins.sinks)
    assert plugins.failures == []


def test_a_builtin_whose_type_is_not_used_is_listed_and_not_imported(folder):
    drop_in(folder, GOOD.replace('"pager"', '"chat"'))
    plugins = load_plugins([folder], entry_points=False, used={"log", "pager"})
    assert list(plugins.sinks) == ["log"]
    assert "sink type 'chat' is taken: built-in chat registered it" in failure(plugins).error
    everything = load_plugins(entry_points=False)
    assert plugins.origins == everything.origins == {name: kind.origin for name, kind in everything.sinks.items()}


def test_builtins_import_the_api_and_their_own_modules_alone():
    files = list(builtins_folder().rglob("*.py"))
    for file in files:
        nodes = list(ast.walk(ast.parse(file.read_text())))
        froms = [node for node in nodes if isinstance(node, ast.ImportFrom)]
        names = {node.module or "" for node in froms if not node.level}
        names |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        assert {name for name in names if name.split(".")[0] in {"router", "plugins"}} <= {"router.api"}, file
        depth = len(file.relative_to(builtins_folder()).parts) - 1
        assert all(node.level <= depth for node in froms), file
    assert {file.relative_to(builtins_folder()).parts[0] for file in files} == {
        "apprise",
        "chat",
        "command",
        "email",
        "log",
        "redis",
        "webhook",
        "webpush",
    }


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("import nothing_of_that_name\n", "No module named 'nothing_of_that_name' (line 1)"),
        ("x = (\n", "SyntaxError"),
        ("\n\nraise RuntimeError('broken')\n", "RuntimeError: broken (line 3)"),
        ("import sys\nsys.exit(3)\n", "SystemExit"),
        ("class Panic(BaseException): ...\n\nraise Panic('all is lost')\n", "Panic: all is lost (line 3)"),
        (
            "def register_sinks(register):\n    register('a', print)\n",
            "the function `register_sinks` is not marked as a hook",
        ),
        (
            "def helper(): ...\n",
            "no function is marked with `@hookimpl`; the hooks are register_lookups, register_sinks",
        ),
        (SINK + "    register('a')\n", "TypeError: register() missing 1 required positional argument: 'sink' (line 7)"),
        (
            SINK + "    register('a', sink, option=dict)\n",
            "TypeError: register() has no argument 'option'; did you mean 'options'? (line 7)",
        ),
        (
            SINK + "    register('a', sink, colour='red')\n",
            "register() has no argument 'colour'; its arguments are name, sink, options, queue, concurrency, batch, execution",
        ),
        (
            SINK + "    register('a', sink, batch=10)\n",
            "sink type 'a': only classes with the method `deliver_batch` can have `batch`: remove `batch`, or register such a class",
        ),
        (
            SINK + "    register('a', type('A', (), {'deliver': lambda self, event, options: None}), batch=10)\n",
            "only classes with the method `deliver_batch` can have `batch`",
        ),
        (SINK + "    register('a', 42)\n", "neither a function nor a class"),
        (SINK + "    register('a', sink, queue='disk')\n", "'memory' or 'redis'"),
        (SINK + "    register('a', sink, concurrency=0)\n", "above 0"),
        (SINK + "    register('a', sink, concurrency=True)\n", "above 0"),
        (SINK + "    register('a', sink, batch='many')\n", "above 0"),
        (SINK + "    register('a', sink, options=dict)\n", "subclass of SinkOptions"),
        (SINK + "    register('a', sink, execution='rocket')\n", "'process'"),
        (SINK + "    register('a', sink, execution='process')\n", "plain functions"),
        (SINK + "    register('', sink)\n", "the name of a type must have 1 to 64 characters"),
        (SINK + "    register('two words', sink)\n", "the name of a type must have 1 to 64 characters"),
        (SINK + "    register('all', sink)\n", "the name `all` is not allowed"),
        (
            GOOD.replace("number", "timeout").replace('"pager"', '"a"'),
            "the option `timeout` has the same name as a key of the router",
        ),
        (
            GOOD.replace("str", "'Unknown'").replace('"pager"', '"a"'),
            "sink type 'a': an option of class PagerOptions has the type `Unknown`, which is not defined: define or import this type",
        ),
        *(
            (
                GOOD.replace("number", name).replace('"pager"', '"a"'),
                f"sink type 'a': the option `{name}` has the same name as an attribute of SinkOptions: rename the option, or write `{name}_: …",
            )
            for name in ("json", "copy")
        ),
        (SINK + "    register('log', sink)\n", "built-in log"),
        (SINK + "    register('a', sink)\n    register('a', sink)\n", "taken"),
        (SINK + "    register('a', sink)\n    raise OSError('half way')\n", "half way"),
        ("from router.api import hookimpl\n\n@hookimpl\ndef register_snks(register): ...\n", "no hook 'register_snks'"),
        ("from router.api import hookimpl\n\n@hookimpl\ndef register_sinks(registrar): ...\n", "registrar"),
        (
            "from router.api import hookimpl\nclass A: ...\n\n@hookimpl\ndef register_sinks(register): register('a', A)\n",
            "A has neither",
        ),
        (
            SINK.replace("(event, options)", "(event)") + "    register('a', sink)\n",
            "ValueError: sink type 'a': `sink(event)` (plugins/broken.py, line 3) has the wrong parameters: it must take (event, options), and may take `context` as a third parameter",
        ),
        (
            SINK + "    register('a', type('A', (), {'deliver_batch': lambda self, batch, options: None}))\n",
            "`<lambda>(self, batch, options)` (plugins/broken.py, line 7) has the wrong parameters: it must take (self, batch)",
        ),
    ],
)
def test_a_broken_plugin_is_named_and_harms_no_other(folder, text, part):
    drop_in(folder, text, "broken.py")
    drop_in(folder, GOOD)
    plugins = load(folder)
    failed = failure(plugins)
    assert failed.name == "broken"
    assert part in (failed.error or "")
    assert "\n" not in (failed.error or "")
    assert "a" not in plugins.sinks
    assert {"pager", "log"} <= set(plugins.sinks)


def test_two_plugins_of_one_name_say_who_was_first(folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir(mode=0o755)
    first = drop_in(folder, GOOD)
    drop_in(other, GOOD, "second.py")
    assert str(first) in (failure(load(folder, other)).error or "")


def test_a_folder_found_twice_counts_once(folder, tmp_path):
    drop_in(folder, GOOD)
    link = tmp_path / "link"
    link.symlink_to(folder)
    plugins = load(folder, link, builtins_folder())
    assert plugins.failures == []
    assert [plugin.name for plugin in plugins.loaded].count("pager") == 1
    assert [plugin.name for plugin in plugins.loaded].count("log") == 1


@pytest.mark.parametrize("name", ["_private.py", ".hidden.py", "..data.py", "notes.txt"])
def test_some_names_are_skipped(folder, name):
    drop_in(folder, "raise RuntimeError\n", name)
    assert load(folder).failures == []


def test_what_everybody_can_write_is_refused_with_its_cure(folder):
    file = drop_in(folder, GOOD)
    file.chmod(0o646)
    error = failure(load(folder)).error or ""
    assert f"chmod o-w {file}" in error
    file.chmod(0o644)
    folder.chmod(0o757)
    assert f"chmod o-w {folder}" in (failure(load(folder)).error or "")
    folder.chmod(0o755)
    assert "pager" in load(folder).sinks


def test_a_link_is_judged_by_its_target(folder, tmp_path):
    elsewhere = drop_in(tmp_path, GOOD, "target.py")
    (folder / "pager.py").symlink_to(elsewhere)
    assert "pager" in load(folder).sinks
    elsewhere.chmod(0o666)
    assert "chmod" in (failure(load(folder)).error or "")


def test_a_link_into_a_folder_that_others_can_write_is_refused(folder, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    (folder / "pager.py").symlink_to(drop_in(shared, GOOD))
    assert f"chmod o-w {shared}" in (failure(load(folder)).error or "")
    shared.chmod(0o1777)  # as /tmp: nobody can replace the file of another
    assert "pager" in load(folder).sinks


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("import time\n\ntime.sleep(600)\n", 3),
        ("while True:\n    try:\n        pass\n    except Exception:\n        pass\n", None),
        (SINK + "    import threading\n    threading.Event().wait()\n", 8),
    ],
)
def test_a_plugin_that_blocks_while_it_loads_is_interrupted_and_named(folder, monkeypatch, text, line):
    monkeypatch.setattr(plugin_manager, "PATIENCE", 1.5)  # the built-ins load under it too
    drop_in(folder, text, "slow.py")
    drop_in(folder, GOOD)
    plugins = load(folder)
    failed = failure(plugins)
    assert failed.name == "slow"
    assert "TooSlowError: the plugin takes longer than 1.5 s to load" in (failed.error or "")
    assert line is None or f"(line {line})" in (failed.error or "")
    assert "pager" in plugins.sinks


def test_a_plugin_loads_in_another_thread_too(folder):
    drop_in(folder, GOOD)
    with ThreadPoolExecutor(1) as pool:
        assert "pager" in pool.submit(load, folder).result().sinks


def test_an_interrupt_from_the_keyboard_is_no_fault_of_a_plugin(folder):
    drop_in(folder, "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load(folder)


def test_a_compiled_file_beside_a_drop_in_is_neither_read_nor_written(folder):
    file = drop_in(folder, GOOD)
    other = drop_in(folder.parent, GOOD.replace("pager", "rogue"), "other.py")
    planted = Path(importlib.util.cache_from_source(str(file)))
    planted.parent.mkdir()
    code = Path(py_compile.compile(str(other), doraise=True)).read_bytes()
    stamp = int(file.stat().st_mtime).to_bytes(4, "little") + (file.stat().st_size).to_bytes(4, "little")
    planted.write_bytes(code[:8] + stamp + code[16:])
    assert "pager" in load(folder).sinks
    assert "rogue" not in load(folder).sinks
    planted.unlink()
    assert "pager" in load(folder).sinks
    assert not planted.exists()


def test_a_fifo_is_no_plugin(folder):
    os.mkfifo(folder / "pipe.py")
    assert failure(load(folder)).error == "is not a regular file"


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
def test_a_file_of_somebody_else_is_refused(folder):
    file = drop_in(folder, GOOD)
    os.chown(file, 65534, 65534)
    assert "chown" in (failure(load(folder)).error or "")


def test_what_a_plugin_prints_does_not_get_into_our_data(folder, capsys):
    drop_in(folder, "print('hello')\n" + GOOD)
    assert "pager" in load(folder).sinks
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "hello\n")


def test_only_a_changed_drop_in_is_imported_again(folder):
    """Each import makes classes that stay in memory, and an unchanged plugin keeps the values of its modules."""
    first, same, changed, back = (
        (drop_in(folder, text), load(folder).sinks["pager"].options)[1] for text in (GOOD, GOOD, f"{GOOD}\n#", GOOD)
    )
    assert first is same
    assert len({first, changed, back}) == 3


def test_a_drop_in_that_comes_back_is_imported_again(folder):
    file = drop_in(folder, GOOD)
    before = load(folder).sinks["pager"].options
    file.unlink()
    assert "pager" not in load(folder).sinks
    drop_in(folder, GOOD)
    assert load(folder).sinks["pager"].options is not before


def test_a_drop_in_that_could_not_register_is_imported_again(folder):
    """What it reads when it is imported may have been the fault."""
    key = folder / "key.txt"
    key.write_text("")
    reading = "from pathlib import Path\nKEY = Path(__file__).with_name('key.txt').read_text()\n"
    drop_in(
        folder, reading + GOOD.replace("def register_sinks(register):", "def register_sinks(register):\n    assert KEY")
    )
    assert "AssertionError" in (failure(load(folder)).error or "")
    key.write_text("secret")
    assert "pager" in load(folder).sinks


def test_an_entry_point_is_loaded_like_a_file(tmp_path, monkeypatch):
    package = tmp_path / "site"
    info = package / "pager_sink-1.2.dist-info"
    info.mkdir(parents=True)
    (package / "pager_sink.py").write_text(GOOD)
    (package / "broken_sink.py").write_text("raise OSError('no')\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pager-sink\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[event_router]\npager = pager_sink\nbroken = broken_sink\n")
    monkeypatch.syspath_prepend(package)
    plugins = load_plugins()
    assert "pager" in plugins.sinks
    loaded = next(plugin for plugin in plugins.loaded if plugin.name == "pager")
    assert (loaded.origin, loaded.version) == ("package pager-sink", "1.2")
    assert "OSError: no" in (failure(plugins).error or "")


def test_a_built_in_is_imported_once_as_the_package_is():
    """After an upgrade under a running router, a reload must not load new built-ins beside the old package."""
    first, second = load_plugins(entry_points=False), load_plugins(entry_points=False)
    assert first.sinks
    assert {name: kind.sink for name, kind in first.sinks.items()} == {n: kind.sink for n, kind in second.sinks.items()}
