"""Conversion of YAML text to a tree of nodes with marks; floor 4.

PyYAML's event parser reads the text. `nodes.resolve` finds the types of the scalars by YAML 1.2, because PyYAML
implements YAML 1.1. Repeated keys, tags and merge keys are refused. The depth and the number of copies by aliases are
limited.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import yaml

from router.files import STDIN, UnreadableError, read_file
from router.ops.loading.reading import yaml_errors, yaml_hints
from router.ops.loading.reading.concealing import may_be_secret
from router.ops.loading.reading.nodes import (
    Entry,
    Mapping,
    Mark,
    Node,
    Scalar,
    Sequence,
    SourceFile,
    child_path,
    copy_of,
    quoted,
    resolve,
    walk,
)
from router.ops.loading.reading.problems import Problems

_DEPTH = 50  # the maximum number of levels of nesting
_COPIES = 10_000  # the maximum number of nodes that aliases may add
_REPAIRS = 20  # the maximum number of slips of one file that are corrected before parsing goes on
_LARGEST = 4 * 1024**2

_BREAK = re.compile(r"\r\n|[\n\r\x85\u2028\u2029]")
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TAG = re.compile(r"![^\s,\]}]{0,60}")
_KEY_WITHOUT_SPACE = re.compile(r"([A-Za-z_][\w.-]*):(?!//)(\S.*)", re.DOTALL)


def read(path: Path, name: str, problems: Problems, at: Node | None = None, *, pipes: bool = False) -> Mapping | None:
    """Read a file that contains one mapping. If the reading fails, report the problems and return None.

    `name` is the file's name in messages. `at` is the node that names the file, and the place of the message if the
    file can't be read. If `pipes` is True, the file may be a pipe, and the name `-` means standard input.
    """
    text = _text(path, name, problems, at, pipes=pipes)
    return None if text is None else parse(text, SourceFile(name, path), problems)


def parse(text: str, file: SourceFile, problems: Problems) -> Mapping | None:
    """Parse the text of a file.

    A typical mistake is reported. If its correction is sure, the line is corrected and parsing continues.
    """
    lines = _BREAK.split(text)
    slips: yaml_errors.Slips = []
    root = _repaired(lines, file, problems, slips)
    yaml_errors.report(slips, lines, file, problems)
    return root


def _repaired(lines: list[str], file: SourceFile, problems: Problems, slips: yaml_errors.Slips) -> Mapping | None:
    """Parse lines. Typical mistakes are added to `slips`, each with its path, and are corrected in `lines`."""
    repaired: set[tuple[int, int]] = set()
    for _ in range(_REPAIRS):
        builder = _Builder(SourceFile(file.name, file.path, tuple(lines)), problems, repaired)
        try:
            return builder.document("\n".join(lines))
        except _StopError:
            return None
        except yaml_hints.SlipError as error:
            slip = error.slip
        except yaml.MarkedYAMLError as error:
            slip = yaml_errors.of_error(lines, error)
        except yaml.YAMLError as error:
            problems.add(f"this is not YAML: {error}", Mark(file, 1, 1))
            return None
        meant = list(lines) if slip.corrected is None else [*lines[: slip.line - 1], slip.corrected]
        slips.append((slip, yaml_hints.path_at(meant, slip.line - 1)))
        if not slip.sure or slip.corrected is None or slip.corrected == lines[slip.line - 1]:
            return None
        lines[slip.line - 1] = slip.corrected
        repaired.add((slip.line, slip.column))
    return None


def _text(path: Path, name: str, problems: Problems, at: Node | None, *, pipes: bool) -> str | None:
    stdin = pipes and name == str(STDIN)
    try:
        data = read_file(STDIN if stdin else path, most=_LARGEST, pipes=pipes)
    except UnreadableError as error:
        problems.add(f"can't read {name}: {error}", at)
        return None
    file = SourceFile(name, path)
    if data[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        problems.add("the file is UTF-16; save it as UTF-8", Mark(file, 1, 1))
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = _BREAK.split(data[: error.start].decode("utf-8", "replace"))
        problems.add(f"the byte {data[error.start]:#04x} is not UTF-8; save the file as UTF-8", _place(file, before))
        return None
    found = _UNPRINTABLE.search(text)
    if found:
        message = f"the character U+{ord(found[0]):04X} is not allowed in YAML; write it as an escape in double quotes"
        problems.add(message, _place(file, _BREAK.split(text[: found.start()])))
        return None
    return text


def _place(file: SourceFile, before: list[str]) -> Mark:
    return Mark(file, len(before), len(before[-1]) + 1)


def _is_plain(event: Any) -> bool:
    """Return whether a scalar has neither quotes nor a tag."""
    return event.implicit[0] and not event.style


class _StopError(Exception):
    """Raised if the rest of the file can't be parsed. The reason is reported already."""


