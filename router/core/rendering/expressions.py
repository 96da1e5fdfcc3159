"""Expressions, and the expiry of deliveries, compiled at load; pure.

An expression has the syntax and the names of the text between `{{` and `}}` in a template. Unlike in a template, a
missing value is false, and comparing values of different types is not an error.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any, TypeVar

from router.core.rendering.environment import TemplateEnvironment
from router.core.rendering.faults import BrokenExpressionError, BrokenTemplateError, Fault
from router.core.rendering.sandbox.bounds import Run, current
from router.core.rendering.sandbox.environments import Sandbox
from router.core.rendering.sandbox.lookup_records import NO_RECORDS, Records
from router.core.rendering.sandbox.values import Missing, text
from router.core.rendering.syntax.checking import Source, parse
from router.core.rendering.templates import (
    GLOBALS,
    Compiled,
    CompiledExpression,
    Names,
    scope,
)
from router.errors import PermanentError, TemplateError
from router.escaping import cut
from router.events import Event
from router.options import is_template

MILLISECONDS = 1e11
"""The smallest number that counts as a time in milliseconds, as JavaScript's `Date.now()` returns it. In seconds, this
number is a time in the year 5138.
"""

LONGEST_SHOWN = 200
"""The largest number of bytes of an expression that is shown."""

T = TypeVar("T")

_NO_TIME = "expires: the text is not a time"


class Expression:
    """A compiled expression. The constructor raises `BrokenExpressionError`.

    `where` is the key of the expression for messages, such as `only_if`. The methods raise `TemplateError` if the
    evaluation fails, such as by a division by zero.
    """

    def __init__(self, source: str, environment: TemplateEnvironment, where: str = "expression") -> None:
        self._where = where
        self.shown = cut(" ".join(source.split()), LONGEST_SHOWN)
        """The text of the expression on one line, for messages; a long text is shortened."""
        self._value = _compiled(source, environment.expressions)

    @property
    def names(self) -> frozenset[str]:
        """The names that the expression uses, such as `payload` and `event`."""
        return self._value.names

    def value(self, event: Event, now: float) -> Any:
        """Return the value for an event or delivery; None if the value is missing. Raises `TemplateError`."""
        return self._evaluated(event, now, _present)

    def holds(self, event: Event, now: float, records: Records = NO_RECORDS) -> bool:
        """Return whether the value is truthy. `records` are the records of the delivery's lookups.

        Raises `TemplateError` if the evaluation fails, because a failure must not count as false.
        """
        return self._evaluated(event, now, bool, records)

    def key(self, event: Event, now: float) -> str | None:
        """Return the value as a string; None if the value is missing, null, false or empty.

        Equal values have equal strings. Raises `TemplateError` if the evaluation fails, or if the value is a function
        or something else without a text.
        """
        return self._evaluated(event, now, _key_text)

    def _evaluated(self, event: Event, now: float, convert: Callable[[Any], T], records: Records = NO_RECORDS) -> T:
        token = current.set(Run(now))
        names: Mapping[str, Any] = {}
        try:
            names = scope(event, self._value.names, records)
            return convert(self._value.value(names))
        except Exception as error:  # noqa: BLE001  # any error of an expression fails this event only
            raise self._value.explain(self._where, error, names) from None
        finally:
            current.reset(token)


class NamedExpression:
    """A compiled expression over `names`, for which the caller supplies values.

    `where` is the key of the expression for messages, such as `success`. The constructor raises `BrokenExpressionError`.
    """

    def __init__(self, source: str, names: Collection[str], environment: TemplateEnvironment, where: str) -> None:
        self._where = where
        self._value = _compiled(source, environment.naming(names))

    def holds(self, values: Names, now: float) -> bool:
        """Return whether the value is truthy; `now` is seconds since the epoch.

        Raises `PermanentError` if the evaluation fails, because a failure must not count as false.
        """
        token = current.set(Run(now))
        names = {**GLOBALS, **values}
        try:
            return bool(self._value.value(names))
        except Exception as error:  # noqa: BLE001  # any error of an expression fails this delivery only
            raise PermanentError(str(self._value.explain(self._where, error, names))) from None
        finally:
            current.reset(token)


def _compiled(source: str, sandbox: Sandbox) -> CompiledExpression:
    if is_template(source):
        raise BrokenExpressionError([Fault("write this expression without `{{` and `}}`", None)])
    try:
        return CompiledExpression(_as_template(source), sandbox)
    except BrokenTemplateError as error:
        raise BrokenExpressionError(error.faults) from None


def parse_expression(source: str, environment: TemplateEnvironment) -> Source:
    """Parse an expression, as `parse` parses a template."""
    return parse(_as_template(source), environment.expressions)


def _as_template(source: str) -> str:
    return f"{{{{ {source}\n}}}}"


def _present(found: Any) -> Any:
    return None if isinstance(found, Missing) else found


def _key_text(found: Any) -> str | None:
    if found is None or found is False or found == "" or isinstance(found, Missing):
        return None
    return text(found)


class Expiry:
    """The expiry of deliveries.

    It is a number of seconds after the receipt of the event, or a template that renders to a time. The constructor
    raises `BrokenExpressionError`.
    """

    def __init__(self, after: float | str, environment: TemplateEnvironment) -> None:
        self._seconds = after if isinstance(after, float) else None
        self._template: Compiled | None = None
        if isinstance(after, str):
            try:
                self._template = Compiled(after, environment.plain)
            except BrokenTemplateError as error:
                raise BrokenExpressionError(error.faults) from None

    def at(self, event: Event, now: float) -> float | None:
        """Return the time of expiry in seconds since the epoch; None for a delivery that never expires.

        A delivery never expires if the template renders to an empty string. Raises `TemplateError` if the template
        fails, or renders to a non-empty string that is not a time.
        """
        if self._template is None:
            assert self._seconds is not None
            return event.received_at.timestamp() + self._seconds
        names = scope(event, self._template.names)
        token = current.set(Run(now))
        try:
            rendered = self._template.render(names).strip()
        except Exception as error:  # noqa: BLE001  # any error of a template fails this delivery only
            raise self._template.explain("expires", error, names) from None
        finally:
            current.reset(token)
        return moment(rendered) if rendered else None


def moment(written: str) -> float:
    """Convert a time to seconds since the epoch.

    The text is RFC 3339, or a number of seconds or milliseconds since the epoch. Raises `TemplateError` for any other
    string.
    """
    try:
        number = float(written)
    except ValueError:
        return _date(written)
    if not 0 <= number < MILLISECONDS * 1000:
        raise TemplateError(f"expires: {written[:50]!r} is not a time", _NO_TIME)
    return number / 1000 if number >= MILLISECONDS else number


def _date(written: str) -> float:
    try:
        found = datetime.fromisoformat(written)
        if found.tzinfo is None:
            no_zone = "has no time zone; end it with Z or +00:00"
            raise TemplateError(f"expires: {written[:50]!r} {no_zone}", f"expires: the time {no_zone}")
        return found.timestamp()
    except (ValueError, OverflowError):
        wrong = f"expires: {written[:50]!r} is not a time: write RFC 3339 (2026-01-31T12:00:00Z) or seconds since 1970"
        raise TemplateError(wrong, _NO_TIME) from None
