"""The filters of templates: our own, and Jinja's filters that are safe with values of an event; floor 2.

Jinja's `attr`, `pprint`, `random`, `safe`, `tojson`, `urlize` and `xmlattr` are left out. Each of these filters
accesses attributes of objects, has a random result, or does not escape values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, tzinfo
from functools import wraps
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

from jinja2 import pass_context, pass_environment
from jinja2.filters import FILTERS, make_attrgetter
from jinja2.runtime import Context
from markupsafe import Markup

from router.core.rendering.sandbox.bounds import bounded, check_size, counting, current, each
from router.core.rendering.sandbox.textual import strip, wordwrap
from router.core.rendering.sandbox.time_zones import CHOSEN_UTC, zone
from router.core.rendering.sandbox.values import Missing, json, text

EACH = "each element"
"""The name of the filter that is added to the items of every `for` loop. No template can use this name."""

OWN_FORMAT = "_format_"
OWN_PERCENT = "_percent_"
"""The names of the filters that replace `format` and `%` if the format is written in the template itself. No template
can use these names.
"""

SLICE = "_slice_"
"""The name of the filter that replaces `value[start:stop:step]`."""

MAX_WIDTH = 1000
"""The largest width, precision or count that a filter takes."""

_KEPT = [
    "abs",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "filesizeformat",
    "first",
    "float",
    "groupby",
    "indent",
    "int",
    "items",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "reverse",
    "round",
    "select",
    "selectattr",
    "slice",
    "sort",
    "striptags",
    "title",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "wordcount",
]  # the names of the filters
_OF_TEXT = "capitalize center indent lower striptags title truncate upper urlencode wordcount".split()  # noqa: SIM905
_LOOPING = ("reject", "rejectattr", "select", "selectattr")
_SIZED = ("batch", "center", "indent", "round", "slice")
_CONVERSION = re.compile(r"%(?:\([^)]*\))?[-#0 +]*(\d+|\*)?(?:\.(\d+|\*))?")


def moment(value: Any) -> datetime:
    """Convert a datetime, an RFC 3339 text or seconds since the epoch to a datetime with a time zone.

    A text without an offset is in UTC. Raises `ValueError` for any other value.
    """
    if isinstance(value, Missing):
        str(value)  # raises
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
        at = datetime.fromisoformat(value) if isinstance(value, str) else value
    except (ValueError, OverflowError, OSError):
        at = None
    if not isinstance(at, datetime):
        raise ValueError(f"{_quoted(value)} is not a time (RFC 3339 text or seconds since the epoch)")  # noqa: TRY004  # the value is wrong
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _quoted(value: Any) -> str:
    shown = text(value)
    return repr(shown[:40] + "…" if len(shown) > 40 else shown)


_LARGER = ((60, "minute"), (60, "hour"), (24, "day"), (365, "year"))


def span(seconds: float) -> str:
    """Return a duration in its largest unit, rounded down: `5 minutes`, `1 day`."""
    count, unit = int(seconds), "second"
    for size, larger in _LARGER:
        if count < size:
            break
        count, unit = count // size, larger
    return f"{count:,} {unit}" if count == 1 else f"{count:,} {unit}s"


@pass_context
def ago(_context: Context, value: Any) -> str:
    """Return the distance of a time from the time of rendering: `5 minutes ago`, `in 2 hours`, `just now`."""
    seconds = current.get().now - moment(value).timestamp()
    if abs(seconds) < 1:
        return "just now"
    return f"{span(seconds)} ago" if seconds > 0 else f"in {span(-seconds)}"


def strftime(at: date, format: str) -> str:  # noqa: A002  # as Python names it
    """Return a time as text.

    Raises `OverflowError` if the format is too long, because the result may be 256 times as long as the format.
    """
    if len(format) > MAX_WIDTH:
        raise OverflowError(f"the format of a time can have at most {MAX_WIDTH:,} characters")
    return at.strftime(format)


def _time_filters(home: tzinfo) -> dict[str, Callable[..., Any]]:
    def local(value: Any, name: str | None = None) -> datetime:
        """Return a time in the time zone `name`. Without a name, use the configured time zone."""
        where = home if name is None else zone(name)
        return moment(value).astimezone(where)

    def time(value: Any, format: str = "%Y-%m-%d %H:%M") -> str:  # noqa: A002  # as a template names it
        """Return a time as text by a strftime format, in the time zone set by the filter `local`.

        Without `local`, use the configured time zone.
        """
        at = moment(value)
        at = at if at.tzinfo is CHOSEN_UTC or isinstance(at.tzinfo, ZoneInfo) else at.astimezone(home)
        return strftime(at, format)

    return {"local": local, "time": time}


def _of_text(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a filter of Jinja that works on text.

    A value that is not a string is converted by the router's `text`. So the text of null is an empty string, not
    `None`.
    """
    place = 1 if hasattr(function, "jinja_pass_arg") else 0

    @wraps(function)
    def filtered(*args: Any, **kwargs: Any) -> Any:
        values = list(args)
        if len(values) > place and not isinstance(values[place], str):
            values[place] = text(values[place])
        return function(*values, **kwargs)

    return filtered


