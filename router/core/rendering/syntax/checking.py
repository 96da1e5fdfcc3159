"""The check of a template at load: syntax, filters, tests, names and files; floor 2.

Jinja stops at the first fault. This check finds all faults, each with its line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from difflib import get_close_matches
from typing import TypeVar

import msgspec
from jinja2 import Environment, TemplateSyntaxError, nodes

from router.core.rendering.faults import Fault
from router.core.rendering.sandbox.environments import Sandbox
from router.core.rendering.sandbox.filters import EACH
from router.core.rendering.sandbox.functions import FUNCTIONS, network_fault
from router.core.rendering.sandbox.time_zones import zone
from router.core.rendering.sandbox.values import EVENT_FIELDS
from router.core.rendering.syntax.trees import names_read, nodes_below
from router.options import TemplateFile

_N = TypeVar("_N", bound=nodes.Node)

_TEXTS = frozenset(
    {("route",), ("sink",), *(("event", name) for name in ("id", "source", "channel", "pattern", "key"))}
)
"""The paths at which the value is always a string. A string has no fields."""

_NO_LOOKUP = "only the templates of sinks, `only_if` and the keys of other lookups can use a lookup"

_INSTEAD = {
    "safe": "`markup`",
    "tojson": "`json`",
    "urlize": "your own text around `{{ … | url }}`",
    "strftime": "`time`",
    "date": "`time`",
    "datetime": "`time`",
}
_FIRST_ARGUMENT = {"map": "filter", "select": "test", "reject": "test"}
_SECOND_ARGUMENT = {"selectattr": "test", "rejectattr": "test"}


_TAGS = ("if", "elif", "else", "for", "set", "macro", "call", "filter", "block", "extends", "include", "import", "with")

_OPERATORS = {
    "&": "; write `and`",
    "?": "; write `A if CONDITION else B`",
    "!": "; write `not`",
    "=": "; to compare two values, write `==`",
    ";": "",
}
"""The Jinja equivalents of operators of other languages."""

# Each entry is a pattern of the parser's messages, and the message to show in its place. The patterns are tried in
# order.
_PLAIN = (
    (r"unexpected end of template, expected 'end of print statement'", r"`{{` is not closed: `}}` is missing"),
    (r"unexpected end of template, expected 'end of statement block'", r"`{%` is not closed: `%}` is missing"),
    (
        r"unexpected end of template\b.* needs to be closed is '(\w+)'",
        r"`{% \1 %}` is not closed: `{% end\1 %}` is missing",
    ),
    (r"missing end of comment tag", r"`{#` begins a comment and is not closed: `#}` is missing"),
    (r"unexpected 'end of template'", r"`{{` is not closed: `}}` is missing"),
    (r"tag name expected", r"the name of a tag is missing after `{%`"),
    (r"unexpected '}'", r"this `}` closes nothing: `}}` closes `{{`, and `%}` closes `{%`"),
    (r"unexpected '(.)', expected '(.)'", r"`\2` is missing"),
    (r"expected an expression, got 'end of (?:print statement|statement block)'", r"an expression is missing"),
    (r"unexpected 'end of (?:print statement|statement block)'", r"the expression is not complete"),
    (r"expected token 'name', got 'end of .*'", r"the name of a variable, or of a filter after `|`, is missing"),
    (r"expected name or number", r"a name is missing after the `.`"),
    (r"encountered unknown tag '((?:end|el)\w+)'.*", r"there is nothing here that `{% \1 %}` could close"),
    (r"unexpected char (?:'\"'|\"'\") at \d+", r"a quote is never closed"),
    (
        r"expected token ':', got '.*'",
        r"this `{` begins a mapping, such as `{key: value}`; don't write `{{` again inside `{{ … }}`",
    ),
    (r"expected token 'in', got '.*'", r"`in` is missing: {% for each in payload.list %}"),
)


class Source(msgspec.Struct):
    """A parsed template: its syntax trees, and the names that they use.

    `trees` has the tree of each included file by the name of the file, and the tree of the template itself under None.
    `file` is the name of the file of the template itself; None if the template is in the configuration.
    """

    file: str | None = None
    trees: dict[str | None, nodes.Template] = msgspec.field(default_factory=dict)
    below: dict[str | None, list[nodes.Node]] = msgspec.field(default_factory=dict)
    """All nodes below each tree, in the order of the text. A check reads this list, which is faster than walking the
    tree.
    """
    texts: dict[str, str] = msgspec.field(default_factory=dict)
    names: frozenset[str] = frozenset()
    faults: list[Fault] = msgspec.field(default_factory=list)

    @property
    def tree(self) -> nodes.Template:
        """The syntax tree of the template itself, without included files."""
        return self.trees[None]


def read(text: str, environment: Sandbox) -> Source:
    """Parse a template and every file that it includes.

    Return the trees with all faults and all names that the template uses. `text` is a `TemplateFile` if it comes from a
    file. Only a template from a file can include other files.
    """
    source = parse(text, environment)
    source = msgspec.structs.replace(source, faults=list(source.faults))  # the parsed template may be shared
    _names(source, environment)
    return source


def parse(text: str, environment: Sandbox) -> Source:
    """Parse a template as `read` does, but do not look for names and their faults.

    Callers must not change the returned trees: while a configuration is loaded, equal texts of one
    `TemplateEnvironment` share their trees. Equal texts from files may include different files, so each of them is
    parsed.
    """
    if isinstance(text, TemplateFile):
        return _parsed(text, environment)
    key = (environment.kind, text)
    found: Source | None = environment.parsed.get(key)
    if found is None:
        found = environment.parsed[key] = _parsed(text, environment)
    return found


def _parsed(text: str, environment: Sandbox) -> Source:
    own = text.name if isinstance(text, TemplateFile) else None
    source = Source(own)
    waiting: list[tuple[str | None, str]] = [(None, text)]
    while waiting:
        name, content = waiting.pop(0)
        place = _place(own if name is None else name)
        try:
            source.trees[name] = environment.parse(content)
        except TemplateSyntaxError as error:
            source.faults.append(place(_plainly(error), error.lineno))
            continue
        except RecursionError:
            source.faults.append(place("the template is nested too deeply", None))
            continue
        below = source.below[name] = nodes_below(source.trees[name])
        for line, message in _unknown(below, environment):
            source.faults.append(place(message, line))
        for line, referred in _references(below):
            if referred is None:
                source.faults.append(place("the name of an included file must be written as a literal in quotes", line))
            elif referred not in source.texts:
                try:
                    source.texts[referred] = _read_file(text, referred)
                except (ValueError, OSError) as error:
                    source.faults.append(place(f"{referred}: {error}", line))
                    source.texts[referred] = ""
                else:
                    waiting.append((referred, source.texts[referred]))
    return source


def _place(file: str | None) -> Callable[[str, int | None], Fault]:
    """Return a function that makes a fault from a message and a line.

    If `file` is given, the function writes the place into the message.
    """
    if file is None:
        return Fault
    return lambda message, line: Fault(f"{file}:{line}: {message}" if line else f"{file}: {message}", None)


def _read_file(text: str, name: str) -> str:
    if not isinstance(text, TemplateFile):
        raise ValueError("only a template that is in a file (`{file: …}`) can include other files")  # noqa: TRY004  # handled like a missing file
    return text.read(name)


def _references(below: Iterable[nodes.Node]) -> Iterator[tuple[int, str | None]]:
    """Yield the line and the name of each file that a template includes.

    The name is None if it is computed when the template runs.
    """
    for node in below:
        if not isinstance(node, nodes.Extends | nodes.FromImport | nodes.Import | nodes.Include):
            continue
        named = node.template
        for one in named.items if isinstance(named, nodes.List | nodes.Tuple) else [named]:
            yield node.lineno, _constant([one], 0)


def _unknown(below: list[nodes.Node], environment: Environment) -> Iterator[tuple[int, str]]:
    """Yield a fault for each unknown filter, test and time zone, and for each construct that is not allowed."""
    for filter_ in _of_kind(nodes.Filter, below):
        yield from _known("filter", filter_.name, environment.filters, filter_)
        kind = _FIRST_ARGUMENT.get(filter_.name) or _SECOND_ARGUMENT.get(filter_.name)
        place = 1 if filter_.name in _SECOND_ARGUMENT else 0
        named = _constant(filter_.args, place)
        if kind and named is not None:
            yield from _known(kind, named, environment.filters if kind == "filter" else environment.tests, filter_)
        given = _constant(filter_.args, 0)
        if filter_.name == "local" and given is not None:
            try:
                zone(given)
            except ValueError as error:
                yield filter_.lineno, str(error)
    for test in _of_kind(nodes.Test, below):
        yield from _known("test", test.name, environment.tests, test)
    for call in _of_kind(nodes.Call, below):
        network = _constant(call.args, 1)
        if isinstance(call.node, nodes.Name) and call.node.name == "cidr" and network is not None:
            fault = network_fault(network)
            if fault is not None:
                yield call.lineno, f"cidr: {fault}"
    for scope in _of_kind(nodes.ScopedEvalContextModifier, below):
        yield scope.lineno, "a template can't change `autoescape`; to leave a single value unescaped, write `| markup`"


def _of_kind(kind: type[_N], below: Iterable[nodes.Node]) -> Iterator[_N]:
    return (node for node in below if isinstance(node, kind))


def _constant(arguments: list[nodes.Expr], place: int) -> str | None:
    argument = arguments[place] if len(arguments) > place else None
    return argument.value if isinstance(argument, nodes.Const) and isinstance(argument.value, str) else None


def _known(kind: str, name: str, table: Collection[str], node: nodes.Expr) -> Iterator[tuple[int, str]]:
    if name not in table or not _public(name):
        known = list(filter(_public, table))
        hint = f" (write {_INSTEAD[name]})" if kind == "filter" and name in _INSTEAD else did_you_mean(name, known)
        yield node.lineno, f"there is no {kind} `{name}`{hint}"
        if isinstance(node, nodes.Filter | nodes.Test) and node.name == name:
            node.name = known[0]  # otherwise Jinja would stop at this fault in `names_read`


def _public(name: str) -> bool:
    """Return whether a template may use a filter or test of this name.

    Filters with other names are only for the router.
    """
    return name != EACH and not name.startswith("_")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the nearest known name as ` (did you mean …?)`, or an empty string."""
    near = get_close_matches(name, sorted(known), n=1)
    return f" (did you mean `{near[0]}`?)" if near else ""


