"""The graph of a configuration as an SVG picture; floor 4.

The picture is self-contained: it has no script and no font, and loads nothing. It has colours for a light and a dark
scheme, and uses the reader's scheme.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import NamedTuple

import regex

from router.core.wiring.graph_layout import Layers, heights, lanes, layered, with_few_crossings
from router.core.wiring.picture import LAYERS, TITLES, Edge, Node, Picture
from router.escaping import escape

BOX = 44.0
GAP = 14.0
WAYPOINT = 4.0
MARGIN = 24.0
PADDING = 12.0
HEADER = 34.0
LANE = 14.0
LEGEND = 40.0
NAME_SIZE, DETAIL_SIZE, HEADER_SIZE = 13.0, 11.0, 11.0
WIDEST_TEXT = 200.0
NARROWEST_TEXT = 84.0

LIGHT = {
    "paper": "#ffffff",
    "text": "#1c2128",
    "muted": "#57606a",
    "source": "#e3f1ff #0a63c9",
    "schema": "#f4ebff #7c45d0",
    "route": "#fff5d1 #8f6000",
    "sink": "#e0f7e6 #187a3a",
    "letters": "#ffebe8 #c62a33",
    "off": "#f5f6f8 #7b848f",
    "events": "#74808c",
    "unused": "#a9b1ba",
    "fallback": "#b35309",
}
DARK = {
    "paper": "#10151c",
    "text": "#eef3f8",
    "muted": "#9aa4af",
    "source": "#122238 #5a9ff2",
    "schema": "#231a38 #ad85f0",
    "route": "#2b2412 #d1a12e",
    "sink": "#12291c #45b862",
    "letters": "#301a1c #f26b66",
    "off": "#171c24 #6f7883",
    "events": "#7a8591",
    "unused": "#4c5560",
    "fallback": "#e0914a",
}
"""The colours of the dark scheme, by use. A pair is a fill and a stroke; `LIGHT` has the same keys."""

_COLOUR = {"source": "source", "schema": "schema", "route": "route", "sink": "sink"}
_XML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\ufffe": r"\ufffe", "\uffff": r"\uffff"})
_WIDE = frozenset("mwMW@%—…")
_THIN = frozenset("ijltfrI.,:;!|'`()[]{} /\\-\"")


class Box(NamedTuple):
    """The position and size of a node, in pixels."""

    left: float
    top: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """The x coordinate of the right side."""
        return self.left + self.width

    @property
    def middle(self) -> float:
        """The y coordinate of the middle."""
        return self.top + self.height / 2


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Return an estimate of the width of a string in common sans-serif fonts.

    If the estimate is wrong, it is usually too large, so that the text fits.
    """
    return sum(map(_em, text)) * size * (1.12 if bold else 1.0)


def _em(character: str) -> float:
    if unicodedata.east_asian_width(character) in "WF":
        return 1.05
    if unicodedata.combining(character):
        return 0.0
    if character in _THIN:
        return 0.36
    if character in _WIDE:
        return 0.95
    return 0.72 if character.isupper() else 0.61


def shortened(text: str, size: float, room: float, *, bold: bool = False) -> str:
    """Return a string cut to a width, with an ellipsis if it was cut."""
    if text_width(text, size, bold=bold) <= room:
        return text
    left = room - text_width("…", size, bold=bold)
    kept = ""
    for character in regex.findall(r"\X", text):  # never split a grapheme cluster, which readers see as one character
        left -= text_width(character, size, bold=bold)
        if left < 0:
            break
        kept += character
    return f"{kept.rstrip()}…"


def _detail(node: Node) -> str:
    return escape(node.detail if node.state == "on" else f"{node.state}, {node.detail}")


