"""A faulty default of an option is the fault of its plugin, which the message names, and not of the configuration."""

import pytest
import yaml

from router.errors import ConfigError
from router.ops.loading import load

PLUGIN = """\
from pydantic import Field, field_validator

from router.api import Addresses, Duration, LookupOptions, SinkOptions, Template, hookimpl


class Inner(SinkOptions):
    size: int = "large"
    text: Template = "{{ text"


class Options(SinkOptions):
    OPTION


class Lookup(LookupOptions):
    limit: int | bool = "many"


async def sink(event, options): ...


async def fetch(key, options): ...


@hookimpl
def register_sinks(register):
    register("pager", sink, options=Options)


@hookimpl
def register_lookups(register):
    register("crm", fetch, options=Lookup)
"""
DEPENDENT = """a: str = ""
    b: str = ""

    @field_validator("b")
    @classmethod
    def both(cls, value, info):
        if info.data["a"] and not value:
            raise ValueError("`a` needs `b`")
        return value
"""


@pytest.fixture
def faults(tmp_path):
    """A function of the options' code, the sink's options and the lookups; it returns the errors of the configuration."""

    def load_it(option, options, lookups=None):
        (tmp_path / "plugins").mkdir(mode=0o755)
        (tmp_path / "plugins" / "pager.py").write_text(PLUGIN.replace("OPTION", option))
        (tmp_path / "plugins" / "pager.py").chmod(0o644)
        config = {
            "version": 1,
            "sources": {"web-app": {"type": "pubsub", "channels": ["a"]}},
            "lookups": lookups or {},
            "sinks": {"s": {"type": "pager", **options}},
            "routes": [{"id": "all", "sinks": ["s"]}],
        }
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        with pytest.raises(ConfigError) as failed:
            load(tmp_path / "config.yaml", environ={})
        return [
            (problem.path, problem.message.replace(str(tmp_path), "FOLDER"))
            for problem in failed.value.problems
            if problem.severity == "error"
        ]

    return load_it


@pytest.mark.parametrize(
    ("option", "options", "path", "fault"),
    [
        ('t: Template = Template("{{ bad")', {}, "t", "`{{` is not closed: `}}` is missing"),
        ('to: Addresses = Addresses(["{{ bad"])', {}, "to", "`{{` is not closed: `}}` is missing"),
        ('t_: Template = Field("{{ bad", alias="t")', {}, "t", "`{{` is not closed: `}}` is missing"),
        ("inner: Inner = Inner.model_construct()", {"inner": {"size": 1}}, "inner.text", "`{{` is not closed"),
        ("d: Duration = 30.0", {}, "d", "30.0 is not a duration; write a number with its unit"),
        ("n: int | bool = 'x'", {}, "n", 'must be a whole number or true or false, not the string "x"'),
        ("names: list[str] = [1]", {}, "names", "must be a string, not the number 1"),
        ("names: list[str] = {}", {}, "names", "must be a list, not a mapping"),
        ("inner: Inner", {"inner": {"text": "a"}}, "inner.size", 'must be a whole number, not the string "large"'),
    ],
)
def test_a_faulty_default_of_an_option_names_option_and_plugin(faults, option, options, path, fault):
    [(at, message)] = faults(option, options)
    name = path.rpartition(".")[2]
    assert at == f"sinks.s.{path}"
    assert message.startswith(
        f"the default of the option `{name}` of the plugin FOLDER/plugins/pager.py is faulty: {fault}"
    )


def test_a_faulty_default_of_a_lookup_is_told_once(faults):
    lookups = {"crm": {"type": "crm", "key": "payload.id"}}
    [(at, message)] = faults("n: int = 'x'", {"n": 1}, lookups)
    assert at == "lookups.crm.limit"
    assert message.startswith("the default of the option `limit` of the plugin FOLDER/plugins/pager.py is faulty: ")
    assert message.endswith('must be a whole number or true or false, not the string "many"')


@pytest.mark.parametrize(
    ("option", "options", "expected"),
    [
        ('t: Template = Template("{{ bad")', {"t": "{{ worse"}, ("sinks.s.t", "`{{` is not closed: `}}` is missing")),
        ("n: int = 'x'", {"n": "y"}, ("sinks.s.n", 'must be a whole number, not the string "y"')),
        (DEPENDENT, {"a": "x"}, ("sinks.s", "`a` needs `b`")),
    ],
)
def test_what_is_written_is_the_fault_of_the_configuration(faults, option, options, expected):
    assert faults(option, options) == [expected]