def _names(source: Source, environment: Sandbox) -> None:
    """Add the names that the templates use to `source`, and a fault for each name that is not defined.

    If one file sets a name, the name counts as defined in all files. The reason is that an included file sees the names
    of the including file.
    """
    known = environment.names | environment.lookups
    stored = {
        node.name
        for below in source.below.values()
        for node in below
        if isinstance(node, nodes.Macro) or (isinstance(node, nodes.Name) and node.ctx != "load")
    }
    used: set[str] = set()
    for name, tree in source.trees.items():
        place, below = _place(source.file if name is None else name), source.below[name]
        try:
            undeclared = names_read(tree, below)
        except TemplateSyntaxError as error:
            source.faults.append(place(_plainly(error), error.lineno))
            continue
        used |= undeclared
        if "event" not in stored:
            source.faults += [place(message, line) for line, message in _event_fields(below)]
        source.faults += [place(message, line) for line, message in _fields_of_texts(below, stored, environment)]
        for unknown in sorted(undeclared - known - stored):
            lines = [node.lineno for node in _of_kind(nodes.Name, below) if node.name == unknown]
            if unknown in environment.refused:
                source.faults.append(place(f"`{unknown}` is a lookup: {_NO_LOOKUP}", min(lines, default=None)))
                continue
            hint = (
                did_you_mean(unknown, known)
                or _hyphen(below, unknown)
                or did_you_mean(unknown, FUNCTIONS)
                or f"; {environment.kind} can use {', '.join(sorted(known))}"
            )
            source.faults.append(place(f"there is no `{unknown}`{hint}", min(lines, default=None)))
    source.names = frozenset(used)


