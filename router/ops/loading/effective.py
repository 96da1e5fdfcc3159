"""The effective configuration as YAML: includes and defaults added, secrets hidden, `${…}` not expanded; floor 4."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping as MappingType
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import yaml
from pydantic import BaseModel

from router.config.models import HostKeys, QueueConfig, RedisConfig, SchemaConfig
from router.ops.loading.checking.sinks import CheckedSink, url_secrets
from router.ops.loading.draft import Draft
from router.ops.loading.loader import check
from router.ops.loading.reading import shapes
from router.ops.loading.reading.concealing import is_credential_entry
from router.ops.loading.reading.nodes import Mapping, Node, Scalar, Sequence, find, items, resolve
from router.ops.redaction import HIDDEN
from router.options import is_template

if TYPE_CHECKING:
    from router.ops.loading.lookup_entries import CheckedLookup

_RELATIVE_FILE = re.compile(r"\$\{file:([^/}][^}]*)\}")


def effective(path: Path, *, environ: MappingType[str, str], env_file: Path | None = None, pipes: bool = False) -> str:
    """Return the text of a single YAML file with the whole configuration and all defaults.

    The text can be loaded from the same folder. No secrets are needed. Raises `ConfigError` with every problem found.
    """
    draft = check(path, environ=environ, env_file=env_file, placeholders=True, pipes=pipes)
    draft.problems.check()
    return dump(_Printer(draft).document())


class _Dumper(yaml.SafeDumper):
    """A YAML dumper. It quotes each string that YAML 1.2 would read as a value of another type."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  # a list that occurs twice is written twice
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text.rstrip("\n") and text == text.strip("\n ") + "\n" else None
    if not isinstance(resolve(text), str):
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


