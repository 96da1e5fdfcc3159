"""Small changes to a module's syntax tree, one at a time: a test that can't tell a changed module from the true one is too weak."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

_COMPARISONS = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
_OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Invert: ast.UAdd,
    ast.USub: ast.UAdd,
}


def mutants(module: ModuleType, *, without: frozenset[str] = frozenset()) -> Iterator[tuple[str, ModuleType]]:
    """Yield the module with each small change, and what the change is; the functions named in `without` stay as they are."""
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text())
    for where, statement, node in _nodes(tree, without):
        for attribute, value in _changes(node):
            before, old = _first_line(statement), getattr(node, attribute)
            setattr(node, attribute, value)
            name = f"{where}: {before}  ->  {_first_line(statement)}"
            changed = ModuleType(module.__name__)
            exec(compile(ast.fix_missing_locations(tree), module.__file__, "exec"), changed.__dict__)  # our own
            setattr(node, attribute, old)
            yield name, changed


def _first_line(statement: ast.AST) -> str:
    return ast.unparse(statement).split("\n", 1)[0]


def _nodes(tree: ast.Module, without: frozenset[str]) -> Iterator[tuple[str, ast.AST, ast.AST]]:
    """Yield what is changed, with the name of its function, and its statement: no annotation, no docstring, no import."""
    waiting: list[tuple[str, ast.AST, ast.AST]] = [("module", each, each) for each in reversed(tree.body)]
    while waiting:
        where, statement, node = waiting.pop()
        if isinstance(node, ast.stmt):
            statement = node
        if isinstance(node, ast.Import | ast.ImportFrom) or (
            isinstance(node, ast.FunctionDef) and node.name in without
        ):
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            where = node.name if where == "module" else f"{where}.{node.name}"
        yield where, statement, node
        hidden = {id(getattr(node, name, None)) for name in ("annotation", "returns")}
        below = [each for each in ast.iter_child_nodes(node) if id(each) not in hidden]
        waiting += [(where, statement, each) for each in reversed(below)]


def _changes(node: ast.AST) -> Iterator[tuple[str, object]]:
    """Yield the attribute of a node that is changed, and what it becomes."""
    if isinstance(node, ast.Compare):
        yield "ops", [_COMPARISONS[type(node.ops[0])](), *node.ops[1:]]
    elif isinstance(node, ast.BoolOp | ast.BinOp | ast.AugAssign | ast.UnaryOp) and type(node.op) in _OPERATORS:
        yield "op", _OPERATORS[type(node.op)]()
    elif isinstance(node, ast.UnaryOp):
        yield "operand", ast.UnaryOp(ast.Not(), node.operand)
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield "value", not node.value
        elif isinstance(node.value, int):
            yield "value", node.value + 1
        elif isinstance(node.value, str):
            yield "value", f"{node.value}~"
    elif isinstance(node, ast.If | ast.IfExp):
        yield "test", ast.UnaryOp(ast.Not(), node.test)
    elif isinstance(node, ast.comprehension) and node.ifs:
        yield "ifs", []
