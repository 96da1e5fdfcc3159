"""A secret in a place where it does not belong is in nothing that is printed."""

import copy
import itertools
import json
import re
import typing

import msgspec
import pytest
from pydantic import BaseModel

from router.config.models import (
    AdminConfig,
    DeadLettersConfig,
    DeliverOnly,
    HostKeys,
    ListConfig,
    PluginsConfig,
    PubSubConfig,
    RedisConfig,
    RouteConfig,
    SchemaConfig,
    ShutdownConfig,
    StreamConfig,
)
from router.errors import ConfigError
from router.ops.loading import load
from router.ops.loading.effective import effective
from router.ops.loading.reading import shapes
from router.ops.loading.reading.concealing import without_credentials
from router.plugin_loading.plugin_manager import load_plugins
from tests.cli.test_reload import CONFIG as RUNNING
from tests.support.daemon import daemon
from tests.support.process import run

SECRET = "xoxb-7261-Geheim%20nis,9f8e7d6c5b4a39281706f5e4d3c2b1a0-tail"
"""Long enough to be cut, with signs that are escaped, decoded and split at."""

SINKS = load_plugins(entry_points=False).sinks
LEAST = {
    "log": {"path": "audit.jsonl"},
    "email": {"host": "mail.example.org", "from": "a@example.org", "to": "b@example.org", "subject": "s", "text": "t"},
    "chat": {"service": "slack", "url": "https://hooks.example.org/services/abc", "text": "t"},
}
SOURCES = {
    "pubsub": (PubSubConfig, {"channels": ["a"]}),
    "stream": (StreamConfig, {"streams": ["s"]}),
    "list": (ListConfig, {"keys": ["k"]}),
}
SECTIONS = {
    "redis": RedisConfig,
    "plugins": PluginsConfig,
    "admin": AdminConfig,
    "dead_letters": DeadLettersConfig,
    "shutdown": ShutdownConfig,
    "deliver": DeliverOnly,
}


def base():
    document = {
        "version": 1,
        "sources": {kind: {"type": kind, **least} for kind, (_, least) in SOURCES.items()},
        "sinks": {kind: {"type": kind, **least} for kind, least in LEAST.items()},
        "routes": [{"id": "all", "sinks": list(LEAST)}],
    }
    return copy.deepcopy(document)  # tests write into it


def below(shape, depth=3):
    """The ways to every value that a type may hold: keys, and indexes of lists."""
    yield ()
    for leaf in shapes.leaves(shape) if depth else ():
        if isinstance(leaf, type) and issubclass(leaf, BaseModel):
            for key, field in shapes.fields(leaf).items():
                yield from ((key, *way) for way in below(shapes.of_field(field), depth - 1))
        elif typing.get_origin(leaf) is list:
            yield from ((0, *way) for way in below(typing.get_args(leaf)[0], depth - 1))
        elif typing.get_origin(leaf) is dict:
            yield from (("key", *way) for way in below(typing.get_args(leaf)[1], depth - 1))


def ways():
    """The place of every typed key of a configuration."""
    for name in ("version", "include", "timezone", "unmatched", "schemas", "routes", "sources", "sinks", "defaults"):
        yield (name,)
    yield from (("include", 0), ("unmatched", 0), ("routes", 0, "sinks", 0), ("routes", 0, "sinks", 0, "sink"))
    for section, model in SECTIONS.items():
        yield from ((section, *way) for way in below(model))
    for kind, (model, _) in SOURCES.items():
        yield from (("sources", kind, *way) for way in below(model))
    for kind in LEAST:
        for where in (("sinks", kind), ("defaults", kind)):
            yield from ((*where, *way) for way in below(HostKeys))
            yield from ((*where, *way) for way in below(SINKS[kind].options))
    yield from (("routes", 0, *way) for way in below(RouteConfig) if way[:1] != ("sinks",))
    yield from (("schemas", 0, *way) for way in below(SchemaConfig))


WAYS = sorted(set(ways()), key=str)


def together():
    """The places again, in bundles: one of each section, source and sink, for which one configuration is enough."""
    groups = {}
    for way in WAYS:
        name = way[:2] if way[0] in {"sources", "sinks", "defaults"} and len(way) > 2 else way[:1]
        groups.setdefault(name if len(way) > 1 else way, []).append(way)
    whole = [ways for name, ways in groups.items() if ways == [name]]
    others = [ways for ways in groups.values() if ways not in whole]
    bundles = [[way for way in bundle if way is not None] for bundle in itertools.zip_longest(*others)]
    return bundles + whole


