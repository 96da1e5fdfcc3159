"""The syntax trees of templates: their nodes as a list, their shapes, and the names that they read; floor 2.

`nodes_below` does the work of Jinja's `find_all`. `names_read` does the work of Jinja's `find_undeclared_variables`.
Both are much faster than Jinja's functions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from jinja2 import meta, nodes

_PLAIN_STATEMENTS = (nodes.Template, nodes.Output, nodes.If)
"""The statements that define no names."""


def nodes_below(tree: nodes.Node) -> list[nodes.Node]:
    """Return all nodes below a node, in the order of `find_all`."""
    found: list[nodes.Node] = []
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        found.append(node)
        for field in reversed(node.fields):
            value = getattr(node, field, None)
            if isinstance(value, nodes.Node):
                waiting.append(value)
            elif isinstance(value, list):
                waiting += [each for each in reversed(value) if isinstance(each, nodes.Node)]
    return found[1:]


class Shape(NamedTuple):
    """A copy of a tree in which names replace the texts and the compared constants.

    `values` has the replaced values by name. Trees with equal keys have the same code; only their `values` differ.
    Example: a thousand routes compare the same field with a thousand values. Their expressions are compiled only once.
    """

    tree: nodes.Template
    key: tuple[object, ...]
    values: dict[str, Any]


def shape_of(tree: nodes.Template) -> Shape:
    """Return the shape of a tree. The copy shares no nodes with the tree, because Jinja changes the nodes that it compiles."""
    copier = _Copier()
    copy: nodes.Template = copier.copy(tree)
    return Shape(copy, tuple(copier.key), copier.values)


class _Copier:
    """The state of one call of `shape_of`."""

    def __init__(self) -> None:
        self.key: list[object] = []
        self.values: dict[str, Any] = {}

    def copy(self, node: Any) -> Any:
        copy = object.__new__(type(node))
        own = vars(copy)
        own["lineno"], own["environment"] = node.lineno, node.environment
        self.key.append(type(node))
        for name in node.fields:
            own[name] = self._field(node, getattr(node, name))
        return copy

    def _field(self, node: nodes.Node, value: Any) -> Any:
        if isinstance(value, nodes.Node):
            return self._name(value) if _is_value(node, value) else self.copy(value)
        if isinstance(value, list):
            self.key.append(len(value))
            return [self._field(node, each) for each in value]
        self.key.append((type(value), value))  # the type, because 1 == 1.0 == True
        return value

    def _name(self, node: Any) -> nodes.InternalName:
        """Return a name that replaces a text or a constant. Jinja writes this name into the code unchanged."""
        text = f"_value_{len(self.values)}_"
        self.values[text] = node.data if isinstance(node, nodes.TemplateData) else node.value
        self.key.append(nodes.InternalName)
        name = object.__new__(nodes.InternalName)  # only Jinja's parser may call the constructor
        vars(name).update(name=text, lineno=node.lineno, environment=node.environment)
        return name


def _is_value(parent: nodes.Node, node: nodes.Node) -> bool:
    """Return whether a node is literal text of a template, or a compared constant.

    The value of such a node has no effect on the compiled code.
    """
    if isinstance(node, nodes.TemplateData):
        return isinstance(parent, nodes.Output)
    return isinstance(node, nodes.Const) and isinstance(parent, nodes.Compare | nodes.Operand)


def names_read(tree: nodes.Template, below: Iterable[nodes.Node]) -> set[str]:
    """Return the names that a template looks up when it is rendered, without the names of functions.

    `below` are all nodes below the tree of the template. Raises `TemplateSyntaxError` if Jinja can't compile the tree.
    """
    found: set[str] = set()
    for node in below:
        if isinstance(node, nodes.Name):
            found.add(node.name)
        elif isinstance(node, nodes.Stmt) and not isinstance(node, _PLAIN_STATEMENTS):
            return meta.find_undeclared_variables(tree)  # slow; but statements such as `for` define names
    assert tree.environment is not None  # the parser has set it
    return found - tree.environment.globals.keys() - {"self"}
