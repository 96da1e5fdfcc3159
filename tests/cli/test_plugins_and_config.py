"""`event-router plugins`, `config` and `config schema`."""

import json
import os
import pty
import re
import subprocess

import jsonschema
import pytest
import yaml

from router.cli.write.plugin_options import known, types_named
from router.plugin_loading.plugin_manager import load_plugins
from tests.support.process import COMMAND, ROOT, environment, run
from tests.support.waiting import PATIENCE

PAGER = """
from router.api import SinkOptions, hookimpl

class PagerOptions(SinkOptions):
    number: str

async def pager(event, options):
    ...

@hookimpl
def register_sinks(register):
    register("pager", pager, options=PagerOptions)
"""


@pytest.fixture
def drop_in(folder):
    (folder / "plugins").mkdir()
    (folder / "plugins" / "pager.py").write_text(PAGER)
    return folder


def test_plugins_lists_built_ins_without_a_configuration(tmp_path):
    done = run("plugins", cwd=tmp_path)
    assert done.code == 0, done.err
    for name in ("log", "email", "chat"):
        assert f"\n{name} " in done.out
    assert done.out.splitlines()[0].split() == ["name", "sinks", "from", "version", "status"]


def test_plugins_shows_drop_ins_with_their_place(drop_in):
    done = run("plugins", cwd=drop_in)
    assert done.code == 0, done.err
    (line,) = [line for line in done.out.splitlines() if line.startswith("pager")]
    assert line.split() == ["pager", "pager", str(drop_in / "plugins"), "-", "ok"]


def test_plugins_lists_only_some_types_of_a_plugin_with_many(drop_in):
    types = [f"pager-{number:02}" for number in range(25)]
    many = PAGER.replace('    register("pager"', f"    for name in {types!r}:\n        register(name")
    (drop_in / "plugins" / "pager.py").write_text(many)
    done = run("plugins", cwd=drop_in)
    (line,) = [line for line in done.out.splitlines() if line.startswith("pager")]
    assert "  pager-00, pager-01, pager-02, pager-03, pager-04 and 20 more  " in line
    listed = json.loads(run("plugins", "--json", cwd=drop_in).out)
    assert [plugin["sinks"] for plugin in listed if plugin["name"] == "pager"] == [types]


def test_an_option_named_json_is_refused_without_a_warning_of_pydantic(drop_in):
    (drop_in / "plugins" / "pager.py").write_text(PAGER.replace("number: str", "json: str"))
    done = run("plugins", cwd=drop_in)
    assert done.code == 1
    assert "the option `json` has the same name as an attribute of SinkOptions" in " ".join(done.err.split())
    assert "UserWarning" not in done.err


def test_plugins_json(drop_in):
    done = run("plugins", "--json", "-c", "config.yaml", cwd=drop_in)
    by_name = {plugin["name"]: plugin for plugin in json.loads(done.out)}
    assert by_name["pager"] == {
        "name": "pager",
        "origin": str(drop_in / "plugins"),
        "path": str(drop_in / "plugins" / "pager.py"),
        "version": None,
        "sinks": ["pager"],
        "lookups": [],
        "error": None,
        "disabled": False,
    }
    assert by_name["log"]["origin"] == "built-in"


def test_plugins_shows_what_is_switched_off(drop_in):
    file = drop_in / "config.yaml"
    file.write_text(f"{file.read_text()}\nplugins: {{disable: [pager]}}\n")
    done = run("plugins", cwd=drop_in)
    assert done.code == 0, done.err
    (line,) = [line for line in done.out.splitlines() if line.startswith("pager")]
    assert line.split() == ["pager", "-", str(drop_in / "plugins"), "-", "disabled"]


def test_plugins_shows_a_folder_and_names_one_that_is_none(drop_in):
    for name in ("beeper", "half"):
        (drop_in / "plugins" / name).mkdir()
        (drop_in / "plugins" / name / "sink.py").write_text(PAGER.replace('"pager"', f'"{name}"'))
    (drop_in / "plugins" / "beeper" / "__init__.py").write_text("from .sink import register_sinks\n")
    done = run("plugins", "--json", cwd=drop_in)
    (beeper,) = [plugin for plugin in json.loads(done.out) if plugin["name"] == "beeper"]
    assert (beeper["origin"], beeper["path"]) == (str(drop_in / "plugins"), str(drop_in / "plugins" / "beeper"))
    done = run("plugins", cwd=drop_in)
    assert done.code == 0, done.err
    assert f"{drop_in}/plugins/half is not a plugin, because it has no __init__.py" in done.err
    (drop_in / "plugins" / "beeper" / "sink.py").write_text("1 / 0\n")
    done = run("plugins", cwd=drop_in)
    assert done.code == 1
    assert f"{drop_in}/plugins/beeper: ZeroDivisionError: division by zero (sink.py, line 1)" in done.err


