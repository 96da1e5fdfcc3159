"""The layout of a layered graph: the order of the nodes in each layer, and their positions; pure.

This is the method of Sugiyama, Tagawa and Toda. The layers are given. Barycentre sweeps order the nodes so that few
edges cross. Then the nodes of each layer move towards their neighbours as far as they have room.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

SWEEPS = 24
"""The largest number of sweeps over the layers. Each sweep goes in one direction. Most graphs are stable after six
sweeps.
"""

MOVES = 12
"""The number of rounds in which every layer moves towards its neighbours."""


class Link(NamedTuple):
    """A piece of an edge, from a node or waypoint of one layer to a node or waypoint of the next layer."""

    start: str
    end: str


class Layers(NamedTuple):
    """The nodes and waypoints of each layer, in order, and the links between neighbouring layers.

    An edge that skips layers has a waypoint in each skipped layer. All edges from one node share the waypoints.
    """

    order: tuple[tuple[str, ...], ...]
    links: tuple[Link, ...]
    waypoints: frozenset[str]
    paths: Mapping[tuple[str, str], tuple[str, ...]]
    """The path of each edge: its start, its waypoints, its end."""

    @property
    def crossings(self) -> int:
        """The number of crossings of links."""
        return sum(_crossings(left, right, self.links) for left, right in zip(self.order, self.order[1:], strict=False))


def layered(layers: Iterable[Sequence[str]], edges: Iterable[tuple[str, str]]) -> Layers:
    """Return the layers with waypoints for edges that skip layers. Every edge must lead to a later layer."""
    order = [list(layer) for layer in layers]
    depth = {node: number for number, layer in enumerate(order) for node in layer}
    links: dict[Link, None] = {}
    waypoints: dict[str, None] = {}
    paths: dict[tuple[str, str], tuple[str, ...]] = {}
    for start, end in edges:
        path = [start]
        for number in range(depth[start] + 1, depth[end]):
            waypoint = f"{start} past {number}"
            if waypoint not in waypoints:
                waypoints[waypoint] = None
                order[number].append(waypoint)
            path.append(waypoint)
        path.append(end)
        paths[start, end] = tuple(path)
        links.update(dict.fromkeys(map(Link, path, path[1:])))
    return Layers(tuple(map(tuple, order)), tuple(links), frozenset(waypoints), paths)


def with_few_crossings(layers: Layers) -> Layers:
    """Return the layers with their nodes in an order in which few links cross.

    The result never has more crossings than `layers`.
    """
    before, after = _neighbours(layers.links)
    best = current = layers
    fewest = layers.crossings
    for sweep in range(SWEEPS):
        if not fewest:
            break
        order = [list(layer) for layer in current.order]
        forth = sweep % 2 == 0
        numbers = range(1, len(order)) if forth else range(len(order) - 2, -1, -1)
        for number in numbers:
            beside = order[number - 1] if forth else order[number + 1]
            _sort(order[number], beside, before if forth else after)
        following = current._replace(order=tuple(map(tuple, order)))
        if following.order == current.order and sweep > 1:
            break
        current = following
        crossings = current.crossings
        if crossings < fewest:
            best, fewest = current, crossings
    return best


def _neighbours(links: Iterable[Link]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    before: dict[str, list[str]] = defaultdict(list)
    after: dict[str, list[str]] = defaultdict(list)
    for start, end in links:
        before[end].append(start)
        after[start].append(end)
    return before, after


def _sort(layer: list[str], beside: Sequence[str], neighbours: Mapping[str, list[str]]) -> None:
    """Sort a layer by the mean place of each node's neighbours. A node without neighbours keeps its relative place."""
    places = {node: place for place, node in enumerate(beside)}
    scale = len(beside) / max(1, len(layer))
    means = {}
    for place, node in enumerate(layer):
        found = [places[each] for each in neighbours.get(node, ())]
        means[node] = sum(found) / len(found) if found else place * scale
    layer.sort(key=means.__getitem__)


def _crossings(left: Sequence[str], right: Sequence[str], links: Iterable[Link]) -> int:
    starts = {node: place for place, node in enumerate(left)}
    ends = {node: place for place, node in enumerate(right)}
    pairs = sorted((starts[start], ends[end]) for start, end in links if start in starts and end in ends)
    found = 0
    passed: list[int] = []
    for _, end in pairs:
        found += len(passed) - bisect_right(passed, end)
        insort(passed, end)
    return found


def heights(layers: Layers, size: Mapping[str, float], gap: float) -> dict[str, float]:
    """Return the middle of each node and waypoint, with 0 at the top.

    `size` has the height of each node. `gap` is the smallest distance between two nodes of a layer. Each node is placed
    as near to the mean of its neighbours as the other nodes of its layer allow.
    """
    before, after = _neighbours(layers.links)
    middles: dict[str, float] = {}
    for layer in layers.order:
        middles.update(_apart(layer, dict.fromkeys(layer, 0.0), size, gap))
    for move in range(MOVES):
        order = layers.order if move % 2 else layers.order[::-1]
        for layer in order:
            wanted = {}
            for node in layer:
                beside = [middles[each] for each in (*before.get(node, ()), *after.get(node, ()))]
                wanted[node] = sum(beside) / len(beside) if beside else middles[node]
            middles.update(_apart(layer, wanted, size, gap))
    top = min((middles[node] - size[node] / 2 for node in middles), default=0.0)
    return {node: middle - top for node, middle in middles.items()}


def _apart(
    layer: Sequence[str], wanted: Mapping[str, float], size: Mapping[str, float], gap: float
) -> Iterator[tuple[str, float]]:
    """Yield a position for each node, as near to the wanted positions as possible (least squares).

    The order of the nodes and the smallest distances are kept. Nodes that would overlap form a block. The position of a
    block is the mean of the wanted positions of its nodes.
    """
    offsets: list[float] = []
    blocks: list[tuple[float, int]] = []  # the sum of the wanted positions minus the offsets, and the number of nodes
    for place, node in enumerate(layer):
        step = (size[layer[place - 1]] + size[node]) / 2 + gap if place else 0.0
        offsets.append(offsets[-1] + step if place else 0.0)
        total, count = wanted[node] - offsets[-1], 1
        while blocks and blocks[-1][0] / blocks[-1][1] > total / count:
            above, more = blocks.pop()
            total, count = total + above, count + more
        blocks.append((total, count))
    means = (total / count for total, count in blocks for _ in range(count))
    for node, offset, mean in zip(layer, offsets, means, strict=True):
        yield node, mean + offset


def lanes(spans: Sequence[tuple[float, float]]) -> list[int]:
    """Return the number of a lane for each span.

    Spans in one lane do not overlap. Short spans get the lanes with low numbers.
    """
    found = [0] * len(spans)
    taken: list[list[tuple[float, float]]] = []
    for number in sorted(range(len(spans)), key=lambda each: abs(spans[each][1] - spans[each][0])):
        low, high = sorted(spans[number])
        lane = 0
        while lane < len(taken) and any(low <= end and start <= high for start, end in taken[lane]):
            lane += 1
        taken[lane : lane + 1] = [[*(taken[lane] if lane < len(taken) else []), (low, high)]]
        found[number] = lane
    return found
