"""The check for mistakes in globs: regular expressions in place of globs, and classes that are not closed or empty;
pure.
"""

from __future__ import annotations

import re

from router.core.matching import is_open, tokens

_RULE = "channels are matched by globs, with the signs ? * [a-c] [^a] \\x"
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
_GROUP = re.compile(r"(?<!\\)\((?:\?:)?(?P<alternatives>[^()|]+(?:\|[^()|]+)+)\)(?![*+?{])")
_MOST = 8
"""The maximum number of globs that are proposed in place of one regular expression."""
_GLOBS = {".*": "*", ".+": "?*", "\\d+": "[0-9]*", "\\d": "[0-9]"}


def regular_expression(glob: str) -> str | None:
    """Return the message for a glob that looks like a regular expression; None for any other glob."""
    if not _SIGNS.search(glob):
        return None
    meant = _as_globs(glob)
    written = " and ".join(f"`{each}`" for each in meant) + " as separate entries" * (len(meant) > 1)
    cure = f"; write {written}" if meant else "; a dot matches only a dot, and * matches any text"
    return f"looks like a regular expression, but {_RULE}{cure}"


def _as_globs(expression: str) -> list[str]:
    """Return the globs that match the same texts as a simple regular expression; empty if globs can't do that.

    A group such as `(new|paid)` becomes one glob for each alternative.
    """
    waiting, found = [expression], list[str]()
    while waiting:
        each = waiting.pop(0)
        group = _GROUP.search(each)
        if group is None:
            glob = _as_glob(each)
            if glob is None:
                return []
            found.append(glob)
        else:
            waiting += [each[: group.start()] + one + each[group.end() :] for one in group["alternatives"].split("|")]
        if len(waiting) + len(found) > _MOST:
            return []
    return list(dict.fromkeys(found))


def _as_glob(expression: str) -> str | None:
    """Return the glob that matches the same texts as a simple regular expression; None if there is no such glob."""
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
    """Return the fault in the classes of a glob, such as `[a-c`; None if there is no fault."""
    if is_open(glob):
        return "the `[` is not closed, so all text after it is read as a list of characters; close it with `]`, or write `\\[` for the character `[`"
    if any(not token for token in tokens(glob.encode())):
        return "`[]` matches no character, so this glob matches nothing; write the allowed characters between the brackets, or write `\\[` for the character `[`"
    return None
