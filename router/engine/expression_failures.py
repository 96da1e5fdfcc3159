"""The counts and log lines for expressions whose failure does not stop a delivery; floor 5."""

from __future__ import annotations

from collections import Counter

import structlog

from router.engine.log_limits import KINDS, kind
from router.errors import TemplateError

log = structlog.stdlib.get_logger(__name__)


class ExpressionFailures:
    """The number of events for which an expression could not be evaluated, by expression.

    An expression is named by its path in the configuration, such as `routes.urgent.when`. If many events fail with the
    same error, only one line is logged. Each different error of the same expression is logged once, up to `KINDS`
    lines.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        """The number of failures since the process started, by path."""
        self._told: dict[str, set[str]] = {}

    def add(self, path: str, error: TemplateError, effect: str, **fields: object) -> None:
        """Count a failure, and log it if its kind is new.

        `effect` is the text about what the router does instead. `fields` are fields of the event for the log.
        """
        self.counts[path] += 1
        told = self._told.setdefault(path, set())
        said = kind(error.told)
        if said not in told and len(told) < KINDS:
            told.add(said)
            log.warning(
                "an expression could not be evaluated", expression=path, error=error.told, effect=effect, **fields
            )
