"""The reasons why a route takes an event or not; pure.

A reason is a condition, whether it held, and the value that it saw. The commands `explain` and `test` use this module.
In the router, `core.verdict.judge` decides. A test verifies that this module and `judge` agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from router.config.models import RouteConfig
from router.core.conditions import paths
from router.core.conditions.clauses import shown
from router.core.conditions.condition import Condition, When
from router.core.conditions.lookalikes import HINT, composed
from router.core.conditions.why import seen, why
from router.core.matching import any_of
from router.errors import TemplateError
from router.events import Event

MOST_NAMES = 10
"""The largest number of names or globs of a route that are listed."""


class Step(StrEnum):
    """The steps at which an event or a delivery can be refused."""

    READ = "read"
    """No source reads the channel."""
    DECODE = "decode"
    """The message is too large, or can't be decoded."""
    SCHEMA = "schema"
    """The payload is not valid for its schema."""
    ENABLED = "enabled"
    """The route is disabled (`enabled: false`)."""
    SOURCE = "source"
    """The route takes events of other sources."""
    CHANNEL = "channel"
    """The route takes events of other channels."""
    FINAL = "final"
    """An earlier route took the event and is `final`."""
    MATCH = "match"
    """A clause of `match` is not met."""
    WHEN = "when"
    """The expression `when` is false, or can't be evaluated."""
    ORPHANED = "orphaned"
    """No route of the configuration leads to the sink of a dead letter any more."""
    EXPIRES = "expires"
    """The delivery has expired."""
    ONLY_IF = "only_if"
    """The expression `only_if` is false, or can't be evaluated."""
    LOOKUP = "lookup"
    """A lookup has no record."""
    ADDRESS = "address"
    """There is no address, or an address is invalid."""
    TEMPLATE = "template"
    """A template can't be rendered."""


class Check(msgspec.Struct, frozen=True):
    """A condition, whether it held, and the value that it saw.

    `place` is the place of a clause of `match`. If the condition is about one thing, such as a path, `subject` is the
    name of the thing and `needs` is the rest of the condition. `hint` explains a failed condition for which the seen
    value looks right.
    """

    step: Step
    clause: str
    held: bool
    saw: str
    place: str = ""
    subject: str = ""
    needs: str = ""
    hint: str = ""


class RouteVerdict(msgspec.Struct, frozen=True):
    """The decision of one route: whether it takes the event, and the result of each of its conditions."""

    id: str
    matched: bool
    checks: tuple[Check, ...]

    @property
    def decided_by(self) -> Check | None:
        """The first condition that does not hold; None if the route takes the event."""
        return next((check for check in self.checks if not check.held), None)

    @property
    def held(self) -> int:
        """The number of conditions that hold."""
        return sum(check.held for check in self.checks)


_STRUCTURAL = frozenset({Step.ENABLED, Step.SOURCE, Step.CHANNEL, Step.FINAL})


def distance(route: RouteVerdict) -> tuple[int, int, int]:
    """Return how far a route was from taking the event. A wrong channel weighs more than a failed payload clause."""
    failed = [check for check in route.checks if not check.held]
    return sum(check.step in _STRUCTURAL for check in failed), len(failed), -route.held


class Asked(msgspec.Struct, frozen=True):
    """The event for which routes are checked, with its payload decoded.

    `channel` is the name of the channel, as received. `now` is seconds since the epoch.
    """

    event: Event
    channel: bytes
    now: float


def checks(
    route: RouteConfig, condition: Condition | None, asked: Asked, stopped_by: str | None = None
) -> tuple[Check, ...]:
    """Return the checks of a route for an event, in the order of evaluation.

    The route takes the event if all checks held. `stopped_by` is an earlier final route that took the event. All
    conditions are evaluated, even after a failed one, so that the user sees how many conditions would have to change.
    """
    found = [*_of_channel(route, asked), *_of_order(stopped_by)]
    if condition is None:
        return tuple(found)
    if condition.match is not None:
        found += [
            Check(Step.MATCH, each.clause, each.held, each.saw, each.place, each.subject, each.needs, each.hint)
            for each in why(condition.match, asked.event.payload)
        ]
    if condition.when is not None:
        last = _when(route, condition.when, asked, reached=all(each.held for each in found))
        found += [last] if last else []
    return tuple(found)


def _of_channel(route: RouteConfig, asked: Asked) -> list[Check]:
    """Return the checks of `enabled`, the source and the channel."""
    found = [] if route.enabled else [Check(Step.ENABLED, "the route is enabled", held=False, saw="enabled: false")]
    event = asked.event
    if route.sources is not None:
        needs = _any_of(route.sources)
        held = event.source in route.sources
        found.append(Check(Step.SOURCE, f"source is {needs}", held, event.source, subject="the source", needs=needs))
    if route.channels is not None:
        needs = _any_of(route.channels)
        held = any_of(route.channels)(asked.channel)
        hint = "" if held or not _takes_composed(route.channels, event.channel) else HINT
        clause = f"channel is {needs}"
        found.append(Check(Step.CHANNEL, clause, held, event.channel, subject="the channel", needs=needs, hint=hint))
    return found


def _takes_composed(channels: Sequence[str], channel: str) -> bool:
    """Return whether a route would take a channel if both were written in the same form of Unicode."""
    written = [composed(each) for each in channels]
    return any_of(written)(composed(channel).encode("utf-8", "surrogateescape"))


def _any_of(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMES
    return " or ".join([*names[:MOST_NAMES], *([f"{more} others"] if more > 0 else [])])


def _of_order(stopped_by: str | None) -> list[Check]:
    if stopped_by is None:
        return []
    return [Check(Step.FINAL, "no earlier final route takes the event", held=False, saw=stopped_by)]


def _when(route: RouteConfig, when: When, asked: Asked, *, reached: bool) -> Check | None:
    """Return the check of `when`.

    If the evaluation fails and the router would not have evaluated the `when` (not `reached`), return None.
    """
    clause = f"when: {when.shown}"
    try:
        held = when.holds(msgspec.structs.replace(asked.event, route=route.id, sink=""), asked.now)
    except TemplateError as error:
        return Check(Step.WHEN, clause, held=False, saw=f"it failed: {error}") if reached else None
    values = [f"{paths.shown(path)} was {seen(path, asked.event.payload)}" for path in when.paths()]
    return Check(Step.WHEN, clause, held, ", ".join(values) or shown(held))