class Drawing:
    """The layout of a picture, and its SVG elements."""

    def __init__(self, picture: Picture) -> None:
        self._nodes = {node.id: node for node in picture.nodes}
        self.layers = self._in_order(picture)
        self._beside = [edge for edge in picture.edges if edge.kind != "events"]
        self.links = self._live_links(picture)
        self.boxes: dict[str, Box] = {}
        """The box of each node and waypoint, by id."""
        self._columns: list[tuple[str, float]] = []
        self._place()
        spans = [(self.boxes[edge.start].middle, self.boxes[edge.end].middle) for edge in self._beside]
        self._lanes = lanes(spans)
        outside = LANE * (max(self._lanes) + 1.5) if self._lanes else 0.0
        real = [box for name, box in self.boxes.items() if name in self._nodes]
        self._legend = self._words()
        legend = MARGIN + sum(60 + text_width(words, DETAIL_SIZE) for words in self._legend.values())
        self.width = max(max((box.right for box in real), default=0.0) + outside + MARGIN, legend)
        below = LEGEND + MARGIN / 2 if len(self._legend) > 1 else MARGIN
        self.height = max((box.top + box.height for box in self.boxes.values()), default=0.0) + below

    def _in_order(self, picture: Picture) -> Layers:
        layers = [[node.id for node in picture.nodes if node.kind in kinds] for kinds in LAYERS]
        self._titles = [title for title, layer in zip(TITLES, layers, strict=True) if layer]
        edges = [(edge.start, edge.end) for edge in picture.edges if edge.kind == "events"]
        depth = {node: number for number, layer in enumerate(layers) for node in layer}
        ahead = [each for each in edges if depth[each[0]] < depth[each[1]]]
        return with_few_crossings(layered([layer for layer in layers if layer], ahead))

    def _live_links(self, picture: Picture) -> dict[tuple[str, str], bool]:
        """Return every link, and whether an event may use it."""
        live = {(edge.start, edge.end) for edge in picture.edges if edge.live and edge.kind == "events"}
        found = {(link.start, link.end): False for link in self.layers.links}
        for edge in live:
            path = self.layers.paths[edge]
            found.update(dict.fromkeys(pairwise(path), True))
        return found

    def _place(self) -> None:
        order = self.layers.order
        sizes = {name: BOX if name in self._nodes else WAYPOINT for layer in order for name in layer}
        middles = heights(self.layers, sizes, GAP)
        tall = max((middles[name] + sizes[name] / 2 for name in middles), default=0.0)
        between = min(220.0, 76.0 + tall / 16)
        left = MARGIN
        for title, layer in zip(self._titles, order, strict=True):
            width = max(self._text_room(name) for name in layer if name in self._nodes) + 2 * PADDING
            self._columns.append((title, left))
            for name in layer:
                top = MARGIN + HEADER + middles[name] - sizes[name] / 2
                self.boxes[name] = Box(left, top, width, sizes[name])
            left += width + between

    def _text_room(self, name: str) -> float:
        node = self._nodes[name]
        corner = 22.0 if node.number is not None else 0.0
        badge = 36.0 if node.final else 0.0
        wanted = max(
            text_width(node.name, NAME_SIZE, bold=True) + corner, text_width(_detail(node), DETAIL_SIZE) + badge
        )
        return min(WIDEST_TEXT, max(NARROWEST_TEXT, wanted))

    def parts(self) -> Iterator[str]:
        """Yield the lines of the picture: headings, edges, boxes, legend."""
        for title, left in self._columns:
            yield f'<text class="heading" x="{left:.0f}" y="{MARGIN + 11:.0f}">{title}</text>'
        ports = _Ports(self.boxes, self.links)
        for live in (False, True):
            for (start, end), is_live in self.links.items():
                if is_live is live:
                    yield self._curve(start, end, ports, live=live)
        for edge, lane in zip(self._beside, self._lanes, strict=True):
            yield self._arc(edge, lane)
        for name, node in self._nodes.items():
            yield from self._box(node, self.boxes[name])
        yield from self._explained()

    def _curve(self, start: str, end: str, ports: _Ports, *, live: bool) -> str:
        x, y = ports.out(start, end)
        to_x, to_y = ports.into(start, end)
        bend = (to_x - x) * 0.45
        path = f"M{x:.1f} {y:.1f}C{x + bend:.1f} {y:.1f} {to_x - bend:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}"
        if end in self.layers.waypoints:
            path += f"H{self.boxes[end].right:.1f}"
        head = "" if end in self.layers.waypoints else f' marker-end="url(#er-{"events" if live else "unused"})"'
        names = (self._nodes[each].name for each in (start, end) if each in self._nodes)
        return f'<path class="{"events" if live else "unused"}" d="{path}"{head}><title>{xml(" → ".join(names))}</title></path>'

    def _arc(self, edge: Edge, lane: int) -> str:
        """Return the line of an edge between two nodes of the last column.

        The line is drawn at the right of this column.
        """
        start, end = self.boxes[edge.start], self.boxes[edge.end]
        down = 1 if end.middle > start.middle else -1
        y, to_y = start.middle + 6 * down, end.middle - 6 * down
        out = start.right + (lane + 1.5) * LANE / 0.75
        kind = edge.kind if edge.live else "unused"
        path = f"M{start.right:.1f} {y:.1f}C{out:.1f} {y:.1f} {out:.1f} {to_y:.1f} {end.right:.1f} {to_y:.1f}"
        names = f"{self._nodes[edge.start].name} → {self._nodes[edge.end].name}: {edge.kind}"
        return f'<path class="{kind}" d="{path}" marker-end="url(#er-{kind})"><title>{xml(names)}</title></path>'

    def _box(self, node: Node, box: Box) -> Iterator[str]:
        colour = _COLOUR.get(node.kind, "letters") if node.state == "on" else "off"
        yield f'<g class="{colour}"><title>{xml(node.title + (", idle" if node.state == "idle" else ""))}</title>'
        yield f'<rect x="{box.left:.1f}" y="{box.top:.1f}" width="{box.width:.1f}" height="{box.height:.0f}" rx="8"/>'
        text = box.left + PADDING
        room = box.width - 2 * PADDING
        if node.final:
            yield f'<path class="bar" d="M{box.right:.1f} {box.top + 8:.1f}V{box.top + box.height - 8:.1f}"/>'
            yield _text("badge", box.right - PADDING, box.top + 34, "final")
        if node.number is not None:
            yield _text("number", box.right - PADDING, box.top + 18, str(node.number))
        name = shortened(escape(node.name), NAME_SIZE, room - (22.0 if node.number is not None else 0.0), bold=True)
        yield _text("name", text, box.top + 19, name)
        detail = shortened(_detail(node), DETAIL_SIZE, room - (36.0 if node.final else 0.0))
        yield _text("detail", text, box.top + 34, detail)
        yield "</g>"

    def _words(self) -> dict[str, str]:
        """Return the meaning of each kind of line that the picture contains."""
        kinds = {edge.kind for edge in self._beside if edge.live}
        unused = not all(self.links.values()) or any(not edge.live for edge in self._beside)
        words = {"events": "events"}
        if unused:
            words["unused"] = "disabled or idle"
        if "fallback" in kinds:
            words["fallback"] = "fallback"
        if "summary" in kinds:
            words["summary"] = "summary of dead letters"
        return words

    def _explained(self) -> Iterator[str]:
        """Yield the legend; yield nothing if all lines are of one kind."""
        left, y = MARGIN, self.height - MARGIN
        for kind, words in self._legend.items() if len(self._legend) > 1 else ():
            yield f'<path class="{kind}" d="M{left:.0f} {y:.0f}h28" marker-end="url(#er-{kind})"/>'
            yield f'<text class="detail" x="{left + 36:.0f}" y="{y + 4:.0f}">{words}</text>'
            left += 36 + text_width(words, DETAIL_SIZE) + 24


