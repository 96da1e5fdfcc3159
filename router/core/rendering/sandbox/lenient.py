"""The sandbox of expressions, which accept missing values; floor 2.

In a template, a missing value is an error. In an expression, a missing value is false and never equal. The result of a
filter or an operation on a missing value is missing too. For example, without `payload.order`, the value of
`payload.order.total | round` is missing. The module `comparisons` has the rules of comparisons. Everything else that
fails is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import tzinfo
from functools import wraps
from types import GeneratorType
from typing import Any

from jinja2 import nodes
from jinja2.runtime import Context
from jinja2.visitor import NodeTransformer

from router.core.rendering.sandbox.comparisons import COMPARISONS, TESTS
from router.core.rendering.sandbox.environments import Sandbox
from router.core.rendering.sandbox.functions import FUNCTIONS
from router.core.rendering.sandbox.values import Missing

_COMPARE = "_compare_{}_"  # the name of the filter that replaces a comparison
_CALL = "_call_{}_"  # the name of the filter that replaces the call of a function
_WITHOUT_ELSE = "Undefined = environment.undefined\n"
"""The end of the code of a compiled expression. It replaces Jinja's class for the value of `A if B` when B is false."""

_TAKE_MISSING = frozenset({"default", "d"})
_JUDGE_MISSING = frozenset({"defined", "undefined", *TESTS})


class Absent(Missing):
    """A missing value.

    It is false and never equal. Its attributes and items are missing too, and so are the results of operations on it.
    """

    __slots__ = ()

    def __bool__(self) -> bool:  # type: ignore[override]  # its base raises
        return False

    def __eq__(self, other: object) -> bool:  # type: ignore[override]  # as above
        return False

    def __ne__(self, other: object) -> bool:  # type: ignore[override]  # as above
        return True

    __hash__ = None  # type: ignore[assignment]  # because the class defines `__eq__`

    def child(self, name: Any) -> Missing:
        """Return the missing value for an attribute or item of this missing value."""
        return Absent(obj=self._undefined_obj, name=self._undefined_name, names=(*self.names, name))

    def _passed_on(self, *_other: Any) -> Any:
        return self

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _passed_on
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = __neg__ = __pos__ = _passed_on


def _behind_context(function: Callable[..., Any]) -> int:
    """Return the index of a filter's value among the arguments.

    It is 1 if Jinja passes the context or environment first, else 0.
    """
    return 1 if hasattr(function, "jinja_pass_arg") else 0


def _passing(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a filter: it returns a missing value unchanged, and a list in place of a generator.

    A generator would be true even without items.
    """
    place = _behind_context(function)

    @wraps(function)
    def passed(*args: Any, **kwargs: Any) -> Any:
        if len(args) > place and isinstance(args[place], Absent):
            return args[place]
        made = function(*args, **kwargs)
        return list(made) if isinstance(made, GeneratorType) else made

    return passed


def _failing(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a test, so that it is false for a missing value."""
    place = _behind_context(function)

    @wraps(function)
    def failed(*args: Any, **kwargs: Any) -> Any:
        if len(args) > place and isinstance(args[place], Absent):
            return False
        return function(*args, **kwargs)

    return failed


class _Null(NodeTransformer):
    """The replacement of the name `null`, as JSON spells it, with Jinja's `none`."""

    def visit_Name(self, node: nodes.Name) -> nodes.Expr:  # noqa: N802  # Jinja's naming
        return nodes.Const(None, lineno=node.lineno) if node.name == "null" and node.ctx == "load" else node


class _Comparing(NodeTransformer):
    """The replacement of comparisons, and of calls of our functions, with filters.

    `a < b < c` becomes `a < b and b < c`. A filter is faster than a call, because the sandbox checks for each call
    whether the call is safe. An expression can't assign to the name of a function, so replacing the call changes
    nothing else.
    """

    def visit_Call(self, node: nodes.Call) -> nodes.Expr:  # noqa: N802  # Jinja's naming
        self.generic_visit(node)
        name = node.node.name if isinstance(node.node, nodes.Name) else ""
        if name not in FUNCTIONS or not node.args or node.dyn_args or node.dyn_kwargs:
            return node
        first, *more = node.args
        return nodes.Filter(first, _CALL.format(name), more, node.kwargs, None, None, lineno=node.lineno)

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
    """The sandbox of an expression. It escapes nothing."""

    kind = "an expression"

    def __init__(self, zone: tzinfo) -> None:
        super().__init__(zone)
        self.undefined = self.blank = Absent
        _replace(self.filters, _passing, _TAKE_MISSING)
        self.filters.update({_COMPARE.format(name): compare for name, compare in COMPARISONS.items()})
        self.filters.update({_CALL.format(name): function for name, function in FUNCTIONS.items()})
        self.tests = {**self.tests, **TESTS}
        _replace(self.tests, _failing, _JUDGE_MISSING)

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function or method.

        A method of a missing value returns a missing value. An unknown method of any other value is an error.
        """
        if isinstance(function, Absent) and len(function.names) > 1:
            return function
        return super().call(context, function, *args, **kwargs)

    def concatenated(self, values: Any) -> Any:
        """Return the concatenation by `~`; a missing value if a part is missing."""
        values = list(values)
        absent = [value for value in values if isinstance(value, Absent)]
        return absent[0] if absent else super().concatenated(values)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Null().visit(super()._parse(source, name, filename))
        return tree

    def _generate(
        self, source: nodes.Template, name: str | None, filename: str | None, defer_init: bool = False
    ) -> str:
        code = super()._generate(_Comparing().visit(source), name, filename, defer_init)
        return f"{code}{_WITHOUT_ELSE}"


def _replace(
    table: dict[str, Any], by: Callable[[Callable[..., Any]], Callable[..., Any]], kept: frozenset[str]
) -> None:
    table.update({name: by(function) for name, function in table.items() if name not in kept})
