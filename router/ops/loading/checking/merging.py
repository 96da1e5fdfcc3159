"""Notes on events that one sink gets twice: from two routes with different messages, or from a fallback; floor 4."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Mapping as MappingType

from router.config.models import RouteConfig, RouteSink
from router.core.conditions.index import equalities
from router.core.routing import same_message
from router.core.wiring.channel_sets import apart, meet
from router.core.wiring.reach import Reach, globs_of
from router.ops.loading.draft import Draft
from router.ops.loading.reading.nodes import Mapping, Node, find, items, word

MOST_PAIRS = 20_000
"""The largest number of pairs of routes to compare. A thousand routes may share a sink, and `check` must stay fast."""

Entry = tuple[RouteConfig, RouteSink]

Place = tuple[str, str]
"""A route and one of its sinks."""


def note_double_deliveries(draft: Draft) -> None:
    """Add a note about each route that may send an event to a sink after an earlier route has sent the same event.

    The note names the difference between the two messages.
    """
    by_sink: dict[str, list[Entry]] = {}
    for route in draft.routes:
        if route.enabled:
            for target in route.sinks:
                by_sink.setdefault(target.sink, []).append((route, target))
    overlaps = _Overlaps(draft)
    places = _places(draft)
    for entries in by_sink.values():
        alike: dict[object, list[Entry]] = {}
        for later in entries:
            own = same_message(*later)
            earlier = overlaps.first((each for key, group in alike.items() if key != own for each in group), later)
            if earlier is not None:
                _note(draft, places, earlier, later)
            alike.setdefault(own, []).append(later)


def _note(draft: Draft, places: MappingType[Place, Node], earlier: Entry, later: Entry) -> None:
    node = places.get((later[0].id, later[1].sink))
    if node is None:
        return
    names = [(route.id, _overridden(places.get((route.id, target.sink)))) for route, target in (earlier, later)]
    reasons = [f"{route} overrides {', '.join(f'`{key}`' for key in keys)}" for route, keys in names if keys]
    why = " and ".join(reasons) or "the two routes have a different `expires`"
    message = (
        f"an event that the routes {earlier[0].id} and {later[0].id} both take goes to {later[1].sink} twice: {why}"
    )
    draft.problems.add(message, node.mark, path=node.path, severity="note")


def _places(draft: Draft) -> dict[Place, Node]:
    """Return the node of each sink in the list of each route."""
    found: dict[Place, Node] = {}
    for route in items(draft.root.get("routes")):
        for item in items(find(route, "sinks")):
            sink = word(find(item, "sink") if isinstance(item, Mapping) else item)
            found[word(find(route, "id")) or "", sink or ""] = item
    return found


def _overridden(item: Node | None) -> list[str]:
    return [key for key in item.entries if key != "sink"] if isinstance(item, Mapping) else []


def note_fallbacks_beside_sinks(draft: Draft) -> None:
    """Add a note about each sink in a list of sinks if the sink is also a fallback of another sink in this list."""
    fallbacks = {name: sink.config.host.fallback for name, sink in draft.sinks.items() if sink.config is not None}
    routes = draft.routes_by_id()
    lists = [(f"the route {route.id}", find(routes[route.id], "sinks")) for route in draft.routes if route.enabled]
    lists.append(("`unmatched`", find(draft.root, "unmatched")))
    for what, node in lists:
        named = {word(find(item, "sink") if isinstance(item, Mapping) else item) or "": item for item in items(node)}
        for sink, item in named.items():
            way = next(filter(None, (_way(fallbacks, other, sink) for other in named if other != sink)), None)
            if way is not None:
                shown = " → ".join(way)
                message = (
                    f"{what} names {sink}, which is also a fallback ({shown}); if {way[0]} gives up its delivery, {sink} "
                    f"gets the event twice, with the same idempotency key; to avoid this, remove {sink} from one of the two lists"
                )
                draft.problems.add(message, item.mark, path=item.path, severity="note")


def _way(fallbacks: MappingType[str, Sequence[str]], start: str, end: str) -> list[str] | None:
    """Return the sinks on the path of fallbacks from one sink to another; None if there is no path.

    `fallbacks` must have no cycle.
    """
    if start == end:
        return [start]
    for name in fallbacks.get(start, ()):
        way = _way(fallbacks, name, end)
        if way is not None:
            return [start, *way]
    return None


class _Overlaps:
    """Decides whether two routes may take the same event. If the routes can't be compared, the result is yes."""

    def __init__(self, draft: Draft) -> None:
        self._left = MOST_PAIRS
        self._reach = Reach(draft.sources, [], draft.routes)
        self._wanted = {name: equalities(condition.clauses) for name, condition in draft.conditions.items()}

    def first(self, entries: Iterable[Entry], later: Entry) -> Entry | None:
        """Return the first of the routes in `entries` that may take an event which the route of `later` takes too."""
        for entry in entries:
            self._left -= 1
            if self._left < 0:
                break
            if self._may_both_take(entry[0], later[0]):
                return entry
        return None

    def _may_both_take(self, earlier: RouteConfig, later: RouteConfig) -> bool:
        if earlier.final:
            return False
        first, second = self._wanted.get(earlier.id, {}), self._wanted.get(later.id, {})
        if any(values.isdisjoint(second[path]) for path, values in first.items() if path in second):
            return False
        if apart(globs_of(earlier), globs_of(later)):
            return False
        shared = set(self._reach.sources_of(earlier)).intersection(self._reach.sources_of(later))
        return any(meet(self._reach.reads[source], globs_of(earlier), globs_of(later)) for source in shared)
