"""What stands where `${…}` could not be had; floor 4.

`check` and its like need no secrets: where the missing value stands in a secret or a URL they go on with a placeholder.
Everywhere else, and always for `run`, it is an error.
"""

from __future__ import annotations

from router.errors import Problem
from router.ops.loading.reading import shapes
from router.ops.loading.reading.nodes import Mapping, Node, Scalar, Sequence
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

    def settle(self, node: Node, shape: shapes.Shape, key: str = "", *, server: bool = False) -> None:
        """Settle a node and all below it. `shape` is what its field expects, None where that is not known; `server`
        says that its URLs are those of Redis.
        """
        if isinstance(node, Mapping):
            for name, entry in node.entries.items():
                below = None if shape is None else shapes.below(shape, name)
                self.settle(entry.node, below, name, server=server)
        elif isinstance(node, Sequence):
            for index, item in enumerate(node.items):
                below = None if shape is None else shapes.below(shape, index)
                self.settle(item, below, key, server=server)
        elif isinstance(node, Scalar):
            if shape is not None and shapes.is_secret(shape) and node.value is not None and not node.expanded:
                self._problems.concealed.add(str(node.value), at=node)
                self._problems.concealed.add(node.text, at=node)
            if node.unset:
                self._scalar(node, shape, key, server=server)

    def _scalar(self, node: Scalar, shape: shapes.Shape, key: str, *, server: bool) -> None:
        is_url = key in _URL_KEYS or key.endswith("_url") or "://" in node.text
        is_secret = shape is not None and shapes.is_secret(shape)
        messages, node.unset = node.unset, []
        if not self._placeholders or not (is_url or is_secret):
            for message in messages:
                self._problems.add(message, node.mark, path=node.path)
            node.faulty = True
            return
        if is_url:
            node.value = _url(node, server=server)
        else:
            node.value = WORD
        node.default = True
        file, line, column = node.mark.file.name, node.mark.line, node.mark.column
        self.unknown[node.path] = Problem("; ".join(messages), file, line, column, path=node.path)
        for message in messages:
            self._problems.add(f"{message}; a placeholder stands here", node, severity="note")


def _url(node: Scalar, *, server: bool) -> str:
    """A URL that can be checked: as much of it as is written here."""
    if server:
        return f"redis://{WORD}.invalid:6379/0"
    if node.text.startswith(("http://", "https://")):
        return str(node.value)
    return URL
