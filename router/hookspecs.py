"""Every hook of event-router; floor 1. Each docstring is the plugin author's documentation.

Hooks register or observe. Delivering is never a hook call: pluggy ends a call at the first exception, and one sink's
failure must not hide an event from another.
"""

from __future__ import annotations

from typing import Protocol

import pluggy

from router.options import SinkOptions
from router.plugin_contracts import Execution, QueueType, SinkCallable

PROJECT = "event_router"
"""The pluggy project name, and the entry-point group of pip packages."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class RegisterSink(Protocol):
    """The function that `register_sinks` is given: call it once for each type of sink."""

    def __call__(
        self,
        name: str,
        sink: SinkCallable,
        *,
        options: type[SinkOptions] | None = None,
        queue: QueueType = "redis",
        concurrency: int = 4,
        batch: int | None = None,
        execution: Execution | None = None,
    ) -> None:
        """Register the sink type `name` (what `type:` says in the configuration).

        `sink` is an async function, a plain function (runs in daemon threads of its own sink) or a class. `options` is
        its pydantic model; without it the sink takes no options. `queue`, `concurrency` and `batch` (events a call, for
        classes with `deliver_batch`) are defaults that the configuration may override. `execution="process"` runs a
        plain function in a pool of processes.

        Raises `ValueError` when `name` is taken or one of the arguments can't be.
        """


class Hooks:
    """The hook specifications."""

    @hookspec
    def register_sinks(self, register: RegisterSink) -> None:
        """Called once when plugins are loaded, before the configuration is checked: register types of sinks.

        `register` is a function, see `RegisterSink`. Return nothing. An exception marks this plugin as failed; the
        others are loaded all the same, and start-up is refused only if the configuration uses the missing type.
        """
