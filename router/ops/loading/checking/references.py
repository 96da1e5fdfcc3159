"""Checks of the sinks named in `fallback` and `dead_letters.notify`; floor 4."""

from __future__ import annotations

from collections.abc import Iterator

from router.ops.loading.draft import Draft
from router.ops.loading.reading.nodes import Node, find, quoted, words
from router.ops.loading.reading.problems import unknown


def check_fallbacks(draft: Draft) -> None:
    """Check every `fallback`: each sink must exist and be named once, and must not be its own fallback by any path."""
    names: dict[str, list[str]] = {}
    for sink in draft.sinks.values():
        names[sink.name] = []
        for item, name in _sinks_once(draft, sink.keys.get("fallback")):
            names[sink.name].append(name)
            cycle = _way(names, name, sink.name)
            if cycle:
                shown = " → ".join([sink.name, *cycle])
                draft.problems.add(f"the fallbacks of a sink must not lead back to the sink: {shown}", item)
                names[sink.name].pop()  # so that a cycle is reported only once


def check_notified(draft: Draft) -> None:
    """Check `dead_letters.notify`: each sink must exist and be named once."""
    for _ in _sinks_once(draft, find(draft.root, "dead_letters", "notify", "sinks")):
        pass


def _sinks_once(draft: Draft, node: Node | None) -> Iterator[tuple[Node, str]]:
    """Yield the sinks that a list names; report unknown and repeated names."""
    known = list(draft.entries("sinks"))
    seen: set[str] = set()
    for item, name in words(node):
        if name not in known:
            draft.problems.add(unknown("sink", name, known), item)
        elif name in seen:
            draft.problems.add(f"the sink {quoted(name)} appears twice in this list; remove one of the two", item)
        else:
            yield item, name
        seen.add(name)


def _way(names: dict[str, list[str]], start: str, end: str) -> list[str]:
    """Return the sinks on the path of fallbacks from `start` to `end`; empty if there is no path.

    `names` must have no cycle.
    """
    if start == end:
        return [start]
    for name in names.get(start, []):
        way = _way(names, name, end)
        if way:
            return [start, *way]
    return []
