"""The fields of the payload that a template requires; floor 2."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from jinja2 import nodes

from router.core.rendering.syntax.checking import Source, chain_of

Path = tuple[object, ...]
"""The path of a field, as keys and indices: `("order", "total")`."""

_GUARDS = frozenset({"default", "d"})
_TESTS = frozenset({"defined", "undefined"})


class Read(NamedTuple):
    """A field that a template reads.

    `line` is the line in the template itself. For a field in a file, `file` is `NAME:LINE`. `always` is true if every
    rendering reads the field, and false if it depends on a condition.
    """

    path: Path
    line: int | None
    file: str
    always: bool


def fields_read(source: Source) -> list[Read]:
    """Return the required fields of a template, each once, in order.

    A required field is read without a default for its absence. A field is optional if any part of the template handles
    its absence (`| default(…)`, `is defined`, `'name' in payload`).
    """
    trees = source.trees
    if assigns_to_event(source):
        return []
    optional = {path for below in source.below.values() for path in _optional(below)}
    found: dict[Path, Read] = {}
    for name, tree in trees.items():
        file = source.file if name is None else name
        for path, line, always in _reads(tree, always=name is None):
            if path and not any(path[:length] in optional for length in range(len(path) + 1)):
                place = f"{file}:{line}" if file else ""
                earlier = found.setdefault(path, Read(path, None if file else line, place, always))
                if always and not earlier.always:
                    found[path] = earlier._replace(always=True)
    return list(found.values())


def assigns_to_event(source: Source) -> bool:
    """Return whether a template assigns a value of its own to `payload` or `event`."""
    names = (node for below in source.below.values() for node in below if isinstance(node, nodes.Name))
    return any(node.name in {"payload", "event"} and node.ctx != "load" for node in names)


def paths_read(source: Source) -> list[Path]:
    """Return the paths of all fields that a template reads, including optional ones, each once, in order."""
    trees = source.trees.values()
    return list(dict.fromkeys(path for tree in trees for path, _, _ in _reads(tree, always=True) if path))


def _of_payload(node: nodes.Node) -> Path | None:
    """Return the path below the payload that a node reads, or None."""
    chain = chain_of(node)
    if chain and chain[:2] == ("event", "payload"):
        return chain[2:]
    return chain[1:] if chain and chain[0] == "payload" else None


def _reads(node: nodes.Node, *, always: bool) -> Iterator[tuple[Path, int, bool]]:
    """Yield the reads of a node and its children: the path, the line, and whether every rendering reads the path."""
    path = _of_payload(node)
    if path is not None:
        yield path, node.lineno, always
        return
    if isinstance(node, nodes.Call) and (called := _of_payload(node.node)) is not None:
        yield called[:-1], node.lineno, always  # the last step is a method of the value
        children = [*node.args, *node.kwargs]
        for child in children:
            yield from _reads(child, always=always)
        return
    sure = _always_evaluated(node)
    for child in node.iter_child_nodes():
        yield from _reads(child, always=always and (sure is None or child in sure))


def _always_evaluated(node: nodes.Node) -> list[nodes.Node] | None:
    """Return the children of a node that are always evaluated; None if all children are always evaluated."""
    if isinstance(node, nodes.If | nodes.CondExpr):
        return [node.test]
    if isinstance(node, nodes.For):
        return [node.iter]
    if isinstance(node, nodes.And | nodes.Or):
        return [node.left]
    if isinstance(node, nodes.Macro | nodes.CallBlock | nodes.Block):
        return []
    return None


def _optional(below: Iterable[nodes.Node]) -> Iterator[Path]:
    """Yield the paths that are optional in a template."""
    for node in below:
        if isinstance(node, nodes.Filter | nodes.Test):
            guards = node.name in (_GUARDS if isinstance(node, nodes.Filter) else _TESTS)
            path = _of_payload(node.node) if guards and node.node is not None else None
            if path is not None:
                yield path
        elif isinstance(node, nodes.Compare):
            for operand in node.ops:
                path = _of_payload(operand.expr)
                if operand.op in {"in", "notin"} and path is not None and isinstance(node.expr, nodes.Const):
                    yield (*path, node.expr.value)
