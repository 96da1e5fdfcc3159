"""Files that load, what becomes of them, and what the effective configuration and the editor schema make of them."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import pytest
import yaml

from router.core.rendering import OptionsTemplate
from router.errors import ConfigError
from router.events import Event
from router.ops.loading import load
from router.ops.loading.effective import effective
from router.ops.loading.schema_export import config_schema
from router.plugin_loading.plugin_manager import load_plugins

HERE = Path(__file__).parent
GOOD = sorted((HERE / "good").glob("*.yaml"))
EXAMPLE = HERE.parent.parent / "config.example.yaml"
(HERE / "good" / "secret.txt").chmod(0o600)  # git keeps no more of the mode than whether it is a program


def plain_yaml(text):
    """YAML as an editor reads it: 1.2, nothing expanded."""
    from router.ops.loading.reading.nodes import SourceFile, plain
    from router.ops.loading.reading.problems import Problems
    from router.ops.loading.reading.yaml_nodes import parse

    problems = Problems()
    tree = parse(text, SourceFile("text.yaml", Path("text.yaml")), problems)
    assert problems.all() == ()
    return plain(tree)


@pytest.fixture(scope="module")
def everything():
    return load(HERE / "good" / "everything.yaml", environ={})


@pytest.mark.parametrize("file", [*GOOD, EXAMPLE], ids=lambda file: file.stem)
def test_it_loads_without_a_warning(file):
    loaded = load(file, environ={})
    assert [problem.headline() for problem in loaded.problems if problem.severity != "note"] == []
    assert loaded.path == file.absolute()
    assert file.absolute() in loaded.files
    assert loaded.write_base == file.absolute().parent
    for route in loaded.config.routes:
        for target in route.sinks:
            assert isinstance(loaded.templates[target.sink, route.id], OptionsTemplate)


def test_defaults_go_below_the_sinks_own_keys_and_mappings_merge(everything):
    sinks = everything.config.sinks
    assert sinks["user-mail"].host.retry.initial == 2.0
    assert sinks["user-mail"].host.retry.max_age == 12 * 3600
    assert sinks["user-mail"].host.timeout == 15.0
    assert sinks["user-mail"].options.host == "smtp.example.org"
    assert sinks["user-mail"].options.password.get_secret_value() == "of the mail server"
    assert sinks["pager"].options.headers == {"X-Shop": "books", "X-Kind": "{{ payload.kind }}"}
    assert sinks["audit"].host.concurrency == 1


def test_expanded_scalars_are_read_by_the_type_of_their_field(everything):
    options = everything.config.sinks["pager"].options
    assert (options.level, options.urgent, options.factor) == (7, True, 0.5)
    assert everything.config.sinks["pager"].host.timeout == 90.0
    assert options.token.get_secret_value() == "the token of the pager"
    assert options.text == "Costs ${{ payload.price }}, #{{ payload.id }}: see the shop"


def test_yaml_1_2_scalars_stay_text(everything):
    window = everything.config.sinks["pager"].options.window
    assert (window.start, window.till) == ("12:30:45", "010")


def test_what_is_written_before_a_comment_is_kept(everything):
    assert everything.config.sinks["user-mail"].options.subject == "News for you"
    assert everything.config.sinks["user-mail"].options.username == "shop"


def test_included_files_are_merged_in_name_order_and_read_from_their_own_folder(everything):
    config = everything.config
    assert [route.id for route in config.routes] == ["everything", "vip", "urgent", "shell"]
    assert config.sinks["shell-mail"].options.text.startswith("Hello {{ payload.name")
    assert [entry.channels for entry in everything.schemas][-1] == ["local"]
    assert {file.name for file in everything.files} >= {
        "everything.yaml",
        "10-shell.yaml",
        "20-shell-mail.yaml",
        "hello.txt",
        "footer.txt",
        "order.schema.json",
        "common.json",
    }


def test_schemas_keep_their_order_and_refer_to_their_folder(everything):
    first, second, off, _ = everything.schemas
    assert (first.mode, second.mode, off.mode) == ("enforce", "warn", "off")
    assert first.schema.is_valid({"user": 42})
    assert not first.schema.is_valid({"user": "42"})
    assert off.schema is None


def test_a_route_overrides_templates_alone(everything):
    [_, target] = everything.config.routes[2].sinks
    assert target.options.text == "URGENT {{ payload.message }}"
    assert target.options.to == ["7"]
    assert target.options.level == 7
    assert everything.config.routes[0].sinks[0].options is None
    assert everything.templates["pager", "urgent"] is not everything.templates["pager", None]
    assert everything.templates["audit", "everything"] is everything.templates["audit", None]


def test_secrets_are_gathered(everything):
    assert everything.secrets == {"the token of the pager", "of the mail server", "pw-of-redis"}


def test_notes_name_databases(everything):
    notes = [problem.headline() for problem in everything.problems]
    assert sum("the number of the database has no effect" in note for note in notes) == 2


def test_deliver_can_be_overridden(everything):
    assert everything.config.deliver.only == ["*@example.org"]
    assert load(everything.path, environ={}, deliver="print").config.deliver == "print"
    assert load(everything.path, environ={}, deliver="send").config.deliver == "send"


@pytest.mark.parametrize("file", [*GOOD, EXAMPLE], ids=lambda file: file.stem)
def test_the_effective_configuration_loads_again_to_the_same(file, tmp_path):
    folder = tmp_path / "good"
    shutil.copytree(HERE / "plugins", tmp_path / "plugins")
    if file == EXAMPLE:
        shutil.copytree(file.parent / "schemas", folder / "schemas")
    else:
        shutil.copytree(file.parent, folder)
    again = folder / "effective.yaml"
    text = effective(file, environ={})
    again.write_text(text)
    first, second = load(file, environ={}), load(again, environ={})
    assert effective(again, environ={}) == text
    assert [r.model_dump() for r in second.config.routes] == [r.model_dump() for r in first.config.routes]
    assert second.config.sources == first.config.sources
    assert second.config.redis == first.config.redis
    for name, sink in first.config.sinks.items():
        other = second.config.sinks[name]
        assert other.options.model_dump() == sink.options.model_dump()  # each load has its own classes
        assert other.host.timeout == sink.host.timeout
        assert other.host.retry == sink.host.retry


def test_the_effective_configuration_keeps_expressions_and_fills_in_defaults():
    shown = plain_yaml(effective(HERE / "good" / "everything.yaml", environ={"REDIS_URL": "redis://:hidden@cache"}))
    assert shown["redis"]["url"] == "${REDIS_URL:-embedded}"
    assert shown["sinks"]["pager"]["token"] == "${file:secret.txt}"
    assert shown["sinks"]["pager"]["text"].startswith("Costs $${{")
    assert shown["sinks"]["pager"]["queue"]["max_events"] == 100_000
    assert shown["sinks"]["pager"]["concurrency"] == 4
    assert shown["sinks"]["user-mail"]["retry"] == {
        "initial": "2s",
        "max_delay": "5m",
        "max_age": "12h",
        "attempts": 3,
    }
    assert shown["sinks"]["shell-mail"]["text"] == {"file": "hello.txt"}
    assert shown["shutdown"] == {"drain": "30s"}
    assert "defaults" not in shown
    assert "include" not in shown


def test_the_effective_configuration_hides_literal_secrets(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(
        "version: 1\n"
        "redis: {url: 'redis://shop:word-of-redis@cache:6379/0'}\n"
        f"plugins: {{paths: ['{HERE / 'plugins'}']}}\n"
        "sources: {web: {type: pubsub, channels: [a]}}\n"
        "sinks: {page: {type: pager, to: a, text: b, token: word-of-pager, url: 'https://hooks.example.org/T/word'}}\n"
        "routes: [{id: a, sinks: [page]}]\n"
    )
    text = effective(file, environ={})
    assert "word" not in text
    shown = plain_yaml(text)
    assert shown["redis"]["url"] == "redis://shop:***@cache:6379/0"
    assert shown["sinks"]["page"]["token"] == "***"
    assert shown["sinks"]["page"]["url"] == "https://hooks.example.org/***"
    loaded = load(file, environ={})
    assert [problem.message for problem in loaded.problems if problem.severity == "warning"] == [
        "a secret is written here in clear text; write ${NAME}, ${file:/path} or ${cred:name}",
    ] * 3
    assert loaded.secrets == {"word-of-redis", "word-of-pager", "https://hooks.example.org/T/word"}
    for secret in loaded.secrets:
        assert secret not in repr(loaded.config.sinks)


def test_a_key_file_in_json_names_no_file(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "config.yaml").write_text("version: 1\ninclude: parts/*.yaml\n")
    (tmp_path / "parts" / "all.yaml").write_text(
        "sources: {web: {type: pubsub, channels: [a]}}\n"
        "sinks: {hook: {type: webhook, url: 'https://hooks.example.org/', json: {upload: {file: a.txt}}}}\n"
        "routes: [{id: a, sinks: [hook]}]\n"
    )
    shown = plain_yaml(effective(tmp_path / "config.yaml", environ={}))
    assert shown["sinks"]["hook"]["json"] == {"upload": {"file": "a.txt"}}
    loaded = load(tmp_path / "config.yaml", environ={})
    assert loaded.config.sinks["hook"].options.json_ == {"upload": {"file": "a.txt"}}


def test_effective_raises_what_load_raises(tmp_path):
    with pytest.raises(ConfigError, match="can't read"):
        effective(tmp_path / "none.yaml", environ={})


@pytest.fixture(scope="module")
def schema():
    return config_schema(load_plugins([HERE / "plugins"], entry_points=False))


def test_the_editor_schema_is_draft_07(schema):
    jsonschema.Draft7Validator.check_schema(schema)
    text = json.dumps(schema)
    for keyword in ("unevaluated", "prefixItems", '"$defs"'):
        assert keyword not in text
    references = [each for each in inside(schema) if "$ref" in each]
    assert references  # `match` holds itself
    for each in references:  # what stands beside one is ignored
        assert list(each) == ["$ref"]
        assert each["$ref"].removeprefix("#/definitions/") in schema["definitions"]


def inside(value):
    """Every mapping in a document."""
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [*([value] if isinstance(value, dict) else []), *(each for one in below for each in inside(one))]


def changed(**keys):
    return plain_yaml((HERE / "good" / "minimal.yaml").read_text()) | keys


@pytest.mark.parametrize(
    "condition",
    [
        {},
        {"order.total": {"greater": 1}},
        {"order.total": {"gt": "high"}},
        {"a": []},
        {"a": {"not": {"gt": True}}},
        {"any": {"a": 1}},
        {"any": [{"a": {"regex": ""}}]},
    ],
)
def test_the_editor_schema_refuses_what_is_no_match(schema, condition):
    routes = [{"id": "a", "sinks": ["audit"], "match": condition}]
    assert not jsonschema.Draft7Validator(schema).is_valid(changed(routes=routes))


def test_a_field_that_is_called_file_is_no_path_of_a_file(tmp_path):
    (tmp_path / "routes.d").mkdir()
    main = (HERE / "good" / "minimal.yaml").read_text()
    (tmp_path / "config.yaml").write_text(main.replace("version: 1", "version: 1\ninclude: routes.d/*.yaml"))
    more = "routes:\n  - {id: more, match: {file: a.txt, b: {prefix: [x]}}, sinks: [audit]}\n"
    (tmp_path / "routes.d" / "more.yaml").write_text(more)
    shown = plain_yaml(effective(tmp_path / "config.yaml", environ={}))
    assert shown["routes"][1]["match"] == {"file": "a.txt", "b": {"prefix": ["x"]}}
    (clause, _) = load(tmp_path / "config.yaml", environ={}).conditions["more"].match.clauses
    assert clause.text == 'file == "a.txt"'


def test_conditions_are_compiled_and_know_where_they_stand(everything):
    condition = everything.conditions["vip"]
    payload = {
        "severity": "high",
        "order": {"total": 100},
        "lines": [{"sku": "B7"}],
        "tags": ["vip", "new", "eu"],
        "customer": {"name": "Dr X"},
    }
    assert condition.match.holds(payload)
    assert not condition.match.holds(payload | {"a.b": {"note": None}})
    event = Event("1", "web-app", "orders.new", None, datetime(2026, 1, 2, tzinfo=UTC), json.dumps(payload).encode())
    assert condition.when.holds(event, 0.0)
    lines = (HERE / "good" / "everything.yaml").read_text().splitlines()
    for clause in condition.match.clauses:
        _, line, column = clause.place.rsplit(":", 2)
        assert lines[int(line) - 1][int(column) - 1 :].startswith(
            ("severity:", "gte:", "not:", "lines.", "exists:", "any:")
        )
    assert [str(p.path) for p in everything.problems if "null" in p.message] == [
        'routes[1].match.any[1]."customer.name".in[1]'
    ]


@pytest.mark.parametrize("file", [*GOOD, EXAMPLE], ids=lambda file: file.stem)
def test_the_editor_schema_accepts_what_loads(schema, file):
    errors = list(jsonschema.Draft7Validator(schema).iter_errors(plain_yaml(file.read_text())))
    assert errors == []
    shown = plain_yaml(effective(file, environ={}))
    assert list(jsonschema.Draft7Validator(schema).iter_errors(shown)) == []


@pytest.mark.parametrize(
    "change",
    [
        {"skins": {}},
        {"version": 2},
        {"version": "1"},
        {"sinks": {"audit": {"type": "lgo"}}},
        {"sinks": {"audit": {"type": "log", "pth": "x"}}},
        {"sinks": {"audit": {"type": "log", "concurrency": "4"}}},
        {"sinks": {"page": {"type": "pager", "urgent": "no"}}},
        {"sinks": {"a b": {"type": "log"}}},
        {"sources": {"web": {"type": "pubsub", "chanels": []}}},
        {"sources": {"web": {"type": "stream", "channels": ["a"]}}},
        {"sources": {"web": {"type": "stream", "streams": []}}},
        {"sources": {"web": {"type": "list", "keys": ["a"], "max_in_flight": "many"}}},
        {"routes": [{"id": "a", "sinks": []}]},
        {"routes": [{"id": "a", "sinks": [{"sink": "a", "timeout": "5s"}]}]},
        {"defaults": {"log": {"pth": "x"}}},
        {"shutdown": {"drain": "30"}},
        {"deliver": "prnt"},
    ],
    ids=json.dumps,
)
def test_the_editor_schema_refuses_slips(schema, change):
    good = yaml.safe_load((HERE / "good" / "minimal.yaml").read_text())
    validator = jsonschema.Draft7Validator(schema)
    assert validator.is_valid(good)
    assert not validator.is_valid({**good, **change})


def test_every_key_of_the_editor_schema_is_described(schema):
    bare = []

    def look(properties, path):
        for key, inner in properties.items():
            if not inner.get("description"):
                bare.append(f"{path}.{key}")
            look(inner.get("properties", {}), f"{path}.{key}")

    look(schema["properties"], "")
    for case in schema["properties"]["sinks"]["additionalProperties"]["allOf"]:
        look(case["then"]["properties"], "sink")
    for case in schema["properties"]["sources"]["additionalProperties"]["allOf"]:
        look(case["then"]["properties"], "source")
    look(schema["properties"]["routes"]["items"]["properties"], "route")
    assert [key for key in bare if ".window" not in key] == []  # a model inside a plugin's options is the plugin's own


def test_every_scalar_may_be_an_expression(schema):
    document = {
        "version": "${V:-1}",
        "redis": {"url": "${A}", "connect_timeout": "${B}", "outage_buffer": "${C}"},
        "sources": {"web": {"type": "${T}", "channels": ["${D}"], "format": "${E}", "max_bytes": "${F}"}},
        "sinks": {"page": {"type": "pager", "to": "${G}", "level": "${H}", "urgent": "${I}", "concurrency": "${J}"}},
        "routes": [{"id": "${K}", "sinks": ["page"], "enabled": "${L}", "final": "${M}"}],
        "deliver": "${N}",
        "timezone": "${O}",
        "shutdown": {"drain": "${P}"},
    }
    assert list(jsonschema.Draft7Validator(schema).iter_errors(document)) == []


PAGE = (HERE.parent.parent / "docs" / "configuration.md").read_text()


def test_every_key_is_documented(schema):
    properties = schema["properties"]
    keys = set(properties)
    for section in ("redis", "plugins", "shutdown"):
        keys |= set(properties[section]["properties"])
    for case in properties["sources"]["additionalProperties"]["allOf"]:
        keys |= set(case["then"]["properties"])
    keys |= set(properties["schemas"]["items"]["properties"])
    keys |= set(properties["routes"]["items"]["properties"])
    keys |= set(properties["defaults"]["properties"]["all"]["properties"])
    keys |= set(properties["defaults"]["properties"]["all"]["properties"]["retry"]["properties"])
    missing = [key for key in sorted(keys) if f"{key}:" not in PAGE and f"`{key}`" not in PAGE]
    assert missing == []


def test_the_examples_of_the_page_load(tmp_path):
    import re

    for folder, name, text in (
        ("schemas", "notification.schema.json", "{}"),
        ("schemas", "order.schema.json", "{}"),
        ("mail", "ops.txt", "{{ payload.message }}"),
        ("routes.d", "none.yaml", "routes: [{id: more, sinks: [audit]}]"),
        ("creds", "smtp", "of the mail server"),
    ):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_text(text)
    (tmp_path / "creds" / "smtp").chmod(0o600)
    (tmp_path / "more-plugins").mkdir()
    examples = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(examples) == 2
    for number, example in enumerate(examples):
        file = tmp_path / f"{number}.yaml"
        file.write_text(example)
        loaded = load(file, environ={"CREDENTIALS_DIRECTORY": str(tmp_path / "creds")})
        assert [problem.headline() for problem in loaded.problems if problem.severity != "note"] == []
