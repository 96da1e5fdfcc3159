"""The Jinja environments: one for each kind of escaping, all in the same sandbox; floor 2.

The sandbox is a list of permitted operations. Names are looked up in mappings and lists only, and only the methods
listed below can be called. Escaping is Jinja's autoescape. If a sink has its own escaping, the compiled template uses
the sink's function in place of Jinja's HTML escaping. It also uses a `Markup` class that only this sink has. Then a
value that Jinja has marked as safe HTML counts as plain text, and is escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, tzinfo
from functools import partial
from types import CodeType
from typing import Any, ClassVar, Self

import markupsafe
from jinja2 import DictLoader, nodes, pass_context
from jinja2.environment import TemplateModule
from jinja2.runtime import BlockReference, Context, LoopContext, Macro, TemplateReference
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace
from jinja2.visitor import NodeTransformer
from markupsafe import Markup

from router.core.rendering.sandbox.bounds import OPERATOR_CHECKS, concat, counting, current, each, made, shown
from router.core.rendering.sandbox.filters import (
    EACH,
    OWN_FORMAT,
    OWN_PERCENT,
    SLICE,
    filters,
    refuse_format,
    replace,
    strftime,
)
from router.core.rendering.sandbox.functions import FUNCTIONS
from router.core.rendering.sandbox.generating import Generator
from router.core.rendering.sandbox.lookup_records import Record
from router.core.rendering.sandbox.textual import METHODS
from router.core.rendering.sandbox.values import Blank, Missing, join, text

_OF_TEXT = frozenset(
    (  # noqa: SIM905  # a list of words
        "capitalize casefold count endswith find isalnum isalpha isdigit islower isspace isupper lower lstrip partition "
        "removeprefix removesuffix rfind rpartition rsplit rstrip split splitlines startswith strip swapcase title upper"
    ).split()
)
_OF_TIME = frozenset(
    (  # noqa: SIM905
        "date day hour isocalendar isoformat isoweekday minute month second strftime timestamp utcoffset weekday year"
    ).split()
)
_MAPPINGS = frozenset({dict, Record})
_OF_JINJA = (LoopContext, Cycler, Joiner, Namespace, TemplateReference, BlockReference, Macro, TemplateModule)
_REMOVED = ("lipsum",)
_HELD = "_held_{}_"  # the name under which a block's text is kept

_NAMES = """
Markup = environment.marked
escape = environment.escaped
markup_join = str_join = environment.concatenated
LoopContext = environment.loop
Macro = environment.macro
TemplateReference = environment.reference
"""
"""The assignments at the end of a compiled template's code. They replace the objects that the code imports from Jinja
under the same names.
"""


class _Shaping(NodeTransformer):
    """The changes to every template before it is compiled.

    The items of loops and slices are counted. `%` and `format` work only if the format is written in the template. A
    format from an event could require any amount of memory, and checking the format takes quadratic time. `{% filter
    %}` and `{% set x | filter %}` become a set block and an ordinary filter, because Jinja does not escape the result
    of a filter block.
    """

    def __init__(self) -> None:
        self._held = 0

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802  # Jinja's naming
        self.generic_visit(node)
        node.iter = _filter(node.iter, EACH)
        return node

    def visit_FilterBlock(self, node: nodes.FilterBlock) -> list[nodes.Node]:  # noqa: N802
        self.generic_visit(node)
        hold, held = self._hold(node.body, node)
        return [hold, nodes.Output([_applied(node.filter, held)], lineno=node.lineno)]

    def visit_AssignBlock(self, node: nodes.AssignBlock) -> nodes.Node | list[nodes.Node]:  # noqa: N802
        self.generic_visit(node)
        if node.filter is None:
            return node
        hold, held = self._hold(node.body, node)
        return [hold, nodes.Assign(node.target, _applied(node.filter, held), lineno=node.lineno)]

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        bounds = [part or nodes.Const(None) for part in (node.arg.start, node.arg.stop, node.arg.step)]
        return nodes.Filter(node.node, SLICE, bounds, [], None, None, lineno=node.lineno)

    def visit_Mod(self, node: nodes.Mod) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        if not _own_words(node.left):
            return node
        return nodes.Filter(node.left, OWN_PERCENT, [node.right], [], None, None, lineno=node.lineno)

    def visit_Filter(self, node: nodes.Filter) -> nodes.Filter:  # noqa: N802
        if node.name == "format" and _own_words(node.node):
            node.name = OWN_FORMAT
        self.generic_visit(node)
        return node

    def _hold(self, body: list[nodes.Node], at: nodes.Node) -> tuple[nodes.AssignBlock, nodes.Name]:
        self._held += 1
        name = _HELD.format(self._held)
        target = nodes.Name(name, "store", lineno=at.lineno)
        return nodes.AssignBlock(target, None, body, lineno=at.lineno), nodes.Name(name, "load", lineno=at.lineno)


def _filter(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _own_words(node: nodes.Expr | None) -> bool:
    """Return whether a string is written in the template itself, with or without `| markup`."""
    if isinstance(node, nodes.Filter) and node.name == "markup":
        return _own_words(node.node)
    return isinstance(node, nodes.Const) and isinstance(node.value, str)


def _applied(chain: nodes.Filter, to: nodes.Expr) -> nodes.Filter:
    """Return the filter chain of a block, applied to an expression."""
    inner = chain
    while isinstance(inner.node, nodes.Filter):
        inner = inner.node
    inner.node = to
    return chain


class _Macro(Macro):
    """A macro of a template. Its calls are counted, and its result is wrapped in the sink's markup class."""

    def _invoke(self, arguments: list[Any], autoescape: bool) -> str:
        current.get().step(1)
        result: str = self._func(*arguments)
        return self._environment.marked(result) if autoescape else result  # type: ignore[attr-defined]  # a Sandbox


