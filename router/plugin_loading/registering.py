"""The refusal of unknown arguments of `register`; floor 3."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any


def refuse_unknown(register: Callable[..., Any], given: Mapping[str, object]) -> None:
    """Raise `TypeError` if a plugin gave `register` an unknown argument. The error names a similar argument, if any."""
    for name in given:
        known = [
            each.name for each in inspect.signature(register).parameters.values() if each.kind is not each.VAR_KEYWORD
        ]
        close = difflib.get_close_matches(name, known, n=1)
        cure = f"did you mean {close[0]!r}?" if close else f"its arguments are {', '.join(known)}"
        raise TypeError(f"register() has no argument {name!r}; {cure}")
