"""The conformance check of sinks: a test of all properties of a sink that the router relies on; floor 7."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import msgspec

from router.engine.calling.accidents import described
from router.engine.calling.slots import GRACE
from router.errors import DeliveryError, PartialError, PermanentError, PluginError, SinkError, TransientError
from router.events import JSON, Event
from router.ops.loading import Loaded
from router.testing.configuration import NAME, Folders, configured
from router.testing.in_process import NO_REDIS
from router.testing.observing import RULES_OF_ALL_PLUGINS, Observation, judge_left, observed, until
from router.testing.report import Findings, Report
from router.testing.sample_events import HOSTILE, make_event
from router.testing.sink_bench import PATIENCE, SinkBench, fresh
from router.testing.stand_ins import RETRY_AFTER, Failure, Service, made_to_fail
from router.testing.watched_sink import Call

RULES = {
    "opens": "`open` and `close` return in time and raise nothing",
    "delivers": "an event is delivered",
    "failures": "the sink raises an exception if the service does not accept a delivery",
    "retry-after": "the exception passes on the time for which the service asks the sink to wait",
    "batch": "a batch gives one result for each delivery",
    "event": "the sink does not change the event or the options",
    "unicode": "a text may contain any character",
    "cancellation": "a delivery that takes too long can be cancelled",
    **RULES_OF_ALL_PLUGINS,
}
"""The rules, by the names of their checks, in the order of the report."""

TOO_LONG = 0.3
"""Seconds after which a delivery without a result is cancelled."""

TOO_LONG_IN_PROCESS = 5.0
"""The limit `TOO_LONG` for a sink that runs in its own processes. It is longer, because a killed process has to start
again."""

SEVERAL = 3
"""The number of deliveries in a batch."""

_NEED_DELIVERIES = ("failures", "retry-after", "batch", "unicode", "cancellation")


async def check_sink(
    sink_type: str,
    options: Mapping[str, Any] | None = None,
    *,
    service: Service | None = None,
    event: Event | None = None,
    plugins: Folders = None,
    redis_url: str | None = None,
) -> Report:
    """Check that sinks of a type do what the router relies on, and return the report.

    Faults of the sink are reported, not raised. Raises `ConfigError` if the options or the type can't be used.

    - `options` are the keys of the sink in the configuration, including the keys of the router itself.
    - `service` is the stand-in for the service that the sink sends to. Without a stand-in, failures are not checked.
    - `event` is an event that can be delivered with these options, by default the result of `make_event()`.
    - `plugins` are folders of drop-ins, by default `plugins/` in the current folder.
    - `redis_url` is the server for `context.redis` and `context.messages`. Only a sink that uses these needs a server.
    """
    findings = Findings(f"sink {sink_type}", RULES)
    written = {"allow_private": True, **(options or {}), "type": sink_type}
    with configured(plugins, redis={"url": redis_url or NO_REDIS}, sinks={NAME: written}) as loaded:
        await _SinkCheck(loaded, event or make_event(), service, findings).run()
    return findings.report()


class _SinkCheck:
    """The check of a sink. The router's own worker makes every delivery."""

    def __init__(self, loaded: Loaded, event: Event, service: Service | None, findings: Findings) -> None:
        self._loaded = loaded
        self._event = event
        self._service = service
        self._findings = findings

    async def run(self) -> None:
        """Make every check."""
        async with self._bench() as (bench, seen):
            async with bench.running():
                well = await self._opens(bench) and await self._delivers(bench)
                if well:
                    await self._several(bench)
                    await self._failures(bench)
            if bench.watched.opened and not bench.watched.closed:
                self._findings.fail("opens", f"close() {_outcome(bench.watched.errors)}")
            await judge_left(seen, self._findings)
        if not well:
            self._findings.skip("no delivery succeeded", *_NEED_DELIVERIES)
            return
        async with self._bench() as (bench, _), bench.running():
            await self._asks_for_time(bench)
        async with self._bench() as (bench, _), bench.running():
            await self._hostile(bench)
        await self._too_long()

    @contextlib.asynccontextmanager
    async def _bench(self, limit: float | None = None) -> AsyncIterator[tuple[SinkBench, Observation]]:
        """Yield a sink that is not open yet, and its observation. At the end, check the rules for every call.

        `limit` replaces the timeout of a delivery, in seconds.
        """
        bench = SinkBench(self._loaded, limit)
        errors: list[BaseException] = []
        made = self._loaded.types[NAME].sink
        async with observed(self._findings, self._loaded, made, errors) as seen:
            yield bench, seen
            errors += [*bench.watched.errors, *(error for call in bench.calls for error in call.errors)]
            self._recover()
        await bench.release()
        for call in bench.calls:
            for part in dict.fromkeys(call.changed):
                self._findings.fail(
                    "event", f"the sink changed the {'options' if part == 'options' else f'event: {part}'}"
                )
            if isinstance(call.error, PluginError):
                self._findings.fail("batch" if bench.watched.takes_batches else "delivers", str(call.error))

    async def _opens(self, bench: SinkBench) -> bool:
        """Return whether the sink opens."""
        watched = bench.watched
        await until(lambda: watched.opened or watched.errors, bench.timeout + 2 * GRACE)
        if not watched.opened:
            self._findings.fail("opens", f"open() {_outcome(watched.errors)}")
            self._findings.skip("the sink could not be opened", "delivers", "event")
        return watched.opened

    async def _delivers(self, bench: SinkBench) -> bool:
        """Return whether an event is delivered and the stand-in has received it."""
        before = 0 if self._service is None else self._service.received
        bench.put(self._event)
        call = await bench.called(0)
        if call is None:
            self._findings.fail(
                "delivers", f"the sink was not called: {_why(bench)}; pass an `event` that fits the options"
            )
            return False
        if isinstance(call.error, PluginError):
            self._findings.skip("the sink's result has the wrong type (see the check `batch`)", "delivers")
            return False
        if call.errors or call.cancelled:
            raised = f"the sink raised {_error_text(call.errors[0])}" if call.errors else ""
            self._findings.fail("delivers", raised or f"the sink did not return within {bench.timeout:g} s")
            return False
        if self._service is not None and self._service.received <= before:
            self._findings.fail("delivers", "the sink returned without an error, but the service has received nothing")
            return False
        if not await bench.settled():
            self._findings.fail(
                "delivers", f"the delivery was not settled within {PATIENCE:g} s after the sink returned"
            )
            return False
        return True

    async def _several(self, bench: SinkBench) -> None:
        """Deliver a batch, and then a batch that the service does not accept. `_bench` judges the calls at the end."""
        if not bench.watched.takes_batches:
            self._findings.skip("the sink has no `deliver_batch`", "batch")
            return
        bench.put(self._event, SEVERAL)
        await bench.settled()
        if self._fails("unavailable", times=1):
            bench.put(self._event, SEVERAL)
            await bench.settled()
            self._recover()

    async def _failures(self, bench: SinkBench) -> None:
        possible = False
        failures: tuple[Failure, ...] = ("unavailable", "refused")
        for failure in failures:
            if not self._fails(failure):
                continue
            possible = True
            before = len(bench.calls)
            bench.put(self._event)
            call = await bench.called(before)
            self._recover()
            if call is not None:
                self._judge_failure(failure, call)
            await bench.settled()
        if not possible:
            self._findings.skip(
                "pass a `service` that can simulate the failures 'unavailable' or 'refused'", "failures"
            )

    def _judge_failure(self, failure: Failure, call: Call) -> None:
        """Record what is wrong with the sink's reaction to a failure of the service."""
        if isinstance(call.error, PluginError):
            return
        simulated = f"the test simulated the failure {failure!r} of the service"
        if not call.errors:
            self._findings.fail("failures", f"{simulated}, and the delivery counts as delivered")
        for error in _each(call):
            if not isinstance(error, DeliveryError):
                self._findings.fail("failures", f"{simulated}, and the sink raised {_error_text(error)}")
            elif failure == "unavailable" and isinstance(error, PermanentError):
                self._findings.fail(
                    "failures",
                    f"{simulated}, and the sink raised PermanentError, so the router would not retry: {error}",
                )

    async def _asks_for_time(self, bench: SinkBench) -> None:
        """Let the service ask the sink to wait, and judge the error of the sink.

        Afterwards the sink is paused, so this bench can't make further deliveries.
        """
        if not self._fails("busy"):
            self._findings.skip("pass a `service` that can simulate the failure 'busy'", "retry-after")
            return
        bench.put(self._event)
        call = await bench.called(0)
        failures = [] if call is None else [error for error in _each(call) if isinstance(error, DeliveryError)]
        if not failures or isinstance(failures[0], PluginError):
            self._findings.skip(
                "the sink did not raise a DeliveryError when the service asked it to wait", "retry-after"
            )
            return
        asked = [error.retry_after for error in failures if isinstance(error, TransientError | SinkError)]
        if not any(seconds is not None and abs(seconds - RETRY_AFTER) <= 1 for seconds in asked):
            fault = (
                f"the service asked the sink to wait {RETRY_AFTER} s, and the sink raised {_error_text(failures[0])}"
            )
            self._findings.fail("retry-after", f"{fault} with retry_after={asked[0] if asked else None}")

    async def _hostile(self, bench: SinkBench) -> None:
        for field, event in _variants(self._event):
            before = len(bench.calls)
            bench.put(event)
            call = await bench.called(before)
            for error in [] if call is None or isinstance(call.error, PluginError) else _each(call):
                if not isinstance(error, PermanentError):
                    shown = msgspec.json.encode(event.payload).decode()
                    self._findings.fail(
                        "unicode",
                        f"the sink raised {_error_text(error)} for the text in {field}; the payload was {shown!a}",
                    )
                    return
            if not await bench.settled():
                return

    async def _too_long(self) -> None:
        """Cancel a delivery that waits for a silent service. Without a stand-in, cancel it as soon as it waits."""
        silent = self._fails("silent")
        limit = TOO_LONG_IN_PROCESS if self._loaded.types[NAME].execution == "process" else TOO_LONG
        async with self._bench(limit if silent else 1e-9) as (bench, _), bench.running():
            bench.put(self._event)
            call = await bench.called(0, GRACE)
            if call is None:
                self._findings.fail("cancellation", f"`deliver` did not end within {GRACE:g} s after it was cancelled")
            elif not call.cancelled:
                why = "" if silent else "; pass a `service` that can simulate the failure 'silent'"
                self._findings.skip(f"`deliver` returned before it could be cancelled{why}", "cancellation")
            elif not call.obeyed:
                ended = (
                    f"raised {_error_text(call.errors[0])}"
                    if call.errors
                    else "returned, so the delivery counts as delivered"
                )
                self._findings.fail(
                    "cancellation",
                    f"`deliver` was cancelled, and {ended}: do not catch CancelledError, or raise it again",
                )
            elif silent:
                self._recover()
                if not await bench.settled():
                    fault = f"the sink failed to deliver after a delivery was cancelled: it {_outcome(bench.calls[-1].errors)}"
                    self._findings.fail("cancellation", fault)

    def _fails(self, failure: Failure, times: int | None = None) -> bool:
        return made_to_fail(self._service, failure, times)

    def _recover(self) -> None:
        if self._service is not None:
            self._service.recover()


