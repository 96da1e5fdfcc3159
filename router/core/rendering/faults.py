"""The faults of templates and expressions, and the notation of paths in templates; floor 2.

The module does not import Jinja. A configuration without templates and expressions never needs Jinja, and importing
Jinja takes a twentieth of the CPU time of a start.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec


class Fault(msgspec.Struct, frozen=True):
    """A fault of a template: a message, and the line in the template (None if unknown)."""

    message: str
    line: int | None


class BrokenTemplateError(Exception):
    """A template that can't be compiled. `faults` are all its faults."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("; ".join(fault.message for fault in faults))
        self.faults = faults


class BrokenExpressionError(Exception):
    """An expression that can't be compiled. `faults` are all its faults."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("; ".join(fault.message for fault in faults))
        self.faults = faults


def dotted(names: Iterable[Any]) -> str:
    """Return a path in the syntax of templates: `payload.items[0].name`."""
    text = ""
    for name in names:
        text += f".{name}" if isinstance(name, str) and name.isidentifier() else f"[{name!r}]"
    return text.removeprefix(".")
