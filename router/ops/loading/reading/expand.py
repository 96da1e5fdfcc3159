"""The expansion of `${…}` in scalar values, and the reading of env files; floor 4.

Each value is expanded by itself, after parsing. So a value from the environment or a file can never add a key. A
missing value is recorded in the scalar (`unset`). Later, when the type of the field is known, `Settler` decides whether
a placeholder may replace the missing value.
"""

from __future__ import annotations

import re
import shlex
import stat
from collections.abc import Mapping
from pathlib import Path

import msgspec

from router.files import UnreadableError, read_file
from router.ops.loading.reading.nodes import Mark, Node, Scalar, SourceFile, quoted, scalars
from router.ops.loading.reading.problems import Problems

CREDENTIALS = "CREDENTIALS_DIRECTORY"

_FORMS = "write ${NAME}, ${NAME:-default}, ${NAME:?message}, ${file:/path} or ${cred:name}; for a literal ${ write $${"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CREDENTIAL = re.compile(r"[A-Za-z0-9_@.-]+")
_ENV_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_ENV_QUOTED = re.compile(r"""(?:"((?:[^"\\]|\\.)*)"|'([^']*)')\s*(?:#.*)?""", re.DOTALL)
_ESCAPE = re.compile(r"\\(.)")
_LARGEST = 1024**2
_DEPTH = 10


class Expander(msgspec.Struct):
    """Expands the `${…}` of scalars.

    `secrets` collects the values from files and credentials, and `files` the paths of the files.
    """

    environ: Mapping[str, str]
    problems: Problems
    secrets: set[str] = msgspec.field(default_factory=set)
    files: set[Path] = msgspec.field(default_factory=set)

    def tree(self, root: Node) -> None:
        """Expand every scalar of the tree in place."""
        for scalar in scalars(root):
            if isinstance(scalar.value, str) and "$" in scalar.value and not scalar.expanded:
                self._scalar(scalar)

    def _scalar(self, scalar: Scalar) -> None:
        run = _Run(self, scalar)
        scalar.value = run.text(scalar.value)
        scalar.expanded = run.expressions > 0
        scalar.default = run.default


