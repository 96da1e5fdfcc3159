"""Plugins that register lookups: what is refused, and where a fault of their options is named."""

from __future__ import annotations

import pytest

from router.errors import ConfigError
from router.ops.loading import load
from router.ops.loading.effective import effective
from router.ops.loading.schema_export import config_schema
from router.plugin_loading.plugin_manager import load_plugins

PLUGIN = """
from router.api import LookupOptions, Secret, hookimpl

class Options(LookupOptions):
    base: str
    token: Secret | None = None

async def crm(key, options):
    return None

{extra}

@hookimpl
def register_lookups(register):
    register({arguments})
"""
CONFIG = """
version: 1
sources: {{web: {{type: pubsub, channels: [n]}}}}
lookups:
  user: {{type: crm, key: "{{{{ payload.id }}}}", {options}}}
sinks: {{audit: {{type: log, path: audit.jsonl, template: "{{{{ user.name }}}}"}}}}
routes: [{{id: all, sinks: [audit]}}]
"""


def folder(tmp_path, arguments='"crm", crm, options=Options', extra=""):
    (tmp_path / "plugins").mkdir(exist_ok=True)
    (tmp_path / "plugins" / "crm.py").write_text(PLUGIN.format(arguments=arguments, extra=extra))
    return tmp_path / "plugins"


def config(tmp_path, options):
    (tmp_path / "config.yaml").write_text(CONFIG.format(options=options))
    return tmp_path / "config.yaml"


@pytest.mark.parametrize(
    ("arguments", "extra", "said"),
    [
        ('"http", crm', "", "lookup type 'http' is taken: the router registered it"),
        ('"a b", crm', "", "the name of a type must have 1 to 64 characters"),
        ('"crm", 5', "", "5 is neither a function nor a class"),
        ('"crm", X', "class X: pass", "class X has no method `fetch_many`"),
        ('"crm", crm, options=int', "", "`options` must be a subclass of LookupOptions, not <class 'int'>"),
        (
            '"crm", crm, options=X',
            "class X(LookupOptions):\n    ttl: int",
            "the option `ttl` has the same name as a key of the router",
        ),
        (
            '"crm", crm, options=X',
            "class X(LookupOptions):\n    base: 'Unknown'",
            "an option of class X has the type `Unknown`, which is not defined: define or import this type",
        ),
        (
            '"crm", crm, option=X',
            "class X(LookupOptions): ...",
            "TypeError: register() has no argument 'option'; did you mean 'options'?",
        ),
        (
            '"crm", crm, options=X',
            "class X(LookupOptions):\n    json: str",
            "the option `json` has the same name as an attribute of LookupOptions: rename the option, or write `json_: …",
        ),
        (
            '"crm", x',
            "def x(key): pass",
            "`x(key)` (plugins/crm.py, line 11) has the wrong parameters: it must take (key, options)",
        ),
        ('"crm", X', "class X:\n    def fetch_many(self): pass", "has the wrong parameters: it must take (self, keys)"),
    ],
)
def test_a_registration_that_can_not_work_is_refused(tmp_path, arguments, extra, said):
    [failure] = load_plugins([folder(tmp_path, arguments, extra)]).failures
    assert said in failure.error


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", "5:3: lookups.user.base: `base` is required"),
        ("base: 5", "lookups.user.base: must be a string, not the number 5"),
        ("base: x, tll: 5m", "lookups.user.tll: unknown key"),
        ("base: x, ttl: 5", "lookups.user.ttl: 5 is not a duration"),
    ],
)
def test_a_fault_of_its_options_is_named_at_its_place(tmp_path, options, said):
    folder(tmp_path)
    with pytest.raises(ConfigError) as raised:
        load(config(tmp_path, options), environ={})
    [problem] = raised.value.problems
    assert said in str(problem)


def test_its_options_stand_in_the_schema_and_in_the_effective_configuration_without_secrets(tmp_path):
    plugins = load_plugins([folder(tmp_path)])
    cases = config_schema(plugins)["properties"]["lookups"]["additionalProperties"]["allOf"]
    [keys] = [case["then"] for case in cases if case["if"]["properties"]["type"]["const"] == "crm"]
    assert set(keys["properties"]) == {"base", "token", "type", "key", "ttl", "missing"}
    assert set(keys["required"]) == {"base", "key", "type"}
    path = config(tmp_path, "base: x, token: hidden-word")
    shown = effective(path, environ={})
    assert "hidden-word" not in shown
    assert "base: x" in shown
    loaded = load(path, environ={})
    assert "hidden-word" in loaded.secrets
    assert loaded.lookups["user"].config.options.base == "x"


def test_check_needs_no_secret_of_a_lookup(tmp_path):
    folder(tmp_path)
    path = config(tmp_path, 'base: x, token: "${NOT_SET}"')
    loaded = load(path, environ={}, placeholders=True)
    assert [problem.severity for problem in loaded.problems] == ["note"]
    with pytest.raises(ConfigError, match="NOT_SET"):
        load(path, environ={})
