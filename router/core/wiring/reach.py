"""The schemas and routes that the events of a source can reach, by channel names and globs; pure.

Payloads are not known here. So this module can't decide whether a route with a condition takes an event.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from router.config.models import PubSubConfig, RouteConfig, SourceConfig
from router.core.matching import exactly
from router.core.wiring.channel_sets import EVERY, Globs, may_have

CONDITIONLESS = frozenset({"id", "sources", "channels", "sinks", "expires", "final", "enabled"})
"""The keys of a route that do not depend on the payload. A route with any other key may refuse an event."""


def channels_of(source: SourceConfig) -> Globs:
    """Return the channels that a source reads, as globs. The names of streams and lists are escaped."""
    return tuple(source.reads if isinstance(source, PubSubConfig) else map(exactly, source.reads))


def takes_all(route: RouteConfig) -> bool:
    """Return whether a route takes every event of its sources and channels."""
    return route.enabled and route.model_fields_set <= CONDITIONLESS


class Channels(NamedTuple):
    """The channels of one source that are in all sets of `within` and match no glob of `without`."""

    source: str
    within: tuple[Globs, ...]
    without: Globs = ()


class Reach:
    """The sources, schemas and routes of a configuration, and the channels through which events reach the schemas and
    routes.
    """

    def __init__(
        self, sources: Mapping[str, SourceConfig], schemas: Sequence[Sequence[str]], routes: Sequence[RouteConfig]
    ) -> None:
        self.reads = {name: channels_of(source) for name, source in sources.items()}
        self._schemas = [tuple(channels) for channels in schemas]
        self._routes = routes
        self._catching = [(number, route) for number, route in enumerate(routes) if takes_all(route)]
        """The routes that take every event of their sources and channels, and their numbers."""
        self._final = [(number, route) for number, route in self._catching if route.final]

    def sources_of(self, route: RouteConfig) -> list[str]:
        """Return the sources whose events a route takes."""
        return [name for name in self.reads if route.sources is None or name in route.sources]

    def channels(self, source: str) -> Channels:
        """Return all channels of a source."""
        return Channels(source, (self.reads[source],))

    def with_schema(self, source: str, number: int) -> Channels:
        """Return the channels of a source for which this schema is the first matching schema."""
        earlier = tuple(each for channels in self._schemas[:number] for each in channels)
        return Channels(source, (self.reads[source], self._schemas[number]), earlier)

    def without_schema(self, source: str) -> Channels:
        """Return the channels of a source that no schema matches."""
        return Channels(source, (self.reads[source],), tuple(each for channels in self._schemas for each in channels))

    def some(self, channels: Channels) -> bool:
        """Return whether this set may contain at least one channel."""
        return may_have(channels.within, channels.without)

    def takes(self, number: int, channels: Channels) -> bool:
        """Return whether a route may get an event of these channels. A disabled route counts as enabled."""
        route = self._routes[number]
        if route.sources is not None and channels.source not in route.sources:
            return False
        within = (*channels.within, globs_of(route))
        if not may_have(within, ()):  # the usual case: this check is cheaper than the complete one
            return False
        kept = tuple(each for final in self._finals(number, channels.source) for each in globs_of(final))
        return may_have(within, (*channels.without, *kept))

    def unmatched(self, channels: Channels) -> bool:
        """Return whether there may be an event of these channels that no route takes."""
        taken = (each for _, route in self._catching if _is_for(route, channels.source) for each in globs_of(route))
        return may_have(channels.within, (*channels.without, *taken))

    def finals_before(self, number: int, most: int) -> list[str]:
        """Return the ids of earlier final routes that together take all events of this route, at most `most` ids.

        The list is empty if the route may get an event. It is also empty if the route would get no event even without
        the final routes.
        """
        route = self._routes[number]
        wanted = [
            channels
            for channels in map(self.channels, self.sources_of(route))
            if may_have((*channels.within, globs_of(route)), channels.without)
        ]
        if not wanted or any(self.takes(number, channels) for channels in wanted):
            return []
        found: list[str] = []
        for place, final in self._final:
            mine = (each for each in wanted if _is_for(final, each.source))
            if place < number and any(may_have((*c.within, globs_of(route), globs_of(final)), ()) for c in mine):
                found.append(final.id)
                if len(found) == most:
                    break
        return found

    def _finals(self, number: int, source: str) -> Iterator[RouteConfig]:
        """Yield the final routes before this route that take every event of a source on their channels."""
        return (route for place, route in self._final if place < number and _is_for(route, source))


def _is_for(route: RouteConfig, source: str) -> bool:
    return route.sources is None or source in route.sources


def globs_of(route: RouteConfig) -> Globs:
    """Return the channels that a route takes, as globs."""
    return EVERY if route.channels is None else tuple(route.channels)
