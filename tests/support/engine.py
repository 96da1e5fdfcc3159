"""Parts of the engine for tests: a worker around a sink of the test's own, and what came of its deliveries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from router.config.models import HostKeys
from router.contracts import Clock
from router.core.accounts.books import SinkBook
from router.core.rendering import TemplateEnvironment, compile_options
from router.core.rendering.expressions import Expiry, Expression
from router.engine.calling.calls import Caller
from router.engine.calling.context import Context
from router.engine.calling.threads import DaemonThreads
from router.engine.clock import SystemClock
from router.engine.composition_queues import ordered
from router.engine.delivery.delivery_mode import DeliveryMode
from router.engine.delivery.outcomes import Outcomes
from router.engine.delivery.preparing import Preparing
from router.engine.delivery.worker import SinkWorker
from router.engine.expression_failures import ExpressionFailures
from router.engine.queues.memory_queue import MemoryQueue
from router.events import DeadLetter, Event, size_of
from router.ops.metrics import SinkMeter
from router.options import SinkOptions
from router.plugin_contracts import SinkType
from router.plugin_loading.sink_types import NoOptions
from tests.support.limits import limits
from tests.support.waiting import PATIENCE

_numbers = count(1)


def make_event(raw: bytes = b"{}", **fields: Any) -> Event:
    """An event on its way to sink `s` by route `r`; each call has an id of its own."""
    values: dict[str, Any] = {
        "id": f"e{next(_numbers)}",
        "source": "web",
        "channel": "c",
        "pattern": None,
        "received_at": datetime(2026, 1, 2, tzinfo=UTC),
        "raw": raw,
        "route": "r",
        "sink": "s",
    }
    return Event(**{**values, **fields})


class SetClock(SystemClock):
    """A wall clock that a test sets; the other one goes on as it does."""

    def __init__(self) -> None:
        self.ahead = 0.0
        """Seconds."""

    def now(self) -> float:
        return super().now() + self.ahead


class SteppedClock(SystemClock):
    """A monotonic clock that a test moves on, so that a long timeout is over at once; the wall clock goes on as it does."""

    def __init__(self) -> None:
        self.ahead = 0.0
        """Seconds."""

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


class Letters:
    """Keeps dead letters in a list."""

    def __init__(self) -> None:
        self.kept: list[DeadLetter] = []

    def add(self, letters: list[DeadLetter]) -> None:
        self.kept += letters


@dataclass
class Bench:
    """One worker under test."""

    worker: SinkWorker
    letters: Letters
    book: SinkBook
    shown: list[str] = field(default_factory=list)

    def put(self, *events: Event) -> None:
        self.worker.queue.put(list(events), size_of(list(events)))

    async def settled(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self.worker.settled()


@asynccontextmanager
async def bench(
    sink: Any,
    *,
    options: SinkOptions | None = None,
    overrides: dict[str, SinkOptions] | None = None,
    concurrency: int = 1,
    batch: int = 500,
    max_wait: str = "0s",
    execution: Any = None,
    origin: str = "test",
    sources: Mapping[Path, bytes] | None = None,
    name: str = "s",
    only: list[str] | None = None,
    start: bool = True,
    expires: dict[str, float | str] | None = None,
    only_if_by_route: dict[str, str] | None = None,
    hand_over: Callable[[str, Event], None] | None = None,
    clock: Clock | None = None,
    queue_of: Callable[[MemoryQueue], Any] = lambda queue: queue,
    redact: Callable[[str], str] = str,
    **keys: Any,
) -> AsyncIterator[Bench]:
    """A running worker around `sink`; `keys` are its host keys, quick retries unless they say otherwise.

    `queue_of` may put something around its queue. `only` makes it a sink under `deliver: {only: …}`, an empty list one under `deliver: print`. `expires` is by route.
    """
    quick = {"timeout": "5s", "retry": {"initial": "1ms", "max_delay": "10ms"}, "breaker": {"reset": "10ms"}}
    keys = {**quick, "batch": {"max_wait": max_wait}, **keys}
    given = options or NoOptions()
    kind = SinkType(name, sink, type(given), "memory", concurrency, None, execution, origin, sources or {})
    clock = clock or SystemClock()
    threads = DaemonThreads("test", concurrency)
    host = HostKeys.model_validate({"type": name, **keys})
    context = Context(name, clock=clock, base=Path("/nowhere"), threads=threads, keys=host)
    environment = TemplateEnvironment()
    templates = {route: compile_options(each, environment) for route, each in (overrides or {}).items()}
    conditions = {None: host.only_if, **(only_if_by_route or {})}
    letters, book = Letters(), SinkBook()
    shown: list[str] = []

    async def show(line: str) -> None:
        shown.append(line)

    outcomes = Outcomes(
        name,
        book=book,
        meter=SinkMeter(),
        dead_letters=letters,
        clock=clock,
        hand_over=hand_over,
        redact=redact,
    )
    queue = queue_of(MemoryQueue(limits(host.queue), now=clock.monotonic, book=book, dropped=outcomes.dropped))
    preparing = Preparing(
        {**templates, None: compile_options(given, environment)},
        {route: Expiry(after, environment) for route, after in (expires or {}).items()},
        {route: Expression(source, environment, "only_if") for route, source in conditions.items() if source},
        outcomes=outcomes,
        mode=None if only is None else DeliveryMode(name, "test", only, show),
        clock=clock,
    )
    order_by = None if host.order_by is None else Expression(host.order_by, environment)
    option_key = preparing.order_key if compile_options(given, environment).has_keys else None
    worker = SinkWorker(
        keys=host,
        concurrency=concurrency,
        batch=batch,
        caller=Caller(kind, given, context, threads),
        preparing=preparing,
        queue=queue,
        outcomes=outcomes,
        clock=clock,
        chance=lambda: 0.5,
        line=ordered(queue, order_by, clock, "s", ExpressionFailures(), option_key=option_key),
    )
    if start:
        worker.start()
    made = Bench(worker, letters, book, shown)
    try:
        yield made
    finally:
        await worker.close()
        await context.close()
