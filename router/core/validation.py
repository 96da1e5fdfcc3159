"""JSON Schema on decoded payloads; pure.

`jsonschema-rs` decides: it passes the whole official suite and answers in a quarter of a microsecond. Drafts 4 to 2020-12
by `$schema`, 2020-12 without; `format` is asserted; patterns run on a linear-time engine; nothing is fetched but what the
caller's `retrieve` hands over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import jsonschema_rs
import msgspec

from router.errors import RouterError
from router.escaping import cut

Retrieve = Callable[[str], Any]
"""Gives the document of a URI. Raises `LookupError` or `ValueError` with a plain sentence when it may not."""

MOST = 20
"""How many violations are listed of one payload."""

DRAFTS = (
    "http://json-schema.org/draft-04/schema#",
    "http://json-schema.org/draft-06/schema#",
    "http://json-schema.org/draft-07/schema#",
    "https://json-schema.org/draft/2019-09/schema",
    "https://json-schema.org/draft/2020-12/schema",
)
"""What `$schema` may say; without one it is the last."""

_LONGEST = 500  # characters of what is wrong with a schema

POINTER_BYTES = 256
"""Bytes of a violation's pointer: a payload makes it as long as it likes with the names of its fields."""

MESSAGE_BYTES = 1024
"""Bytes of a violation's message, which may quote the payload."""

DETAIL_BYTES = 8 * 1024
"""Bytes of a dead letter's detail: an event must not make a letter many times its own size."""

_PLACE_BYTES = 128
_NO_REGEX = ' is not a "regex"'
_COUNT = re.compile(r"\{(\d{1,9})(?:,(\d{1,9})?)?\}")
_BACKTRACKING = re.compile(r"\(\?(?:[=!>]|<[=!])|\\(?:[1-9]|k[<'{])")


class SchemaProblem(RouterError):  # noqa: N818  # it is a finding about a file, shown at the place that names the file
    """A document that is no schema: `pointer` is where in it, `message` what is wrong."""

    def __init__(self, pointer: str, message: str) -> None:
        super().__init__(f"{pointer or '/'}: {message}")
        self.pointer = pointer
        self.message = message


class Violation(msgspec.Struct, frozen=True):
    """A way in which a payload does not fit: JSON pointer (RFC 6901) into the payload, keyword, message.

    `required` points at the field that is missing. `place` is the pointer for the log: a name that the schema does not have
    comes from the payload and stands there as `*`.
    """

    pointer: str
    keyword: str
    message: str
    place: str


class Schema:
    """A compiled schema; `document` is what it was made of."""

    def __init__(self, validator: jsonschema_rs.Validator, document: Any) -> None:
        self.document = document
        self.is_valid: Callable[[Any], bool] = validator.is_valid
        self._iter_errors = validator.iter_errors

    def errors(self, payload: Any) -> list[Violation]:
        """Return every way in which the payload does not fit, at most `MOST`."""
        found: list[Violation] = []
        for error in self._iter_errors(payload):
            found.append(_violation(error))
            if len(found) == MOST:
                break
        return found


def compile_schema(document: Any, *, uri: str, retrieve: Retrieve) -> Schema:
    """Compile a JSON Schema.

    `uri` is the base that its relative `$ref`s are resolved against, `retrieve` gives the documents they name.
    Raises `SchemaProblem` when it is not a schema or refers to what can't be had.
    """
    if not isinstance(document, dict | bool):
        raise SchemaProblem("", f"a schema is an object or a boolean, not {type(document).__name__}")
    try:
        validator = jsonschema_rs.validator_for(
            document,
            base_uri=uri,
            retriever=retrieve,
            validate_formats=True,
            pattern_options=jsonschema_rs.RegexOptions(),
        )
    except jsonschema_rs.ValidationError as error:
        if error.message.startswith("Unknown meta-schema") and isinstance(document, dict):
            raise SchemaProblem("/$schema", f"this draft is not known, allowed: {', '.join(DRAFTS)}") from None
        raise SchemaProblem(pointer(error.instance_path), _explained(error)) from None
    except (jsonschema_rs.ReferencingError, ValueError, RecursionError) as error:
        raise SchemaProblem("", str(error).splitlines()[0][:_LONGEST]) from None
    return Schema(validator, document)


def as_detail(violations: Iterable[Violation]) -> str:
    """Return the detail of the dead letter of a payload that does not fit: a JSON list of pointer, keyword and message.

    It holds the first ones that have room in `DETAIL_BYTES`.
    """
    kept: list[bytes] = []
    left = DETAIL_BYTES - len("[]")
    for one in violations:
        kept.append(msgspec.json.encode({"pointer": one.pointer, "keyword": one.keyword, "message": one.message}))
        left -= len(kept[-1]) + len(",")
        if left < 0:
            kept.pop()
            break
    return f"[{b','.join(kept).decode()}]"


def pointer(path: list[str | int]) -> str:
    """Return a path as a JSON pointer, RFC 6901: empty for the whole document."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _explained(error: jsonschema_rs.ValidationError) -> str:
    message = error.message.splitlines()[0][:_LONGEST]
    if message.endswith(_NO_REGEX) and isinstance(error.instance, str):
        return f"{message.removesuffix(_NO_REGEX)} {pattern_fault(error.instance)}"
    return message


def pattern_fault(pattern: str) -> str:
    """Return why the linear-time engine does not take a regular expression, as the end of a sentence about it."""
    if _is_pattern(_COUNT.sub("{1}", pattern)):
        too_few = next(
            (found for found in _COUNT.finditer(pattern) if found[2] and int(found[1]) > int(found[2])), None
        )
        if too_few:
            return f"is no regular expression: {too_few[0]} is at least {too_few[1]} and at most {too_few[2]}"
        return "is too large a regular expression: a count such as {1000} multiplies what stands before it"
    if _BACKTRACKING.search(pattern):
        return "has look-around or back-references, which the linear-time engine does not know"
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        if isinstance(error, re.error) and not error.msg.startswith("bad escape"):
            place = "" if error.pos is None else f", at character {error.pos + 1}"
            return f"is no regular expression: {error.msg}{place}"
    return "is no regular expression of the linear-time engine, or too large for it"


def _is_pattern(pattern: str) -> bool:
    try:
        jsonschema_rs.validator_for({"pattern": pattern}, pattern_options=jsonschema_rs.RegexOptions())
    except (jsonschema_rs.ValidationError, ValueError):
        return False
    return True


def _violation(error: jsonschema_rs.ValidationError) -> Violation:
    path = list(error.instance_path)
    known = {*error.schema_path}
    kind = error.kind
    if isinstance(kind, jsonschema_rs.ValidationErrorKind.Required):
        path.append(kind.property)
        known.add(kind.property)
    place = [part if isinstance(part, int) or part in known else "*" for part in path]
    return Violation(
        cut(pointer(path), POINTER_BYTES),
        kind.name,
        cut(error.message, MESSAGE_BYTES),
        cut(pointer(place) or "/", _PLACE_BYTES),
    )