class _Run(msgspec.Struct):
    """The expansion of one scalar."""

    expander: Expander
    scalar: Scalar
    expressions: int = 0
    default: bool = False
    depth: int = 0

    def text(self, text: str) -> str:
        parts: list[str] = []
        at = 0
        while (sign := text.find("$", at)) >= 0:
            parts.append(text[at:sign])
            after = text[sign + 1 : sign + 2]
            if after == "$":
                parts.append("$")
                at = sign + 2
            elif after == "{":
                end = _closing(text, sign + 1)
                parts.append(self._expression(text[sign + 2 : end] if end is not None else None))
                at = len(text) if end is None else end + 1
            else:
                parts.append("$")
                at = sign + 1
        return "".join(parts) + text[at:]

    def _expression(self, inner: str | None) -> str:
        """Return the value of one `${…}`. `inner` is the text between the braces (None: the brace is never closed)."""
        self.expressions += 1
        if inner is None:
            return self._wrong(f"`${{` is never closed; {_FORMS}")
        if inner.startswith("{"):
            return self._wrong("`${` begins an expression; write `$$` for a dollar sign before `{{`")
        if inner.startswith("file:"):
            return self._file(inner[5:])
        if inner.startswith("cred:"):
            return self._credential(inner[5:])
        found = _NAME.match(inner)
        if not found:
            return self._wrong(f"${{{_short(inner)}}} is not understood; {_FORMS}")
        name, rest = found[0], inner[found.end() :]
        value = self.expander.environ.get(name)
        self._conceal(value, f"${{{name}}}")
        if not rest:
            return (
                value
                if value is not None
                else self._missing(f"{name} is not set; set it or write ${{{name}:-default}}")
            )
        if rest.startswith(":-"):
            return value or self._default(rest[2:])
        if rest.startswith(":?"):
            return value or self._missing(f"{name} is not set: {rest[2:] or 'it is required'}")
        close = {"-": ":-", "?": ":?", ":": ":-", "=": ":-"}.get(rest[0])
        meant = f" (did you mean ${{{name}{close}{_short(rest.lstrip(':-?='))}}}?)" if close else ""
        return self._wrong(f"${{{_short(inner)}}} is not understood; {_FORMS}{meant}")

    def _default(self, text: str) -> str:
        self.default = True
        self.depth += 1
        if self.depth > _DEPTH:
            return self._wrong(f"defaults are nested more than {_DEPTH} levels deep")
        expanded = self.text(text)
        self.depth -= 1
        return expanded

    def _file(self, name: str) -> str:
        if not name:
            return self._wrong("${file:} needs a path, such as ${file:/run/secrets/token}")
        path = self.scalar.mark.file.folder / name
        value = self._read(path, f"${{file:{name}}}")
        if value is not None and path.stat().st_mode & stat.S_IROTH:
            self.expander.problems.warn(
                f"every user can read {name}: run `chmod o-r {shlex.quote(str(path))}`", self.scalar
            )
        return "" if value is None else value

    def _credential(self, name: str) -> str:
        if not _CREDENTIAL.fullmatch(name) or name in {".", ".."}:
            return self._wrong(
                f"{quoted(name)} is not a valid name of a credential; write a name such as ${{cred:smtp-password}}"
            )
        folder = self.expander.environ.get(CREDENTIALS)
        if not folder:
            told = f"the credential {name} can't be read: {CREDENTIALS} is not set; systemd sets it if the unit has LoadCredential="
            return self._missing(told)
        return self._read(Path(folder) / name, f"${{cred:{name}}}") or ""

    def _read(self, path: Path, shown: str) -> str | None:
        """Return the text of a secret's file without the newline at its end; None if the file can't be read."""
        self.expander.files.add(path.absolute())
        try:
            value = read_file(path, most=_LARGEST).decode()
        except UnicodeDecodeError:
            self._missing(f"{shown} can't be read: the file is not UTF-8")
            return None
        except UnreadableError as error:
            self._missing(f"{shown} can't be read: {error}")
            return None
        value = value[:-2] if value.endswith("\r\n") else value.removesuffix("\n")
        if value:
            self.expander.secrets.add(value)
            self._conceal(value, shown)
        return value

    def _conceal(self, value: str | None, shown: str) -> None:
        self.expander.problems.concealed.add(value or "", shown, self.scalar)

    def _missing(self, message: str) -> str:
        self.scalar.unset.append(message)
        return "placeholder"

    def _wrong(self, message: str) -> str:
        self.expander.problems.add(message, self.scalar)
        return ""


def _closing(text: str, opened: int) -> int | None:
    """Return the index of the brace that closes the brace at index `opened`; None if the brace is never closed."""
    depth = 0
    for at in range(opened, len(text)):
        depth += (text[at] == "{") - (text[at] == "}")
        if depth == 0:
            return at
    return None


def _short(text: str) -> str:
    return quoted(text, 40)[1:-1]


def env_file(path: Path, problems: Problems, *, pipes: bool = False) -> dict[str, str]:
    """Return the variables of an env file: lines of `KEY=VALUE`, optional quotes and `export`, `#` comments."""
    file = SourceFile(str(path), path)
    found: dict[str, str] = {}
    try:
        text = read_file(path, most=_LARGEST, pipes=pipes).decode("utf-8-sig")
    except ValueError as error:
        reason = "the file is not UTF-8" if isinstance(error, UnicodeDecodeError) else error
        problems.add(f"can't read the env file: {reason}", Mark(file, 1, 1))
        return found
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = _ENV_LINE.fullmatch(stripped)
        value = _env_value(match[2]) if match else None
        if match is None:
            problems.add("a line of an env file must be KEY=VALUE", Mark(file, number, 1))
        elif value is None:
            problems.add(
                "the quote is not closed, or text follows the closing quote", Mark(file, number, line.index("=") + 2)
            )
        else:
            found[match[1]] = value
    return found


def _env_value(text: str) -> str | None:
    """Return the value of a line; None if a quote is not closed, or if text follows the closing quote."""
    if text[:1] not in {'"', "'"}:
        return re.sub(r"(^|\s+)#.*$", "", text).strip()
    match = _ENV_QUOTED.fullmatch(text)
    if match is None:
        return None
    if match[1] is None:
        return match[2]
    return _ESCAPE.sub(lambda escape: {"n": "\n", "t": "\t", "r": "\r"}.get(escape[1], escape[1]), match[1])
