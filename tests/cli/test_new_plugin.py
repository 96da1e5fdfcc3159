"""`event-router new-plugin`: what it writes works, keeps the rules, and is never written over another file."""

import os
import re
import shlex
import site
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from router.cli.main import cli
from router.cli.write import new_plugin as new_plugin_module
from router.ops.loading import load
from router.plugin_loading.plugin_manager import load_plugins
from tests.support.process import ROOT, environment
from tests.support.waiting import PATIENCE

EXISTS = "already, and nothing is overwritten"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """The current folder, without the variables of this machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EVENT_ROUTER_CONFIG", raising=False)
    return tmp_path


def new_plugin(*words, code=0):
    done = CliRunner().invoke(cli, ["new-plugin", *words], standalone_mode=False)
    if code == 0:
        assert done.exception is None, done.exception
    else:
        assert done.exception.exit_code == code
    return done


def said(*words):
    """The message of a refusal, which is exit code 2."""
    return new_plugin(*words, code=2).exception.format_message()


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def commands(text):
    """The commands that are printed."""
    return [shlex.split(line) for line in re.findall(r"^  (\S*(?:python|event-router|uv)\S* .*)$", text, re.MULTILINE)]


def succeeds(words, folder, **variables):
    env = {**environment(folder), **variables}
    limit = 4 * PATIENCE
    done = subprocess.run(words, check=False, cwd=folder, env=env, capture_output=True, text=True, timeout=limit)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_drop_in_and_the_commands_that_are_printed_work(here):
    done = new_plugin("pager-duty")
    assert files(here) == {"plugins/pager_duty.py", "test_pager_duty.py"}
    test, options = commands(done.stdout)
    assert "2 passed" in succeeds(test, here)
    assert "addresses (templates)" in succeeds(options, here)


def test_what_the_guide_shows_is_printed(here):
    guide = (ROOT / "docs" / "plugins.md").read_text()
    printed = new_plugin("pager").stdout
    _, options = commands(printed)
    shown = printed.replace(shlex.join(options[:-2]), "event-router").replace(sys.executable, "python")
    assert f"```text\n$ event-router new-plugin pager\n{shown}```" in guide
    assert f"```text\n{succeeds(options, here).replace(str(here), '/srv/shop')}```" in guide


def test_what_is_printed_for_the_configuration_passes_check(here):
    printed = new_plugin("pager").stdout.partition("In the configuration:\n")[2]
    written = {"version": 1, "sources": {"web-app": {"type": "pubsub", "channels": ["a"]}}, **yaml.safe_load(printed)}
    (here / "config.yaml").write_text(yaml.safe_dump(written))
    loaded = load(here / "config.yaml", environ={})
    assert loaded.types["pager"].origin == str(here / "plugins" / "pager.py")
    assert list(loaded.problems) == []


def test_the_options_are_checked_where_they_are_written(here):
    new_plugin("pager")
    model = load_plugins([here / "plugins"]).sinks["pager"].options
    with pytest.raises(ValueError, match="write the whole URL"):
        model.model_validate({"url": "pager.example.org", "to": "42"})


def test_linters_and_type_checkers_find_nothing(here):
    new_plugin("pager")
    new_plugin("fax", "--package")
    ruff = [sys.executable, "-m", "ruff"]
    strict = ["--config", str(ROOT / "pyproject.toml"), "--extend-ignore", "INP001"]
    for more in (["check", "--isolated", "."], ["check", *strict, "."], ["format", "--check", *strict[:2], "."]):
        succeeds([*ruff, *more], here)
    cache = ROOT / ".mypy_cache" / "plugins"
    found = ["plugins/pager.py", "test_pager.py", "event-router-fax/src", "event-router-fax/tests"]
    succeeds([sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(cache), *found], here)


def test_a_package_is_installed_and_passes_its_tests_without_a_network(here):
    """The fresh environment sees the packages of this one, which stands in for an index."""
    new_plugin("fax", "--package")
    project = here / "event-router-fax"
    assert files(project) == {
        "pyproject.toml",
        "README.md",
        "src/event_router_fax/__init__.py",
        "src/event_router_fax/py.typed",
        "tests/test_fax.py",
    }
    venv.create(here / "fresh", symlinks=True)
    python = here / "fresh" / "bin" / "python"
    [packages] = (here / "fresh" / "lib").glob("python*/site-packages")
    here_installed = [path for path in (*site.getsitepackages(), site.getusersitepackages()) if Path(path).is_dir()]
    (packages / "here.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in here_installed))
    pip = [python, "-m", "pip", "install", "--no-index", "--no-build-isolation", "--no-compile", "--quiet"]
    succeeds([*pip, "."], project, PIP_DISABLE_PIP_VERSION_CHECK="1")
    assert "2 passed" in succeeds([python, "-m", "pytest"], project)
    listed = succeeds([python, "-m", "router.cli.main", "plugins", "fax"], here)
    assert listed.startswith("sink fax, from package event-router-fax fax\n")


def test_a_package_needs_this_version_and_names_its_module(here):
    printed = new_plugin("fax", "--package").stdout
    project = tomllib.loads((here / "event-router-fax" / "pyproject.toml").read_text())["project"]
    assert project["entry-points"] == {"event_router": {"fax": "event_router_fax"}}
    assert re.fullmatch(r"event-router>=\d+\.\d+\.\d+\S*", project["dependencies"][0])
    assert [words[1:] for words in commands(printed)][:2] == [
        ["-m", "pip", "install", "-e", "./event-router-fax"],
        ["-m", "pytest", "event-router-fax"],
    ]


def test_where_pip_and_pytest_are_missing_the_commands_install_with_uv(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.setattr(new_plugin_module, "_refuse_taken", lambda *_, **__: None)
    uv = ["uv", "pip", "install", "--python", sys.executable]
    printed = commands(new_plugin("fax", "--package").stdout)
    assert printed[:3] == [
        [*uv, "-e", "./event-router-fax"],
        [*uv, "pytest"],
        [sys.executable, "-m", "pytest", "event-router-fax"],
    ]


@pytest.mark.parametrize("existing", ["plugins/pager.py", "test_pager.py", "plugins/pager"])
def test_nothing_is_overwritten(here, existing):
    (here / existing).parent.mkdir(exist_ok=True)
    (here / existing).symlink_to("nowhere")
    told = said("pager")
    assert existing in told
    assert EXISTS in told or "choose another name" in told
    assert [path.name for path in here.rglob("*") if path.is_file()] == []
    assert (here / existing).is_symlink()


def test_a_file_of_a_package_is_not_overwritten(here):
    (here / "mine").mkdir()
    (here / "mine" / "README.md").write_text("mine")
    told = said("fax", "mine", "--package")
    assert told == (
        f"mine/README.md exists {EXISTS}: move it away, or name another folder with `event-router new-plugin NAME FOLDER`"
    )
    assert files(here) == {"mine/README.md"}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Pager", "did you mean `pager`?"),
        ("SmsGate", "did you mean `sms-gate`?"),
        ("my pager", "did you mean `my-pager`?"),
        ("../pager", "is not a valid name for a plugin"),
        ("2fa", "begins with a letter"),
        ("a__b", "did you mean `a-b`?"),
        ("a" * 41, "1 to 40 of"),
        ("", "is not a valid name for a plugin"),
        ("{{x}}", "is not a valid name for a plugin"),
        ("lambda", "a word with a meaning in Python: choose another name"),
        ("null", "a word with a meaning in the configuration: choose another name"),
        ("all", "a word with a meaning in the configuration: choose another name"),
        ("log", "is already registered by built-in log: choose another name"),
    ],
)
def test_a_name_that_will_not_do_is_refused_with_a_better_one(here, name, says):
    assert says in said("--", name)
    assert files(here) == set()


def test_a_type_that_another_drop_in_has_is_refused(here):
    new_plugin("pager")
    (here / "plugins" / "pager.py").rename(here / "plugins" / "calls.py")
    (here / "test_pager.py").unlink()
    assert "is already registered by plugins/calls.py" in said("pager")


def test_a_package_is_refused_for_a_type_that_a_drop_in_has(here, monkeypatch):
    new_plugin("pager")
    assert "is already registered by plugins/pager.py" in said("pager", "--package")
    assert not (here / "event-router-pager").exists()
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    monkeypatch.setenv("EVENT_ROUTER_CONFIG", str(here / "config.yaml"))
    assert f"is already registered by {here}/plugins/pager.py" in said("pager", "--package")


def test_it_goes_beside_the_configuration(here, monkeypatch):
    (here / "shop").mkdir()
    (here / "shop" / "config.yaml").write_text("version: 1\n")
    done = new_plugin("pager", "shop")
    assert [words[1:] for words in commands(done.stdout)] == [
        ["-m", "pytest", "shop/test_pager.py"],
        [*commands(done.stdout)[1][1:-4], "plugins", "pager", "-c", "shop/config.yaml"],
    ]
    monkeypatch.setenv("EVENT_ROUTER_CONFIG", str(here / "shop" / "config.yaml"))
    assert f"wrote {here}/shop/plugins/fax.py" in new_plugin("fax").stdout


def test_a_folder_that_the_router_will_not_trust_is_told(here):
    (here / "plugins").mkdir()
    (here / "plugins").chmod(0o777)
    done = new_plugin("pager")
    assert f"run `chmod o-w {here}/plugins`" in " ".join(done.stderr.split())


def test_a_folder_that_can_not_be_written_is_named(here):
    if os.geteuid() == 0:
        (here / "plugins").write_text("a file")
        assert "plugins" in str(CliRunner().invoke(cli, ["new-plugin", "pager"], standalone_mode=False).exception)
    else:
        here.chmod(0o500)
        assert "Permission denied" in str(CliRunner().invoke(cli, ["new-plugin", "pager"]).exception)
        here.chmod(0o700)
    assert not (here / "test_pager.py").exists()