def _variants(event: Event) -> Iterator[tuple[str, Event]]:
    """Yield the name of a field and an event for each string of the payload and each hostile text.

    In the event, the hostile text is appended to this string.
    """
    for hostile in HOSTILE:
        if event.format != JSON:
            yield "the payload", fresh(event, raw=hostile.encode(), channel=hostile)
            continue
        for field, payload in _with_text(event.payload, hostile, "payload"):
            yield field, fresh(event, raw=msgspec.json.encode(payload), channel=hostile)


def _with_text(value: Any, text: str, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, str):
        yield path, f"{value} {text}"
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from ((inner, {**value, key: new}) for inner, new in _with_text(item, text, f"{path}.{key}"))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            found = _with_text(item, text, f"{path}.{place}")
            yield from ((inner, [*value[:place], new, *value[place + 1 :]]) for inner, new in found)


def _each(call: Call) -> list[Exception]:
    """Return the failures of a call. For a `PartialError`, these are the failures of its addresses."""
    found: list[Exception] = []
    for error in call.errors:
        found += error.failures.values() if isinstance(error, PartialError) else [error]
    return found


def _error_text(error: BaseException) -> str:
    return "".join(described(error))


def _outcome(errors: list[Exception]) -> str:
    return f"raised {_error_text(errors[-1])}" if errors else "did not return in time"


def _why(bench: SinkBench) -> str:
    """Return the reason why a delivery caused no call of the sink."""
    if bench.letters:
        return f"the delivery became a dead letter ({bench.letters[-1].reason}: {bench.letters[-1].detail})"
    if bench.suppressed:
        return f"the delivery was suppressed ({', '.join(bench.suppressed)})"
    return "it has not received a delivery"
