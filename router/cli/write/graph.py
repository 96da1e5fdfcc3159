"""`event-router graph`; floor 7."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from router.cli.common import (
    config_option,
    env_file_option,
    json_option,
    load_config,
    print_json,
    print_message,
    print_text,
)
from router.ops.terminal import terminal

if TYPE_CHECKING:
    from router.core.wiring.picture import Picture
    from router.ops.loading import Loaded


@click.command()
@config_option
@env_file_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["svg", "mermaid"]),
    default="svg",
    show_default=True,
    help="A picture for browsers, or text for wikis.",
)
@json_option
def graph(config: Path | None, env_file: Path | None, form: str, *, as_json: bool) -> None:
    """Draw the configuration: sources, schemas, routes, sinks, and the paths of events.

    `event-router graph > graph.svg` writes the picture to a file. The command needs no secrets.
    """
    drawn = _picture(load_config(config, env_file, placeholders=True))
    if as_json:
        print_json(drawn)
    elif form == "mermaid":
        from router.ops.graph_mermaid import mermaid

        print_text(mermaid(drawn).rstrip("\n"))
    else:
        from router.ops.graph_svg import svg

        print_text(svg(drawn).rstrip("\n"))
        if terminal(1):
            print_message(
                "hint: this output is an SVG picture; `event-router graph > graph.svg` writes it to a file", "note"
            )


def _picture(loaded: Loaded) -> Picture:
    """Return the picture of a configuration with its secrets hidden."""
    from msgspec.structs import replace

    from router.core.wiring.picture import Picture, picture
    from router.ops.redaction import Redactor

    shown = Redactor(loaded.secrets).text
    drawn = picture(loaded.config)
    nodes = (
        replace(node, id=shown(node.id), name=shown(node.name), detail=shown(node.detail), title=shown(node.title))
        for node in drawn.nodes
    )
    edges = (replace(edge, start=shown(edge.start), end=shown(edge.end)) for edge in drawn.edges)
    return Picture(tuple(nodes), tuple(edges))