def _hyphen(below: Iterable[nodes.Node], name: str) -> str:
    """Return the hint for an unknown name such as `id` in `payload.user-id`, which is a subtraction.

    The hint is empty for any other name.
    """
    for node in _of_kind(nodes.Sub, below):
        left, right = chain_of(node.left), chain_of(node.right)
        if left and right and len(left) > 1 and right[0] == name:
            return f'; if a key contains a hyphen, write {".".join(map(str, left[:-1]))}["{left[-1]}-{name}"]'
    return ""


def _event_fields(below: Iterable[nodes.Node]) -> Iterator[tuple[int, str]]:
    """Yield a fault for each attribute of `event` that does not exist."""
    for node in below:
        chain = _path_of(node)
        if chain is not None and len(chain) == 2 and chain[0] == "event" and chain[1] not in EVENT_FIELDS:
            hint = did_you_mean(str(chain[1]), EVENT_FIELDS) or f"; its fields are {', '.join(sorted(EVENT_FIELDS))}"
            yield node.lineno, f"an event has no field `{chain[1]}`{hint}"


def _fields_of_texts(
    below: list[nodes.Node], stored: Collection[str], environment: Sandbox
) -> Iterator[tuple[int, str]]:
    """Yield a fault for each read of a field of a string. A call, such as `route.upper()`, does not read a field."""
    called = {id(call.node) for call in _of_kind(nodes.Call, below)}
    for node in below:
        chain = _path_of(node)
        if chain is None or chain[:-1] not in _TEXTS or chain[0] in stored or id(node) in called:
            continue
        if isinstance(chain[-1], str):
            name = ".".join(map(str, chain[:-1]))
            cure = f"{{{{ {name} }}}}" if environment.kind == "a template" else name
            yield node.lineno, f"`{name}` is a string and has no field `{chain[-1]}`; write `{cure}`"