class _Builder:
    """The builder of the tree of one document, from parser events."""

    def __init__(self, file: SourceFile, problems: Problems, repaired: Container[tuple[int, int]] = ()) -> None:
        self._file = file
        self._problems = problems
        self._repaired = repaired  # places of slips that were reported and corrected
        self._trail: list[str | int] = []  # the path of the current node
        self._anchors: dict[str, Node | None] = {}  # None while the node is being built
        self._copies = 0
        self._open = ""  # the open brackets
        self._sound = yaml_errors.Soundness(file.lines)
        self._events: Iterator[Any] = iter(())

    @property
    def path(self) -> str:
        """The path of the current node."""
        path = ""
        for part in self._trail:
            path = child_path(path, part)
        return path

    def _add(self, message: str, mark: Any, corrected: str | None = None) -> None:
        excerpt = yaml_hints.shown(corrected) if self._sound(mark.line, corrected) else None
        self._problems.add(message, self._mark(mark), path=self.path, excerpt=excerpt)

    def document(self, text: str) -> Mapping | None:
        """Return the mapping that is the document. Raises `yaml.YAMLError` if the text is not YAML."""
        self._events = iter(yaml.parse(text, Loader=yaml.CSafeLoader))
        root: Node | None = None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    message = "a second YAML document begins here, but a file can hold only one document"
                    self._problems.add(message, self._mark(event.start_mark))
                    raise _StopError
                root = self._node(next(self._events), 0)
        start = Mark(self._file, 1, 1)
        if root is None or (isinstance(root, Scalar) and root.value is None):
            self._problems.add("the file is empty; it needs at least `version`, `sources`, `sinks`, `routes`", start)
            return None
        if not isinstance(root, Mapping):
            self._not_a_mapping(root)
            return None
        return root

    def _not_a_mapping(self, root: Node) -> None:
        fixed = yaml_hints.space_after_colon(self._file.line(root.mark.line))
        message = yaml_hints.NO_SPACE if fixed else "a configuration must be a mapping, with lines of `key: value`"
        self._problems.add(message, root, path="", excerpt=yaml_hints.shown(fixed))

    def _mark(self, mark: Any) -> Mark:
        return Mark(self._file, mark.line + 1, mark.column + 1)

    def _node(self, event: Any, depth: int) -> Node:
        if depth > _DEPTH:
            self._add(f"is nested deeper than {_DEPTH} levels", event.start_mark)
            raise _StopError
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        anchor: str | None = event.anchor
        if anchor is not None:
            self._anchors[anchor] = None
        if isinstance(event, yaml.CollectionStartEvent) and event.flow_style and not self._open:
            self._brackets(event)
        if isinstance(event, yaml.ScalarEvent):
            node: Node = self._scalar(event)
        elif event.tag is not None:
            self._skip()
            node = Scalar(self._mark(event.start_mark), None, "")
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._sequence(event, depth)
        else:
            node = self._braces(event) or self._mapping(event, depth)
        if event.tag is not None:
            self._tag(event, node)
        if anchor is not None:
            self._anchors[anchor] = node
        return node

    def _scalar(self, event: Any) -> Scalar:
        is_plain = _is_plain(event)
        value = resolve(event.value) if is_plain else event.value
        node = Scalar(self._mark(event.start_mark), value, event.value, style=event.style or None)
        node.end = self._mark(event.end_mark)
        if is_plain:
            self._comment(node, event)
        if (node.mark.line, node.mark.column) in self._repaired:
            node.faulty = True
        return node

    def _comment(self, node: Scalar, event: Any) -> None:
        """Report a template that ` #` has cut off. Any other comment after a value is only stored in `node.cut`."""
        line = self._file.line(event.end_mark.line + 1)
        rest = line[event.end_mark.column :]
        comment = rest.lstrip()
        if not comment.startswith("#"):
            return
        torn = node.text.count("{{") != node.text.count("}}")
        spaces = len(rest) - len(comment)
        fixed = None
        if event.start_mark.line == event.end_mark.line:
            start = event.start_mark.column + (0 if node.text else spaces)
            fixed = yaml_hints.corrected(line.rstrip(), start, len(line.rstrip()))
        if torn or (spaces == 1 and ("{{" in comment or "${" in comment)):
            self._add(yaml_hints.COMMENT, event.start_mark, fixed)
            node.faulty = True
        elif comment[1:2].strip() and (spaces == 1 or not node.text):
            node.cut = (self._sound(event.start_mark.line, fixed) and yaml_hints.shown(fixed)) or ""

    def _sequence(self, event: Any, depth: int) -> Sequence:
        node = Sequence(self._mark(event.start_mark))
        opened, self._open = self._open, self._open + "[" if event.flow_style else ""
        self._trail.append(0)
        for item in self._events:
            if isinstance(item, yaml.SequenceEndEvent):
                break
            node.items.append(self._node(item, depth + 1))
            self._trail[-1] = len(node.items)
        self._trail.pop()
        self._open = opened
        return node

    def _mapping(self, event: Any, depth: int) -> Mapping:
        node = Mapping(self._mark(event.start_mark))
        opened, self._open = self._open, self._open + "{" if event.flow_style else ""
        for key in self._events:
            if isinstance(key, yaml.MappingEndEvent):
                break
            name = self._key(key, depth)
            self._trail.append(name or "")
            value_event: Any = next(self._events)
            if name is None:
                node.faulty = True  # the slip was corrected, so nothing is missing
            elif self._no_space(node, key, value_event):
                self._trail.pop()
                continue
            value = self._node(value_event, depth + 1)
            if name is not None:
                self._put(node, name, Entry(self._mark(key.start_mark), value))
            self._trail.pop()
        self._open = opened
        return node

    def _put(self, node: Mapping, name: str, entry: Entry) -> None:
        first = node.entries.get(name)
        if first is None:
            node.entries[name] = entry
            return
        message = f"the key {quoted(name)} appears twice, first in line {first.mark.line}; remove one of the two"
        self._problems.add(message, entry.mark, path=self.path)

    def _key(self, event: Any, depth: int) -> str | None:
        """Return the text of a key. If the key is not a string, report this and return None."""
        if not isinstance(event, yaml.ScalarEvent):
            self._node(event, depth + 1)
            self._add("a key must be a string, not a list, a mapping or an alias", event.start_mark)
            return None
        if event.tag is not None:
            self._add("a key can't have a tag", event.start_mark)
            return None
        text: str = event.value
        if not _is_plain(event):
            return text
        if text.startswith("-"):
            self._dash(event)
        if text == "<<":
            message = "YAML's merge key `<<` is not supported; put keys that sinks share under `defaults:`"
            self._add(message, event.start_mark)
            return None
        if not isinstance(resolve(text), str):
            shown = text or "empty"
            self._add(f"a key must be a string, not {shown}; quote it: {yaml_hints.quote(text)}", event.start_mark)
            return None
        return text

    def _dash(self, event: Any) -> None:
        """Raise `yaml_hints.SlipError` if a key begins with a dash without a space (`-{id: a}`, `-id: a`)."""
        mark = event.start_mark
        line = self._file.line(mark.line + 1)
        fixed = yaml_hints.space_after_dash(line)
        if fixed is not None and not line[: mark.column].strip():
            raise yaml_hints.SlipError(mark, yaml_hints.NO_DASH_SPACE, fixed)

    def _no_space(self, node: Mapping, key: Any, value: Any) -> bool:
        """Report and correct a colon without a space (`{type:pubsub}`). Returns True if the key has such a colon."""
        found = _KEY_WITHOUT_SPACE.fullmatch(key.value)
        nothing = isinstance(value, yaml.ScalarEvent) and not value.value and not value.style
        if not found or not nothing or key.style or key.end_mark.line != key.start_mark.line:
            return False
        line = self._file.line(key.start_mark.line + 1)
        if line[key.end_mark.column :].lstrip().startswith(":"):
            return False
        self._trail[-1] = found[1]
        fixed = yaml_hints.space_after_key(line, key.start_mark.column, found[1])
        self._add(yaml_hints.NO_SPACE, key.start_mark, fixed)
        scalar = Scalar(self._mark(key.start_mark), resolve(found[2]), found[2])
        self._put(node, found[1], Entry(self._mark(key.start_mark), scalar))
        return True

    def _braces(self, event: Any) -> Scalar | None:
        """Report an unquoted `{{ payload.x }}`, and return it as a string.

        Returns None if the event begins a real mapping.
        """
        line = self._file.line(event.start_mark.line + 1)
        if not line.startswith("{{", event.start_mark.column):
            return None
        self._skip()
        text, fixed = self._meant(event)
        self._add(yaml_hints.BRACES, event.start_mark, fixed)
        return Scalar(self._mark(event.start_mark), text, text, faulty=True)

    def _meant(self, event: Any) -> tuple[str, str | None]:
        """Return the value that was probably meant at a parser event, and the line with this value in quotes.

        If the value is not found, `""` and None are returned.
        """
        line = self._file.line(event.start_mark.line + 1)
        value = yaml_hints.value_at(line, event.start_mark.column, self._open[-1:])
        return (value.text, yaml_hints.corrected(line, value.start, value.end)) if value else ("", None)

    def _brackets(self, event: Any) -> None:
        """Raise `yaml_hints.SlipError` if text follows brackets (`[{{ a }}] b`). YAML reads the brackets as a list or a mapping."""
        mark = event.start_mark
        fixed = yaml_hints.after_brackets(self._file.line(mark.line + 1), mark.column)
        if fixed is not None:
            raise yaml_hints.SlipError(mark, yaml_hints.BRACKETS, fixed)

    def _skip(self) -> None:
        """Skip the rest of the collection that has just begun."""
        depth = 1
        for event in self._events:
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if not depth:
                return

    def _tag(self, event: Any, node: Node) -> None:
        line = self._file.line(event.start_mark.line + 1)
        text, fixed = self._meant(event)
        shown = (_TAG.match(line, event.start_mark.column) or [quoted(event.tag)])[0]
        shown = "!…" if may_be_secret(self.path) else shown
        message = f"the tag {shown} is not allowed, because the configuration uses no YAML tags; quote a string that starts with `!`"
        self._add(message, event.start_mark, fixed if text.startswith("!") else None)
        node.faulty = True

    def _alias(self, event: Any) -> Node:
        mark = self._mark(event.start_mark)
        name: str = event.anchor
        if name not in self._anchors:
            _, fixed = self._meant(event)
            message = f"there is no anchor `&{name}` for this alias; quote a string that starts with `*`"
            self._add(message, event.start_mark, fixed)
            return Scalar(mark, f"*{name}", f"*{name}", faulty=True)
        node = self._anchors[name]
        if node is None:
            self._add(f"the alias `*{name}` must not be inside the value that it repeats", event.start_mark)
            raise _StopError
        self._copies += sum(1 for _ in walk(node))
        if self._copies > _COPIES:
            self._problems.add(f"aliases expand this file to more than {_COPIES} values; use fewer aliases", mark)
            raise _StopError
        return copy_of(node)
