"""The sandbox of expressions: templates stop at what is missing, an expression goes on without it; floor 2.

What is missing is falsy and equal to nothing, and values of unlike types compare as false: an expression is asked of
payloads of every shape, and must not stop at one that has another.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from datetime import tzinfo
from typing import Any

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

from router.core.rendering.sandbox.environments import Sandbox
from router.core.rendering.sandbox.values import Missing

_COMPARE = "_compare_{}_"  # the name of the filter that stands for a comparison
_ALIKE: tuple[tuple[type, ...], ...] = ((int, float), (str,), (list, tuple))


class Absent(Missing):
    """A value that is not there: falsy, equal to nothing, and what is asked of it is not there either."""

    __slots__ = ()

    def __bool__(self) -> bool:  # type: ignore[override]  # its base raises
        return False

    def __eq__(self, other: object) -> bool:  # type: ignore[override]  # as above
        return False

    def __ne__(self, other: object) -> bool:  # type: ignore[override]  # as above
        return True

    __hash__ = None  # type: ignore[assignment]  # as every value that compares by a rule of its own

    def child(self, name: Any) -> Missing:
        """Return what is asked of what is not there."""
        return Absent(obj=self._undefined_obj, name=self._undefined_name, names=(*self.names, name))


def _equal(left: Any, right: Any) -> bool:
    """Strict as routing is: `1` is not `true`."""
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    """An order that is false between values of unlike types; a truth value is no number."""

    def compared(left: Any, right: Any) -> bool:
        if isinstance(left, bool) or isinstance(right, bool):
            return False
        if type(left) is not type(right) and not any(
            isinstance(left, kinds) and isinstance(right, kinds) for kinds in _ALIKE
        ):
            return False
        try:
            return compare(left, right)
        except TypeError:  # no order at all, or lists whose items are of unlike types
            return False

    return compared


def _within(left: Any, right: Any) -> bool:
    if isinstance(right, str | Mapping):
        return isinstance(left, str) and left in right
    return isinstance(right, list | tuple | range) and any(_equal(left, item) for item in right)


_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": _equal,
    "ne": lambda left, right: not _equal(left, right),
    "gt": _ordered(operator.gt),
    "gteq": _ordered(operator.ge),
    "lt": _ordered(operator.lt),
    "lteq": _ordered(operator.le),
    "in": _within,
    "notin": lambda left, right: not _within(left, right),
}


class _Comparing(NodeTransformer):
    """Comparisons become filters of ours; `a < b < c` becomes `a < b and b < c`."""

    def visit_Compare(self, node: nodes.Compare) -> nodes.Expr:  # noqa: N802  # Jinja's naming
        self.generic_visit(node)
        whole: nodes.Expr | None = None
        left = node.expr
        for operand in node.ops:
            name = _COMPARE.format(operand.op)
            one = nodes.Filter(left, name, [operand.expr], [], None, None, lineno=node.lineno)
            whole = one if whole is None else nodes.And(whole, one, lineno=node.lineno)
            left = operand.expr
        return whole or node.expr


class Lenient(Sandbox):
    """The sandbox of an expression; nothing is escaped in it."""

    def __init__(self, zone: tzinfo) -> None:
        super().__init__(zone)
        self.undefined = Absent
        self.filters.update({_COMPARE.format(name): compare for name, compare in _COMPARISONS.items()})

    def _generate(
        self, source: nodes.Template, name: str | None, filename: str | None, defer_init: bool = False
    ) -> str:
        return super()._generate(_Comparing().visit(source), name, filename, defer_init)
