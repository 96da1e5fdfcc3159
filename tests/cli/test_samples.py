"""Sample payloads made from schemas, and the commands that publish them."""

import json
import shlex
from pathlib import Path

import jsonschema
import pytest

from router.cli.first_steps.samples import make, publish_lines
from router.ops.loading import load

SCHEMAS = [
    ({"type": "object", "examples": [{"a": 1}]}, {"a": 1}),
    ({"type": "object", "required": ["n"], "properties": {"n": {"type": "integer", "minimum": 100}}}, {"n": 100}),
    ({"type": "object", "required": ["n"], "properties": {"n": {"type": "number", "maximum": 3.5}}}, {"n": 3.5}),
    (
        {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer", "exclusiveMinimum": 50}}},
        {"n": 51},
    ),
    ({"required": ["s"], "properties": {"s": {"enum": ["high", "low"]}}}, {"s": "high"}),
    ({"required": ["s"], "properties": {"s": {"const": 7}}}, {"s": 7}),
    ({"required": ["s"], "properties": {"s": {"type": ["string", "null"], "minLength": 8}}}, {"s": "hello!!!"}),
    ({"required": ["s"], "properties": {"s": {"type": "string", "maxLength": 2}}}, {"s": "he"}),
    ({"required": ["at"], "properties": {"at": {"type": "string", "format": "date"}}}, {"at": "2026-01-31"}),
    ({"required": ["b", "z"], "properties": {"b": {"type": "boolean"}, "z": {"type": "null"}}}, {"b": True, "z": None}),
    ({"type": "array", "items": {"type": "string"}, "minItems": 2}, ["hello", "hello"]),
    ({"$ref": "#/$defs/x", "$defs": {"x": {"type": "integer"}}}, 42),
    ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, "hello"),
    (True, {}),
]


@pytest.mark.parametrize(("schema", "expected"), SCHEMAS)
def test_a_sample_fits_its_schema(schema, expected):
    assert make(schema) == expected
    jsonschema.validate(expected, schema)


def test_a_schema_that_refers_to_itself_ends():
    loop = {"$ref": "#/$defs/node", "$defs": {"node": {"required": ["next"], "properties": {"next": {"$ref": "#"}}}}}
    assert make(loop)


def lines(folder, source, *, schema=None, url="redis://127.0.0.1:6379"):
    (folder / "schema.json").write_text(json.dumps(schema if schema is not None else {}))
    (folder / "config.yaml").write_text(
        f"version: 1\nsources: {{s: {{type: pubsub, {source}}}}}\n"
        + ("schemas: [{channels: ['*'], file: schema.json}]\n" if schema is not None else "")
        + "sinks: {audit: {type: log, path: x}}\nroutes: [{id: r, sinks: [audit]}]\n"
    )
    return publish_lines(load(folder / "config.yaml", environ={}), url, Path("config.yaml"))


def test_the_first_plain_channel_is_taken(tmp_path):
    client, ours = lines(tmp_path, "channels: ['o.*', plain]")
    assert client == """redis-cli -p 6379 publish plain '{"message": "hello"}'"""
    assert shlex.split(ours)[-2:] == ["plain", '{"message": "hello"}']


@pytest.mark.parametrize(("glob", "name"), [("orders.*", "orders.test"), ("a?c", "aac"), ("[xy]", "x")])
def test_a_glob_gives_a_name_it_matches(tmp_path, glob, name):
    assert [shlex.split(line)[-2] for line in lines(tmp_path, f"patterns: ['{glob}']")] == [name, name]


def test_a_name_with_a_dash_before_it_is_no_option(tmp_path):
    _, ours = lines(tmp_path, "channels: ['-x']")
    assert shlex.split(ours)[-4:-1] == ["publish", "--", "-x"]


def test_a_text_source_gets_text(tmp_path):
    assert lines(tmp_path, "channels: [command], format: text")[0] == "redis-cli -p 6379 publish command hello"


def test_a_quote_survives_the_shell(tmp_path):
    schema = {"examples": [{"m": 'it\'s "here"\n'}], "required": ["m"]}
    client, _ = lines(tmp_path, "channels: ['it''s']", schema=schema)
    assert shlex.split(client)[4] == "it's"
    assert json.loads(shlex.split(client)[5]) == {"m": 'it\'s "here"\n'}


def test_without_a_sample_that_fits_there_is_no_line(tmp_path):
    schema = {
        "type": "object",
        "required": ["code"],
        "properties": {"code": {"type": "string", "pattern": "^[0-9]{9}$"}},
    }
    assert lines(tmp_path, "channels: [a]", schema=schema) == []


def test_without_a_channel_that_matches_there_is_no_line(tmp_path):
    assert lines(tmp_path, "patterns: ['x[]y']") == []


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h.example:7000/3", "redis-cli -h h.example -p 7000 publish"),
        ("redis://localhost", "redis-cli -p 6379 publish"),
        ("rediss://h.example", "redis-cli --tls -h h.example -p 6379 publish"),
        ("unix:///run/redis.sock", "redis-cli -s /run/redis.sock publish"),
    ],
)
def test_redis_cli_is_pointed_at_the_server(tmp_path, url, expected):
    assert lines(tmp_path, "channels: [a]", url=url)[0].startswith(expected)


def test_a_password_is_not_put_on_a_command_line(tmp_path):
    (only,) = lines(tmp_path, "channels: [a]", url="redis://u:s3cret@h:1")
    assert "redis-cli" not in only
    assert "s3cret" not in only
