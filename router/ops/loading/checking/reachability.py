"""Warnings about unreachable routes, unused schemas and unused sources, judged by names and globs; floor 4."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from router.config.models import PubSubConfig
from router.core.matching import exactly
from router.core.rendering import TemplateEnvironment
from router.core.wiring.channel_sets import EVERY, meet
from router.core.wiring.glob_slips import broken_class, regular_expression
from router.core.wiring.reach import Reach
from router.ops.loading.checking.fields.template_fields import (
    Absences,
    TemplateUses,
    Use,
    look_for_absent_fields,
    templates_of,
)
from router.ops.loading.draft import Draft
from router.ops.loading.reading.nodes import Node, find, items, quoted, word, words
from router.ops.loading.reading.problems import did_you_mean

_READING = ("channels", "patterns", "streams", "keys")
"""The keys of sources that contain channels."""

_MOST = 5
"""The maximum number of names in one message."""


def look_for_the_unreachable(draft: Draft, environment: TemplateEnvironment) -> None:
    """Add warnings about unreachable routes, unused schemas and unused sources, and notes about probable mistakes."""
    _slips_in_globs(draft)
    reach = Reach(draft.sources, [config.channels for config, _, _ in draft.schemas], draft.routes)
    _unread_channels(draft, reach)
    _routes_behind_final_ones(draft, reach)
    if draft.unmatched == "drop":
        _sources_that_no_route_takes(draft)
    _schemas_without_events(draft, reach)
    absences = Absences()
    uses = [Use(draft, reach, number, absences) for number in range(len(draft.routes))]
    if draft.conditions:
        _look_at_conditions(draft, uses)
    templates = templates_of(draft, uses, environment)
    if templates:
        _look_at_templates(draft, templates)


def _look_at_conditions(draft: Draft, uses: Sequence[Use]) -> None:
    from router.ops.loading.checking.fields import match_fields

    match_fields.look_at_contradictions(draft)
    match_fields.look_for_names_of_templates(draft, uses)
    if draft.schemas:
        match_fields.look_at_matches(draft, uses)


def _look_at_templates(draft: Draft, templates: Collection[TemplateUses]) -> None:
    from router.ops.loading.checking.fields.expression_values import look_at_compared_values

    look_at_compared_values(draft, templates)
    if draft.schemas:
        look_for_absent_fields(draft, templates)


def _slips_in_globs(draft: Draft) -> None:
    """Warn about broken globs, and add notes about globs that look like regular expressions."""
    for node, text in _globs(draft):
        broken = broken_class(text)
        told = regular_expression(text)
        if broken:
            draft.problems.warn(f"{quoted(text)}: {broken}", node)
        elif told:
            draft.problems.add(f"{quoted(text)} {told}", node, severity="note")


def _globs(draft: Draft) -> Iterator[tuple[Node, str]]:
    """Yield every glob of the configuration with its place."""
    for name, entry in draft.entries("sources").items():
        if isinstance(draft.sources[name], PubSubConfig):
            yield from words(find(entry.node, "channels"))
            yield from words(find(entry.node, "patterns"))
    for section in ("schemas", "routes"):
        for item in items(draft.root.get(section)):
            yield from words(find(item, "channels"))
    yield from words(find(draft.root, "deliver", "only"))


def _places(draft: Draft) -> dict[str, Node]:
    """Return the node of each route, by its id."""
    return {name: item for item in items(draft.root.get("routes")) if (name := word(find(item, "id"))) is not None}


def _unread_channels(draft: Draft, reach: Reach) -> None:
    """Warn about a channel of a route if none of the route's sources reads it."""
    places = _places(draft)
    for route in draft.routes:
        if not route.enabled:
            continue
        sources = reach.sources_of(route)
        for node, channel in words(find(places.get(route.id), "channels")):
            if any(meet(reach.reads[name], (channel,)) for name in sources):
                continue
            others = [name for name in reach.reads if name not in sources and meet(reach.reads[name], (channel,))]
            hint = f"; add {_list(others)} to `sources` of this route, or remove the channel" if others else ""
            whose = "none of this route's sources" if route.sources is not None else "no source"
            message = f"{whose} reads a channel that {quoted(channel)} matches{hint or _read(draft, sources, channel)}"
            draft.problems.warn(message, node)


def _routes_behind_final_ones(draft: Draft, reach: Reach) -> None:
    """Warn about a route if final routes above it take all its events."""
    places = _places(draft)
    for number, route in enumerate(draft.routes):
        finals = reach.finals_before(number, _MOST + 1) if route.enabled else []
        if finals:
            listed = ", ".join(finals[:_MOST]) + (", …" if len(finals) > _MOST else "")
            above = (
                f"the final routes {listed} above take" if len(finals) > 1 else f"the final route {listed} above takes"
            )
            cure = f"move this route above {'them' if len(finals) > 1 else listed}"
            draft.problems.warn(
                f"no event reaches this route: {above} every event that this route could take; {cure}",
                places.get(route.id),
            )


def _sources_that_no_route_takes(draft: Draft) -> None:
    """Warn about a source if no route takes its events.

    If routes take the events of only some of its channels, add a note about each other channel.
    """
    for name, entry in draft.entries("sources").items():
        source = draft.sources[name]
        routes = [route for route in draft.routes if route.enabled and name in (route.sources or draft.sources)]
        taken = [tuple(route.channels or EVERY) for route in routes]
        exact = not isinstance(source, PubSubConfig)
        left = [
            (node, read)
            for key in _READING
            for node, read in words(find(entry.node, key))
            if not any(meet((exactly(read) if exact else read,), channels) for channels in taken)
        ]
        if len(left) == len(source.reads):
            draft.remark("no route takes the events of this source; add a route for these events", entry)
        else:
            for node, read in left:
                message = f"no route takes the events of {quoted(read)}: they are counted as unmatched and dropped"
                draft.problems.add(message, node, severity="note")


def _schemas_without_events(draft: Draft, reach: Reach) -> None:
    """Warn about a schema that checks no event, and about a channel in `schemas` that no source reads."""
    for number, (_, _, entry) in enumerate(draft.schemas):
        channels = list(words(find(entry, "channels")))
        unread = [(at, each) for at, each in channels if not any(meet(read, (each,)) for read in reach.reads.values())]
        if len(unread) == len(channels):
            hints = (_read(draft, draft.sources, channel) for _, channel in channels)
            hint = max(hints, key=len)  # the longest hint may have a `did you mean`
            draft.problems.warn(f"no source reads a channel of this schema{hint}", entry)
        elif not any(reach.some(reach.with_schema(name, number)) for name in draft.sources):
            message = "no event is checked against this schema, because earlier entries match its channels, and only the first"
            draft.problems.warn(f"{message} matching entry applies; move this entry up", entry)
        else:
            for node, channel in unread:
                told = _read(draft, draft.sources, channel)
                draft.problems.warn(f"no source reads a channel that {quoted(channel)} matches{told}", node)


def _read(draft: Draft, sources: Iterable[str], meant: str) -> str:
    """Return a text that lists the channels of the sources, and names the channel that was probably meant."""
    read = list(dict.fromkeys(each for name in sources for each in draft.sources[name].reads))
    return f"; the channels that are read: {_list(read)}{did_you_mean(meant, read)}"


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return ", ".join(names[:_MOST]) + more