class _Ports:
    """The points at which links leave and reach boxes.

    The points of a box are in the vertical order of the boxes at the other ends.
    """

    def __init__(self, boxes: Mapping[str, Box], links: Iterable[tuple[str, str]]) -> None:
        self._boxes = boxes
        outs: dict[str, list[str]] = {}
        ins: dict[str, list[str]] = {}
        for start, end in links:
            outs.setdefault(start, []).append(end)
            ins.setdefault(end, []).append(start)
        self._out = {(name, end): shift for name, ends in outs.items() for end, shift in self._spread(name, ends)}
        self._in = {(start, name): shift for name, starts in ins.items() for start, shift in self._spread(name, starts)}

    def _spread(self, name: str, others: list[str]) -> Iterator[tuple[str, float]]:
        room = max(0.0, self._boxes[name].height - 24)
        step = min(7.0, room / (len(others) - 1)) if len(others) > 1 else 0.0
        for place, other in enumerate(sorted(others, key=lambda each: self._boxes[each].middle)):
            yield other, (place - (len(others) - 1) / 2) * step

    def out(self, start: str, end: str) -> tuple[float, float]:
        box = self._boxes[start]
        return box.right, box.middle + self._out[start, end]

    def into(self, start: str, end: str) -> tuple[float, float]:
        box = self._boxes[end]
        return box.left, box.middle + self._in[start, end]


