"""The section `admin`: where the router may be watched, and who may."""

import json

import jsonschema
import pytest
import yaml

from router.config.models import AdminConfig
from router.config.scalars import Address, address
from router.errors import ConfigError
from router.ops.loading import load
from router.ops.loading.effective import effective
from router.ops.loading.schema_export import config_schema
from router.plugin_loading.plugin_manager import load_plugins

BASE = """\
version: 1
sources: {web-app: {type: pubsub, channels: [notification]}}
sinks: {audit: {type: log, path: audit.jsonl}}
routes: [{id: all, sinks: [audit]}]
"""


@pytest.fixture
def write(tmp_path):
    def written(admin):
        path = tmp_path / "config.yaml"
        path.write_text(BASE + admin)
        return path

    return written


@pytest.mark.parametrize(
    ("listen", "expected", "local"),
    [
        ("127.0.0.1:9464", Address(None, "127.0.0.1", 9464), True),
        ("127.8.9.1:1", Address(None, "127.8.9.1", 1), True),
        ("[::1]:9464", Address(None, "::1", 9464), True),
        ("localhost:9464", Address(None, "localhost", 9464), True),
        ("0.0.0.0:9464", Address(None, "0.0.0.0", 9464), False),
        ("[::]:9464", Address(None, "::", 9464), False),
        ("10.1.2.3:65535", Address(None, "10.1.2.3", 65535), False),
        ("router.example.org:80", Address(None, "router.example.org", 80), False),
        ("localhost.example.org:80", Address(None, "localhost.example.org", 80), False),
        ("unix:/run/a.sock", Address("/run/a.sock"), True),
        ("unix:///run/a.sock", Address("/run/a.sock"), True),
    ],
)
def test_addresses(listen, expected, local):
    found = address(listen)
    assert found == expected
    assert found.local is local
    assert address(str(found)) == expected


@pytest.mark.parametrize(
    "listen",
    [
        "",
        *("9464", ":9464", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:http"),
        *("http://127.0.0.1:9464", "127.0.0.1:9464/metrics", "127.0.0.1:9464?a", "127.0.0.1:9464#a"),
        *("a@127.0.0.1:9464", "::1:9464", "[::1:9464"),
        *("unix:", "unix:/", "unix:run/a.sock", "unix://run/a.sock"),
    ],
)
def test_what_is_no_address(listen):
    with pytest.raises(ValueError, match=r"write HOST:PORT|full path"):
        address(listen)


@pytest.mark.parametrize("said", ["off", "{listen: off}"])
def test_off(write, said):
    assert load(write(f"admin: {said}\n"), environ={}).config.admin == AdminConfig(listen="off")


@pytest.mark.parametrize("said", ["", "admin:\n", "admin: {}\n"])
def test_nothing_said(write, said):
    assert load(write(said), environ={}).config.admin == AdminConfig()


def test_a_token_opens_any_address_and_is_a_secret(write):
    path = write('admin: {listen: "0.0.0.0:9464", token: "${ADMIN_TOKEN}"}\n')
    loaded = load(path, environ={"ADMIN_TOKEN": "word-of-admin"})
    assert loaded.config.admin.token.get_secret_value() == "word-of-admin"
    assert "word-of-admin" in loaded.secrets
    assert "word-of-admin" not in repr(loaded.config)


def test_an_unset_token_is_an_error_but_not_for_check(write):
    path = write('admin: {listen: "0.0.0.0:9464", token: "${ADMIN_TOKEN}"}\n')
    with pytest.raises(ConfigError, match="ADMIN_TOKEN"):
        load(path, environ={})
    assert load(path, environ={}, placeholders=True).config.admin.token is not None


def test_an_empty_token_is_none(write):
    with pytest.raises(ConfigError, match="and not empty"):
        load(write('admin: {listen: "0.0.0.0:9464", token: "${ADMIN_TOKEN:-}"}\n'), environ={})


def test_the_effective_configuration_hides_a_literal_token(write):
    shown = yaml.safe_load(effective(write('admin: {listen: "[::]:1", token: word-of-admin}\n'), environ={}))
    assert shown["admin"] == {"listen": "[::]:1", "token": "***"}


@pytest.mark.parametrize(
    ("admin", "good"),
    [
        ("off", True),
        (None, True),
        ({}, True),
        ({"listen": "127.0.0.1:9464"}, True),
        ({"listen": "${LISTEN}", "token": "${TOKEN}"}, True),
        ("on", False),
        ({"port": 9464}, False),
        ({"listen": 9464}, False),
    ],
    ids=json.dumps,
)
def test_the_editor_schema_knows_it(admin, good):
    schema = config_schema(load_plugins())
    assert jsonschema.Draft7Validator(schema).is_valid({**yaml.safe_load(BASE), "admin": admin}) is good
