"""Plugins that are folders: found, judged as files are, imported again when they change, named with file and line when they fail."""

import importlib.util
import os
import py_compile
import sys
import threading
from pathlib import Path

import pytest

from router.plugin_loading.drop_ins import KEPT
from tests.support.waiting import PATIENCE, wait_until
from tests.test_plugin_manager import GOOD, drop_in, failure, load

INIT = """
from router.api import hookimpl
from . import sending
from .options import PagerOptions

@hookimpl
def register_sinks(register):
    register("pager", sending.pager, options=PagerOptions)
"""
MODULES = {
    "__init__.py": INIT,
    "options.py": "from router.api import SinkOptions\n\nclass PagerOptions(SinkOptions):\n    number: str\n",
    "sending.py": "from .wire.lines import line\n\ndef pager(event, options):\n    from . import later\n    return line() + later.WORD\n",
    "later.py": "WORD = ' later'\n",
    "wire/__init__.py": "",
    "wire/lines.py": "from ..options import PagerOptions\n\ndef line():\n    return PagerOptions.__name__\n",
}


@pytest.fixture
def plugins(tmp_path):
    made = tmp_path / "plugins"
    made.mkdir(mode=0o755)
    return made


def package(folder, name="pager", changes=None):
    """A plugin of several modules; `changes` has other texts, None for a module that is not to be."""
    for module, text in (MODULES | (changes or {})).items():
        if text is not None:
            file = folder / name / module
            file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            file.write_text(text)
            file.chmod(0o644)
    return folder / name


def call(plugins):
    """What the sink of the package says: a word of each of its modules."""
    return plugins.sinks["pager"].sink(None, None)


def modules_of(folder):
    """The modules of a folder that Python knows, by the rest of their names."""
    found = {name: module for name, module in sys.modules.items() if name.startswith("event_router_plugin_pager")}
    return {name.partition(".")[2]: one for name, one in found.items() if Path(one.__file__).is_relative_to(folder)}


def test_a_folder_is_a_plugin_of_several_modules(plugins):
    folder = package(plugins)
    loaded = load(plugins)
    assert call(loaded) == "PagerOptions later"
    assert loaded.sinks["pager"].origin == str(folder)
    (plugin,) = [plugin for plugin in loaded.loaded if plugin.name == "pager"]
    assert (plugin.origin, plugin.path, plugin.sinks) == (str(plugins), folder, ("pager",))
    assert set(plugin.code) == {folder, folder / "wire", *(folder / module for module in MODULES)}
    assert loaded.failures == []


@pytest.mark.parametrize("name", ["_pager", ".pager", "..pager", "__pycache__"])
def test_some_names_are_skipped(plugins, name):
    package(plugins, name, {"__init__.py": "raise RuntimeError\n"})
    loaded = load(plugins)
    assert (loaded.failures, loaded.incomplete) == ([], [])


@pytest.mark.parametrize("name", ["my-pager", "pager.v2", "pager 2"])
def test_any_other_name_will_do(plugins, name):
    package(plugins, name)
    loaded = load(plugins)
    assert call(loaded) == "PagerOptions later"
    assert loaded.loaded[-1].name == name


def test_a_folder_without_init_is_no_plugin_and_noted(plugins):
    folder = package(plugins)
    (folder / "__init__.py").unlink()
    (plugins / "pictures").mkdir()
    (plugins / "pictures" / "a.png").write_text("")
    loaded = load(plugins)
    assert "pager" not in loaded.sinks
    assert (loaded.failures, loaded.incomplete) == ([], [folder])


def test_a_file_of_the_same_name_is_loaded_and_the_folder_named(plugins):
    folder = package(plugins)
    file = drop_in(plugins, GOOD)
    loaded = load(plugins)
    assert loaded.sinks["pager"].origin == str(file)
    failed = failure(loaded)
    assert failed.path == folder
    assert (
        failed.error
        == "pager.py in the same folder has the same name and is loaded instead: remove or rename one of the two"
    )


# Who may change them.

PARTS = ["", "__init__.py", "options.py", "later.py", "wire", "wire/lines.py"]


@pytest.mark.parametrize("part", PARTS)
def test_what_everybody_can_write_is_refused_with_its_cure(plugins, part):
    path = package(plugins) / part
    mode = path.stat().st_mode & 0o777
    path.chmod(mode | 0o002)
    error = failure(load(plugins)).error or ""
    assert error == f"{part} can be written by every user: run `chmod o-w {path}`".strip()
    path.chmod(mode)
    assert call(load(plugins)) == "PagerOptions later"


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
@pytest.mark.parametrize("part", PARTS)
def test_what_belongs_to_somebody_else_is_refused(plugins, part):
    path = package(plugins) / part
    os.chown(path, 65534, 65534)
    error = failure(load(plugins)).error or ""
    assert error.startswith(f"{part} belongs to ".lstrip())
    assert f"{path}`" in error


