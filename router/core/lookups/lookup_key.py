"""The key of a lookup: a template compiled at load, rendered for each delivery; floor 2."""

from __future__ import annotations

from collections.abc import Mapping

from jinja2 import nodes

from router.core.rendering import TemplateEnvironment
from router.core.rendering.faults import BrokenExpressionError, BrokenTemplateError
from router.core.rendering.sandbox.bounds import Run, current
from router.core.rendering.sandbox.lookup_records import Record
from router.core.rendering.templates import Compiled, scope
from router.errors import TemplateError
from router.events import Event

LONGEST = 4096
"""The largest number of characters of a key. The limit is needed because the cache stores the keys."""


class LookupKey:
    """The compiled key of a lookup. The constructor raises `BrokenExpressionError`.

    `where` is the path of the key in messages, such as `lookups.user.key`. If `url` is true, the key is a URL, and the
    values in it are percent-encoded.
    """

    def __init__(self, source: str, environment: TemplateEnvironment, where: str, *, url: bool = False) -> None:
        self._where = where
        try:
            self._template = Compiled(source, environment.urls if url else environment.plain)
        except BrokenTemplateError as error:
            raise BrokenExpressionError(error.faults) from None
        self.sole_field = None if url else _sole_field(environment.plain.parse(source))
        """The parts of a key with a single field of the payload: the text before the field, the field's path, and the
        text after the field. None for any other key.
        """
        self.names = self._template.names
        """The names that the key uses: `payload`, `event`, other lookups."""

    def render(self, event: Event, now: float, records: Mapping[str, Record]) -> str:
        """Return the key for a delivery; `now` is seconds since the epoch. Raises `TemplateError`."""
        key = self.plain(event)
        if key is None:
            key = self._rendered(event, now, records)
        if len(key) > LONGEST:
            raise TemplateError(f"{self._where}: the key has more than {LONGEST:,} characters")
        return key

    def plain(self, event: Event) -> str | None:
        """Return the key without rendering its template; None if the key needs rendering.

        The key must be text around one field of the payload, and the field must be text or an integer. Most keys have
        this form, and rendering the template takes ten times as long. For a key that is too long, the result is also
        None.
        """
        if self.sole_field is None:
            return None
        before, path, after = self.sole_field
        try:
            value = event.payload
            for name in path:
                if type(value) is not dict:
                    return None
                value = value[name]
        except (KeyError, ValueError, RecursionError):
            return None
        if type(value) is str:
            key = before + value + after
        elif type(value) is int and value.bit_length() < 64:
            key = f"{before}{value}{after}"
        else:
            return None
        return key if len(key) <= LONGEST else None

    def _rendered(self, event: Event, now: float, records: Mapping[str, Record]) -> str:
        names = scope(event, self.names, records)
        token = current.set(Run(now))
        try:
            return self._template.render(names)
        except Exception as error:  # noqa: BLE001  # any error of a template fails this delivery only
            raise self._template.explain(self._where, error, names) from None
        finally:
            current.reset(token)


def _sole_field(tree: nodes.Template) -> tuple[str, tuple[str, ...], str] | None:
    """Return the text before the only field in a template, the path of the field, and the text after the field.

    Returns None for a template that is not text around one field of the payload.
    """
    parts = tree.body[0].nodes if len(tree.body) == 1 and isinstance(tree.body[0], nodes.Output) else []
    fields = [place for place, part in enumerate(parts) if not isinstance(part, nodes.TemplateData)]
    path = _path(parts[fields[0]]) if len(fields) == 1 else ()
    if not path:
        return None
    texts = [part.data if isinstance(part, nodes.TemplateData) else "" for part in parts]
    return "".join(texts[: fields[0]]), path, "".join(texts[fields[0] :])


def _path(expression: nodes.Expr) -> tuple[str, ...]:
    """Return the names in `payload.a.b`, without `payload`; empty for any other expression."""
    names: list[str] = []
    while isinstance(expression, nodes.Getattr):
        names.append(expression.attr)
        expression = expression.node
    known = isinstance(expression, nodes.Name) and expression.name == "payload"
    return tuple(reversed(names)) if known else ()
