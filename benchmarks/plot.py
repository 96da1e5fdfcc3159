"""The plot of docs/performance.md: a bar for each figure that has a goal, drawn as SVG. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

LABELS, BARS, VALUES = 430, 300, 190
"""The widths of the three columns."""
ROW, TOP = 24, 34
MOST = 2.0
"""The length of the longest bar, as a multiple of the goal. A longer bar is cut off and ends in an arrow."""

_STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #1f2328 }
  .value, .axis { fill: #59636e }
  .met { fill: #2da44e } .missed { fill: #d1570b }
  .goal { stroke: #1f2328; stroke-width: 1.5; stroke-dasharray: 4 3 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .value, .axis { fill: #9198a1 }
    .met { fill: #3fb950 } .missed { fill: #f0883e } .goal { stroke: #e6edf3 }
  }
"""


class Bar(NamedTuple):
    """One bar of the plot: its label, its length as a multiple of the goal, and the text to the right of the bar."""

    label: str
    share: float
    text: str


def svg(bars: Sequence[Bar]) -> str:
    """Return the plot as SVG. A bar that ends left of the line is within its goal."""
    width, height = LABELS + BARS + VALUES, TOP + ROW * len(bars) + 10
    at_goal = LABELS + BARS / MOST
    met = sum(bar.share <= 1 for bar in bars)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">',
        f"<title>{met} of {len(bars)} figures are within their goal</title>",
        f"<style>{_STYLE}</style>",
        f'<text class="axis" x="{at_goal:g}" y="16" text-anchor="middle">goal (shorter is better)</text>',
        *(line for number, bar in enumerate(bars) for line in _row(bar, TOP + ROW * number)),
        f'<line class="goal" x1="{at_goal:g}" x2="{at_goal:g}" y1="22" y2="{height - 4}"/>',
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _row(bar: Bar, top: int) -> Iterator[str]:
    """Yield the elements of one bar."""
    kind = "met" if bar.share <= 1 else "missed"
    length = min(bar.share, MOST) / MOST * BARS
    middle = top + ROW / 2 + 4
    yield f'<text x="{LABELS - 8}" y="{middle:g}" text-anchor="end">{escape(_short(bar.label))}</text>'
    yield f'<rect class="{kind}" x="{LABELS}" y="{top + 4}" width="{max(length, 1):.1f}" height="{ROW - 8}" rx="2"/>'
    if bar.share > MOST:
        x, half = LABELS + BARS, (ROW - 8) / 2
        yield f'<path class="{kind}" d="M{x} {top + 4} l8 {half:g} l-8 {half:g} z"/>'
    yield f'<text class="value" x="{LABELS + BARS + 14}" y="{middle:g}">{escape(bar.text)}</text>'


def _short(label: str) -> str:
    """Return the label, cut to the width of its column. A character is about 6.5 units wide."""
    most = int((LABELS - 8) / 6.5)
    return label if len(label) <= most else f"{label[: most - 1]}…"