def test_a_failed_plugin_is_1_and_named_with_its_cause(drop_in):
    (drop_in / "plugins" / "broken.py").write_text("import nothing_of_that_name\n")
    done = run("plugins", cwd=drop_in)
    assert done.code == 1
    assert "broken.py: ModuleNotFoundError: No module named 'nothing_of_that_name' (line 1)" in done.err
    assert "pager" in done.out


def test_plugins_of_a_faulty_configuration_are_all_shown(drop_in):
    """It is what one calls when a type of sink is missing: the reason must not be left out."""
    (drop_in / "more").mkdir()
    (drop_in / "more").chmod(0o777)
    (drop_in / "config.yaml").write_text("version: 2\nplugins: {paths: [more]}\nsinks: {fax: {type: fax}}\n")
    done = run("plugins", cwd=drop_in)
    assert done.code == 1
    assert "pager" in done.out
    assert f"chmod o-w {drop_in}/more" in done.err


def test_plugins_works_beside_what_is_no_configuration(drop_in):
    (drop_in / "config.yaml").write_text("version: [\n")
    done = run("plugins", cwd=drop_in)
    assert done.code == 0
    assert "pager" in done.out
    assert "so its plugins.paths are not used" in done.err


def test_plugins_of_a_configuration_that_is_not_there_is_78(tmp_path):
    done = run("plugins", "-c", "nowhere.yaml", cwd=tmp_path)
    assert done.code == 78
    assert "nowhere.yaml" in done.err


def test_config_prints_the_effective_configuration_without_values(folder):
    done = run("config", cwd=folder, env={"REDIS_URL": "redis://:s3cret@h:1"})
    assert done.code == 0, done.err
    assert "s3cret" not in done.out + done.err
    shown = yaml.safe_load(done.out)
    assert shown["redis"]["url"] == "${REDIS_URL}"
    assert shown["sources"]["web-app"]["channels"] == ["notification", "orders.*"]


def test_config_of_a_faulty_file_is_78(folder):
    (folder / "config.yaml").write_text("version: 2\n")
    done = run("config", cwd=folder)
    assert done.code == 78
    assert "config.yaml:1:10" in done.err


def test_config_schema_is_a_draft_07_schema_that_the_example_fits(tmp_path):
    done = run("config", "schema", cwd=tmp_path)
    assert done.code == 0, done.err
    document = json.loads(done.out)
    jsonschema.Draft7Validator.check_schema(document)
    assert "draft-07" in document["$schema"]
    example = yaml.safe_load((ROOT / "config.example.yaml").read_text())
    assert list(jsonschema.Draft7Validator(document).iter_errors(example)) == []
    example["sinks"]["audit"]["pth"] = example["sinks"]["audit"].pop("path")
    assert list(jsonschema.Draft7Validator(document).iter_errors(example))


def test_config_schema_has_the_options_of_drop_ins(drop_in):
    done = run("config", "schema", cwd=drop_in)
    assert "pager" in done.out
    assert "number" in done.out


