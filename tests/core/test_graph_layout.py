"""The layered drawing: few crossings, distances kept, waypoints for edges that skip a layer."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.core.wiring.graph_layout import heights, lanes, layered, with_few_crossings


def crossing_pairs(layers):
    """Count crossings by looking at every pair of links."""
    depth = {node: (number, place) for number, layer in enumerate(layers.order) for place, node in enumerate(layer)}
    found = 0
    for (a, b), (c, d) in itertools.combinations(layers.links, 2):
        if depth[a][0] == depth[c][0]:
            found += (depth[a][1] - depth[c][1]) * (depth[b][1] - depth[d][1]) < 0
    return found


@st.composite
def graphs(draw):
    sizes = draw(st.lists(st.integers(1, 8), min_size=2, max_size=4))
    layers = [[f"{number}.{place}" for place in range(size)] for number, size in enumerate(sizes)]
    pairs = [(a, b) for x, y in itertools.combinations(range(len(layers)), 2) for a in layers[x] for b in layers[y]]
    return layers, draw(st.lists(st.sampled_from(pairs), unique=True, max_size=30))


@settings(max_examples=150, deadline=None)
@given(graphs())
def test_sweeps_never_make_more_crossings(graph):
    before = layered(*graph)
    after = with_few_crossings(before)
    assert before.crossings == crossing_pairs(before)
    assert after.crossings == crossing_pairs(after) <= before.crossings
    assert [sorted(layer) for layer in after.order] == [sorted(layer) for layer in before.order]
    assert after.links == before.links


@settings(max_examples=150, deadline=None)
@given(graphs(), st.integers(1, 40))
def test_nodes_of_a_layer_keep_their_order_and_distance(graph, gap):
    layers = with_few_crossings(layered(*graph))
    size = {node: 1.0 if node in layers.waypoints else 44.0 for layer in layers.order for node in layer}
    middles = heights(layers, size, gap)
    assert min(middles[node] - size[node] / 2 for node in middles) == pytest.approx(0, abs=1e-6)
    for layer in layers.order:
        for above, below in itertools.pairwise(layer):
            assert middles[below] - middles[above] >= (size[above] + size[below]) / 2 + gap - 1e-6


def test_crossed_edges_are_uncrossed():
    crossed = layered([["a", "b", "c"], ["x", "y", "z"]], [("a", "z"), ("b", "y"), ("c", "x")])
    assert crossed.crossings == 3
    assert with_few_crossings(crossed).crossings == 0


def test_edges_that_skip_a_layer_share_a_waypoint_there():
    layers = layered([["a"], ["b"], ["c", "d"]], [("a", "c"), ("a", "d"), ("b", "c")])
    (waypoint,) = layers.waypoints
    assert waypoint in layers.order[1]
    assert layers.paths["a", "c"] == ("a", waypoint, "c")
    assert len(layers.links) == 4


def test_a_lone_node_stands_level_with_its_neighbour():
    layers = layered([["a", "b"], ["x"]], [("b", "x")])
    middles = heights(layers, dict.fromkeys("abx", 10.0), 5)
    assert middles["x"] == middles["b"]


def test_spans_that_overlap_have_lanes_of_their_own_and_short_ones_the_inner():
    assert lanes([(0, 10), (2, 3), (20, 12), (3, 5)]) == [2, 0, 0, 1]
    assert lanes([]) == []
