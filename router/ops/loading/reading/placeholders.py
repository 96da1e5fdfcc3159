"""Placeholders for missing values of `${…}`; floor 4.

`check` and similar commands need no secrets: they use a placeholder for a missing value in a secret or a URL. In every
other field, a missing value is an error. For `run`, a missing value is always an error.
"""

from __future__ import annotations

from router.errors import Problem
from router.ops.loading.reading import shapes
from router.ops.loading.reading.concealing import holds_a_secret
from router.ops.loading.reading.nodes import Node, Scalar
from router.ops.loading.reading.problems import Problems
from router.options import PLACEHOLDER, is_template

WORD = PLACEHOLDER
"""The placeholder of a missing secret, and of the missing part of a URL."""

URL = f"https://{WORD}.invalid/"
"""The placeholder of a missing URL."""

_URL_KEYS = ("url", "urls", "proxy", "api")


class Settler:
    """The decision about each scalar with missing values, after the type of its field is known."""

    def __init__(self, problems: Problems, *, placeholders: bool) -> None:
        self._problems = problems
        self._placeholders = placeholders
        self.unknown: dict[str, Problem] = {}
        """The reasons why values are unknown, by the paths of their placeholders."""

    def settle(self, node: Node, shape: shapes.Shape) -> None:
        """Decide on a node and all nodes below it.

        `shape` is the type of the node's field; None if the type is unknown.
        """
        for scalar, expected, name in shapes.scalars(node, shape):
            is_secret = shapes.is_secret(expected) and not is_template(scalar.text)
            if is_secret:
                self._problems.concealed.secrets.append(scalar)
            if is_secret and scalar.value is not None and not scalar.expanded:
                self._problems.concealed.add(str(scalar.value), at=scalar)
                self._problems.concealed.add(scalar.text, at=scalar)
            if scalar.unset:
                is_text = shapes.is_template(expected)
                server = shapes.is_redis_url(expected)
                self._scalar(scalar, name, is_secret=is_secret, is_text=is_text, server=server)

    def _scalar(self, node: Scalar, key: str, *, is_secret: bool, is_text: bool, server: bool) -> None:
        is_url = key in _URL_KEYS or key.endswith("_url") or "://" in node.text
        # Other strings are secrets too: the value of a key such as `X-Api-Key`, and a value with `${cred:…}`.
        is_secret = is_secret or (is_text and (holds_a_secret(node.path) or "${cred:" in node.text))
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
            self._problems.add(f"{message}; a placeholder is used instead", node, severity="note")


def _url(node: Scalar, *, server: bool) -> str:
    """Return a URL that can be checked, made of its written parts and placeholders."""
    if server:
        return f"redis://{WORD}.invalid:6379/0"
    if node.text.startswith(("http://", "https://")):
        return str(node.value)
    return URL
