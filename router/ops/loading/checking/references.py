"""The sinks that sinks and sections name, in `fallback` and `dead_letters.notify`; floor 4."""

from __future__ import annotations

from collections.abc import Iterator

from router.ops.loading.draft import Draft
from router.ops.loading.reading.nodes import Node, find, quoted, words
from router.ops.loading.reading.problems import unknown


def check_fallbacks(draft: Draft) -> None:
    """The sinks that `fallback` names must be there, each once, and lead back to none that they stand in for."""
    names: dict[str, list[str]] = {}
    for sink in draft.sinks.values():
        names[sink.name] = []
        for item, name in _sinks_once(draft, sink.keys.get("fallback")):
            names[sink.name].append(name)
            circle = _way(names, name, sink.name)
            if circle:
                shown = " → ".join([sink.name, *circle])
                draft.problems.add(f"a fallback must not lead back to its sink: {shown}", item)
                names[sink.name].pop()  # the other members of the circle need not say so too


def check_notified(draft: Draft) -> None:
    """The sinks that are told of dead letters must be there, each once."""
    for _ in _sinks_once(draft, find(draft.root, "dead_letters", "notify", "sinks")):
        pass


def _sinks_once(draft: Draft, node: Node | None) -> Iterator[tuple[Node, str]]:
    """Yield the sinks that a list names; report those that are not there, and those that stand in it twice."""
    known = list(draft.entries("sinks"))
    seen: set[str] = set()
    for item, name in words(node):
        if name not in known:
            draft.problems.add(unknown("sink", name, known), item)
        elif name in seen:
            draft.problems.add(f"the sink {quoted(name)} stands here twice; once is enough", item)
        else:
            yield item, name
        seen.add(name)


def _way(names: dict[str, list[str]], start: str, end: str) -> list[str]:
    """The sinks from one to another by way of their fallbacks; none when there is no way. They have no circle yet."""
    if start == end:
        return [start]
    for name in names.get(start, []):
        way = _way(names, name, end)
        if way:
            return [start, *way]
    return []
