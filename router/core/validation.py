"""JSON Schema on decoded payloads; pure.

The validator is `jsonschema-rs`, which passes the whole official test suite and takes a quarter of a microsecond for a
small payload. `$schema` selects one of the drafts 4 to 2020-12; the default is 2020-12. `format` is asserted. Patterns
run on a linear-time engine. Referenced documents come only from the caller's `retrieve`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from router.errors import RouterError
from router.escaping import cut

if TYPE_CHECKING:
    import jsonschema_rs

Retrieve = Callable[[str], Any]
"""A function that returns the document of a URI. It raises `LookupError` or `ValueError` with the reason."""

MOST = 20
"""The largest number of violations that are listed for one payload."""

DRAFTS = (
    "http://json-schema.org/draft-04/schema#",
    "http://json-schema.org/draft-06/schema#",
    "http://json-schema.org/draft-07/schema#",
    "https://json-schema.org/draft/2019-09/schema",
    "https://json-schema.org/draft/2020-12/schema",
)
"""The permitted values of `$schema`. The last one is the default."""

_LONGEST = 500  # the maximum number of characters of the message about an invalid schema

POINTER_BYTES = 256
"""The largest pointer of a violation in bytes. The limit is needed because field names of the payload are part of the
pointer.
"""

MESSAGE_BYTES = 1024
"""The largest message of a violation in bytes. The limit is needed because the message may quote the payload."""

DETAIL_BYTES = 8 * 1024
"""The largest detail of a dead letter in bytes. Because of this limit, a small event can't cause a large letter."""

_PLACE_BYTES = 128
_NO_REGEX = ' is not a "regex"'
_COUNT = re.compile(r"\{(\d{1,9})(?:,(\d{1,9})?)?\}")
_BACKTRACKING = re.compile(r"\(\?(?:[=!>]|<[=!])|\\(?:[1-9]|k[<'{])")


class SchemaProblem(RouterError):  # noqa: N818  # it is a finding about a file, shown at the place that names the file
    """The fault of a document that is not a valid schema: `pointer` is the place in the document."""

    def __init__(self, pointer: str, message: str) -> None:
        super().__init__(f"{pointer or '/'}: {message}")
        self.pointer = pointer
        self.message = message


class Violation(msgspec.Struct, frozen=True):
    """A violation of a schema by a payload: JSON pointer (RFC 6901) into the payload, keyword, message.

    If the keyword is `required`, the pointer leads to the missing field. `place` is the pointer for the log. In
    `place`, a `*` replaces each name that is not in the schema, because such a name comes from the payload.
    """

    pointer: str
    keyword: str
    message: str
    place: str


class Schema:
    """A compiled schema; `document` is its source."""

    def __init__(self, validator: jsonschema_rs.Validator, document: Any) -> None:
        self.document = document
        self.is_valid: Callable[[Any], bool] = validator.is_valid
        self._iter_errors = validator.iter_errors

    def errors(self, payload: Any) -> list[Violation]:
        """Return the violations of the schema by the payload, at most `MOST`."""
        found: list[Violation] = []
        for error in self._iter_errors(payload):
            found.append(_violation(error))
            if len(found) == MOST:
                break
        return found


def compile_schema(document: Any, *, uri: str, retrieve: Retrieve) -> Schema:
    """Compile a JSON Schema.

    `uri` is the base URI of relative `$ref`s. `retrieve` returns the document that a `$ref` names. Raises
    `SchemaProblem` if the document is not a valid schema, or if a referenced document can't be retrieved.
    """
    import jsonschema_rs  # noqa: PLC0415  # takes 5 MiB of memory, and only schemas and complex conditions need it

    if not isinstance(document, dict | bool):
        raise SchemaProblem(
            "", f"a schema must be an object or a boolean, not a value of type {type(document).__name__}"
        )
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
            raise SchemaProblem(
                "/$schema", f"this draft is not supported; the supported drafts are {', '.join(DRAFTS)}"
            ) from None
        raise SchemaProblem(pointer(error.instance_path), _explained(error)) from None
    except (jsonschema_rs.ReferencingError, ValueError, RecursionError) as error:
        raise SchemaProblem("", str(error).splitlines()[0][:_LONGEST]) from None
    return Schema(validator, document)


def as_detail(violations: Iterable[Violation]) -> str:
    """Return the detail of the dead letter of an invalid payload.

    The detail is a JSON list of violations, each with pointer, keyword and message. The list has as many of the first
    violations as fit in `DETAIL_BYTES`.
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
    """Return a path as a JSON pointer (RFC 6901), which is empty for the whole document."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _explained(error: jsonschema_rs.ValidationError) -> str:
    message = error.message.splitlines()[0][:_LONGEST]
    if message.endswith(_NO_REGEX) and isinstance(error.instance, str):
        return f"{message.removesuffix(_NO_REGEX)} {pattern_fault(error.instance)}"
    return message


def pattern_fault(pattern: str) -> str:
    """Return the reason why the linear-time engine refuses a regular expression.

    The text is the end of a sentence about the expression.
    """
    if _is_pattern(_COUNT.sub("{1}", pattern)):
        too_few = next(
            (found for found in _COUNT.finditer(pattern) if found[2] and int(found[1]) > int(found[2])), None
        )
        if too_few:
            return f"is not a regular expression: in {too_few[0]}, the minimum {too_few[1]} is larger than the maximum {too_few[2]}"
        return "is a regular expression that is too large: a count such as {1000} multiplies the size of the part before it"
    if _BACKTRACKING.search(pattern):
        return "has look-around or back-references, which the linear-time engine does not support"
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        if isinstance(error, re.error) and not error.msg.startswith("bad escape"):
            place = "" if error.pos is None else f", at character {error.pos + 1}"
            return f"is not a regular expression: {error.msg}{place}"
    return "is not a regular expression that the linear-time engine supports, or it is too large"


def _is_pattern(pattern: str) -> bool:
    import jsonschema_rs  # noqa: PLC0415  # see `compile_schema`

    try:
        jsonschema_rs.validator_for({"pattern": pattern}, pattern_options=jsonschema_rs.RegexOptions())
    except (jsonschema_rs.ValidationError, ValueError):
        return False
    return True


def _violation(error: jsonschema_rs.ValidationError) -> Violation:
    import jsonschema_rs  # noqa: PLC0415  # see `compile_schema`

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
