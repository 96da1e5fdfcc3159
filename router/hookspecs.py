"""The hooks of event-router; floor 1. Their docstrings are documentation for plugin authors.

Hooks only register types. Deliveries are not hook calls, because pluggy stops at the first exception: the failure of one
sink must not keep an event from another sink.
"""

from __future__ import annotations

from typing import Protocol

import pluggy

from router.options import SinkOptions
from router.plugin_contracts import Execution, LookupCallable, LookupOptions, QueueType, SinkCallable

PROJECT = "event_router"
"""The project name for pluggy, and the entry-point group for plugins in pip packages."""

API_VERSION = 1
"""The version of the plugin API. It is raised for every addition to `router.api` that a plugin may need (`requires_api`)."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class RegisterSink(Protocol):
    """The function passed to `register_sinks`. Call it once for each type of sink."""

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
        """Register the sink type `name`, the value of `type:` in the configuration.

        `sink` is an async function, a plain function (called in daemon threads of the sink) or a class. `options` is the pydantic
        model of the options; without a model, the sink has no options. `queue`, `concurrency` and `batch` (events per call,
        for classes with `deliver_batch`) are defaults that the configuration may override. `execution="process"` runs a plain
        function in a pool of processes.

        Raises `ValueError` if `name` is taken or an argument is invalid.
        """


class RegisterLookup(Protocol):
    """The function passed to `register_lookups`. Call it once for each type of lookup."""

    def __call__(self, name: str, fetch: LookupCallable, *, options: type[LookupOptions] | None = None) -> None:
        """Register the lookup type `name`, the value of `type:` in the section `lookups`.

        `fetch` is an async function, a plain function (called in a daemon thread) or a class. A function takes `(key,
        options)`, and optionally `context` as its third parameter. It returns the record, which is a mapping, or None
        if there is no such record. A class takes the options in `__init__`. Its method `fetch_many(keys)` gets at most 500
        keys and returns one `mapping | None | Exception` for each key, in order. The class may also have `open(context)` and
        `close()`. Raise `TransientError` while the store is unavailable. The deliveries then wait.

        `options` is the pydantic model of the options; without a model, the lookup has no options of its own.

        Raises `ValueError` if `name` is taken or an argument is invalid.
        """


class Hooks:
    """The hook specifications."""

    @hookspec
    def register_sinks(self, register: RegisterSink) -> None:
        """Register types of sinks. This hook is called once when plugins are loaded, before the configuration is checked.

        `register` is a function that `RegisterSink` describes. The hook returns nothing. An exception marks this plugin
        as failed. Other plugins are loaded nevertheless, and the router refuses to start only if the configuration uses a
        type that is missing.
        """

    @hookspec
    def register_lookups(self, register: RegisterLookup) -> None:
        """Register types of lookups. This hook is called once when plugins are loaded, before the configuration is checked.

        `register` is a function that `RegisterLookup` describes. The hook returns nothing. An exception marks this
        plugin as failed.
        """
