"""A worker that makes room for another: what becomes of what it has in flight."""

from __future__ import annotations

import asyncio
import contextlib
import json
from types import SimpleNamespace

from router.api import SinkError, TransientError
from router.core.rendering import TemplateEnvironment, compile_options
from router.engine.parts import Parts
from router.errors import Reason
from router.options import SinkOptions, Template
from tests.support.engine import bench, make_event
from tests.support.waiting import PATIENCE, until


def numbered(*numbers, **fields):
    return [make_event(json.dumps({"n": number, **fields}).encode()) for number in numbers]


def waiting(queue):
    return [json.loads(event.raw)["n"] for events, _ in queue._bundles for event in events]


async def test_the_call_under_way_finishes_and_the_rest_is_next_in_line():
    go, called = asyncio.Event(), []

    async def sink(event, options):
        called.append(event.payload["n"])
        await go.wait()

    async with bench(sink, concurrency=2) as worker:
        worker.put(*numbered(*range(5)))
        await until(lambda: len(called) == 2)
        retiring = asyncio.create_task(worker.worker.retire())
        await asyncio.sleep(0)
        assert not retiring.done()
        go.set()
        await retiring
        assert called == [0, 1]
        assert waiting(worker.worker.queue) == [2, 3, 4]
        assert (worker.book.delivered, worker.book.pending, worker.worker.queue.events) == (2, 3, 3)


async def test_what_waits_for_a_breaker_is_given_back_at_once():
    async def sink(event, options):
        raise SinkError("refused")

    async with bench(sink, breaker={"reset": "1h"}) as worker:
        worker.put(*numbered(0, 1, 2))
        await until(lambda: worker.worker.breaker_open)
        async with asyncio.timeout(PATIENCE):
            await worker.worker.retire()
        assert waiting(worker.worker.queue) == [0, 1, 2]


async def test_what_waits_for_its_rate_is_given_back_at_once():
    called = []

    async def sink(event, options):
        called.append(event.payload["n"])

    async with bench(sink, rate="1/h") as worker:
        worker.put(*numbered(0, 1))
        await until(lambda: called == [0] and worker.worker.in_flight)
        async with asyncio.timeout(PATIENCE):
            await worker.worker.retire()
        assert waiting(worker.worker.queue) == [1]


async def test_a_plugin_that_never_comes_back_is_left_behind():
    over = asyncio.Event()

    async def sink(event, options):
        while not over.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await over.wait()

    async with bench(sink, timeout="100ms") as worker:
        worker.put(*numbered(0, 1))
        await until(lambda: worker.worker.in_flight)
        async with asyncio.timeout(PATIENCE):
            await worker.worker.retire()
        queue = worker.worker.queue
        await until(lambda: len(waiting(queue)) == 2)
        assert sorted(waiting(queue)) == [0, 1]
        over.set()


async def test_a_sink_that_cannot_be_opened_gives_way():
    class Closed:
        def __init__(self, options):
            pass

        async def open(self, context):
            raise OSError("no")

        async def deliver(self, event, options):
            raise AssertionError

        async def close(self):
            raise AssertionError

    async with bench(Closed) as worker:
        worker.put(*numbered(0))
        await until(lambda: worker.worker.fault)
        async with asyncio.timeout(PATIENCE):
            await worker.worker.retire()
        assert waiting(worker.worker.queue) == [0]


async def test_lanes_are_given_back_in_their_order():
    async def sink(event, options):
        raise TransientError("no")

    retry = {"initial": "50ms", "max_delay": "60s"}
    async with bench(sink, concurrency=4, order_by="payload.u", retry=retry, breaker={"reset": "1h"}) as worker:
        worker.put(*[event for number in range(12) for event in numbered(number, u=number % 3)])
        await until(lambda: worker.worker.breaker_open)
        await worker.worker.retire()
        found = waiting(worker.worker.queue)
        assert sorted(found) == list(range(12))
        for user in range(3):
            assert [n for n in found if n % 3 == user] == list(range(user, 12, 3))


async def test_a_route_that_had_its_own_options_leaves_orphans():
    class Options(SinkOptions):
        text: Template = Template("plain")

    called = []

    async def sink(event, options):
        called.append(options.text)

    own = {"r": Options(text=Template("of r"))}
    async with bench(sink, options=Options(text=Template("{{ payload.n }}")), overrides=own) as worker:
        worker.put(*numbered(0))
        await until(lambda: called == ["of r"])
        templates = {None: compile_options(Options(text=Template("{{ payload.n }}")), TemplateEnvironment())}
        worker.worker.preparing.use(templates, {}, {})
        worker.put(*numbered(1), make_event(b'{"n": 2}', route="other"))
        await until(lambda: called == ["of r", "2"] and worker.letters.kept)
        [letter] = worker.letters.kept
        assert (letter.reason, letter.route) == (Reason.ORPHANED, "r")
        assert (
            "the route r overrode options of this sink, but was removed or does not override them now" in letter.detail
        )
        worker.worker.preparing.use({**templates, "r": templates[None]}, {}, {})
        worker.put(*numbered(3))
        await until(lambda: called == ["of r", "2", "3"])


async def test_a_queue_that_two_workers_share_during_a_reload_is_ended_once():
    old, new, other = (SimpleNamespace(worker=SimpleNamespace(queue=queue)) for queue in ("shared", "shared", "other"))
    sinks = {"s": new, "t": other}
    parts = Parts(loaded=None, shared=None, sources={}, sinks=sinks, lookups=None, retiring=[old])
    assert parts.every_part() == [old, new, other]
    assert parts.every_queue() == ["shared", "other"]
