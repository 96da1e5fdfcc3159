"""Checks of the section `schemas` and of its JSON Schema files; floor 4.

A schema is allowed to refer only to files in its own folder. URLs, including `file://`, and paths that leave the folder
by `..` or by a link are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urldefrag, urljoin

import yaml

from router.config.models import SchemaConfig
from router.core.json_faults import find_in_text
from router.core.routing import SchemaRule
from router.core.validation import SchemaProblem, compile_schema
from router.files import UnreadableError, read_file, resolve_path
from router.ops.loading.reading.nodes import Node
from router.ops.loading.reading.problems import Problems, unknown

SCHEME = "schema://"
"""The scheme of base URIs for relative references. No library can fetch URIs with this scheme."""

T = TypeVar("T")

_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
_REF = re.compile(r'"\$ref"\s*:\s*"([^"]*)"')
_DANGLING = re.compile(r"Pointer '(.*)' does not exist")


def compiled(config: SchemaConfig, node: Node, problems: Problems, files: set[Path]) -> SchemaRule | None:
    """Read and compile the schema of an entry.

    `node` names the file. If the file is unusable, report this and return None.
    """
    if config.mode == "off":
        return SchemaRule(config.channels, config.file, config.mode, None)
    path = node.mark.file.folder / config.file
    try:
        folder = _Folder(path, files)
        text = folder.text(path)
        document = _decode(text)
    except _UnusableError as error:
        problems.add(f"{config.file}{error.place}: {error}", node)
        return None
    uri = f"{folder.base}{quote(path.name)}"
    own = _own_uri(document) or uri
    try:
        schema = compile_schema(document, uri=uri, retrieve=folder.retriever(own))
    except SchemaProblem as problem:
        if folder.refused:
            told = f"{_reference(text, own, folder.asked)}: {_UNUSABLE}: {folder.refused}"
        else:
            told = _referred(folder, own) or _told(text, document, problem)
        problems.add(f"{config.file}{told}", node)
        return None
    return SchemaRule(config.channels, config.file, config.mode, schema)


_UNUSABLE = "this is not a usable JSON Schema"


def _told(text: str, document: Any, problem: SchemaProblem) -> str:
    """Return the place and the text of a fault in the schema's own file."""
    dangling = _DANGLING.fullmatch(problem.message)
    found = next((ref for ref in _REF.finditer(text) if dangling and ref[1].endswith(f"#{dangling[1]}")), None)
    if found:
        return f"{_line_and_column(text, found.start(1) - 1)}: {_UNUSABLE}: `$ref` to {found[1]}: this place does not exist"
    pointer = f"{problem.pointer}: " if problem.pointer else ""
    what = _type_of(document, problem.pointer) or problem.message
    return f"{_where(text, problem.pointer)}: {pointer}{_UNUSABLE}: {what}"


def _referred(folder: _Folder, own: str) -> str | None:
    """Return the fault of the first referenced file that is not a valid schema; None if all files are valid."""
    for uri, (name, text, document) in list(folder.documents.items()):
        try:
            compile_schema(document, uri=uri, retrieve=folder.retriever(own))
        except SchemaProblem as problem:
            return f": `$ref` to {name}{_told(text, document, problem)}"
    return None


def _type_of(document: Any, pointer: str) -> str | None:
    """Return the message for a misspelt `type`, because the message from the metaschema's `anyOf` is unclear."""
    if not pointer.endswith("/type"):
        return None
    for key in _parts(pointer):
        try:
            document = document[int(key)] if isinstance(document, list) else document[key]
        except (KeyError, ValueError, IndexError, TypeError):
            return None
    named = document if isinstance(document, list) else [document]
    wrong = next((one for one in named if one not in _TYPES), None)
    if isinstance(wrong, str):
        return unknown("type", wrong, _TYPES)
    return f"a type must be one of {', '.join(_TYPES)}, or a list of them" if wrong is not None else None


def _own_uri(document: Any) -> str | None:
    """Return the URI that the schema declares for itself."""
    found = document.get("$id", document.get("id")) if isinstance(document, dict) else None
    return found if isinstance(found, str) and ":" in found else None


class _UnusableError(ValueError):
    """Raised for a file that can't be read or is not JSON. `place` is `:line:column`; empty if the place is unknown."""

    def __init__(self, message: str, place: str = "") -> None:
        super().__init__(message)
        self.place = place


