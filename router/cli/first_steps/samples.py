"""Sample payloads, made from a schema, and the commands that publish them; floor 7."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from router.core.matching import example_of, is_glob
from router.files import read_file

if TYPE_CHECKING:
    from router.config.models import SourceConfig
    from router.ops.loading import Loaded

_DEEPEST = 6
_FORMATS = {
    "date-time": "2026-01-31T12:00:00Z",
    "date": "2026-01-31",
    "time": "12:00:00Z",
    "email": "someone@example.org",
    "uri": "https://example.org/",
    "uuid": "0b0e9c1e-7c5a-4a52-8f0e-2b1a6c3d4e5f",
    "hostname": "example.org",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
}


def sample(loaded: Loaded, channel: str) -> str | None:
    """Return a payload, as JSON text, that the channel's schema accepts; None if none could be made."""
    rule = loaded.routing().plan("", channel.encode("utf-8", "surrogateescape")).schema
    if rule is None or rule.schema is None:
        return '{"message": "hello"}'
    try:
        document = msgspec.json.decode(read_file(loaded.path.parent / rule.file))
    except ValueError:
        return None
    payload = make(document)
    return json.dumps(payload, ensure_ascii=False) if rule.schema.is_valid(payload) else None


def make(document: Any) -> Any:
    """Return a value for a JSON Schema: the schema's first example, or a value made by the schema's simple keywords."""
    return _make(document, document, _DEEPEST)


def _make(schema: Any, root: Any, depth: int) -> Any:
    if not isinstance(schema, Mapping) or depth == 0:
        return {}
    for keyword in ("examples", "enum"):
        if isinstance(schema.get(keyword), list) and schema[keyword]:
            return schema[keyword][0]
    for keyword in ("const", "default", "example"):
        if keyword in schema:
            return schema[keyword]
    for part in _parts(schema, root):
        made = _make(part, root, depth - 1)
        if made != {}:
            return made
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    maker: Callable[[Mapping[str, Any]], Any] | None = _MAKERS.get(str(kind))
    if maker:
        return maker(schema)
    return _array(schema, root, depth) if kind == "array" else _object(schema, root, depth)


def _parts(schema: Mapping[str, Any], root: Any) -> list[Any]:
    parts = [part for keyword in ("oneOf", "anyOf", "allOf") for part in schema.get(keyword, ())]
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/"):
        target = root
        for step in reference[2:].split("/"):
            target = target.get(step, {}) if isinstance(target, Mapping) else {}
        parts.insert(0, target)
    return parts


def _object(schema: Mapping[str, Any], root: Any, depth: int) -> dict[str, Any]:
    properties = schema.get("properties", {})
    return {name: _make(properties.get(name, {}), root, depth - 1) for name in schema.get("required", ())}


def _array(schema: Mapping[str, Any], root: Any, depth: int) -> list[Any]:
    return [_make(schema.get("items", {}), root, depth - 1)] * schema.get("minItems", 1)


def _string(schema: Mapping[str, Any]) -> str:
    text: str = _FORMATS.get(schema.get("format", ""), "hello")
    return text.ljust(schema.get("minLength", 0), "!")[: schema.get("maxLength")]


def _number(schema: Mapping[str, Any]) -> Any:
    low = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
    number = max(low, min(42, schema.get("maximum", 42)))
    return number if schema.get("type") == "number" else int(number)


_MAKERS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "string": _string,
    "integer": _number,
    "number": _number,
    "boolean": lambda _schema: True,
    "null": lambda _schema: None,
}


def first_channel(loaded: Loaded) -> tuple[SourceConfig, str] | None:
    """Return a source and a channel to publish to: the first channel without wildcards, else a channel for a glob.

    Return None if no source has a channel for a sample.
    """
    reads = [(each, name) for each in loaded.config.sources.values() for name in each.reads]
    for source, name in reads:
        if source.type != "pubsub" or not is_glob(name):
            return source, name
    return next(((source, found) for source, name in reads if (found := example_of(name))), None)


def publish_lines(loaded: Loaded, redis_url: str, config: Path) -> list[str]:
    """Return commands that publish a sample event: redis-cli (if no password is needed) and `event-router publish`."""
    found = first_channel(loaded)
    if found is None:
        return []
    source, channel = found
    payload = "hello" if source.format == "text" else sample(loaded, channel)
    if payload is None:
        return []
    if source.format == "cloudevents":
        payload = f'{{"specversion": "1.0", "id": "1", "source": "/sample", "type": "sample", "data": {payload}}}'
    words = f"{'-- ' * channel.startswith('-')}{shlex.quote(channel)} {shlex.quote(payload)}"
    client = _redis_cli(source.url or redis_url)
    command = shlex.join(map(os.fsdecode, publish_command(source, channel.encode(), payload.encode())))
    return [*([f"{client} {command}"] if client else []), f"{ours('publish', config)} {words}"]


def publish_command(source: SourceConfig | None, channel: bytes, payload: bytes) -> list[bytes]:
    """Return the words of the Redis command that sends a payload to a source; PUBLISH if `source` is None."""
    if source is not None and source.type == "stream":
        return [b"xadd", channel, b"*", source.payload_field.encode(), payload]
    return [b"publish" if source is None or source.type == "pubsub" else b"lpush", channel, payload]


def _redis_cli(url: str) -> str | None:
    """Return the redis-cli command with the options for a server; None if a password or another option is needed."""
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query:
        return None
    if parts.scheme == "unix":
        return f"redis-cli -s {shlex.quote(parts.path)}"
    tls = " --tls" if parts.scheme == "rediss" else ""
    host = "" if parts.hostname in {"127.0.0.1", "localhost", None} else f" -h {shlex.quote(parts.hostname)}"
    return f"redis-cli{tls}{host} -p {parts.port or 6379}"


def ours(command: str, config: Path) -> str:
    """Return the shell command for one of our commands with a configuration, for another terminal in this folder."""
    where = "" if config == Path("config.yaml") else f" -c {shlex.quote(str(config))}"
    return f"{shlex.join(ourselves())} {command}{where}"


def ourselves() -> list[str]:
    """Return the words that call this command again, in another terminal opened in this folder."""
    called = Path(sys.argv[0]).absolute()
    if called.name != "event-router":
        return [sys.executable, "-m", "router.cli.main"]
    found = shutil.which("event-router")
    if found and Path(found).absolute() == called:
        return ["event-router"]
    return [str(called.relative_to(Path.cwd()) if called.is_relative_to(Path.cwd()) else called)]