def _sized(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a filter so that it refuses a number above `MAX_WIDTH` as an argument.

    With a larger number, the result of the filter could fill the memory.
    """

    @wraps(function)
    def filtered(value: Any, *args: Any, **kwargs: Any) -> Any:
        for argument in (*args, *kwargs.values()):
            if isinstance(argument, int | float) and abs(argument) > MAX_WIDTH:
                raise OverflowError(
                    f"{argument} is too large: the largest number that a filter accepts is {MAX_WIDTH:,}"
                )
        if function.__name__ == "do_indent":
            _indented(text(value), *args, **kwargs)
        return function(value, *args, **kwargs)

    return filtered


def _looping(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a filter that tests each element, in order to count the tests.

    The length of the result does not show the number of tests: it may be short even after many tests.
    """

    @wraps(function)
    def filtered(context: Context, values: Any = (), *args: Any, **kwargs: Any) -> Any:
        return function(context, each(values), *args, **kwargs)

    return filtered


def _indented(value: str, width: int | str = 4, *_args: Any, **_kwargs: Any) -> None:
    step = len(width) if isinstance(width, str) else width
    bounded(len(value) + (value.count("\n") + 1) * step)


def replace(value: Any, old: Any, new: Any, count: int | None = None) -> str:
    """Return a string with each `old` replaced by `new`.

    If the string is marked as safe, the result is marked too, and an unmarked `new` is escaped. If only `new` is
    marked, the string is escaped.
    """
    whole, old, new = text(value), text(old), text(new)
    if isinstance(new, Markup) and not isinstance(whole, Markup):
        whole = type(new).escape(whole)
    bounded(len(whole) + whole.count(old) * max(len(new) - len(old), 0))
    return whole.replace(old, new, -1 if count is None else count)


def _joiner(escaped: Callable[[Iterable[Any], Any], str]) -> Callable[..., str]:
    @pass_context
    def join(context: Context, values: Iterable[Any], d: Any = "", attribute: str | int | None = None) -> str:
        """Return the texts of values, joined by `d`.

        With `attribute`, join the texts of this attribute of the values.
        """
        if isinstance(values, Missing):
            str(values)  # raises
        if attribute is not None:
            values = map(make_attrgetter(context.environment, attribute), values)
        return escaped(values, d)

    return join


def _formatted(template: Any, *args: Any, **kwargs: Any) -> str:
    """Return a string by Python's `%` formatting, with a bounded width: `"%.2f" | format(payload.price)`."""
    if args and kwargs:
        raise TypeError("format takes values either by position or by name, not both")
    return percent(text(template), kwargs or args)


def percent(template: str, values: Any) -> str:
    """Return `template % values`. Raises `OverflowError` if a width or the result is too long."""
    conversions = _CONVERSION.findall(template)
    for width, precision in conversions:
        if "*" in {width, precision} or int(width or 0) > MAX_WIDTH or int(precision or 0) > MAX_WIDTH:
            raise OverflowError(
                f"in a format such as %8.2f, the width and the precision must be numbers of at most {MAX_WIDTH:,}"
            )
    bounded(len(template) + len(conversions) * check_size(values))
    filled: str = template % values
    return filled


def refuse_format(*_args: Any, **_kwargs: Any) -> str:
    """Refuse a string from an event as a format: raise `TypeError`."""
    raise TypeError(
        'the format string of % or of the filter format must be a literal, such as "%.2f" in "%.2f" % payload.price'
    )


@pass_environment
def total(environment: Any, values: Any, attribute: str | int | None = None, start: Any = 0) -> Any:
    """Return the sum of numbers.

    With `attribute`, add this attribute of the values. Lists are refused, because adding n lists copies the result n
    times.
    """
    if not isinstance(start, int | float):
        raise TypeError("sum adds only numbers")
    return FILTERS["sum"](environment, values, attribute, start)


def url(value: Any) -> str:
    """Return a string percent-encoded as one part of a URL (RFC 3986 section 2.3). `/`, `&` and `?` are encoded too."""
    return quote(text(value).encode("utf-8", "surrogatepass"), safe="")


@pass_context
def _each(_context: Context, items: Any) -> Iterable[Any]:
    return each(items)


def filters(
    home: tzinfo, joined: Callable[[Iterable[Any], Any], str], mark: Callable[[Any], str], escape: Callable[[Any], str]
) -> dict[str, Callable[..., Any]]:
    """Return all filters of an environment with one kind of escaping.

    `home` is the configured time zone. `joined(values, separator)` joins texts and escapes unmarked ones. `mark` marks
    a value as safe, so that it is not escaped. `escape` escapes a value at once.
    """
    table: dict[str, Callable[..., Any]] = {name: FILTERS[name] for name in _KEPT}
    for name in _SIZED:
        table[name] = _sized(table[name])
    table["trim"] = strip
    table["wordwrap"] = wordwrap
    for name in (*_OF_TEXT, "trim", "wordwrap"):
        table[name] = _of_text(table[name])
    table.update(
        {
            **_time_filters(home),
            "ago": ago,
            "e": escape,
            "escape": escape,
            "format": refuse_format,
            "join": _joiner(joined),
            "json": json,
            "markup": mark,
            "replace": replace,
            "string": text,
            "sum": total,
            "url": url,
            OWN_FORMAT: _formatted,
            OWN_PERCENT: percent,
            SLICE: lambda value, *bounds: value[slice(*bounds)],
        }
    )
    counted = {name: _looping(table[name]) for name in _LOOPING}
    return {**{name: counting(function) for name, function in table.items()}, **counted, EACH: _each}
