"""The check of the functions of registered sinks and lookups; pure.

Functions that the router can't call are refused at load.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FunctionType
from typing import Any

_EVENT = ("event", "options")
_METHODS = {"deliver": _EVENT, "deliver_batch": ("batch",), "open": ("context",), "close": ()}
"""The methods of a sink's class and the arguments with which the router calls them."""

_KEY = ("key", "options")
_LOOKUP_METHODS = {"fetch_many": ("keys",), "open": ("context",), "close": ()}
"""The methods of a lookup's class and the arguments with which the router calls them."""


def takes_context(function: Callable[..., Any]) -> bool:
    """Return whether a sink function takes the context: its third parameter is named `context`."""
    try:
        return list(inspect.signature(function).parameters)[2:3] == ["context"]
    except (TypeError, ValueError):  # some C callables have no signature
        return False


def wrong_parameters(sink: Callable[..., Any], *, in_process: bool) -> str | None:
    """Return the fault of a sink's functions with its correction; None if the router can call the functions.

    A fault is a wrong number of parameters, or a `yield`. A sink that runs in a process of its own (`in_process`) gets
    no context. Callables without a signature are not checked.
    """
    if not inspect.isclass(sink):
        return _misfit(sink, _EVENT) if in_process else _misfit(sink, _EVENT, context=True)
    return _wrong_methods(sink, _METHODS)


def wrong_lookup_parameters(fetch: Callable[..., Any]) -> str | None:
    """Return the fault of a lookup's functions with its correction; None if the router can call the functions."""
    if not inspect.isclass(fetch):
        return _misfit(fetch, _KEY, context=True)
    return _wrong_methods(fetch, _LOOKUP_METHODS)


def _wrong_methods(made: type[Any], methods: Mapping[str, tuple[str, ...]]) -> str | None:
    for name, arguments in methods.items():
        method = inspect.getattr_static(made, name, None)
        if isinstance(method, FunctionType):
            found = _misfit(method, ("self", *arguments))
        elif isinstance(method, staticmethod | classmethod):
            found = _misfit(getattr(made, name), arguments)
        else:
            found = None  # not checked, because only an instance of the class shows the signature
        if found:
            return found
    return None


def _misfit(function: Callable[..., Any], arguments: tuple[str, ...], *, context: bool = False) -> str | None:
    name = getattr(function, "__name__", type(function).__name__)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        # A call would only create the generator: nothing would be sent, but the delivery would count as delivered.
        return f"`{name}`{_place(function)} contains `yield`, so a call would not run its code: remove the `yield`"
    try:
        # Of a decorated function, check the wrapper and not the wrapped function: the router calls the wrapper, which
        # may pass other arguments to the wrapped function.
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
        return None
    try:
        signature.bind(*arguments, *(["context"] if context and takes_context(function) else []))
    except TypeError:
        wanted = ", ".join(arguments)
        also = ", and may take `context` as a third parameter" if context else ""
        return f"`{name}{_shown(signature)}`{_place(function)} has the wrong parameters: it must take ({wanted}){also}"
    return None


def _shown(signature: inspect.Signature) -> str:
    """Return the parameters without annotations and defaults, which may be long."""
    plain = [one.replace(annotation=one.empty, default=one.empty) for one in signature.parameters.values()]
    return str(signature.replace(parameters=plain, return_annotation=signature.empty))


def _place(function: Callable[..., Any]) -> str:
    code = getattr(function, "__code__", None)
    if code is None:
        return ""
    file = Path(code.co_filename)
    return f" ({file.parent.name}/{file.name}, line {code.co_firstlineno})"