def chains(source: Source) -> frozenset[tuple[object, ...]]:
    """Return every path that the templates read, such as `("payload", "order", "total")`, for messages."""
    found = (_path_of(node) for below in source.below.values() for node in below)
    return frozenset(chain for chain in found if chain is not None)


def _path_of(node: nodes.Node) -> tuple[object, ...] | None:
    """Return the path of a node that reads a field; None for any other node, such as a name alone."""
    return chain_of(node) if isinstance(node, nodes.Getattr | nodes.Getitem) else None


def chain_of(node: nodes.Node) -> tuple[object, ...] | None:
    """Return the path that a node reads, such as `("payload", "order", "total")`; None if it reads no path."""
    if isinstance(node, nodes.Name):
        return (node.name,)
    if isinstance(node, nodes.Getattr):
        key: object = node.attr
    elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        key = node.arg.value
    else:
        return None
    before = chain_of(node.node)
    return None if before is None else (*before, key)


def _plainly(error: TemplateSyntaxError) -> str:
    """Return the message for a syntax error. Replace the parser's message if it matches a known pattern."""
    said = (error.message or "").removesuffix(".").replace("\n", " ")
    for pattern, words in _PLAIN:
        found = re.fullmatch(pattern, said, re.IGNORECASE)
        if found:
            return found.expand(words)
    got = re.fullmatch(r"expected token 'end of (?:print statement|statement block)', got '(.*)'", said)
    if got:
        hint = _OPERATORS.get(got[1], "; an operator, a `|`, or the end of the expression is missing before it")
        return f"`{got[1]}` is not allowed here{hint}"
    sign = re.fullmatch(r"unexpected char '(.)' at \d+", said)
    if sign:
        return f"`{sign[1]}` has no meaning in an expression{_OPERATORS.get(sign[1], '')}"
    tag = re.fullmatch(r"encountered unknown tag '(\w+)'.*", said, re.IGNORECASE)
    if tag:
        return f"there is no tag `{tag[1]}`{did_you_mean(tag[1], _TAGS)}"
    return f"{said[:1].lower()}{said[1:]}" if said[1:2].islower() else said