def svg(picture: Picture) -> str:
    """Return the picture as an SVG document."""
    drawing = Drawing(picture)
    width, height = round(drawing.width), round(drawing.height)
    heads = "".join(
        f'<marker id="er-{kind}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path class="head-{kind}" d="M0 .5 7.5 4 0 7.5z"/></marker>'
        for kind in ("events", "unused", "fallback", "summary")
    )
    size = f'width="{width}" height="{height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {width} {height}" role="img"',
        ' aria-labelledby="er-title er-desc">',
        '<title id="er-title">Sources, schemas, routes and sinks of event-router</title>',
        f'<desc id="er-desc">{xml(described(picture))}</desc>',
        f"<style>{_style()}</style>",
        f"<defs>{heads}</defs>",
        f'<rect class="paper" {size} rx="10"/>',
        *drawing.parts(),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def described(picture: Picture) -> str:
    """Return a text for readers who can't see the picture.

    The text lists, for each node, the nodes to which it leads.
    """
    names = {node.id: node.name for node in picture.nodes}
    ends: dict[str, list[str]] = {}
    for edge in picture.edges:
        if edge.live:
            ends.setdefault(edge.start, []).append(names[edge.end])
    said = [f"{node.title}, leads to {', '.join(ends[node.id])}." for node in picture.nodes if node.id in ends]
    alone = [f"{node.title}, {node.state}." for node in picture.nodes if node.state != "on"]
    return " ".join([*said, *alone])


def xml(text: str) -> str:
    """Return a string escaped for XML, without characters that XML does not allow."""
    return escape(text).translate(_XML)


def _text(kind: str, x: float, y: float, text: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{xml(text)}</text>'


def _style() -> str:
    """Return the style sheet. It uses no CSS variables, because many SVG viewers do not support them."""
    fixed = (
        'text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",Helvetica,Arial,sans-serif}'
        ".name{font-size:13px;font-weight:600}"
        ".detail,.badge,.number{font-size:11px}"
        ".badge,.number{text-anchor:end}.badge{font-weight:600}"
        ".heading{font-size:11px;font-weight:600;letter-spacing:.08em;text-transform:uppercase}"
        "g rect{stroke-width:1.25}.bar{stroke-width:4;stroke-linecap:round}"
        ".events,.unused,.fallback,.summary{fill:none;stroke-width:1.5}"
        ".unused{stroke-dasharray:2 4}.fallback{stroke-dasharray:6 4}.summary{stroke-dasharray:1.5 3}"
        ".off rect{stroke-dasharray:4 3}"
    )
    return f"{fixed}{_colours(LIGHT)}@media(prefers-color-scheme:dark){{{_colours(DARK)}}}"


def _colours(palette: Mapping[str, str]) -> str:
    rules = [
        f".paper{{fill:{palette['paper']}}}",
        f".name{{fill:{palette['text']}}}",
        f".detail,.number,.heading,.off .name{{fill:{palette['muted']}}}",
    ]
    for kind in ("source", "schema", "route", "sink", "letters", "off"):
        fill, stroke = palette[kind].split()
        rules += [f".{kind} rect{{fill:{fill};stroke:{stroke}}}", f".{kind} .bar{{stroke:{stroke}}}"]
        rules.append(f".{kind} .badge{{fill:{stroke}}}")
    lines = {each: palette[each] for each in ("events", "unused", "fallback")}
    lines["summary"] = palette["letters"].split()[1]
    rules += [f".{kind}{{stroke:{colour}}}.head-{kind}{{fill:{colour}}}" for kind, colour in lines.items()]
    return "".join(rules)
