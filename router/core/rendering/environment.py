"""The environments of a configuration's templates; floor 2. Jinja is imported for the first template or expression."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cached_property
from typing import TYPE_CHECKING, Any

from router.core.rendering.sandbox.time_zones import zone
from router.options import TemplateFile

if TYPE_CHECKING:
    from router.core.rendering.sandbox.environments import Sandbox


class TemplateEnvironment:
    """The environments that the templates of a configuration share: one for each kind of escaping.

    `timezone` is the name of the zone that the time filters use. `lookups` are the names of the configured lookups.
    Templates may use lookups only in the environment `with_lookups`. The constructor raises `ValueError` for an unknown
    time zone.
    """

    def __init__(self, *, timezone: str = "UTC", lookups: Collection[str] = ()) -> None:
        self._zone = zone(timezone)
        self._timezone = timezone
        self.lookups = frozenset(lookups)
        """The names of the configured lookups."""
        self._allowed = False
        self._parsed: dict[tuple[str, str], Any] = {}

    @cached_property
    def plain(self) -> Sandbox:
        """The environment that inserts values unchanged."""
        from router.core.rendering.sandbox.environments import Sandbox

        return self._knowing(Sandbox(self._zone))

    @cached_property
    def html(self) -> Sandbox:
        """The environment that HTML-escapes values."""
        from router.core.rendering.sandbox.environments import Sandbox

        return self._knowing(Sandbox(self._zone, html=True))

    @cached_property
    def addresses(self) -> Sandbox:
        """The environment of addresses. It refuses control characters; a missing field of a record is empty."""
        from router.core.rendering.rendered_addresses import value_text
        from router.core.rendering.sandbox.environments import Sandbox

        sandbox = self._knowing(Sandbox(self._zone, show=value_text))
        sandbox.forgives = True
        return sandbox

    @cached_property
    def urls(self) -> Sandbox:
        """The environment that percent-encodes values, as parts of a URL."""
        from router.core.rendering.sandbox.filters import url

        sandbox = self.escaping(url)
        sandbox.filters["url"] = lambda value: sandbox.marked(url(value))  # must not be encoded twice
        return sandbox

    @cached_property
    def expressions(self) -> Sandbox:
        """The environment of expressions.

        A missing value is false, and a comparison of values of different types is false.
        """
        from router.core.rendering.sandbox.lenient import Lenient

        return self._knowing(Lenient(self._zone))

    def naming(self, names: Collection[str]) -> Sandbox:
        """Return an environment of expressions that may use only these names. They can't use `event` and `payload`."""
        from router.core.rendering.sandbox.lenient import Lenient

        sandbox = Lenient(self._zone)
        sandbox.names = frozenset(names)
        sandbox.parsed = self._parsed
        return sandbox

    def escaping(self, escape: Callable[[str], str]) -> Sandbox:
        """Return an environment that escapes values by a sink's own function."""
        from router.core.rendering.sandbox.environments import Sandbox

        return self._knowing(Sandbox(self._zone, escape))

    @cached_property
    def with_lookups(self) -> TemplateEnvironment:
        """A copy of this environment for templates that may use lookups."""
        other = TemplateEnvironment(timezone=self._timezone, lookups=self.lookups)
        # private access is allowed: `other` has the class of `self`
        other._allowed = True
        other._parsed = self._parsed
        return other

    def forget_trees(self) -> None:
        """Free the memory of the syntax trees of all compiled templates.

        Only the checks of a configuration need these trees.
        """
        self._parsed.clear()

    def _knowing(self, sandbox: Sandbox) -> Sandbox:
        sandbox.parsed = self._parsed
        if self._allowed:
            sandbox.lookups = self.lookups
        else:
            sandbox.refused = self.lookups
        return sandbox


def literal(text: str) -> str:
    """Return the text of a string that is not a template.

    The last line break of a file is removed, as in a template.
    """
    return str(text).removesuffix("\n") if isinstance(text, TemplateFile) else str(text)
