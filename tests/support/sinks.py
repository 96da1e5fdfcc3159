"""Helpers for tests of sinks: load a type as the router does, build events, render options and deliver."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import structlog

from router.core.rendering import OptionsTemplate, TemplateEnvironment, compile_options
from router.events import Event
from router.options import SinkOptions
from router.plugin_contracts import MessageMemory, Sink, SinkType
from router.plugin_loading.plugin_manager import load_plugins

RECEIVED = datetime(2026, 5, 4, 3, 2, 1, 123456, tzinfo=UTC)


@cache
def built_ins() -> Mapping[str, SinkType]:
    """The types of the built-in sinks, loaded by the plugin manager."""
    return load_plugins(entry_points=False).sinks


class _Module:
    """The globals that a plugin's functions see, as attributes: the module in `sys.modules` may be a later load's."""

    def __init__(self, names: dict[str, Any]) -> None:
        object.__setattr__(self, "_names", names)

    def __getattr__(self, name: str) -> Any:
        return self._names[name]

    def __setattr__(self, name: str, value: Any) -> None:
        self._names[name] = value


def plugin_module(name: str, late: str = "") -> Any:
    """The module of a built-in sink, to look into and to patch; or one beside it that the sink imports when it opens."""
    if late:
        return importlib.import_module(f"{sink_type(name).sink.__module__.rpartition('.')[0]}.{late}")
    return _Module(sink_type(name).sink.__init__.__globals__)


def sink_type(name: str) -> SinkType:
    """One built-in type."""
    return built_ins()[name]


def make_event(payload: Any = None, **fields: Any) -> Event:
    """An event as the sink gets it; `payload` is encoded unless `raw` is given."""
    raw = fields.pop("raw", None)
    if raw is None:
        raw = payload.encode() if fields.get("format") == "text" else msgspec.json.encode(payload)
    defaults: dict[str, Any] = {
        "id": "e-1",
        "source": "web-app",
        "channel": "notification",
        "pattern": None,
        "received_at": RECEIVED,
        "route": "notify",
        "sink": "sink-under-test",
    }
    return Event(raw=raw, **(defaults | fields))


class RealClock:
    """The machine's clock."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()


class FakeContext:
    """A `SinkContext` with real threads and a real clock; logs go to `logged`."""

    def __init__(self, base: Path | str = ".", name: str = "sink-under-test", http: Any = None) -> None:
        self.name = name
        self.base = str(base)
        self.messages: MessageMemory | None = None
        self.clock = RealClock()
        self.logged: list[dict[str, Any]] = []
        self.log = structlog.wrap_logger(None, processors=[self._keep], wrapper_class=structlog.stdlib.BoundLogger)
        self._http = http

    @property
    def http(self) -> Any:
        """The HTTP client that the test handed in."""
        assert self._http is not None, "this test gives the sink no HTTP client"
        return self._http

    @http.setter
    def http(self, client: Any) -> None:
        self._http = client

    async def run_blocking(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run in a daemon thread; a cancelled wait leaves the thread running."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def settle(result: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        def run() -> None:
            result, failure = None, None
            try:
                result = function(*args)
            except BaseException as error:  # noqa: BLE001  # it is raised where it is awaited
                failure = error
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, result, failure)

        threading.Thread(target=run, daemon=True).start()
        return await future

    def _keep(self, _logger: Any, level: str, entry: Any) -> Any:
        self.logged.append({"level": level, **entry})
        raise structlog.DropEvent


def validate(kind: str, values: Mapping[str, Any]) -> SinkOptions:
    """The options of a built-in type, validated as the loader does. Raises pydantic's `ValidationError`."""
    own = {key: value for key, value in values.items() if key != "allow_private"}
    return sink_type(kind).options.model_validate(own, context={"allow_private": values.get("allow_private", False)})


class OpenSink:
    """A sink that is open, and its templates compiled."""

    def __init__(self, kind: str, values: Mapping[str, Any], context: FakeContext) -> None:
        self.type = sink_type(kind)
        self.context = context
        self.unrendered = validate(kind, values)
        self.templates = compile_options(self.unrendered, TemplateEnvironment())
        self.sink: Sink = self.type.sink(self.unrendered)  # type: ignore[assignment,call-arg,arg-type]

    def render(self, event: Event) -> Any:
        """The options for one event, as the host renders them."""
        if self.templates.static is not None:
            return self.templates.static
        return self.templates.render(event, RECEIVED.timestamp()).options

    def with_options(self, **more: Any) -> OptionsTemplate:
        """The sink's options as a route overrides them, compiled."""
        return compile_options(self.unrendered.model_copy(update=more), TemplateEnvironment())

    async def deliver(self, event: Event) -> str | None:
        """Deliver one event; returns the other side's answer."""
        return await self.sink.deliver(event, self.render(event))  # type: ignore[attr-defined]

    async def deliver_batch(self, events: Sequence[Event]) -> Any:
        """Deliver a batch; returns what the sink says of it."""
        return await self.sink.deliver_batch([(e, self.render(e)) for e in events])  # type: ignore[attr-defined]


def is_written(result: object) -> bool:
    """Whether a log sink says that it has written the line of an event."""
    return isinstance(result, str) and result.startswith("written to ")


def all_written(results: Sequence[object]) -> bool:
    """Whether a log sink says that it has written every line of a batch."""
    return bool(results) and all(map(is_written, results))


@contextlib.asynccontextmanager
async def open_sink(
    kind: str, values: Mapping[str, Any], *, base: Path | str = ".", context: FakeContext | None = None
) -> AsyncIterator[OpenSink]:
    """An open sink of a built-in type; closed at the end."""
    opened = OpenSink(kind, values, context or FakeContext(base))
    await opened.sink.open(opened.context)  # type: ignore[arg-type]
    try:
        yield opened
    finally:
        await opened.sink.close()
