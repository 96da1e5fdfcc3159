"""Built-in sink `command`: runs a program for each event, with the event as a JSON line on stdin."""

from __future__ import annotations

from router.api import RegisterSink, hookimpl

from .command_options import CommandOptions
from .command_sink import CommandSink


@hookimpl
def register_sinks(register: RegisterSink) -> None:
    """Register the type `command`."""
    register("command", CommandSink, options=CommandOptions)