def _usable(function: Callable[[Path], T], path: Path) -> T:
    """Return the function's result for a path. Its error is raised again as an `_UnusableError`."""
    try:
        return function(path)
    except UnreadableError as error:
        raise _UnusableError(str(error)) from None


class _Folder:
    """The folder of a schema. The schema's references must not leave this folder."""

    def __init__(self, path: Path, files: set[Path]) -> None:
        self._root = _usable(resolve_path, path.parent)
        self.base = f"{SCHEME}{quote(self._root.as_posix()).rstrip('/')}/"
        self.asked = ""
        self._files = files
        self.refused = ""
        """The reason why the last reference could not be followed."""
        self.documents: dict[str, tuple[str, str, Any]] = {}
        """The name, the text and the contents of each file to which the schema refers, by URI."""

    def text(self, path: Path) -> str:
        """Return the text of a file. Raises `_UnusableError`."""
        self._files.add(path)
        data = _usable(read_file, path)
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise _UnusableError("this is not UTF-8", f":{data[: error.start].count(10) + 1}") from None

    def retriever(self, base: str) -> Any:
        """Return a function that returns the document for a reference. `base` is the URI of the schema itself."""
        beside = urljoin(base, ".") if not base.startswith(self.base) else ""

        def retrieve(uri: str) -> Any:
            try:
                return self._document(uri, beside)
            except ValueError as error:
                self.asked, self.refused = uri, str(error)
                raise

        return retrieve

    def _document(self, uri: str, beside: str) -> Any:
        name = urldefrag(uri).url
        if name.startswith(self.base):
            name = name.removeprefix(self.base)
        elif name.startswith(SCHEME):
            raise ValueError(f"`$ref` to {Path(name).name}: the file is outside the folder of the schema")
        elif beside and name.startswith(beside):
            name = name.removeprefix(beside)
        else:
            raise ValueError(f"`$ref` to {uri}: a schema can refer only to files in its own folder; nothing is fetched")
        path = self._root / unquote(name)
        try:
            resolved = _usable(resolve_path, path)
            if not resolved.is_relative_to(self._root):
                raise _UnusableError("the file is outside the folder of the schema")
            text = self.text(resolved)
            document = _decode(text)
        except _UnusableError as error:
            raise ValueError(f"`$ref` to {name}{error.place}: {error}") from None
        self.documents[urldefrag(uri).url] = (name, text, document)
        return document


def _decode(text: str) -> Any:
    def refuse(constant: str) -> Any:
        raise ValueError(constant)

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise _UnusableError("the schema is nested too deeply") from None
    except ValueError as error:
        fault = find_in_text(text)
        if fault is None:
            raise _UnusableError(str(error)) from None
        place = f":{fault.line}:{fault.column}" if fault.line is not None else ""
        raise _UnusableError(f"this is not JSON: {fault.cause}", place) from None


def _reference(text: str, base: str, asked: str) -> str:
    """Return `:line:column` of the first `$ref` to a URI. Relative references are resolved against `base`."""
    for found in _REF.finditer(text):
        target = urldefrag(found[1]).url
        if target and asked.startswith(
            (target, urljoin(base.replace(SCHEME, "http://", 1), target).replace("http://", SCHEME, 1))
        ):
            return _line_and_column(text, found.start(1) - 1)
    return ""


def _line_and_column(text: str, at: int) -> str:
    before = text[:at]
    return f":{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"


def _where(text: str, pointer: str) -> str:
    """Return `:line:column` of a JSON pointer in a JSON text. The text is parsed as YAML; empty if this fails.

    Deep nesting is not a problem here, because the validator has already refused schemas with 255 levels.
    """
    if not pointer:
        return ""
    try:
        node = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError:
        return ""
    for part in _parts(pointer):
        if isinstance(node, yaml.MappingNode):
            node = next((value for key, value in node.value if key.value == part), None)
        elif isinstance(node, yaml.SequenceNode) and part.isdecimal() and int(part) < len(node.value):
            node = node.value[int(part)]
        else:
            return ""
    return f":{node.start_mark.line + 1}:{node.start_mark.column + 1}" if node else ""


def _parts(pointer: str) -> list[str]:
    """Return the keys and indices of a JSON pointer (RFC 6901)."""
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
