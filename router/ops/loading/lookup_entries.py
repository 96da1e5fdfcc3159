"""Checks of the section `lookups`: each lookup by the model of its type, with its file of records; floor 4."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

import msgspec

from router.config.lookups import (
    LOOKUP_NAME,
    LOOKUPS,
    TAKEN,
    BuiltInLookup,
    FileLookupConfig,
    HttpLookupConfig,
    LookupConfig,
    LookupKeys,
    PluginLookupConfig,
)
from router.files import resolve_path
from router.ops.loading.checking.sinks import IN_CLEAR, entries_with_type, literal_secrets, secrets_of, unknown_type
from router.ops.loading.reading import shapes, typed
from router.ops.loading.reading.nodes import Entry, Mapping, Scalar, find, quoted, word
from router.ops.loading.reading.placeholders import Settler
from router.ops.loading.reading.problems import Problems
from router.ops.loading.record_files import RecordFileError, read_records
from router.plugin_contracts import LookupType
from router.plugin_loading.plugin_manager import Plugins

_NAME = re.compile(LOOKUP_NAME)
_NO_SECRET = frozenset({"accept", "accept-language", "content-type", "user-agent"})
"""Headers of a request that never contain a credential."""


class CheckedLookup(msgspec.Struct):
    """A lookup under check: its keys, and its configuration if it is valid."""

    name: str
    entry: Entry
    keys: Mapping
    type: LookupType | None = None
    """The type that a plugin registered; None for a built-in type."""
    config: LookupConfig | None = None


def check_lookups(node: Mapping, plugins: Plugins, problems: Problems, files: set[Path]) -> dict[str, CheckedLookup]:
    """Check every lookup; return all lookups with a known type, even if they have faults.

    A file of records is added to `files` even if the file has faults, so that `run --watch` notices its correction.
    """
    found: dict[str, CheckedLookup] = {}
    if not node.entries:
        return found
    entries = entries_with_type(
        node,
        "lookup",
        "write redis-hash, file, http, or the type that a plugin registers",
        problems,
        name_fault=_name_fault,
    )
    for name, entry, keys, kind in entries:
        if kind in plugins.lookups:
            lookup = found[name] = CheckedLookup(name, entry, keys, plugins.lookups[kind])
            lookup.config = _of_plugin(lookup, plugins.lookups[kind], problems)
            continue
        model = LOOKUPS.get(kind)
        if model is None:
            problems.add(unknown_type(kind, plugins, (*LOOKUPS, *plugins.lookups), "lookup"), keys.entries["type"].node)
            continue
        lookup = found[name] = CheckedLookup(name, entry, keys)
        checked = typed.check(model, keys, problems, at=entry)
        if checked is not None:
            lookup.config = _checked(checked, keys, problems, files)
    return found


def _of_plugin(lookup: CheckedLookup, kind: LookupType, problems: Problems) -> LookupConfig | None:
    """Check the router's keys and the plugin's options. Both are keys of the same mapping."""
    keys, host, own = lookup.keys, shapes.fields(PluginLookupConfig), shapes.fields(kind.options)
    unknown_names = typed.unknown_keys(keys, (*host, *own), problems)
    checked = typed.check(PluginLookupConfig, _part(keys, host), problems, at=lookup.entry)
    part = _part(keys, own)
    options = typed.check(kind.options, part, problems, at=Entry(lookup.entry.mark, part), plugin=kind.origin)
    literal_secrets(part, kind.options, problems)
    if checked is None or options is None or unknown_names:
        return None
    return LookupConfig(keys=checked, options=options)


def _part(whole: Mapping, keys: Collection[str]) -> Mapping:
    entries = {key: entry for key, entry in whole.entries.items() if key in keys}
    return Mapping(whole.mark, entries, path=whole.path)


def _name_fault(name: str) -> str | None:
    if not _NAME.fullmatch(name):
        rule = "a name has 1 to 64 characters: a-z, A-Z, 0-9 and `_`; it can't begin with a digit, because templates use it as a variable"
        return f"{quoted(name)} is not a valid name of a lookup; {rule}"
    return (
        f"{quoted(name)} already has a meaning in templates: choose another name for the lookup"
        if name in TAKEN
        else None
    )


def _checked(checked: BuiltInLookup, keys: Mapping, problems: Problems, files: set[Path]) -> LookupConfig | None:
    if isinstance(checked, HttpLookupConfig):
        _warn_of_secrets(keys, problems)
    named = keys.get("path")
    if not isinstance(checked, FileLookupConfig) or named is None:
        return LookupConfig(keys=checked)
    path = named.mark.file.folder / checked.path
    try:
        path = resolve_path(path.parent) / path.name
        read_records(path, checked.by)
    except RecordFileError as error:
        files.add(path)
        problems.add(f"{checked.path}{error.place}: {error}", _concerned(keys, str(error)))
        return None
    except ValueError as error:
        problems.add(f"{checked.path}: {error}", named)
        return None
    return LookupConfig(keys=checked.model_copy(update={"path": str(path)}))


def _concerned(keys: Mapping, message: str) -> Scalar | None:
    """Return the node of the key to blame for a fault of a file: `by` if the column or field is missing, else `path`."""
    by, path = keys.get("by"), keys.get("path")
    node = by if by is not None and message.startswith(("there is no column", "no record has")) else path
    return node if isinstance(node, Scalar) else None


def _warn_of_secrets(keys: Mapping, problems: Problems) -> None:
    headers = find(keys, "headers")
    for name, entry in headers.entries.items() if isinstance(headers, Mapping) else ():
        node = entry.node
        if isinstance(node, Scalar) and not node.expanded and name.lower() not in _NO_SECRET and node.value:
            problems.warn(IN_CLEAR, node)


def settle_lookups(node: Mapping, plugins: Plugins, settler: Settler) -> None:
    """Replace each unset `${…}` of the section by a placeholder, or report it. The type of its field decides."""
    for lookup in node.entries.values():
        named = word(find(lookup.node, "type")) or ""
        of_plugin = plugins.lookups.get(named)
        shape = PluginLookupConfig | of_plugin.options if of_plugin else LOOKUPS.get(named, LookupKeys)
        settler.settle(lookup.node, shape)


def lookup_secrets(config: LookupConfig) -> set[str]:
    """Return the texts of a lookup's configuration that must never be shown."""
    keys = config.keys
    if not isinstance(keys, HttpLookupConfig):
        return secrets_of(keys) | secrets_of(config.options)
    headers = [value for name, value in keys.headers.items() if name.lower() not in _NO_SECRET]
    return secrets_of([keys.url, keys.http, *headers])
