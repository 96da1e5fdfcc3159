"""The picture of a graph as SVG and as Mermaid's text."""

import itertools
import random
import re
from xml.etree import ElementTree as ET

import pytest

from router.core.wiring.picture import Edge, Node, Picture
from router.ops.graph_mermaid import mermaid
from router.ops.graph_svg import BOX, DARK, LIGHT, NAME_SIZE, Drawing, shortened, svg, text_width

NS = {"svg": "http://www.w3.org/2000/svg"}
HOSTILE = [
    "</text><script>alert(1)</script>",
    "\"'&<>;#{}[]()|`*_~",
    "a\x00b\x1b[31mc\x7f",
    "right\u202eleft",
    "\ud800 half",
    "\ufffe\uffff",
    "line\nbreak\r\n",
    "]]><!--",
    "end\n  n1 --> n2",
    "- list",
    "1. list",
    "👨‍👩‍👧‍👦" * 60,
    "日本語" * 40,
    "w" * 5000,
]


def node(kind, name, **more):
    return Node(f"{kind}:{name}", kind, name, more.pop("detail", "some words"), f"{kind} {name}", **more)


def generated(seed, routes=50):
    """A picture with many routes between some sources, schemas and sinks."""
    chance = random.Random(seed)
    sources = [node("source", f"source-{number}") for number in range(6)]
    schemas = [node("schema", f"schema-{number}.schema.json") for number in range(chance.choice([0, 4]))]
    takers = [
        node("route", f"a-route-with-number-{number}", number=number, final=number % 5 == 0, detail="orders.*, " * 5)
        for number in range(routes)
    ]
    sinks = [node("sink", f"sink-{number}") for number in range(12)]
    edges = [Edge(chance.choice(sources).id, each.id) for each in (*schemas, *takers)]
    edges += [Edge(chance.choice(schemas or sources).id, each.id) for each in takers]
    edges += [Edge(each.id, sink.id) for each in takers for sink in chance.sample(sinks, 2)]
    edges += [Edge(above.id, below.id, "fallback") for above, below in itertools.pairwise(sinks[::3])]
    return Picture((*sources, *schemas, *takers, *sinks), tuple(dict.fromkeys(edges)))


def rectangles(document):
    return [
        tuple(float(rect.get(key)) for key in ("x", "y", "width", "height"))
        for rect in document.findall(".//svg:g/svg:rect", NS)
    ]


@pytest.mark.parametrize("seed", range(4))
def test_fifty_routes_are_drawn_without_boxes_that_overlap(seed):
    picture = generated(seed)
    document = ET.fromstring(svg(picture))
    boxes = rectangles(document)
    assert len(boxes) == len(picture.nodes)
    for (x, y, width, height), (other_x, other_y, other_width, other_height) in itertools.combinations(boxes, 2):
        beside = x + width < other_x or other_x + other_width < x
        assert beside or y + height < other_y or other_y + other_height < y
    wide, high = float(document.get("width")), float(document.get("height"))
    assert all(x >= 0 and y >= 0 and x + width <= wide and y + height <= high for x, y, width, height in boxes)


@pytest.mark.parametrize("seed", range(4))
def test_no_line_crosses_a_box_on_its_way(seed):
    drawing = Drawing(generated(seed))
    passing = [drawing.boxes[name] for name in drawing.layers.waypoints]
    boxes = [box for box in drawing.boxes.values() if box.height == BOX]
    for way in passing:
        for box in boxes:
            in_column = way.left < box.right and box.left < way.right
            assert not in_column or way.middle < box.top or way.middle > box.top + box.height


def test_the_text_stays_in_its_box_and_the_whole_of_it_in_the_title():
    long = "orders.of.a.shop.with.a.very.long.name.that.has.no.end.*"
    picture = Picture((node("source", long, detail=long),), ())
    document = ET.fromstring(svg(picture))
    ((_, _, width, _),) = rectangles(document)
    (group,) = document.findall(".//svg:g", NS)
    assert group.find("svg:title", NS).text == f"source {long}"
    for text in group.findall("svg:text", NS):
        assert text.text.endswith("…")
        assert text_width(text.text, 11) < width