def test_a_link_is_judged_by_its_target_and_the_folder_of_that(plugins, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    real = package(shared)
    (plugins / "pager").symlink_to(real)
    assert call(load(plugins)) == "PagerOptions later"
    shared.chmod(0o777)
    assert f"chmod o-w {shared}" in (failure(load(plugins)).error or "")
    shared.chmod(0o755)
    (real / "later.py").rename(tmp_path / "later.py")
    (real / "later.py").symlink_to(tmp_path / "later.py")
    assert call(load(plugins)) == "PagerOptions later"
    (tmp_path / "later.py").chmod(0o666)
    assert f"later.py can be written by every user: run `chmod o-w {tmp_path / 'later.py'}`" in (
        failure(load(plugins)).error or ""
    )


def test_links_that_lead_nowhere_or_back_up(plugins):
    folder = package(plugins)
    (folder / "again").symlink_to(folder)
    (folder / "wire" / "up").symlink_to(plugins)
    assert call(load(plugins)) == "PagerOptions later"
    (folder / "gone.py").symlink_to(folder / "nowhere.py")
    assert (failure(load(plugins)).error or "").startswith("gone.py can't be read")


def test_a_fifo_is_no_module(plugins):
    os.mkfifo(package(plugins) / "pipe.py")
    assert failure(load(plugins)).error == "pipe.py is not a regular file"


@pytest.mark.parametrize("module", ["options.py", "later.py", "wire/__init__.py", "wire/lines.py"])
def test_a_compiled_file_beside_a_module_is_neither_read_nor_written(plugins, module):
    file = package(plugins) / module
    rogue = drop_in(plugins.parent, "raise RuntimeError('planted')\n", "rogue.py")
    planted = Path(importlib.util.cache_from_source(str(file)))
    planted.parent.mkdir(parents=True)
    code = Path(py_compile.compile(str(rogue), doraise=True)).read_bytes()
    info = file.stat()
    planted.write_bytes(
        code[:8] + int(info.st_mtime).to_bytes(4, "little") + info.st_size.to_bytes(4, "little") + code[16:]
    )
    assert call(load(plugins)) == "PagerOptions later"
    planted.unlink()
    assert call(load(plugins)) == "PagerOptions later"
    assert not planted.exists()


@pytest.mark.parametrize("name", ["spare.pyc", "spare/part.py"])
def test_nothing_but_modules_and_packages_can_be_imported(plugins, name):
    folder = package(plugins, changes={"__init__.py": INIT + "\nfrom . import spare\n"})
    (folder / name).parent.mkdir(exist_ok=True)
    source = drop_in(plugins.parent, "part = 1\n", "source.py")
    py_compile.compile(str(source), cfile=str(folder / name), doraise=True)
    assert "cannot import name 'spare'" in (failure(load(plugins)).error or "")


# What went wrong, and where.


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"options.py": "x = (\n"}, "SyntaxError: '(' was never closed (options.py, line 1)"),
        ({"wire/lines.py": "\n\nraise RuntimeError('broken')\n"}, "RuntimeError: broken (wire/lines.py, line 3)"),
        ({"sending.py": "import nothing_of_that_name\n"}, "No module named 'nothing_of_that_name' (sending.py, line 1)"),
        ({"__init__.py": INIT + "\n1 / 0\n"}, "ZeroDivisionError: division by zero (__init__.py, line 10)"),
        ({"__init__.py": INIT.replace("sending.pager", "sending.fax")}, "has no attribute 'fax' (__init__.py, line 8)"),
        ({"__init__.py": INIT.replace(".options", ".option")}, "there is neither option.py nor option/__init__.py in "),
        ({"__init__.py": INIT.replace(".options", ".option")}, "/plugins/pager (__init__.py, line 4)"),
        ({"wire/__init__.py": None}, "there is neither wire.py nor wire/__init__.py in "),
        ({"sending.py": "from options import PagerOptions\n"}, "No module named 'options' (sending.py, line 1); put a plugin with several modules into a folder"),
        ({"sending.py": "import pager.options\n"}, "No module named 'pager' (sending.py, line 1); put a plugin with several modules into a folder"),
        ({"sending.py": "from ...options import PagerOptions\n"}, "beyond top-level package (sending.py, line 1)"),
        ({"__init__.py": "from . import hooks\n", "hooks.py": INIT}, "no function of __init__.py is marked with `@hookimpl`"),
    ],
)  # fmt: skip
def test_a_fault_is_named_with_its_module_and_line(plugins, changes, says):
    package(plugins, changes=changes)
    drop_in(plugins, GOOD.replace("pager", "other"), "other.py")
    loaded = load(plugins)
    failed = failure(loaded)
    assert (failed.name, failed.path) == ("pager", plugins / "pager")
    assert says in (failed.error or "")
    assert {"other", "log"} <= set(loaded.sinks)
    assert set(failed.code) > {plugins / "pager", plugins / "pager" / "__init__.py"}


