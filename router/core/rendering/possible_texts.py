"""The set of strings to which a template may render, as a glob; floor 2."""

from __future__ import annotations

from collections.abc import Iterator

from jinja2 import nodes

from router.core.matching import exactly
from router.core.rendering.sandbox.environments import Sandbox
from router.core.rendering.syntax.checking import read


def glob_of(text: str, sandbox: Sandbox) -> str | None:
    """Return a glob that matches every text to which a template may render; None for a faulty template.

    Text outside of expressions matches itself. An expression matches any text. A block (`{% … %}`) with its whole
    content also matches any text.
    """
    source = read(text, sandbox)
    return None if source.faults else "".join(_parts(source.tree))


def _parts(tree: nodes.Template) -> Iterator[str]:
    for node in tree.body:
        for part in node.nodes if isinstance(node, nodes.Output) else [node]:
            yield exactly(part.data) if isinstance(part, nodes.TemplateData) else "*"
