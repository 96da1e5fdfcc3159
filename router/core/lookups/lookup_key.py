"""The key of a lookup: a template compiled at load, rendered for each delivery; floor 2."""

from __future__ import annotations

from collections.abc import Mapping

from router.core.rendering import TemplateEnvironment
from router.core.rendering.expressions import BrokenExpressionError
from router.core.rendering.sandbox.bounds import Run, current
from router.core.rendering.sandbox.lookup_records import Record
from router.core.rendering.templates import BrokenTemplateError, Compiled, scope
from router.errors import TemplateError
from router.events import Event

LONGEST = 4096
"""Characters of a key, at most: it stays in the cache."""


class LookupKey:
    """The compiled key of a lookup. Raises `BrokenExpressionError`.

    `where` is its place in messages: `lookups.user.key`. With `url` it is a URL, whose values are percent-encoded.
    """

    def __init__(self, source: str, environment: TemplateEnvironment, where: str, *, url: bool = False) -> None:
        self._where = where
        try:
            self._template = Compiled(source, environment.urls if url else environment.plain)
        except BrokenTemplateError as error:
            raise BrokenExpressionError(error.faults) from None
        self.names = self._template.names
        """The names that it uses: `payload`, `event`, other lookups."""

    def render(self, event: Event, now: float, records: Mapping[str, Record]) -> str:
        """Return the key for a delivery; `now` is seconds since the epoch. Raises `TemplateError`."""
        names = scope(event, self.names, records)
        token = current.set(Run(now))
        try:
            key = self._template.render(names)
        except Exception as error:  # noqa: BLE001  # whatever a template runs into is this delivery's failure
            raise self._template.explain(self._where, error, names) from None
        finally:
            current.reset(token)
        if len(key) > LONGEST:
            raise TemplateError(f"{self._where}: the key has more than {LONGEST:,} characters")
        return key
