"""The reading of record files for lookups (CSV, JSON or YAML) into a table by key; floor 4."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from router.core.json_faults import find_in_text
from router.core.rendering.sandbox.lookup_records import Record
from router.files import UnreadableError, read_file
from router.ops.loading.reading.nodes import quoted, resolve
from router.ops.loading.reading.problems import did_you_mean
from router.wording import counted

Table = dict[str, Record]
"""The records of a file by key."""

KINDS = (".csv", ".json", ".yaml", ".yml")
"""The endings of the names of record files."""


class RecordFileError(ValueError):
    """Raised for a record file that can't be used.

    `place` is `:line`, `:line:column`, or empty if the place is unknown.
    """

    def __init__(self, message: str, place: str = "") -> None:
        super().__init__(message)
        self.place = place


def read_records(path: Path, by: str | None) -> Table:
    """Read a file of records. `by` is the name of the column or field with the key. Raises `RecordFileError`.

    A JSON or YAML file is a list of mappings, or a mapping of keys to mappings (then `by` is None). A record without a
    key is left out. Keys are strings, so `42` and `"42"` are the same key. Two records with the same key are an error.
    """
    kind = path.suffix.lower()
    if kind not in KINDS:
        raise RecordFileError(f"the name of a file of records must end in {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    try:
        text = read_file(path).decode("utf-8-sig")
    except UnreadableError as error:
        raise RecordFileError(str(error)) from None
    except UnicodeDecodeError:
        raise RecordFileError("this is not UTF-8; save the file as UTF-8") from None
    if kind == ".csv":
        return _csv(text, by)
    return _table(_json(text) if kind == ".json" else _yaml(text), by)


def _csv(text: str, by: str | None) -> Table:
    """Return the records of a CSV file by key. The first line names the columns."""
    if by is None:
        raise RecordFileError("`by` is required for a CSV file: write the name of the column that holds the key")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    table: Table = {}
    try:
        columns = next(reader, [])
        if by not in columns:
            message = (
                f"there is no column {quoted(by)}; the first line names {', '.join(map(quoted, columns)) or 'none'}"
            )
            raise RecordFileError(f"{message}{did_you_mean(by, columns)}", ":1")
        if len(set(columns)) < len(columns):
            twice = next(name for name in columns if columns.count(name) > 1)
            raise RecordFileError(f"the first line names the column {quoted(twice)} twice", ":1")
        place = columns.index(by)
        for row in reader:
            if not row:
                continue
            if len(row) != len(columns):
                has, names = counted(len(row), "field"), counted(len(columns), "column")
                message = f"this row has {has}, but the first line names {names}"
                raise RecordFileError(message, f":{reader.line_num}")
            _add(table, row[place], dict(zip(columns, row, strict=True)), f":{reader.line_num}")
    except csv.Error as error:
        raise RecordFileError(f"this is not CSV: {error}", f":{reader.line_num}") from None
    return table


def _table(document: Any, by: str | None) -> Table:
    if isinstance(document, Mapping):
        if by is not None:
            raise RecordFileError("`by` can't be used, because the file is a mapping of keys to records; remove `by`")
        table: Table = {}
        for key, fields in document.items():
            if not isinstance(fields, Mapping):
                raise RecordFileError(f"the record of the key {quoted(str(key))} is not a mapping")
            _add(table, key, fields)
        return table
    if not isinstance(document, list):
        raise RecordFileError("the file holds neither a list of records nor a mapping of keys to records")
    if by is None:
        raise RecordFileError("`by` is required for a list of records: write the name of the field that holds the key")
    return _listed(document, by)


def _listed(document: list[Any], by: str) -> Table:
    table: Table = {}
    names: set[str] = set()
    for number, fields in enumerate(document, 1):
        if not isinstance(fields, Mapping):
            raise RecordFileError(f"entry {number} of the list is not a mapping")
        names.update(map(str, fields))
        if isinstance(fields.get(by), Mapping | list):
            raise RecordFileError(f"entry {number} of the list: {quoted(by)} is neither a string nor a number")
        _add(table, fields.get(by), fields)
    if document and by not in names:
        listed = ", ".join(map(quoted, sorted(names)[:10])) or "none"
        raise RecordFileError(f"no record has the field {quoted(by)}; the fields are {listed}{did_you_mean(by, names)}")
    return table


def _add(table: Table, key: Any, fields: Mapping[Any, Any], place: str = "") -> None:
    text = _key_text(key)
    if not text:
        return
    if text in table:
        raise RecordFileError(f"the key {quoted(text)} appears twice in this file; keep one record", place)
    table[text] = Record(fields)


def _key_text(key: Any) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    return "" if key is None else str(key)


def _json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        fault = find_in_text(text)
        if fault is None or fault.line is None:
            raise RecordFileError(f"this is not JSON: {error.msg}", f":{error.lineno}:{error.colno}") from None
        raise RecordFileError(f"this is not JSON: {fault.cause}", f":{fault.line}:{fault.column}") from None
    except RecursionError:
        raise RecordFileError("nested too deeply") from None


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise RecordFileError(f"the key {quoted(key)} appears twice in one mapping; keep one value")
        found[key] = value
    return found


class _Loader(yaml.CSafeLoader):
    """A loader that reads every scalar as text.

    `nodes.resolve` converts the scalars later, by the rules of YAML 1.2.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # PyYAML's own attribute


def _yaml(text: str) -> Any:
    try:
        root = yaml.compose(text, Loader=_Loader)
        return None if root is None else _value(root, set())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = "" if mark is None else f":{mark.line + 1}:{mark.column + 1}"
        raise RecordFileError(f"this is not YAML: {error.problem}", place) from None
    except yaml.YAMLError as error:
        raise RecordFileError(f"this is not YAML: {error}") from None
    except RecursionError:
        raise RecordFileError("nested too deeply") from None


def _value(node: yaml.Node, seen: set[int]) -> Any:
    place = f":{node.start_mark.line + 1}:{node.start_mark.column + 1}"
    if id(node) in seen:
        raise RecordFileError("a file of records can't have aliases (`*name`)", place)
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        plain = node.style is None or not node.style
        return resolve(node.value) if plain else node.value
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, seen) for item in node.value]
    found: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = _key_text(_value(key_node, seen)) if isinstance(key_node, yaml.ScalarNode) else None
        if key is None:
            raise RecordFileError("a key must be a string or a number", place)
        if key in found:
            at = key_node.start_mark
            raise RecordFileError(
                f"the key {quoted(key)} appears twice in one mapping; keep one value", f":{at.line + 1}:{at.column + 1}"
            )
        found[key] = _value(value_node, seen)
    return found
