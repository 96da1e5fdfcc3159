"""Expressions, and when a delivery comes too late: Jinja2 beside a sink's options, compiled at load; pure.

An expression is what stands between the `{{` and `}}` of a template, over the same names. Unlike a template it takes
what is missing for false, and compares values of unlike types without an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from router.core.rendering import TemplateEnvironment
from router.core.rendering.checking import Fault
from router.core.rendering.sandbox.bounds import Run, current
from router.core.rendering.sandbox.values import Missing, text
from router.core.rendering.templates import (
    NO_RECORDS,
    BrokenTemplateError,
    Compiled,
    CompiledExpression,
    Records,
    scope,
)
from router.errors import TemplateError
from router.events import Event
from router.options import is_template

MILLISECONDS = 1e11
"""A number of seconds above this is in milliseconds, as JavaScript's `Date.now()`: in seconds it were the year 5138."""

T = TypeVar("T")

_NO_TIME = "expires: the text is no time"


class BrokenExpressionError(Exception):
    """An expression that can't be compiled; the text says why."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("; ".join(fault.message for fault in faults))
        self.faults = faults


class Expression:
    """A compiled expression. Raises `BrokenExpressionError`.

    `where` is the key that it stands at (`only_if`), for messages. Its methods raise `TemplateError` where
    evaluating fails (a division by zero, a filter that can't); `told` of that error has nothing of the payload.
    """

    def __init__(self, source: str, environment: TemplateEnvironment, where: str = "expression") -> None:
        self._where = where
        if is_template(source):
            raise BrokenExpressionError([Fault("an expression is written without `{{` and `}}`", None)])
        try:
            self._value = CompiledExpression(f"{{{{ {source}\n}}}}", environment.expressions)
        except BrokenTemplateError as error:
            raise BrokenExpressionError(error.faults) from None

    @property
    def names(self) -> frozenset[str]:
        """The names that it uses, such as `payload` and `event`."""
        return self._value.names

    def value(self, event: Event, now: float) -> Any:
        """Return the value for an event or delivery, None where it is missing. Raises `TemplateError`."""
        return self._evaluated(event, now, _present)

    def holds(self, event: Event, now: float, records: Records = NO_RECORDS) -> bool:
        """Return whether the value is truthy; `records` are those of the delivery's lookups.

        Raises `TemplateError`: what can't be worked out is not false.
        """
        return self._evaluated(event, now, bool, records)

    def key(self, event: Event, now: float) -> str | None:
        """Return the value as a text that equal values share; None where it is missing, null, false or empty.

        Raises `TemplateError`, also for a value that is no text (a function).
        """
        return self._evaluated(event, now, _key_text)

    def _evaluated(self, event: Event, now: float, convert: Callable[[Any], T], records: Records = NO_RECORDS) -> T:
        token = current.set(Run(now))
        names: Mapping[str, Any] = {}
        try:
            names = scope(event, self._value.names, records)
            return convert(self._value.value(names))
        except Exception as error:  # noqa: BLE001  # whatever it runs into is this event's failure
            raise self._value.explain(self._where, error, names) from None
        finally:
            current.reset(token)


def _present(found: Any) -> Any:
    return None if isinstance(found, Missing) else found


def _key_text(found: Any) -> str | None:
    if found is None or found is False or found == "" or isinstance(found, Missing):
        return None
    return text(found)


class Expiry:
    """The time until which a delivery is worth making: seconds after the event came, or a template that gives a time.

    Raises `BrokenExpressionError`.
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
        """The time, in seconds since the epoch; None where the template renders to nothing: then it never expires.

        Raises `TemplateError` when the template fails or gives no time.
        """
        if self._template is None:
            assert self._seconds is not None
            return event.received_at.timestamp() + self._seconds
        names = scope(event, self._template.names)
        token = current.set(Run(now))
        try:
            rendered = self._template.render(names).strip()
        except Exception as error:  # noqa: BLE001  # whatever a template runs into is this delivery's failure
            raise self._template.explain("expires", error, names) from None
        finally:
            current.reset(token)
        return moment(rendered) if rendered else None


def moment(written: str) -> float:
    """Seconds since the epoch of a time as RFC 3339 has it, or as a number: of seconds, or of milliseconds.

    Raises `TemplateError` when it is none.
    """
    try:
        number = float(written)
    except ValueError:
        return _date(written)
    if not 0 <= number < MILLISECONDS * 1000:
        raise TemplateError(f"expires: {written[:50]!r} is no time", _NO_TIME)
    return number / 1000 if number >= MILLISECONDS else number


def _date(written: str) -> float:
    try:
        found = datetime.fromisoformat(written)
        if found.tzinfo is None:
            no_zone = "has no time zone; end it with Z or +00:00"
            raise TemplateError(f"expires: {written[:50]!r} {no_zone}", f"expires: the time {no_zone}")
        return found.timestamp()
    except (ValueError, OverflowError):
        wrong = f"expires: {written[:50]!r} is no time: write RFC 3339 (2026-01-31T12:00:00Z) or seconds since 1970"
        raise TemplateError(wrong, _NO_TIME) from None