class _Loop(LoopContext):
    """The variable `loop` of a template. It also counts the items of recursive calls."""

    def __call__(self, iterable: Iterable[Any]) -> str:
        return super().__call__(each(iterable))


class _Reference(TemplateReference):
    """The object `self` of a template with blocks.

    The result of each block is wrapped in the sink's markup class, so that it is not escaped again.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._marked = context.environment.marked  # type: ignore[attr-defined]  # a Sandbox

    def __getitem__(self, name: str) -> Any:
        return _block(super().__getitem__(name), self._marked)


class _Context(Context):
    """The names of a template. The result of `super()` is wrapped in the sink's markup class, as in `_Reference`."""

    def super(self, name: str, current: Callable[[Context], Iterator[str]]) -> Any:
        block = super().super(name, current)
        return block if isinstance(block, Missing) else _block(block, self.environment.marked)  # type: ignore[attr-defined]


def _block(block: Callable[[], str], marked: Callable[[str], str]) -> Callable[[], str]:
    return lambda: marked(str.__str__(block()))


class Sandbox(ImmutableSandboxedEnvironment):
    """An environment with one kind of escaping: none, HTML, or a function of a sink.

    `marked` marks a text as safe, so that it is not escaped. `escaped` escapes a string that is not marked. In an
    environment without escaping, both functions return the text unchanged.
    """

    intercepted_binops: ClassVar[frozenset[str]] = frozenset(OPERATOR_CHECKS)  # type: ignore[misc]

    kind = "a template"
    """The name of the compiled thing in messages, such as "a template"."""

    names: frozenset[str] = frozenset({"payload", "event", "route", "sink"})
    """The names that a template may use, besides those of lookups."""

    lookups: frozenset[str] = frozenset()
    """The names of the lookups that a template may use."""

    refused: frozenset[str] = frozenset()
    """The names of the configured lookups if templates of this environment may use no lookup; else empty. A template
    that uses one of these names has a fault.
    """

    blank: type[Missing] = Blank
    """The class of the value for a field that a record lacks."""

    forgives = False
    """True if a field that a record lacks is blank rather than missing."""

    concat = staticmethod(concat)
    code_generator_class = Generator
    context_class = _Context
    loop = _Loop
    macro = _Macro
    reference = _Reference

    marked: Callable[[str], str]
    escaped: Callable[[str], str]

    def __init__(
        self,
        zone: tzinfo,
        escape: Callable[[str], str] | None = None,
        *,
        html: bool = False,
        show: Callable[[Any], str] = text,
    ) -> None:
        """Create an environment with a time zone and a kind of escaping: a function, HTML, or none.

        `show` converts the result of `{{ … }}` to text.
        """
        super().__init__(
            undefined=Missing,
            autoescape=html or escape is not None,
            auto_reload=False,
            finalize=_finalizing(show),
        )
        if escape is not None:
            self.marked, self.escaped = _own(escape)
        elif html:
            self.marked, self.escaped = Markup, markupsafe.escape
        else:
            self.marked = self.escaped = str
        self.compiled: dict[tuple[type, str], Any] = {}  # the templates of `Compiled.shared`, by class and text
        self.codes: dict[tuple[object, ...], CodeType] = {}  # the code of compiled templates, by the key of their shape
        self.parsed: dict[tuple[str, str], Any] = {}
        """The parsed templates, by `kind` and text. The sandboxes of a `TemplateEnvironment` share them."""
        for name in _REMOVED:
            del self.globals[name]
        self.globals.update(FUNCTIONS)
        self.filters.clear()
        self.filters.update(
            filters(zone, self.joined, lambda value: self.marked(text(value)), lambda value: self._escape(text(value)))
        )

    def with_files(self, texts: Mapping[str, str]) -> Sandbox:
        """Return a copy of this sandbox in which templates can include, extend and import these files."""
        return self.overlay(loader=DictLoader(texts))

    def _escape(self, value: str) -> str:
        return self.marked(self.escaped(value))

    def joined(self, values: Iterable[Any], separator: Any) -> str:
        """Join the texts of values with a separator.

        If a text or the separator is marked as safe, escape the unmarked texts and mark the result as safe.
        """
        texts = [text(value) for value in values]
        between = text(separator)
        if self.autoescape and (any(map(self._is_marked, texts)) or self._is_marked(between)):
            whole = self.marked(join(map(self.escaped, texts), self.escaped(between)))
        else:
            whole = join(texts, between)
        made(whole)
        return whole

    def _is_marked(self, value: str) -> bool:
        return type(value) is self.marked

    def concatenated(self, values: Iterable[Any]) -> str:
        """Return the concatenation by `~`."""
        return self.joined(values, "")

    def _generate(
        self, source: nodes.Template, name: str | None, filename: str | None, defer_init: bool = False
    ) -> str:
        source = _Shaping().visit(source)
        source.set_environment(self)
        return super()._generate(source, name, filename, defer_init) + _NAMES

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return `obj.attribute`: the value at a key of a mapping, or a permitted method.

        Otherwise, return a missing value.
        """
        if type(obj) in _MAPPINGS or isinstance(obj, Mapping):  # the type check is four times as fast
            return self._item(obj, attribute)
        if isinstance(obj, Missing):
            return obj.child(attribute)
        if isinstance(obj, str):
            if attribute in METHODS:
                return counting(partial(METHODS[attribute], obj))
            if attribute in _OF_TEXT:
                return counting(getattr(obj, attribute))
            if attribute == "replace":
                return counting(partial(replace, obj))
        elif isinstance(obj, date):
            if attribute == "strftime":
                return partial(strftime, obj)
            if attribute in _OF_TIME:
                return getattr(obj, attribute)
        elif isinstance(obj, tuple):
            if attribute in getattr(obj, "_fields", ()):  # a group of `groupby`
                return getattr(obj, attribute)
        elif isinstance(obj, _OF_JINJA):
            return super().getattr(obj, attribute)
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Return `obj[argument]`: the value at a key of a mapping, or at an index of a list or text.

        In all other cases, `getattr` decides.
        """
        if isinstance(obj, Mapping | list | tuple | str | range | TemplateReference):
            return self._item(obj, argument)
        if isinstance(argument, str):
            return self.getattr(obj, argument)
        return obj.child(argument) if isinstance(obj, Missing) else self.undefined(obj=obj, name=argument)

    def _item(self, obj: Any, key: Any) -> Any:
        try:
            return obj[key]
        except (TypeError, LookupError):
            if isinstance(obj, Record) and (self.forgives or obj.absent):
                return self.blank(obj=obj, name=key)
            return self.undefined(obj=obj, name=key)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Return the result of an operator that could fill the memory.

        Raises `OverflowError` if the result would be too large. All other operators are Python's own.
        """
        if operator == "%" and isinstance(left, str):
            return refuse_format()
        OPERATOR_CHECKS[operator](left, right)
        return super().call_binop(context, operator, left, right)


def _finalizing(show: Callable[[Any], str]) -> Callable[[Context, Any], str]:
    @pass_context
    def finalize(_context: Context, value: Any) -> str:
        """Return a result of `{{ … }}` as text.

        Because the function takes the context, Jinja does not escape constants as HTML at compile time.
        """
        return shown(show(value))

    return finalize


def _own(escape: Callable[[str], str]) -> tuple[type[Markup], Callable[[Any], str]]:
    """Return a class of marked text for a sink's own escaping, and a function that escapes unmarked text."""

    class Marked(Markup):
        """A text that needs no escaping for this sink."""

        __slots__ = ()

        def __new__(cls, value: Any = "") -> Self:
            return str.__new__(cls, value)

        @classmethod
        def escape(cls, s: Any, /) -> Marked:
            return s if type(s) is cls else cls(escaped(s))

    def escaped(value: Any) -> str:
        return value if type(value) is Marked else escape(str.__str__(text(value)))

    return Marked, escaped
