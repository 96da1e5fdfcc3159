"""The graph of a configuration in Mermaid's language, for wikis and READMEs; floor 4."""

from __future__ import annotations

import re
from collections.abc import Iterator

from router.core.wiring.picture import LAYERS, TITLES, Edge, Node, Picture
from router.escaping import escape

LONGEST = 60
"""The largest number of characters of a name or detail. Mermaid makes a box as wide as its text."""

_PLAIN = re.compile(r"[^\w .,:/+-]|_")
_SHAPES = {
    "source": ("([", "])"),
    "schema": ("[/", "/]"),
    "route": ("[", "]"),
    "unmatched": ("[", "]"),
    "sink": ("[[", "]]"),
    "dead-letters": ("[(", ")]"),
}
_ARROWS = {"events": "-->", "fallback": "-. fallback .->", "summary": "-. summary .->"}


def mermaid(picture: Picture) -> str:
    """Return the picture as a flowchart of Mermaid."""
    return "\n".join(_lines(picture)) + "\n"


def _lines(picture: Picture) -> Iterator[str]:
    ids = {node.id: f"n{number}" for number, node in enumerate(picture.nodes)}
    yield "flowchart LR"
    for title, kinds in zip(TITLES, LAYERS, strict=True):
        nodes = [node for node in picture.nodes if node.kind in kinds]
        if nodes:
            yield f"  subgraph {title}"
            yield from (f"    {ids[node.id]}{_box(node)}" for node in nodes)
            yield "  end"
    for edge in picture.edges:
        yield f"  {ids[edge.start]} {_arrow(edge)} {ids[edge.end]}"
    off = [ids[node.id] for node in picture.nodes if node.state != "on"]
    if off:
        yield "  classDef off stroke-dasharray: 4 3,opacity: 0.6"
        yield f"  class {','.join(off)} off"


def _box(node: Node) -> str:
    number = "" if node.number is None else f"{node.number} "
    flags = [word for word, there in (("final", node.final), (node.state, node.state != "on")) if there]
    before, after = _SHAPES[node.kind]
    detail = ", ".join([_quoted(node.detail), *flags])
    return f'{before}"{number}{_quoted(node.name)}<br>{detail}"{after}'


def _arrow(edge: Edge) -> str:
    return _ARROWS[edge.kind] if edge.live or edge.kind != "events" else "-.->"


def _quoted(text: str) -> str:
    """Return a string in which every character with a meaning in Mermaid, Markdown or HTML is replaced by its code."""
    shown = text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
    return _PLAIN.sub(lambda found: f"#{ord(found[0])};", escape(shown))