class _Indented(_Dumper):
    """A dumper that indents the items of a list below its key, as in most files written by hand."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002  # PyYAML's signature
        super().increase_indent(flow, False)


class Block(dict[str, Any]):
    """A mapping that `dump_compact` writes with one key per line."""


_Indented.add_representer(
    Block, lambda dumper, mapping: dumper.represent_mapping("tag:yaml.org,2002:map", mapping, flow_style=False)
)


def dump(document: Any) -> str:
    """Return plain values as YAML, with keys in their order."""
    return _dumped(document, _Dumper)


def dump_compact(document: dict[str, Any]) -> str:
    """Return a mapping as YAML in the style of a hand-written file.

    The innermost lists and mappings are on one line, except a mapping of type `Block`.
    """
    return _dumped(Block(document), _Indented, default_flow_style=None)


def _dumped(document: Any, dumper: type[_Dumper], *, default_flow_style: bool | None = False) -> str:
    text: str = yaml.dump(
        document,
        Dumper=dumper,
        sort_keys=False,
        allow_unicode=True,
        width=120,
        default_flow_style=default_flow_style,
    )
    return text


class _Printer:
    """Merges the written values over the defaults of the models."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._root = draft.root
        self._home = draft.root.mark.file.folder

    def document(self) -> dict[str, Any]:
        """Return the whole configuration as plain values."""
        draft, root = self._draft, self._root
        document: dict[str, Any] = {
            "version": 1,
            "redis": self._model(draft.redis, root.get("redis"), RedisConfig),
        }
        paths = draft.plugin_paths.paths
        if paths:
            document["plugins"] = {"paths": [self._path(item) for item in items(find(root, "plugins", "paths"))]}
        allowed = root.get("allow_commands")
        document["allow_commands"] = False if allowed is None else self._raw(allowed, None)
        document["sources"] = {
            name: self._model(source, find(root, "sources", name), type(source))
            for name, source in draft.sources.items()
        }
        if draft.schemas:
            document["schemas"] = [self._schema(config, item) for config, _, item in draft.schemas]
        if draft.lookups:
            document["lookups"] = {name: self._lookup(lookup) for name, lookup in draft.lookups.items()}
        document["sinks"] = {name: self._sink(sink) for name, sink in draft.sinks.items()}
        document["routes"] = [
            self._route(route, item) for route, item in zip(draft.routes, items(root.get("routes")), strict=True)
        ]
        for key in ("unmatched", "deliver", "timezone"):
            node = root.get(key)
            filled = {"unmatched": "drop", "deliver": "send", "timezone": "UTC"}[key]
            document[key] = filled if node is None else self._raw(node, None)
        document["dead_letters"] = self._model(draft.dead_letters, root.get("dead_letters"), type(draft.dead_letters))
        document["admin"] = self._model(draft.admin, root.get("admin"), type(draft.admin))
        document["shutdown"] = self._model(draft.shutdown, root.get("shutdown"), type(draft.shutdown))
        return document

    def _route(self, route: BaseModel, item: Node) -> dict[str, Any]:
        dumped = route.model_dump(mode="json", exclude_none=True, include={"id", "final", "enabled"})
        raw = self._raw(item, type(route))
        assert isinstance(raw, dict)
        match = find(item, "match")
        if match is not None:
            raw["match"] = self._raw(match, None, names_files=False)
        order = ("id", "sources", "channels", "match", "when", "expires", "sinks", "final", "enabled")
        return {key: raw.get(key, dumped.get(key)) for key in order if key in raw or key in dumped}

    def _schema(self, config: SchemaConfig, item: Node) -> dict[str, Any]:
        shown = self._model(config, item, SchemaConfig)
        named = find(item, "file")
        assert named is not None
        return {**shown, "file": self._path(named)}

    def _lookup(self, lookup: CheckedLookup) -> dict[str, Any]:
        assert lookup.config is not None
        shape: shapes.Shape = type(lookup.config.keys)
        filled = lookup.config.keys.model_dump(mode="json", exclude_none=True)
        if lookup.type is not None:
            shape = shape | lookup.type.options
            filled |= lookup.config.options.model_dump(mode="json", by_alias=True, exclude_none=True)
        shown: dict[str, Any] = self._over(filled, lookup.keys, shape)
        path = lookup.keys.get("path")
        return shown if path is None else {**shown, "path": self._path(path)}

    def _sink(self, sink: CheckedSink) -> dict[str, Any]:
        config, kind = sink.config, sink.type
        assert config is not None
        host = config.host
        queue = host.queue or QueueConfig()
        queue = queue.model_copy(update={"type": queue.type or kind.queue})
        filled = host.model_copy(update={"queue": queue, "concurrency": host.concurrency or kind.concurrency})
        names = shapes.fields(kind.options)
        secret = {key for key, field in names.items() if shapes.anywhere(shapes.of_field(field), shapes.is_secret)}
        options = config.options.model_dump(mode="json", by_alias=True, exclude_none=True)
        plain = {key: value for key, value in options.items() if key not in secret}
        dumped = {**filled.model_dump(mode="json", exclude_none=True), **plain}
        shown = self._over(dumped, sink.keys, HostKeys | kind.options)
        assert isinstance(shown, dict)
        return {"type": shown.pop("type"), **shown}

    def _model(self, model: BaseModel, node: Node | None, shape: shapes.Shape) -> Any:
        return self._over(model.model_dump(mode="json", by_alias=True, exclude_none=True), node, shape)

    def _over(self, filled: Any, node: Node | None, shape: shapes.Shape) -> Any:
        """Return the written value of a node, merged over the model's defaults."""
        if node is None:
            return filled
        if isinstance(node, Mapping) and isinstance(filled, dict):
            written = {
                key: self._over(filled.get(key), entry.node, shapes.at(shape, [key]))
                for key, entry in node.entries.items()
            }
            return {**written, **{key: value for key, value in filled.items() if key not in written}}
        if isinstance(filled, dict) and isinstance(node, Scalar):  # a short form, such as `queue: memory`
            return filled
        return self._raw(node, shape)

    def _raw(self, node: Node, shape: shapes.Shape, *, names_files: bool = True) -> Any:
        """Return the written value, with secrets hidden and paths relative to the main file.

        If `names_files` is False, a key `file` has no special meaning.
        """
        if isinstance(node, Mapping):
            names_files = names_files and not shapes.is_json(shape)
            if names_files and set(node.entries) == {"file"} and isinstance(node.get("file"), Scalar):
                return {"file": self._path(node.entries["file"].node)}
            return {
                key: self._raw(entry.node, shapes.at(shape, [key]), names_files=names_files)
                for key, entry in node.entries.items()
            }
        if isinstance(node, Sequence):
            return [
                self._raw(item, shapes.at(shape, [index]), names_files=names_files)
                for index, item in enumerate(node.items)
            ]
        assert isinstance(node, Scalar)
        if not isinstance(node.value, str) and "$" not in node.text:
            return node.value
        if not node.expanded and node.text:
            named = is_credential_entry(node.path) or (shape is not None and shapes.is_secret(shape))
            return _hidden(node.text, secret=named and not is_template(node.text))
        if node.mark.file.folder != self._home:
            return _RELATIVE_FILE.sub(lambda found: "${file:" + self._relative(node, found[1]) + "}", node.text)
        return node.text

    def _path(self, node: Node) -> Any:
        """Return the path of a file that the configuration names, relative to the main file."""
        text = node.text if isinstance(node, Scalar) else ""
        if isinstance(node, Scalar) and node.mark.file.folder != self._home and not text.startswith(("/", "${")):
            return self._relative(node, text)
        return text

    def _relative(self, node: Node, text: str) -> str:
        return os.path.relpath(node.mark.file.folder / text, self._home)


def _hidden(text: str, *, secret: bool) -> str:
    """Return a written text without secrets.

    If the text itself is a `secret`, nothing but the user and the host of a URL is shown. Otherwise only the password
    of a URL is hidden.
    """
    if not secret and not url_secrets(text):
        return text
    try:
        url = urlsplit(text)
    except ValueError:
        return HIDDEN
    if not url.scheme or not url.netloc:
        return HIDDEN
    user, _, host = url.netloc.rpartition("@")
    shown = f"{user.partition(':')[0]}:{HIDDEN}@{host}" if user else host
    return urlunsplit((url.scheme, shown, f"/{HIDDEN}", "", "")) if secret else urlunsplit(url._replace(netloc=shown))
