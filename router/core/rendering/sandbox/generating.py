"""The generation of Python code from the tree of a template; floor 2."""

from __future__ import annotations

from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator


class Generator(CodeGenerator):
    """Jinja's code generator, changed for trees in which names replace the texts (see `trees.shape_of`)."""

    def _output_child_pre(self, node: nodes.Expr, frame: Any, finalize: Any) -> None:
        if not isinstance(node, nodes.InternalName):
            super()._output_child_pre(node, frame, finalize)

    def _output_child_post(self, node: nodes.Expr, frame: Any, finalize: Any) -> None:
        if not isinstance(node, nodes.InternalName):
            super()._output_child_post(node, frame, finalize)
