"""The tree of the parsed configuration, with the place of every value; floor 4.

A file becomes a tree of `Scalar`, `Mapping` and `Sequence`. Each node has its file, line and column, so that messages
about the node can name the place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

_WORD = re.compile(r"[A-Za-z0-9_*-]+")
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class SourceFile(msgspec.Struct, frozen=True):
    """A file that was read: its name for messages, its path, and its lines."""

    name: str
    path: Path
    lines: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder from which relative paths in this file start."""
        return self.path.parent

    def line(self, number: int) -> str:
        """Return the line with this number, counted from 1; empty if the file has no such line."""
        return self.lines[number - 1] if 0 < number <= len(self.lines) else ""


class Mark(msgspec.Struct, frozen=True):
    """A place in a file. Line and column count from 1."""

    file: SourceFile
    line: int
    column: int


class _Marked(msgspec.Struct, eq=False):
    mark: Mark


class Node(_Marked, eq=False, kw_only=True):
    """The base of every node.

    `path` is set after files are merged. For a `faulty` node, no more faults are reported.
    """

    path: str = ""
    faulty: bool = False


class Scalar(Node, eq=False):
    """A single value.

    - `text`: the written text, with `${…}` unexpanded
    - `style`: the first character of a quoted or block scalar (`'`, `"`, `|`, `>`); None for a plain scalar
    - `cut`: the advice about a comment that may be meant as the rest of the value, or None
    - `expanded`: True if the text contained `${…}`
    - `default`: True if the default of a `${…}` was used
    - `unset`: the messages about missing values of `${…}`
    - `end`: the place after the scalar; None if the scalar is not in the file
    """

    value: Any
    text: str
    style: str | None = None
    cut: str | None = None
    expanded: bool = False
    default: bool = False
    unset: list[str] = msgspec.field(default_factory=list)
    end: Mark | None = None

    @property
    def empty(self) -> bool:
        """True if nothing is written: no value, and no comment that may be meant as a value."""
        return self.value is None and self.cut is None


class Entry(_Marked, eq=False):
    """A key of a mapping: its own place, and the value."""

    node: Node


class Mapping(Node, eq=False):
    """A mapping. Its keys are strings, and each key occurs only once."""

    entries: dict[str, Entry] = msgspec.field(default_factory=dict)

    def get(self, key: str) -> Node | None:
        """Return the value of a key, or None."""
        entry = self.entries.get(key)
        return entry.node if entry else None


class Sequence(Node, eq=False):
    """A list."""

    items: list[Node] = msgspec.field(default_factory=list)


def resolve(text: str) -> Any:
    """Return the value of a plain scalar by YAML 1.2's core schema: `no` is a string, and so is `010`."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    try:
        if _INT.fullmatch(text):
            return int(text)
        if _BASED.fullmatch(text):
            return int(text, 0)
        if _FLOAT.fullmatch(text) or _SPECIAL.fullmatch(text):
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:  # more digits than Python converts to a number
        return text
    return text


def plain(node: Node) -> Any:
    """Return the plain values: dicts, lists, scalars."""
    if isinstance(node, Mapping):
        return {key: plain(entry.node) for key, entry in node.entries.items()}
    if isinstance(node, Sequence):
        return [plain(item) for item in node.items]
    assert isinstance(node, Scalar)
    return node.value


def walk(node: Node) -> Iterator[Node]:
    """Yield the node and all nodes below it, in order."""
    waiting = [node]
    while waiting:
        found = waiting.pop()
        yield found
        if isinstance(found, Mapping):
            waiting += [entry.node for entry in reversed(found.entries.values())]
        elif isinstance(found, Sequence):
            waiting += reversed(found.items)


def copy_of(node: Node) -> Node:
    """Return a copy of a node and of all nodes below it, for an alias. The copies have the marks of the originals."""
    if isinstance(node, Mapping):
        entries = {key: Entry(entry.mark, copy_of(entry.node)) for key, entry in node.entries.items()}
        return Mapping(node.mark, entries, faulty=node.faulty)
    if isinstance(node, Sequence):
        return Sequence(node.mark, [copy_of(item) for item in node.items], faulty=node.faulty)
    assert isinstance(node, Scalar)
    return Scalar(node.mark, node.value, node.text, style=node.style, cut=node.cut, faulty=node.faulty)


def scalars(node: Node) -> Iterator[Scalar]:
    """Yield every scalar of the tree."""
    return (found for found in walk(node) if isinstance(found, Scalar))


def find(node: Node | None, *keys: str) -> Node | None:
    """Return the node at a path of keys, or None."""
    for key in keys:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node


def items(node: Node | None) -> list[Node]:
    """Return the items of a list; empty if the node is not a list."""
    return node.items if isinstance(node, Sequence) else []


def word(node: Node | None) -> str | None:
    """Return the text of a scalar, or None."""
    return node.value if isinstance(node, Scalar) and isinstance(node.value, str) else None


def words(node: Node | None) -> Iterator[tuple[Node, str]]:
    """Yield each string of a list with its node. Other values, and faulty nodes, are left out."""
    for item in items(node):
        text = word(item)
        if text is not None and not item.faulty:
            yield item, text


def child_path(path: str, key: str | int) -> str:
    """Return the path of a key or an index below `path`: `sinks.audit`, `routes[0]`."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    word = key if _WORD.fullmatch(key) else f'"{key}"' if key.isprintable() else repr(key)
    return f"{path}.{word}" if path else word


def name_paths(node: Node, path: str = "") -> None:
    """Set the path of each node."""
    node.path = path
    if isinstance(node, Mapping):
        for key, entry in node.entries.items():
            name_paths(entry.node, child_path(path, key))
    elif isinstance(node, Sequence):
        for index, item in enumerate(node.items):
            name_paths(item, child_path(path, index))


def describe(node: Node) -> str:
    """Return a value in words: `the number 25`, `a list`."""
    if isinstance(node, Mapping):
        return "a mapping"
    if isinstance(node, Sequence):
        return "a list"
    assert isinstance(node, Scalar)
    value = node.value
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return f"the truth value {str(value).lower()}"
    if isinstance(value, int | float):
        return f"the number {node.text[:50]}"
    if node.expanded and not node.default:
        return f"the value of {quoted(node.text)[1:-1]}"  # the value may be a secret
    return f"the string {quoted(str(value))}"


def quoted(text: str, longest: int = 60) -> str:
    """Return a string for a message: on one line, shortened, in double quotes."""
    shown = text if len(text) <= longest else text[: longest - 1] + "…"
    return '"' + "".join(c if c.isprintable() else repr(c)[1:-1] for c in shown) + '"'