BUNDLES = together()


def put(document, way, value):
    """Put a value at its way, and what must be around it."""
    if way[0] == "schemas" and len(way) > 1:
        document["schemas"] = [{"channels": ["a"], "file": "s.json", "mode": "off"}]
    if way[:2] == ("unmatched", 0) or (way[0] == "include" and len(way) > 1):
        document[way[0]] = []
    for part, following in zip(way, (*way[1:], None), strict=True):
        last = following is None
        fresh = value if last else [] if isinstance(following, int) else {}
        if isinstance(document, list):
            if not document:
                document.append(fresh)
            elif last or isinstance(document[0], str):
                document[0] = fresh
            document = document[0]
        else:
            if last or not isinstance(document.get(part), list if isinstance(following, int) else dict):
                document[part] = fresh
            document = document[part]


def pieces(text, secret, length=12):
    """The parts of a secret that stand in a text."""
    return {secret[at : at + length] for at in range(len(secret) - length + 1) if secret[at : at + length] in text}


def said(path, environ):
    """Everything that loading and printing a configuration says."""
    told = []
    for show in (load, effective):
        try:
            found = show(path, environ=environ)
            told += [found] if isinstance(found, str) else found.problems
        except ConfigError as error:
            told += [str(error), *error.problems]
    return "\n".join(one if isinstance(one, str) else json.dumps(msgspec.structs.asdict(one)) for one in told)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "secret").write_text(SECRET + "\n")
    (tmp_path / "secret").chmod(0o600)
    return tmp_path


@pytest.mark.parametrize("written", ["${TOKEN}", "${file:secret}", "${cred:secret}", "${TOKEN:-}x", "a ${TOKEN:?no}"])
def test_no_typed_key_shows_what_an_expression_gives(folder, written):
    environ = {"TOKEN": SECRET, "CREDENTIALS_DIRECTORY": str(folder)}
    assert len(WAYS) > 200
    shown = {}
    for bundle in BUNDLES:
        document = base()
        for way in bundle:
            put(document, way, written)
        (folder / "config.yaml").write_text(json.dumps(document))
        found = pieces(said(folder / "config.yaml", environ), SECRET)
        if found:
            shown[tuple(bundle)] = found
    assert shown == {}


@pytest.mark.parametrize("secret", ["hunter2", "xyz", "Geheim9"])
def test_a_short_secret_is_hidden_at_its_place(folder, secret):
    shown = []
    for bundle in BUNDLES:
        document = base()
        for way in bundle:
            put(document, way, "${TOKEN}")
        (folder / "config.yaml").write_text(json.dumps(document))
        if re.search(rf"(?<!\w){secret}(?!\w)", said(folder / "config.yaml", {"TOKEN": secret})):
            shown.append(bundle)
    assert shown == []


def test_a_short_value_blacks_out_nothing_elsewhere(folder):
    document = base()
    document["sinks"]["email"]["port"] = "${PORT}"
    document["sinks"]["log"]["timeout"] = "7"
    document["shutdown"] = {"drain": "7 5 must"}
    (folder / "config.yaml").write_text(json.dumps(document))
    told = said(folder / "config.yaml", {"PORT": "7"})
    assert "'7' is not a duration" in told
    assert "'7 5 must' is not a duration" in told


def test_the_message_says_which_expression_it_was(folder):
    document = base()
    document["sinks"]["log"]["timeout"] = "${TOKEN}"
    (folder / "config.yaml").write_text(json.dumps(document))
    with pytest.raises(ConfigError) as raised:
        load(folder / "config.yaml", environ={"TOKEN": SECRET})
    [problem] = [each for each in raised.value.problems if each.severity == "error"]
    assert problem.message.startswith("'${TOKEN}' is not a duration; write")


def secret_fields():
    for kind in LEAST:
        for key, field in shapes.fields(SINKS[kind].options).items():
            if shapes.is_secret(shapes.of_field(field)):
                yield ("sinks", kind, key)
    yield ("admin", "token")


@pytest.mark.parametrize(
    "line", ["token:{}", "token = {}", 'password:"{}"', "url:https://hooks.example.org/services/{}"]
)
def test_a_secret_behind_a_key_without_its_space_is_not_shown(tmp_path, line):
    secret = "TOPSECRET12xyz9876"
    shown = line.format(secret)
    (tmp_path / "config.yaml").write_text(f"version: 1\nsinks:\n  b:\n    {shown}\nroutes: []\n")
    for more in ([], ["--json"]):
        done = run("check", "config.yaml", *more, cwd=tmp_path)
        assert done.code == 78
        assert "must be a mapping" in done.out + done.err
        assert secret not in done.out + done.err


