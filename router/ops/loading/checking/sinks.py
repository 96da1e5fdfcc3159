"""Checks of the sections `sinks` and `defaults`: keys of the router and options of plugins, by their models; floor 4."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
from pydantic import BaseModel, SecretStr

from router.config.models import HostKeys, SinkConfig, check_queue
from router.config.scalars import NAME
from router.files import read_file, resolve_path
from router.ops.loading.reading import shapes, typed, yaml_hints
from router.ops.loading.reading.concealing import holds_a_secret, is_credential_entry
from router.ops.loading.reading.nodes import Entry, Mapping, Node, child_path, find, quoted, scalars, word
from router.ops.loading.reading.placeholders import WORD
from router.ops.loading.reading.problems import Problems, did_you_mean, unknown
from router.ops.redaction import HIDDEN
from router.options import ALLOW_PRIVATE, TEMPLATE_FILES, TemplateFile, is_template
from router.plugin_contracts import SinkType
from router.plugin_loading.plugin_manager import Plugins
from router.plugin_loading.sink_types import ALL

HOST_KEYS = tuple(shapes.fields(HostKeys))
_DEFAULT_KEYS = tuple(key for key in HOST_KEYS if key != "type")
_NAME = re.compile(NAME)
IN_CLEAR = "a secret is written here in clear text; write ${NAME}, ${file:/path} or ${cred:name}"
EMPTY_ADDRESS = (
    "an empty string is not an address, so nothing is sent; write an address or a template, or remove the key"
)
_LARGEST = 1024**2
_LEAST_PATH = 8  # characters; a shorter path may be an ordinary word
_LEAST_PART = 16


class CheckedSink(msgspec.Struct):
    """A sink under check: its keys with defaults, its type, and its configuration (None if the sink has faults)."""

    name: str
    entry: Entry
    keys: Mapping
    type: SinkType
    config: SinkConfig | None = None


class TemplateReader(msgspec.Struct):
    """The reader of `{file: NAME}` templates and their includes. `files` collects the paths of all files read."""

    files: set[Path] = msgspec.field(default_factory=set)

    def context(self, host: HostKeys | None = None) -> dict[str, Any]:
        """Return the validation context for an options model.

        `host` are the router's keys of the sink, if they are known.
        """
        known = {} if host is None else {ALLOW_PRIVATE: host.allow_private}
        return {TEMPLATE_FILES: self._template, **known}

    def _template(self, name: str) -> TemplateFile:
        if not isinstance(name, typed.PlacedName):
            raise ValueError("a file can't be used here: write the template itself")  # noqa: TRY004  # pydantic collects ValueError
        file = name.mark.file
        path = file.folder / name

        def read(included: str) -> str:
            root = resolve_path(path.parent)
            inner = resolve_path(root / included)
            if not inner.is_relative_to(root):
                raise ValueError("the file is outside the folder of the template")
            return self._text(inner)

        try:
            return TemplateFile(self._text(path), name=str(name), read=read)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None

    def _text(self, path: Path) -> str:
        self.files.add(path)
        try:
            return read_file(path, most=_LARGEST).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise ValueError("this is not UTF-8") from None


def entries_with_type(
    node: Mapping,
    kind: str,
    what: str,
    problems: Problems,
    *,
    name_fault: Callable[[str], str | None] | None = None,
) -> Iterator[tuple[str, Entry, Mapping, str]]:
    """Yield name, entry, keys and type of each entry of `sources`, `sinks` or `lookups`; report entries without a
    `type`.

    `kind` is the word for an entry in messages. `what` is the advice for an entry without a `type`. `name_fault`
    returns the fault of a name, or None. By default, the rule for names of sources and sinks applies.
    """
    if not node.entries:
        problems.add(f"must not be empty: at least one {kind} is needed", node)
    for name, entry in node.entries.items():
        if name_fault is not None:
            fault = name_fault(name)
        else:
            fault = (
                None if _NAME.fullmatch(name) else f"{quoted(name)} is not a valid name of a {kind}; {typed.NAME_RULE}"
            )
        if fault is not None:
            problems.add(fault, entry.mark, path=entry.node.path)
        keys = typed.mapping(entry.node, problems)
        if keys is not None and "type" not in keys.entries:
            _no_type(keys, entry, problems, what)
        elif keys is not None and (named := typed.text(keys.get("type"), problems)) is not None:
            yield name, entry, keys, named


def used_types(root: Mapping) -> frozenset[str]:
    """Return the types of sinks that a configuration names."""
    sinks, defaults = root.get("sinks"), root.get("defaults")
    named = (
        {word(find(entry.node, "type")) for entry in sinks.entries.values()} if isinstance(sinks, Mapping) else set()
    )
    return frozenset(filter(None, named)) | frozenset(defaults.entries if isinstance(defaults, Mapping) else ())


def check_defaults(node: Mapping, plugins: Plugins, problems: Problems, reader: TemplateReader) -> None:
    """Check `defaults`: types and keys must be known, and values valid.

    Required keys may be missing: sinks can add them.
    """
    for name, entry in node.entries.items():
        keys = typed.mapping(entry.node, problems)
        if name != ALL and name not in plugins.sinks:
            problems.add(unknown_type(name, plugins, (ALL, *plugins.origins)), entry.mark, path=entry.node.path)
            entry.node.faulty = True
        elif keys is not None:
            model = None if name == ALL else plugins.sinks[name].options
            own = () if model is None else tuple(shapes.fields(model))
            typed.unknown_keys(keys, (*_DEFAULT_KEYS, *own), problems)
            typed.check(HostKeys, _part(keys, _DEFAULT_KEYS), problems, concerns=_present)
            if model is not None:
                part = _part(keys, [key for key in own if key not in HOST_KEYS])
                typed.check(model, part, problems, context=reader.context(), concerns=_present)
                look_for_cuts(part, model, problems)


def _present(node: Node, key: str | None) -> bool:
    """Return whether a fault concerns a written value, and not a missing value."""
    return key is None and not isinstance(node, Mapping)


def _part(whole: Mapping, keys: Collection[str]) -> Mapping:
    """Return some keys of a mapping, as a mapping at the same place."""
    return Mapping(whole.mark, {key: entry for key, entry in whole.entries.items() if key in keys}, path=whole.path)


def unknown_type(name: str, plugins: Plugins, allowed: tuple[str, ...] | None = None, what: str = "sink") -> str:
    """Return the message for an unknown type of sink or lookup.

    It lists the plugins and folders that could not be loaded.
    """
    message: str = unknown(f"type of {what}", name, sorted(plugins.origins) if allowed is None else allowed)
    failed = [f"{plugin.path or plugin.origin}: {plugin.error}" for plugin in plugins.failures]
    if failed:
        message = f"{message}; a plugin could not be loaded: {'; '.join(failed)}"
    if plugins.disabled:
        message = f"{message}; {_switched_off(name, plugins.disabled)}"
    return "; ".join(
        (message, *(f"{folder} is not a plugin, because it has no __init__.py" for folder in plugins.incomplete))
    )


def _switched_off(kind: str, disabled: Sequence[str]) -> str:
    """Return the correction for an unknown type: its plugin may be switched off.

    The types of such a plugin are not known.
    """
    if kind in disabled:
        return f"the plugin {kind} is switched off: remove it from `plugins.disable` to use it"
    return f"`plugins.disable` switches off {', '.join(disabled)}: if the type belongs to one of these plugins, remove the plugin from the list"


def check_sinks(
    node: Mapping, defaults: Mapping | None, plugins: Plugins, problems: Problems, reader: TemplateReader
) -> dict[str, CheckedSink]:
    """Check every sink; return all sinks with a known type, even if they have faults."""
    found: dict[str, CheckedSink] = {}
    for name, entry, keys, kind in entries_with_type(
        node, "sink", "write the type of the sink, such as email or webhook", problems
    ):
        if kind not in plugins.sinks:
            problems.add(unknown_type(kind, plugins), keys.entries["type"].node)
            continue
        merged = _with_defaults(keys, kind, defaults, plugins.sinks[kind])
        sink = found[name] = CheckedSink(name, entry, merged, plugins.sinks[kind])
        sink.config = _checked(sink, problems, reader)
    return found


def _no_type(keys: Mapping, entry: Entry, problems: Problems, what: str) -> None:
    meant = next((key for key in keys.entries if did_you_mean(key, ["type"])), None)
    if meant is not None:
        typed.unknown_key(meant, keys.entries[meant], ["type"], problems)
    elif not keys.faulty:
        problems.add(f"`type` is required: {what}", entry.mark, path=child_path(keys.path, "type"))


def _with_defaults(keys: Mapping, kind: str, defaults: Mapping | None, sink_type: SinkType) -> Mapping:
    """Return the keys of a sink with its defaults. The sink's own keys override the defaults of its type and of `all`.

    Mappings are merged one level deep.
    """
    entries: dict[str, Entry] = {}
    known = {*_DEFAULT_KEYS, *shapes.fields(sink_type.options)}
    for layer in (defaults.get(ALL) if defaults else None, defaults.get(kind) if defaults else None, keys):
        if not isinstance(layer, Mapping):
            continue
        for key, entry in layer.entries.items():
            if layer is not keys and (key not in known or entry.node.faulty):
                continue
            entries[key] = _over(entries.get(key), entry)
    return Mapping(keys.mark, entries, path=keys.path)


def _over(below: Entry | None, entry: Entry) -> Entry:
    if below is None or not isinstance(below.node, Mapping) or not isinstance(entry.node, Mapping):
        return entry
    if "file" in below.node.entries and "file" in entry.node.entries:
        return entry
    merged = {**below.node.entries, **entry.node.entries}
    return Entry(entry.mark, Mapping(entry.node.mark, merged, path=entry.node.path))


def _checked(sink: CheckedSink, problems: Problems, reader: TemplateReader) -> SinkConfig | None:
    """Return the configuration of a sink. Report its faults, and return None if there are any."""
    keys, model = sink.keys, sink.type.options
    own = [key for key in shapes.fields(model) if key not in HOST_KEYS]
    allowed = (*HOST_KEYS, *own)
    unknown_names = typed.unknown_keys(keys, allowed, problems)
    missed = {key for key in shapes.fields(model) if any(did_you_mean(each, [key]) for each in unknown_names)}
    host = typed.check(HostKeys, _part(keys, HOST_KEYS), problems, at=sink.entry)
    _check_queue(host, sink, problems)
    part = _part(keys, own)

    def concerns(node: Node, key: str | None) -> bool:
        """Return whether to report a fault.

        If the sink has an unknown key, a fault of the whole sink ("`to` is required") is not reported. The unknown key
        may be the misspelt required key.
        """
        return not unknown_names or node is not part or (key is not None and key not in missed)

    look_for_cuts(part, model, problems)
    options = typed.check(
        model,
        part,
        problems,
        at=Entry(sink.entry.mark, part),
        allowed=allowed,
        context=reader.context(host),
        concerns=concerns,
        plugin=sink.type.origin,
    )
    literal_secrets(part, model, problems)
    empty_addresses(part, model, problems)
    if host is None or options is None or unknown_names or any(entry.node.faulty for entry in keys.entries.values()):
        return None
    return SinkConfig(host=host, options=options)


def _check_queue(host: HostKeys | None, sink: CheckedSink, problems: Problems) -> None:
    """Report queue options that don't fit the plugin's default queue.

    If the sink gives a queue type, the model checks the options.
    """
    node = sink.keys.get("queue")
    if host is None or host.queue is None or host.queue.type is not None or node is None:
        return
    try:
        check_queue(host.queue, sink.type.queue)
    except ValueError as error:
        problems.add(str(error), node)


def look_for_cuts(node: Node, shape: shapes.Shape, problems: Problems) -> None:
    """Report unquoted texts with ` #`, because YAML reads the rest of such a text as a comment."""
    for scalar, expected, _ in shapes.scalars(node, shape):
        if scalar.cut is not None and isinstance(scalar.value, str) and shapes.is_template(expected):
            problems.add(yaml_hints.COMMENT, scalar, excerpt=scalar.cut or None)


def literal_secrets(node: Node, shape: shapes.Shape, problems: Problems) -> None:
    """Warn about secrets that are written in the configuration in clear text."""
    for scalar, expected, _ in shapes.scalars(node, shape):
        written = not scalar.expanded and not is_template(scalar.text) and scalar.value not in {None, "", HIDDEN}
        if written and (shapes.is_secret(expected) or is_credential_entry(scalar.path)):
            problems.warn(IN_CLEAR, scalar)


def empty_addresses(node: Mapping, model: type[BaseModel], problems: Problems) -> None:
    """Warn about addresses that are an empty string."""
    for key, entry in node.entries.items():
        field = shapes.fields(model).get(key)
        if field is None or not shapes.is_addresses(shapes.of_field(field)):
            continue
        for scalar in scalars(entry.node):
            if not scalar.expanded and isinstance(scalar.value, str) and not scalar.value.strip():
                problems.warn(EMPTY_ADDRESS, scalar)


def secrets_of(value: Any) -> set[str]:
    """Return the secrets in an options model, as strings."""
    if isinstance(value, SecretStr):
        text = value.get_secret_value()
        return {text, *url_secrets(text), *_webhook(text)}
    if isinstance(value, BaseModel):
        value = vars(value)
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return set().union(*(secrets_of(part) for part in value))
    return url_secrets(value) if isinstance(value, str) else set()


def likely_secrets(keys: Mapping) -> set[str]:
    """Return the values of a sink that are likely secrets, although their fields do not have the type of a secret.

    Likely secrets are the path of a URL that comes from outside the file, and the value of a header such as
    `X-Api-Key`. The value of any other field with the name of a secret, such as `token` in a JSON body, is a likely
    secret only if it comes from outside the file.
    """
    found: set[str] = set()
    for scalar in scalars(keys):
        if scalar.default or not isinstance(scalar.value, str):
            continue
        named = is_credential_entry(scalar.path)
        if scalar.expanded:
            found |= _webhook(scalar.value)
            named = named or holds_a_secret(scalar.path)
        elif is_template(scalar.text):
            continue
        if named:
            found.add(scalar.value)
            words = scalar.value.split()
            if len(words) == 2:  # a scheme and a credential, such as `Bearer TOKEN`
                found.add(words[1])
    return found


def _webhook(url: str) -> set[str]:
    """Return the parts of a secret URL that are secrets themselves: its path, and each long part (`_LEAST_PART`)."""
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        return set()
    if parts.scheme not in {"http", "https"}:
        return set()
    target = f"{parts.path}?{parts.query}"
    whole = {text for text in (target.rstrip("?/"), parts.path.rstrip("/")) if len(text) >= _LEAST_PATH}
    return whole | {part for part in re.split(r"[/?&=]", target) if len(part) >= _LEAST_PART}


def url_secrets(url: str) -> set[str]:
    """Return the password in a URL, both as written and decoded; empty if there is no password."""
    if "://" not in url or "@" not in url or "{{" in url:
        return set()
    try:
        password = urlsplit(url).password
    except ValueError:
        return set()
    return {password, unquote(password)} if password and password != WORD else set()
