"""The comparisons, in a template or expression, of a field of the event with a constant; floor 2."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, cast

from jinja2 import nodes

from router.core.rendering.syntax.checking import Source, chain_of
from router.core.rendering.syntax.reads import assigns_to_event

Operator = Literal["eq", "ne", "gt", "gte", "lt", "lte", "contains"]

_OPERATORS: dict[str, Operator] = {
    "eq": "eq",
    "ne": "ne",
    "gt": "gt",
    "gteq": "gte",
    "lt": "lt",
    "lteq": "lte",
    "in": "eq",
    "notin": "ne",
}
"""The operators of `match` by Jinja's names of operators. `in` compares with each value of a list."""

_REVERSED: dict[Operator, Operator] = {"gt": "lt", "gte": "lte", "lt": "gt", "lte": "gte"}

_ORDERED = frozenset({"gt", "gte", "lt", "lte"})


class Compared(NamedTuple):
    """A comparison of the value at a path with a constant.

    The path begins with `payload` or `event`. `several` is true if the constant is an element of a list. `negated` is
    true for `not in`. `line` and `file` name the place, as in `Read`.
    """

    path: tuple[object, ...]
    operator: Operator
    value: Any
    several: bool
    negated: bool
    line: int | None
    file: str


def comparisons(source: Source) -> list[Compared]:
    """Return the comparisons with constants that a template contains.

    The list is empty if the template assigns to `payload` or `event`.
    """
    if assigns_to_event(source):
        return []
    found: list[Compared] = []
    for name, below in source.below.items():
        file = source.file if name is None else name
        for node in below:
            for each in _of(node) if isinstance(node, nodes.Compare) else ():
                place = f"{file}:{node.lineno}" if file else ""
                found.append(each._replace(line=None if file else node.lineno, file=place))
    return found


def _of(node: nodes.Compare) -> Iterator[Compared]:
    """Yield the comparisons with constants that one node contains.

    A node that compares more than two values (`1 < x < 5`) is skipped.
    """
    if len(node.ops) != 1:
        return
    (operand,) = node.ops
    operator, negated = _OPERATORS[operand.op], operand.op == "notin"
    left, right = _path(node.expr), _path(operand.expr)
    if operand.op in {"in", "notin"}:
        if right is not None and isinstance(node.expr, nodes.Const):
            yield from _single(right, "contains", node.expr, negated=negated)
        elif left is not None:
            items = _items(operand.expr)
            for item in items:
                for each in _single(left, "eq", item, negated=negated):
                    yield each._replace(several=len(items) > 1)
    elif left is not None:
        yield from _single(left, operator, operand.expr)
    elif right is not None:
        yield from _single(right, _REVERSED.get(operator, operator), node.expr)


def _items(node: nodes.Node) -> list[nodes.Expr]:
    """Return the elements of a list; empty for any other node.

    If all elements are constants, Jinja turns the list into a single constant. The elements of such a constant are
    returned too.
    """
    if isinstance(node, nodes.List | nodes.Tuple):
        return node.items
    if isinstance(node, nodes.Const) and isinstance(node.value, list | tuple):
        return [nodes.Const(value) for value in node.value]
    return []


def _single(
    path: tuple[object, ...], operator: Operator, node: nodes.Node, *, negated: bool = False
) -> Iterator[Compared]:
    found = _constant(node)
    if found is None:
        return
    (value,) = found
    # Texts have an order in expressions, but not in a `match`. The comparison is checked by the rules of `match`.
    if operator in _ORDERED and (isinstance(value, bool) or not isinstance(value, int | float)):
        return
    yield Compared(path, operator, value, several=False, negated=negated, line=None, file="")


def _constant(node: nodes.Node) -> tuple[Any] | None:
    """Return a tuple with the value of a constant; None for any other node.

    The tuple is needed because the value itself may be None.
    """
    if isinstance(node, nodes.Neg):
        inner = _constant(node.node)
        number = inner is not None and not isinstance(inner[0], bool) and isinstance(inner[0], int | float)
        return (-cast("tuple[float]", inner)[0],) if number else None
    scalar = isinstance(node, nodes.Const) and not isinstance(node.value, list | tuple | dict)
    return (cast("nodes.Const", node).value,) if scalar else None


def _path(node: nodes.Node) -> tuple[object, ...] | None:
    """Return the path that a node reads; None if the path does not lead into the event.

    `event.payload.x` is returned as `payload.x`.
    """
    chain = chain_of(node)
    if not chain or len(chain) < 2 or chain[0] not in {"payload", "event"}:
        return None
    return chain[1:] if chain[:2] == ("event", "payload") else chain
