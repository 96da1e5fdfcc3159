"""The check for mistakes in globs: regular expressions in place of globs, and broken classes; pure."""

from __future__ import annotations

import re

from router.core.matching import is_open, tokens

_RULE = "channels are matched by globs: ? * [a-c] [^a] \\x"
_SIGNS = re.compile(
    r"""
    ^\^ | (?<!\\)\$$ | ^\.\*          # the ends of a text; any text
    | (?<!\\)(?:\\\\)*\.\+            # some text
    | (?<!\\)(?:\\\\)*\\[.dDwWsSb/]   # an escaped character that is nothing special in a glob, or a kind of characters
    | \([^)]*\|[^)]*\)                # one of several
    | \](?:\+|\{\d)                   # several of a class
    """,
    re.VERBOSE,
)
_PARTS = re.compile(r"\.\*|\.\+|\\d\+|\\[.\-/:]|\\d|[\w.:/#@ -]")
_GLOBS = {".*": "*", ".+": "?*", "\\d+": "[0-9]*", "\\d": "[0-9]"}


def regular_expression(glob: str) -> str | None:
    """Return the message for a glob that looks like a regular expression; None if it does not."""
    if not _SIGNS.search(glob):
        return None
    meant = _as_glob(glob)
    cure = f"; write `{meant}`" if meant else "; a dot is a dot, and * alone is any text"
    return f"looks like a regular expression, and {_RULE}{cure}"


def _as_glob(expression: str) -> str | None:
    """Return the glob that matches the same texts as a simple regular expression; None if there is none."""
    inner = expression.removeprefix("^").removesuffix("$")
    parts = _PARTS.findall(inner)
    if "".join(parts) != inner or not inner:
        return None
    anchored = inner != expression
    before = "*" if anchored and not expression.startswith("^") else ""
    after = "*" if anchored and not expression.endswith("$") else ""
    glob = before + "".join(_GLOBS.get(part, part.removeprefix("\\")) for part in parts) + after
    return re.sub(r"\*\*+", "*", glob)


def broken_class(glob: str) -> str | None:
    """Return the fault in the classes of a glob, such as `[a-c`; None if there is none."""
    if is_open(glob):
        return (
            "the `[` is not closed: what follows it stands for one character; write `]`, or `\\[` for the sign itself"
        )
    if any(not token for token in tokens(glob.encode())):
        return (
            "`[]` stands for no character at all, so this matches nothing; write what it may be, or `\\[` for the sign"
        )
    return None
