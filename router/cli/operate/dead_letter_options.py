"""The options that filter dead letters, for the commands that work on many letters; floor 7."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import click
import msgspec

from router.cli.common import json_option, of_running
from router.core.accounts.dead_letter_filter import DeadLetterFilter, moment
from router.core.rendering.expressions import Expression
from router.core.rendering.faults import BrokenExpressionError
from router.errors import DEAD

if TYPE_CHECKING:
    from router.ops.loading import Loaded


class Wanted(msgspec.Struct, frozen=True):
    """The options that filter letters, which `list`, `purge` and `replay` share."""

    options: dict[str, Any]
    limit: int | None
    newest: bool
    as_json: bool

    def filter(self, loaded: Loaded, now: float) -> DeadLetterFilter:
        """Return the filter for the options. Raises `click.BadParameter` for an invalid value."""
        options = self.options

        def at(name: str) -> float | None:
            try:
                return moment(options[name], now) if options[name] else None
            except ValueError as error:
                raise click.BadParameter(str(error), param_hint=f"--{name}") from None

        try:
            where = Expression(options["where"], loaded.environment, "--where") if options["where"] else None
        except BrokenExpressionError as error:
            raise click.BadParameter(str(error), param_hint="--where") from None
        return DeadLetterFilter(
            sinks=frozenset(options["sink"]),
            routes=frozenset(options["route"]),
            reasons=frozenset(options["reason"]),
            sources=frozenset(options["source"]),
            channels=tuple(options["channel"]),
            since=at("since"),
            until=at("until"),
            where=where,
        )


_OF = ("sink", "route", "reason", "channel", "source", "since", "until", "where")
_several: dict[str, Any] = {"multiple": True, "metavar": "NAME"}
_reasons = click.Choice(sorted(map(str, DEAD)))
_FILTERS: tuple[Callable[[Any], Any], ...] = (
    click.option("--sink", **_several, help="Only letters of this sink. Repeatable, like the next four options."),
    click.option("--route", **_several, help="Only letters of this route."),
    click.option("--reason", multiple=True, type=_reasons, metavar="REASON", help="Only letters with this reason."),
    click.option("--channel", multiple=True, metavar="GLOB", help="Only letters whose channel matches."),
    click.option("--source", **_several, help="Only letters of this source."),
    click.option(
        "--since",
        metavar="TIME",
        help="Only letters since this time: an age (2h, 3d), a day (2026-01-31) or 2026-01-31T12:00:00Z.",
    ),
    click.option("--until", metavar="TIME", help="Only letters before this time."),
    click.option(
        "--where", metavar="EXPR", help="Only letters that meet an expression, such as payload.user_id == 42."
    ),
    click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N letters."),
    click.option("--newest", is_flag=True, help="Begin with the newest letter instead of the oldest."),
    json_option,
)


def filters(function: Callable[..., Any]) -> Callable[..., int]:
    """Add the options that filter letters, and pass them to the command as one `Wanted`."""

    @wraps(function)
    def wrapped(*, limit: int | None, newest: bool, as_json: bool, **given: Any) -> Any:
        options = {name: given.pop(name) for name in _OF}
        return function(Wanted(options, limit, newest, as_json), **given)

    decorated = of_running(wrapped)
    for choice in reversed(_FILTERS):
        decorated = choice(decorated)
    return decorated
