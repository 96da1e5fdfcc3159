"""The bounds of one rendering: rounds of loops, and the size of its results; floor 2.

A *step* of a template is one operation, such as a filter, a method call, `+` or a `{% set %}` block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextvars import ContextVar
from functools import wraps
from types import GeneratorType
from typing import Any, NoReturn

MAX_OUTPUT = 4 * 1024**2
"""The largest number of characters of a text that a template, or one step of it, may create."""

MAX_MADE = 4 * MAX_OUTPUT
"""The maximum number of characters and list items that all steps of one rendering may make together."""

MAX_STEPS = 100_000
"""The maximum number of rounds that all loops of one rendering may take together."""

MAX_BITS = 65_536
"""The largest number of bits of an integer that `*` or `**` may create."""

_SMALL = 256  # shorter values are not counted: a loop that makes them ends at MAX_STEPS


class Run:
    """The state of one rendering: its time, and the sizes and rounds counted so far."""

    __slots__ = ("made", "now", "size", "steps")

    def __init__(self, now: float) -> None:
        self.now = now
        self.size = 0
        self.made = 0
        self.steps = 0

    def step(self, rounds: int) -> None:
        """Count rounds of a loop. Raises `OverflowError` past `MAX_STEPS`."""
        self.steps += rounds
        if self.steps > MAX_STEPS:
            raise OverflowError(f"the loops take more than {MAX_STEPS:,} rounds")

    def write(self, size: int) -> None:
        """Count the characters that a value has added to the text. Raises `OverflowError` past `MAX_OUTPUT`."""
        self.size += size
        if self.size > MAX_OUTPUT:
            too_long()

    def make(self, size: int) -> None:
        """Count characters or items that a step makes.

        Raises `OverflowError` past `MAX_OUTPUT` in this step, or `MAX_MADE` in total.
        """
        bounded(size)
        self.made += size
        if self.made > MAX_MADE:
            largest = f"{MAX_MADE:,} characters and list items"
            raise OverflowError(f"the intermediate results of the template together have more than {largest}")


current: ContextVar[Run] = ContextVar("rendering")
"""The rendering under way, for the filters that need its time and its bounds."""


def too_long() -> NoReturn:
    """Raise the error for a string that is too long."""
    raise OverflowError(f"a text has more than {MAX_OUTPUT:,} characters")


def bounded(size: int) -> None:
    """Raise `OverflowError` if `size` characters are too many for a string in a template."""
    if size > MAX_OUTPUT:
        too_long()


def shown(value: str) -> str:
    """Return the result of `{{ … }}`. Long results count towards the bounds of the rendering."""
    if len(value) > _SMALL:
        current.get().write(len(value))
    return value


def made(value: Any) -> Any:
    """Return the result of a step of a template. Long texts and lists count towards the bounds of the rendering."""
    if isinstance(value, str | list | tuple | dict):
        if len(value) > _SMALL:
            current.get().make(len(value))
    elif isinstance(value, GeneratorType):
        return _counted(value, current.get())
    return value


def counting(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a filter or method, so that its results count towards the bounds of the rendering."""

    @wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Any:
        return made(function(*args, **kwargs))

    return counted


def concat(pieces: Iterable[str]) -> str:
    """Join the pieces of a block, of a macro or of `{% set %}`. Raises `OverflowError` when the text is too long."""
    texts: list[str] = []
    size = 0
    for piece in pieces:
        size += len(piece)
        bounded(size)
        texts.append(piece)
    whole = "".join(texts)
    made(whole)
    return whole


def each(items: Any) -> Iterable[Any]:
    """Return the items of a loop, and count the rounds of the loop."""
    run = current.get()
    if isinstance(items, Sized):
        run.step(len(items))
        return items  # type: ignore[return-value]  # a value that can't be iterated causes an error in the loop itself
    return _counted(items, run)


def _counted(items: Iterable[Any], run: Run) -> Iterator[Any]:
    for item in items:
        run.step(1)
        yield item


def check_size(value: Any) -> int:
    """Return the number of characters and items of a value, including everything inside it.

    A list that occurs several times in the value is counted each time, because it would be written each time. If `a` is
    `[b, b]`, `b` is `[c, c]` and so on, each level doubles the size. This takes no memory until the value is written.
    Raises `OverflowError` past `MAX_OUTPUT`.
    """
    size = 0
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            size += len(part)
        elif isinstance(part, Mapping):
            size += len(part)
            bounded(size)
            waiting += part
            waiting += part.values()
        elif isinstance(part, list | tuple):
            size += len(part)
            bounded(size)
            waiting += part
        bounded(size)
    return size


def check_sum(left: Any, right: Any) -> None:
    """Count the characters or items of a sum of two texts or lists. Raises `OverflowError` past the bounds."""
    if isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
        current.get().make(len(left) + len(right))


def check_product(left: Any, right: Any) -> None:
    """Check the size of a product: of two integers, or of an integer and a text or list.

    Raises `OverflowError` past the bounds.
    """
    if isinstance(left, int) and isinstance(right, int):
        check_bits(left.bit_length() + right.bit_length())
    elif isinstance(left, int) and isinstance(right, str | list | tuple):
        current.get().make(len(right) * max(left, 0))
    elif isinstance(right, int) and isinstance(left, str | list | tuple):
        current.get().make(len(left) * max(right, 0))


def check_power(left: Any, right: Any) -> None:
    """Check the size of a power of two integers. Raises `OverflowError` past `MAX_BITS`."""
    if isinstance(left, int) and isinstance(right, int):
        check_bits(left.bit_length() * right)


def check_bits(bits: int) -> None:
    """Raise `OverflowError` if an integer with so many bits is too large."""
    if bits > MAX_BITS:
        raise OverflowError("a number becomes too large")


OPERATOR_CHECKS: dict[str, Callable[[Any, Any], None]] = {
    "+": check_sum,
    "*": check_product,
    "**": check_power,
    "%": lambda _left, _right: None,
}
"""The check of each intercepted operator. `%` needs no check, because a remainder is never larger than the divisor. The
sandbox refuses a text on the left of `%` itself.
"""
