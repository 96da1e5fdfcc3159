"""Compiled templates, and the names with which they are rendered; floor 2."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from types import FunctionType
from typing import Any, Self, cast

from jinja2 import Template, TemplateSyntaxError, nodes
from jinja2.defaults import DEFAULT_NAMESPACE
from jinja2.runtime import Context
from jinja2.sandbox import safe_range

from router.core.mailboxes import split
from router.core.rendering.addresses import urls_in
from router.core.rendering.faults import BrokenTemplateError, Fault, dotted
from router.core.rendering.rendered_addresses import addresses_in, listed, mappings
from router.core.rendering.sandbox.bounds import MAX_OUTPUT, too_long
from router.core.rendering.sandbox.environments import Sandbox
from router.core.rendering.sandbox.functions import FUNCTIONS
from router.core.rendering.sandbox.lookup_records import NO_RECORDS, Records
from router.core.rendering.sandbox.values import EventFields, MissingError, plain
from router.core.rendering.syntax.checking import chains, read
from router.core.rendering.syntax.trees import shape_of
from router.errors import EventError, TemplateError
from router.escaping import cut
from router.events import Event
from router.options import Addresses, TemplateFile

Names = Mapping[str, Any]
"""The names and values with which a template is rendered."""

GLOBALS = {**DEFAULT_NAMESPACE, "range": safe_range, **FUNCTIONS}
"""The functions that every template and expression may use."""

_RESULT = "_result_"  # the name of the variable for the value of a sole expression
_CAUSE = 200  # the largest number of bytes of a Python error message, which may quote the payload
_MISSING = "a field is missing; its name comes from the event and is not logged"
_WITHOUT_VALUES = (TypeError, OverflowError, ZeroDivisionError)
"""The errors whose texts name types and sizes but quote no value."""


def scope(event: Event, used: Collection[str], records: Records = NO_RECORDS) -> dict[str, Any]:
    """Return the names for the templates of a delivery.

    `payload` and `event` are included only if `used` contains them. So a payload is decoded only if a template uses it.
    `records` are the records of the delivery's lookups. Raises `TemplateError` if the payload can't be decoded.
    """
    names = GLOBALS.copy()
    names["route"] = event.route
    names["sink"] = event.sink
    if records:
        names.update(records)
    if "event" in used:
        names["event"] = EventFields(event)
    if "payload" in used:
        try:
            names["payload"] = event.payload
        except (ValueError, RecursionError) as error:
            raise TemplateError(f"the payload can't be decoded: {error}", "the payload can't be decoded") from None
    return names


class Compiled:
    """A compiled template. `render(names)` returns its text; `names` are the names that it uses.

    The constructor raises `BrokenTemplateError`.
    """

    def __init__(self, text: str, sandbox: Sandbox) -> None:
        source = read(text, sandbox)
        if source.faults:
            raise BrokenTemplateError(source.faults)
        self.names = source.names
        self._chains = chains(source)
        self._sandbox = sandbox.with_files(source.texts) if source.texts else sandbox
        self._template = self._compile(source.tree)

    @classmethod
    def shared(cls, text: str, sandbox: Sandbox) -> Self:
        """Return the compiled template of a text.

        Equal texts of one environment get the same object. For example, a thousand routes that override one option of a
        sink share the templates of its other options. A template from a file is always compiled anew, because equal
        texts may include different files. Raises `BrokenTemplateError`.
        """
        if isinstance(text, TemplateFile):
            return cls(text, sandbox)
        found: Self | None = sandbox.compiled.get((cls, text))
        if found is None:
            found = sandbox.compiled[cls, text] = cls(text, sandbox)
        return found

    def _compile(self, tree: nodes.Template) -> Template:
        codes = self._sandbox.codes
        try:
            shape = shape_of(tree)
            code = codes.get(shape.key)
            if code is None:
                code = codes[shape.key] = self._sandbox.compile(shape.tree)
        except (TemplateSyntaxError, SyntaxError, RecursionError, MemoryError) as error:
            raise BrokenTemplateError(
                [Fault(f"the template can't be compiled: {error}", getattr(error, "lineno", None))]
            ) from None
        template = Template.from_code(self._sandbox, code, {})
        cast("FunctionType", template.root_render_func).__globals__.update(shape.values)
        return template

    def render(self, names: Names) -> str:
        """Return the text. Raises any error of the template."""
        pieces: list[str] = []
        size = 0
        for piece in self._run(names)[1]:
            size += len(piece)
            if size > MAX_OUTPUT:
                too_long()
            pieces.append(piece)
        return "".join(pieces)

    def value(self, names: Names) -> Any:
        """Return the value of the expression in a template made by `_assigning`. Raises any error of the expression."""
        context, steps = self._run(names)
        for _ in steps:
            pass  # a template made by `_assigning` writes nothing
        return context.vars[_RESULT]

    def _run(self, names: Names) -> tuple[Context, Iterator[str]]:
        context = self._sandbox.context_class(self._sandbox, cast("dict[str, Any]", names), None, self._template.blocks)
        return context, self._template.root_render_func(context)

    def explain(self, where: str, error: Exception, names: Names) -> TemplateError:
        """Return a `TemplateError` for an error of the template at `where`.

        Its text for the log does not quote the event.
        """
        said, told = self._cause(error, names)
        return TemplateError(f"{where}: {cut(said, _CAUSE)}", f"{where}: {cut(told or said, _CAUSE)}")

    def _cause(self, error: Exception, names: Names) -> tuple[str, str | None]:
        if isinstance(error, MissingError):
            path = self._path(error, names)
            return (f"{path} is missing", None) if path else (f"{dotted(error.names[:1])} is missing", _MISSING)
        if isinstance(error, EventError):
            return str(error), error.told
        if isinstance(error, RecursionError):
            return "a macro calls itself without end, or the values are nested too deeply", None
        if isinstance(error, MemoryError):
            return "the template needs too much memory", None
        said = " ".join(str(error).split())
        kind = type(error).__name__
        if " " not in said:
            said = f"{kind}: {said}"
        return said, None if isinstance(
            error, _WITHOUT_VALUES
        ) else f"{kind} (its text may quote the event and is not logged)"

    def _path(self, error: MissingError, names: Names) -> str:
        """Return the missing path as the template writes it; empty if the event itself supplied the name."""
        name = error.names[0]
        asked = sorted({chain[: chain.index(name, 1) + 1] for chain in self._chains if name in chain[1:]}, key=str)
        exact = [chain for chain in asked if _found(chain[:-1], names) is error.obj]
        return dotted((exact or asked or [()])[0])


class CompiledExpression(Compiled):
    """A compiled template that is only one `{{ … }}`. `value(names)` returns its value in place of a string."""

    def _compile(self, tree: nodes.Template) -> Template:
        expression = _sole_expression(tree)
        if expression is None:
            raise BrokenTemplateError([Fault("this must be a single expression", None)])
        return super()._compile(_assigning(expression))

    @cached_property
    def _context(self) -> Context:
        """The context that all evaluations share.

        Evaluations never overlap, and creating a context takes a third of the time of an evaluation.
        """
        return self._sandbox.context_class(self._sandbox, {}, None, {})

    def value(self, names: Names) -> Any:
        """Return the value. Raises any error of the expression."""
        context = self._context
        context.parent = cast("dict[str, Any]", names)
        try:
            for _ in self._template.root_render_func(context):
                pass  # a template made by `_assigning` writes nothing
            return context.vars.pop(_RESULT)
        finally:
            context.parent = {}  # frees the payload, which may be large


class CompiledAddresses(Compiled):
    """A compiled template of addresses.

    `recipients(names, marker)` returns the unchecked addresses. The value of a template that is only one `{{ … }}` may
    be a list. Any other template renders to a comma-separated text.
    """

    def _compile(self, tree: nodes.Template) -> Template:
        expression = _sole_expression(tree)
        self._whole = expression is not None
        return super()._compile(tree if expression is None else _assigning(expression))

    def addresses(self, names: Names) -> list[str]:
        """Return the addresses. Raises `AddressError`, and any error of the template."""
        return listed(self.value(names), addresses_in) if self._whole else split(self.render(names))

    def recipients(self, names: Names, marker: Addresses) -> Sequence[Any]:
        """Return the recipients for a field with this marker, unchecked. Raises as `addresses` does."""
        if marker.known_by is None:
            return self.addresses(names)
        if callable(marker.known_by):
            return listed(self.value(names), urls_in) if self._whole else urls_in(self.render(names))
        return mappings(self.value(names) if self._whole else self.render(names))


class CompiledValue(Compiled):
    """A compiled template of a JSON value: `plain(names)` returns the value.

    If the template is only one `{{ … }}`, without white space around it, its value is the value of the expression. Any
    other template renders to a text.
    """

    def _compile(self, tree: nodes.Template) -> Template:
        expression = _sole_expression(tree, padded=False)
        self._whole = expression is not None
        return super()._compile(tree if expression is None else _assigning(expression))

    def plain(self, names: Names) -> Any:
        """Return the value with the types of JSON. Raises any error of the template."""
        return plain(self.value(names)) if self._whole else self.render(names)


def _assigning(expression: nodes.Expr) -> nodes.Template:
    """Return a template that writes nothing and stores the value of an expression."""
    return nodes.Template([nodes.Assign(nodes.Name(_RESULT, "store"), expression, lineno=1)], lineno=1)


def _sole_expression(tree: nodes.Template, *, padded: bool = True) -> nodes.Expr | None:
    """Return the expression of a template that is only one `{{ … }}`; None for any other template.

    With `padded`, white space around the `{{ … }}` is allowed.
    """
    if len(tree.body) != 1 or not isinstance(tree.body[0], nodes.Output):
        return None
    parts = [
        part
        for part in tree.body[0].nodes
        if not (padded and isinstance(part, nodes.TemplateData) and not part.data.strip())
    ]
    return parts[0] if len(parts) == 1 and not isinstance(parts[0], nodes.TemplateData) else None


def _found(path: tuple[object, ...], names: Names) -> object:
    """Return the value at a path of the names.

    If there is no such value, return a new object, because a new object is not identical to any value.
    """
    value: Any = names
    for name in path:
        try:
            value = value[name]
        except (TypeError, LookupError):
            return object()
    return value