def test_a_text_is_cut_between_what_people_see_as_characters():
    family = "👨‍👩‍👧‍👦"
    cut = shortened(family * 20, NAME_SIZE, 200)
    assert cut.endswith("…")
    assert cut[:-1] == family * (len(cut[:-1]) // len(family))
    assert shortened("short", NAME_SIZE, 200) == "short"


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_names_are_text_and_nothing_else(text):
    nodes = (node("source", text, detail=text), node("route", text, detail=text, number=1), node("sink", text))
    picture = Picture(nodes, (Edge(nodes[0].id, nodes[1].id), Edge(nodes[1].id, nodes[2].id)))
    document = ET.fromstring(svg(picture).encode())
    assert {child.tag.rpartition("}")[2] for child in document.iter()} <= {
        *("svg", "title", "desc", "style", "defs", "marker", "path", "rect", "g", "text")
    }
    assert len(document.findall(".//svg:g", NS)) == 3
    assert not any(name.startswith("on") for child in document.iter() for name in child.attrib)
    lines = mermaid(picture).splitlines()
    assert len([line for line in lines if "-->" in line]) == 2
    for line in lines:
        label = re.search(r'"(.*)"', line)
        if label:
            assert re.fullmatch(r"[\w .,:/+<>&;#…-]*", label[1])
            assert re.findall(r"[<>]", label[1]) == ["<", ">"]  # of our <br> alone
            assert "_" not in label[1]


def test_mermaid():
    nodes = (
        node("source", "web", detail="pubsub: orders.*"),
        node("schema", "order.json", detail="orders.* (warn)"),
        node("route", "all", detail="every channel", number=1, final=True),
        node("route", "off", detail="orders.*", number=2, state="disabled"),
        node("sink", "chat", detail="chat"),
        node("sink", "log", detail="log"),
        Node("dead-letters", "dead-letters", "dead letters", "kept in Redis", "dead letters"),
    )
    edges = (
        Edge("source:web", "schema:order.json"),
        Edge("schema:order.json", "route:all"),
        Edge("schema:order.json", "route:off", live=False),
        Edge("route:all", "sink:chat"),
        Edge("sink:chat", "sink:log", "fallback"),
        Edge("dead-letters", "sink:log", "summary"),
    )
    assert mermaid(Picture(nodes, edges)) == (
        "flowchart LR\n"
        "  subgraph Sources\n"
        '    n0(["web<br>pubsub: orders.#42;"])\n'
        "  end\n"
        "  subgraph Schemas\n"
        '    n1[/"order.json<br>orders.#42; #40;warn#41;"/]\n'
        "  end\n"
        "  subgraph Routes\n"
        '    n2["1 all<br>every channel, final"]\n'
        '    n3["2 off<br>orders.#42;, disabled"]\n'
        "  end\n"
        "  subgraph Sinks\n"
        '    n4[["chat<br>chat"]]\n'
        '    n5[["log<br>log"]]\n'
        '    n6[("dead letters<br>kept in Redis")]\n'
        "  end\n"
        "  n0 --> n1\n"
        "  n1 --> n2\n"
        "  n1 -.-> n3\n"
        "  n2 --> n4\n"
        "  n4 -. fallback .-> n5\n"
        "  n6 -. summary .-> n5\n"
        "  classDef off stroke-dasharray: 4 3,opacity: 0.6\n"
        "  class n3 off\n"
    )


def luminance(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_text_and_lines_can_be_told_from_what_is_behind_them(palette):
    """WCAG 2.2 asks for 4.5 of text and 3 of lines that carry a meaning."""
    for kind in ("source", "schema", "route", "sink", "letters", "off"):
        fill, stroke = palette[kind].split()
        for text in (palette["muted"],) if kind == "off" else (palette["text"], palette["muted"]):
            assert contrast(text, fill) >= 4.5, kind
        assert contrast(stroke, palette["paper"]) >= 3, kind
    assert contrast(palette["route"].split()[1], palette["route"].split()[0]) >= 4.5  # the word `final`
    assert contrast(palette["muted"], palette["paper"]) >= 4.5
    for kind in ("events", "fallback"):
        assert contrast(palette[kind], palette["paper"]) >= 3, kind


def test_the_picture_says_in_words_what_it_shows():
    nodes = (node("source", "web"), node("route", "all"), node("route", "off", state="disabled"))
    edges = (Edge("source:web", "route:all"), Edge("source:web", "route:off", live=False))
    document = ET.fromstring(svg(Picture(nodes, edges)))
    assert document.get("role") == "img"
    assert document.find("svg:desc", NS).text == "source web, leads to all. route off, disabled."


def test_a_picture_of_nothing_is_a_picture():
    assert ET.fromstring(svg(Picture((), ()))).tag.endswith("svg")