@pytest.mark.parametrize("way", list(secret_fields()), ids=".".join)
@pytest.mark.parametrize(
    "written",
    ["7261936455", "{SECRET}", "[{SECRET}]", "{{k: {SECRET}}}", "@{SECRET}", "%{SECRET}", "*{SECRET} x", "!{SECRET}x"],
)
def test_a_secret_field_shows_nothing_of_what_stands_in_it(folder, way, written):
    secret = "7261936455" if written.isdecimal() else "Geheim-0123456789-abcdef"
    document = base()
    put(document, way, "HERE")
    text = json.dumps(document, indent=1).replace(
        '"HERE"', written.replace("{{", "{").replace("}}", "}").replace("{SECRET}", secret)
    )
    (folder / "config.yaml").write_text(text)
    assert not pieces(said(folder / "config.yaml", {}), secret, len(secret) - 2)


def test_a_password_in_a_url_of_a_file_that_is_no_yaml_is_not_shown(folder):
    for line in ("url: [redis://:hunter2@h", "url: @redis://:hunter2@h", "password: @hunter2", "token: `hunter2"):
        (folder / "config.yaml").write_text(f"version: 1\nredis:\n  {line}\n")
        told = said(folder / "config.yaml", {})
        assert "config.yaml" in told
        assert "hunter2" not in told


# The commands and the admin side.

MISPLACED = {"sinks": {"audit": {"type": "log", "path": "audit.jsonl", "timeout": "${TOKEN}"}}}


@pytest.mark.parametrize(
    "arguments",
    [
        ("check",),
        ("check", "--json"),
        ("run",),
        ("config",),
        ("publish", "a", "{}"),
        ("dlq", "list"),
        ("queue", "list"),
    ],
)
def test_no_command_shows_it(tmp_path, arguments):
    (tmp_path / "config.yaml").write_text(json.dumps({"version": 1, **RUNNING, **MISPLACED}))
    done = run(*arguments, cwd=tmp_path, env={"TOKEN": SECRET})
    assert done.code == 78
    assert "is not a duration" in done.out + done.err
    assert not pieces(done.out + done.err, SECRET)


def test_the_summary_of_check_shows_no_secret(tmp_path):
    (tmp_path / "secret").write_text(SECRET)
    setup = {**RUNNING, "sources": {"web": {"type": "pubsub", "channels": ["${file:secret}", "a ${file:secret}"]}}}
    (tmp_path / "config.yaml").write_text(json.dumps({"version": 1, **setup}))
    for arguments in (("check",), ("check", "--json")):
        done = run(*arguments, cwd=tmp_path)
        assert done.code == 0
        assert not pieces(done.out + done.err, SECRET)


async def test_a_reload_that_is_refused_shows_no_secret(start_server, tmp_path):
    import asyncio

    server = start_server()
    async with daemon(server, tmp_path, RUNNING, TOKEN=SECRET) as router:
        (tmp_path / "config.yaml").write_text(
            json.dumps({"version": 1, "redis": {"url": server.url}, **RUNNING, **MISPLACED})
        )
        told = [
            await asyncio.to_thread(run, *words, cwd=tmp_path)
            for words in (("reload",), ("reload", "--json"), ("status", "--json"))
        ]
        answers = "\n".join(done.out + done.err for done in told)
        assert "is not a duration" in answers
        assert not pieces(answers + router.process.err + "".join(router.process.notify.messages), SECRET)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("a: xoxb-1234567890-AbCdEf", "a: ***"),
        ("[aB3456789012345, aB34567890123456, é-aB34567890123456]", "[aB3456789012345, ***, ***]"),
        ("lowercase-and-digits-123456 UPPER-AND-DIGITS-123456", "lowercase-and-digits-123456 UPPER-AND-DIGITS-123456"),
        ("my_PassWd: x", "my_PassWd: ***"),
        ('{"api-key": "x y", "other": "x y"}', '{"api-key": ***, "other": "x y"}'),
        ("title: x", "title: x"),
    ],
)
def test_what_looks_like_a_credential_is_hidden_in_a_line(line, shown):
    assert without_credentials(line) == shown