@pytest.mark.parametrize(
    "line", ["import helper", "from helper import x", "from .helper import x", "from . import helper"]
)
def test_a_file_that_has_its_helper_beside_it_is_told_to_be_a_folder(plugins, line):
    drop_in(plugins, f"{line}\n{GOOD}")
    drop_in(plugins, "x = 1\n", "_helper.py").rename(plugins / "helper.py")
    (error,) = [plugin.error for plugin in load(plugins).failures if plugin.name == "pager"]
    assert (error or "").endswith(
        "(line 1); put a plugin with several modules into a folder with an __init__.py, and import them with `from .name import …`"
    )


# A load imports what has changed.


def test_an_unchanged_folder_keeps_its_modules(plugins):
    folder = package(plugins)
    load(plugins)
    before = modules_of(folder)
    after = load(plugins)
    assert modules_of(folder) == before
    assert call(after) == "PagerOptions later"
    assert modules_of(folder).keys() == {*before, "later"}


def test_changed_modules_are_read_again_and_those_before_go_on(plugins):
    folder = package(plugins)
    before = load(plugins)
    assert call(before) == "PagerOptions later"
    names = set(modules_of(folder))
    package(plugins, changes={"wire/lines.py": "def line():\n    return 'changed'\n", "later.py": "WORD = ' too'\n"})
    after = load(plugins)
    assert call(after) == "changed too"
    assert call(before) == "PagerOptions later"
    assert set(modules_of(folder)) == names
    digests = [next(plugin.digest for plugin in each.loaded if plugin.name == "pager") for each in (before, after)]
    assert len(set(digests)) == 2
    (folder / "later.py").unlink()
    (folder / "sending.py").write_text("def pager(event, options):\n    return 'alone'\n")
    assert call(load(plugins)) == "alone"
    assert call(before) == "PagerOptions later"
    assert call(after) == "changed too"


def test_what_was_loaded_before_stays_when_the_next_load_fails(plugins):
    folder = package(plugins)
    before = load(plugins)
    modules = modules_of(folder)
    package(plugins, changes={"options.py": "raise RuntimeError('broken')\n"})
    assert "broken" in (failure(load(plugins)).error or "")
    assert modules_of(folder) == modules
    assert call(before) == "PagerOptions later"


STUCK = """
import time
from pathlib import Path
began, go_on = (Path(__file__).parents[2] / name for name in ("began", "go-on"))
if not began.exists():
    began.touch()
    while not go_on.exists():
        time.sleep(0.01)
    raise RuntimeError("too late")
"""


def test_an_import_that_fails_after_a_later_one_has_succeeded_changes_nothing(plugins, tmp_path):
    """A reload is given up after 30 s, but its thread goes on."""
    folder = package(plugins, changes={"__init__.py": INIT + STUCK})
    given_up = threading.Thread(target=load, args=[plugins])
    given_up.start()
    wait_until((tmp_path / "began").exists, "the first import")
    loaded = load(plugins)
    modules = modules_of(folder)
    (tmp_path / "go-on").touch()
    given_up.join(PATIENCE)
    assert not given_up.is_alive()
    assert modules_of(folder) == modules
    assert call(loaded) == "PagerOptions later"
    assert call(load(plugins)) == "PagerOptions later"


def test_the_modules_of_long_replaced_code_are_forgotten(plugins):
    for number in range(KEPT + 3):
        file = drop_in(plugins, f"{GOOD}\nNUMBER = {number}\n")
        load(plugins)
        load(plugins)
    loaded = [module for module in sys.modules.values() if getattr(module, "__file__", None) == str(file)]
    assert [module.NUMBER for module in loaded] == list(range(3, KEPT + 3))


def test_folders_of_one_name_do_not_share_modules(plugins, tmp_path):
    others = tmp_path / "others"
    package(plugins)
    package(others, changes={"__init__.py": INIT.replace('"pager"', '"other"'), "later.py": "WORD = ' other'\n"})
    loaded = load(plugins, others)
    assert loaded.failures == []
    assert call(loaded) == "PagerOptions later"
    assert loaded.sinks["other"].sink(None, None) == "PagerOptions other"


def test_a_plugin_may_have_the_name_of_a_builtin_or_of_any_module(plugins):
    for name in ("email", "chat", "json"):
        package(plugins, name, {"__init__.py": INIT.replace('"pager"', f'"my-{name}"')})
    loaded = load(plugins)
    assert loaded.failures == []
    assert {"chat", "email", "my-chat", "my-email", "my-json"} <= set(loaded.sinks)