@pytest.mark.parametrize(("env", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
@pytest.mark.parametrize("command", [["plugins"], ["check", "config.yaml"]])
def test_a_terminal_gets_colours_unless_it_wants_none(drop_in, command, env, coloured):
    ours, theirs = pty.openpty()
    subprocess.run(
        [*COMMAND, *command],
        cwd=drop_in,
        env=environment(drop_in, {"TERM": "xterm", "REDIS_URL": "redis://127.0.0.1:1", **env}),
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        check=False,
        timeout=PATIENCE,
    )
    os.close(theirs)
    seen = os.read(ours, 65536)
    os.close(ours)
    assert seen
    assert (b"\x1b" in seen) is coloured


OPTIONS = """
from typing import Annotated, Literal
from pydantic import BaseModel, Field
from router.api import Addresses, Duration, Html, LookupOptions, Secret, SinkOptions, Template, Text, hookimpl

class Signing(BaseModel):
    mode: Literal["hmac", "standard"] = "hmac"
    keys: list[Secret]

class Options(SinkOptions):
    url: str = Field(description="Where it goes, however long the sentence is that says so to the person who reads it.")
    to: Addresses
    text: Text = Text("{{ payload.message }}")
    from_: Annotated[str, Template(escape=str)] = Field("me", alias="from")
    page: Html | None = None
    token: Secret | None = None
    headers: dict[str, Template] = {}
    tries: int | Literal["forever"] = 3
    urgent: bool = False
    share: float = 0.5
    patience: Duration = Field(default=90.0, validate_default=False)
    signing: Signing | None = None

class LookOptions(LookupOptions):
    base: str = Field("https://crm.example.org", description="The server.")

async def send(event, options): ...
async def find(key, options): ...

@hookimpl
def register_sinks(register):
    register("telex", send, options=Options)
    register("plain", send)

@hookimpl
def register_lookups(register):
    register("telex", find, options=LookOptions)
"""


@pytest.fixture
def telex(tmp_path):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "office.py").write_text(OPTIONS)
    return tmp_path


def test_the_options_of_a_type_are_told_in_words(telex):
    done = run("plugins", "telex", cwd=telex)
    assert done.code == 0, done.err
    sink, lookup = done.out.split("lookup telex")
    assert sink.splitlines()[0] == f"sink telex, from {telex}/plugins/office.py"
    rows = [re.split(r" {2,}", line.strip()) for line in sink.splitlines()[1:-1]]
    assert rows == [
        ["option", "type", "default", "meaning"],
        ["url", "string", "required", "Where it goes, however long the sentence is that says so to the person who reads it."],
        ["to", "addresses (templates)", "required"],
        ["text", "message (template)", "{{ payload.message }}"],
        ["from", "template", "me"],
        ["page", "HTML (template)", "-"],
        ["token", "secret", "-"],
        ["headers", "mapping, its values: template", "-"],
        ["tries", "whole number or forever", "3"],
        ["urgent", "true or false", "false"],
        ["share", "number", "0.5"],
        ["patience", "duration", "90s"],
        ["signing", "mapping", "-"],
        ["signing.mode", "hmac or standard", "hmac"],
        ["signing.keys", "list, its items: secret", "required"],
    ]  # fmt: skip
    assert "the keys of every sink: queue, concurrency, timeout," in sink
    assert re.search(r"^base +string +https://crm.example.org +The server.$", lookup, re.MULTILINE)
    assert lookup.rstrip().endswith("the keys of every lookup: ttl, missing, key")


def test_the_options_of_a_type_as_json(telex):
    sink, lookup = json.loads(run("plugins", "telex", "--json", cwd=telex).out)
    assert (sink["kind"], sink["type"], sink["origin"]) == ("sink", "telex", f"{telex}/plugins/office.py")
    assert (lookup["kind"], lookup["host_keys"]) == ("lookup", ["ttl", "missing", "key"])
    assert sink["options"][7] == {
        "name": "tries",
        "type": "whole number or forever",
        "required": False,
        "default": 3,
        "description": "",
    }
    assert "allow_private" in sink["host_keys"]


def test_a_plugin_may_be_named_too(telex):
    told = [(each["kind"], each["type"]) for each in json.loads(run("plugins", "office", "--json", cwd=telex).out)]
    assert told == [("sink", "telex"), ("sink", "plain"), ("lookup", "telex")]
    assert "no own options; the keys of every sink" in run("plugins", "plain", cwd=telex).out


def test_a_type_that_is_not_there_is_2_and_a_plugin_that_failed_is_1(telex):
    done = run("plugins", "telx", cwd=telex)
    assert done.code == 2
    assert "no sink type, lookup type or plugin is named 'telx'" in done.err
    assert "(did you mean `telex`?)" in done.err
    (telex / "plugins" / "office.py").write_text("1 / 0\n")
    done = run("plugins", "office", cwd=telex)
    assert done.code == 1
    assert f"{telex}/plugins/office.py: ZeroDivisionError: division by zero (line 1)" in done.err


def test_every_built_in_says_what_its_options_mean():
    plugins = load_plugins(entry_points=False)
    for name in known(plugins):
        for each in types_named(plugins, name):
            assert [option["name"] for option in each.document()["options"] if not option["description"]] == [], name
