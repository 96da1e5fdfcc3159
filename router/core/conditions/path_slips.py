"""Corrections for paths and values of a `match` that are written as in other languages, such as JSONPath; pure."""

from __future__ import annotations

import re

from router.core.conditions import paths
from router.core.conditions.paths import EACH, Path, PathError, Segment

_STEP = re.compile(
    r"""
    \[\s*(?P<index>[0-9]{1,3})\s*\]          # tags[0]
    | \[\s*(?P<each>\*?)\s*\]                # lines[*] and lines[]
    | \[\s*(?P<quote>['"])(?P<key>[^'"]+)(?P=quote)\s*\]    # order['total']
    | \.?(?P<name>[^.\[\]"*/$]+)             # .total
    | \.(?P<star>\*)                         # lines.*
    """,
    re.VERBOSE,
)
_COMPARISON = re.compile(r"\s*(?P<sign>[<>]=?|[!=]=?|<>|=<|=>)\s*(?P<value>\S(?:.*\S)?)\s*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,20})(?:\.[0-9]{1,20})?")
_OPERATORS = {
    "<": "lt", "<=": "lte", "=<": "lte", ">": "gt", ">=": "gte", "=>": "gte", "=": "eq", "==": "eq", "!=": "ne", "<>": "ne",
}  # fmt: skip
_EXPRESSION = re.compile(r"/(?P<pattern>(?:[^/\\]|\\.)*[\^$.*+?\[(\\](?:[^/\\]|\\.)*)/(?P<flags>[a-z]{0,4})")


def from_jsonpath(written: str) -> str | None:
    """Return the path that is meant by a text in the syntax of JSONPath or JSON Pointer; None for any other text."""
    if written.startswith("/"):
        found: Path | None = _from_pointer(written)
    elif "[" in written or written.startswith("$"):
        found = _from_steps(written)
    else:
        return None
    return paths.shown(found) if found else None


def _from_steps(written: str) -> Path | None:
    rest = written.removeprefix("$")
    found: list[Segment] = []
    while rest:
        step = _STEP.match(rest)
        if step is None:
            return None
        if step["index"] is not None:
            found.append(int(step["index"]))
        elif step["each"] is not None or step["star"] is not None:
            found.append(EACH)
        else:
            name = step["key"] or step["name"]
            is_index = step["key"] is None and name.isascii() and name.isdigit() and len(name) <= 3
            found.append(int(name) if is_index else name)
        rest = rest[step.end() :]
    return tuple(found)


def _from_pointer(written: str) -> Path | None:
    """Return the path of a JSON Pointer (RFC 6901), such as `/order/total`; None for any other text."""
    parts = written[1:].split("/")
    if not all(re.fullmatch(r"[\w~-]+", part) for part in parts):
        return None
    names = [part.replace("~1", "/").replace("~0", "~") for part in parts]
    return tuple(int(name) if name.isascii() and name.isdigit() and len(name) <= 3 else name for name in names)


def condition_in(text: str) -> str | None:
    """Return the condition that is meant by a text such as `> 5`, as it is written in a `match`; None for other texts."""
    found = _COMPARISON.fullmatch(text)
    if found is not None:
        operator, value = _OPERATORS[found["sign"]], found["value"]
        if _NUMBER.fullmatch(value):
            return f"{{{operator}: {value}}}"
        # Only numbers have an order in a `match`.
        return f"{{{operator}: {_bare(value)}}}" if operator == "ne" or found["sign"] == "==" else None
    expression = _EXPRESSION.fullmatch(text)
    if expression is None:
        return None
    flags = f"(?{expression['flags']})" if set(expression["flags"]) <= set("ims") and expression["flags"] else ""
    return "{{regex: '{}{}'}}".format(flags, expression["pattern"].replace("\\/", "/").replace("'", "''"))


def _bare(value: str) -> str:
    return (
        value
        if re.fullmatch(r"[A-Za-z][\w-]*", value)
        else f"'{value.strip(chr(34) + chr(39)).replace(chr(39), 2 * chr(39))}'"
    )


def path_fault(written: str, error: PathError) -> str:
    """Return the message for a text that is not a path; with the path that is probably meant, if it is known."""
    meant = from_jsonpath(written)
    return f"{error}" if meant is None else f"it looks like JSONPath; write `{meant}`"
