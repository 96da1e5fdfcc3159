"""Placeholders for what `${…}` could not give; floor 4.

`check` and its like need no secrets: where the missing value stands in a secret or a URL they go on with a placeholder.
Everywhere else, and always for `run`, it is an error.
"""

from __future__ import annotations

from router.errors import Problem
from router.ops.loading.reading import shapes
from router.ops.loading.reading.nodes import Node, Scalar
from router.ops.loading.reading.problems import Problems

WORD = "placeholder"
"""What stands for a missing secret, and for the missing part of a URL."""

URL = f"https://{WORD}.invalid/"
"""What stands for a missing URL."""

_URL_KEYS = ("url", "urls", "proxy", "api")


class Settler:
    """Decides on every scalar that has something unset, once the type of its field is known."""

    def __init__(self, problems: Problems, *, placeholders: bool) -> None:
        self._problems = problems
        self._placeholders = placeholders
        self.unknown: dict[str, Problem] = {}
        """By the path of a value in whose place a placeholder stands: why the value is not known."""

    def settle(self, node: Node, shape: shapes.Shape, *, server: bool = False) -> None:
        """Settle a node and all below it. `shape` is what its field expects, None where that is not known; `server`
        says that its URLs are those of Redis.
        """
        for scalar, expected, name in shapes.scalars(node, shape):
            is_secret = shapes.is_secret(expected)
            if is_secret:
                self._problems.concealed.secrets.append(scalar)
            if is_secret and scalar.value is not None and not scalar.expanded:
                self._problems.concealed.add(str(scalar.value), at=scalar)
                self._problems.concealed.add(scalar.text, at=scalar)
            if scalar.unset:
                self._scalar(scalar, name, is_secret=is_secret, server=server)

    def _scalar(self, node: Scalar, key: str, *, is_secret: bool, server: bool) -> None:
        is_url = key in _URL_KEYS or key.endswith("_url") or "://" in node.text
        messages, node.unset = node.unset, []
        if not self._placeholders or not (is_url or is_secret):
            for message in messages:
                self._problems.add(message, node.mark, path=node.path)
            node.faulty = True
            return
        node.value = _url(node, server=server) if is_url else WORD
        node.default = True
        file, line, column = node.mark.file.name, node.mark.line, node.mark.column
        self.unknown[node.path] = Problem("; ".join(messages), file, line, column, path=node.path)
        for message in messages:
            self._problems.add(f"{message}; a placeholder stands here", node, severity="note")


def _url(node: Scalar, *, server: bool) -> str:
    """Return a URL that can be checked: as much of it as is written here."""
    if server:
        return f"redis://{WORD}.invalid:6379/0"
    if node.text.startswith(("http://", "https://")):
        return str(node.value)
    return URL
