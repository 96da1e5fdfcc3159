"""Options of the type `Key`: what they give the plugin, the order that they keep, and where they are shown."""

from __future__ import annotations

import asyncio

import pytest

from router.core.rendering import TemplateEnvironment, TemplateFaults, compile_options
from router.errors import TransientError
from router.options import Key, SinkOptions, Text
from tests.support.engine import bench, make_event


class Options(SinkOptions):
    thread: Key | None = Key("{{ payload.k }}")
    update: Key | None = None
    text: Text = Text("{{ payload.n }}")


def options(**keys):
    return Options.model_validate(keys)


def event(key, number):
    return make_event(b'{"k": "%s", "n": %d}' % (key.encode(), number))


class Slow:
    """Delivers later what came earlier, and fails every other time. `most` is how many of a key ran at once."""

    def __init__(self):
        self.done = []
        self.running = []
        self.most = 0
        self.failed = set()

    async def __call__(self, event, options):
        number = event.payload["n"]
        self.running.append(options.thread)
        self.most = max(self.most, self.running.count(options.thread) if options.thread else 0)
        for _ in range(10 - number):
            await asyncio.sleep(0)
        self.running.remove(options.thread)
        if (event.id, number % 2) not in self.failed and number % 2:
            self.failed.add((event.id, 1))
            raise TransientError("once")
        self.done.append((options.thread, number))


async def test_equal_keys_keep_their_order_and_empty_ones_do_not_wait():
    sink = Slow()

    async def deliver(event, options):
        await sink(event, options)

    async with bench(deliver, concurrency=8, options=options()) as at:
        at.put(*[event(key, number) for number in range(6) for key in ("a", " b ", " ")])
        await at.settled()
    assert sink.most == 1
    for key in ("a", "b"):
        assert [number for each, number in sink.done if each == key] == list(range(6))
    alone = [number for each, number in sink.done if each == ""]
    assert sorted(alone) == list(range(6))
    assert alone != sorted(alone)


async def test_the_first_key_that_is_not_empty_decides_and_order_by_wins():
    both = compile_options(options(update="x{{ payload.k }}"), TemplateEnvironment())
    assert both.order_key(event("a", 1), 0.0) == "a"
    assert both.order_key(event("", 1), 0.0) == "x"
    assert compile_options(options(thread=" all "), TemplateEnvironment()).order_key(event("", 1), 0.0) == "all"
    sink = Slow()

    async def deliver(event, options):
        await sink(event, options)

    async with bench(deliver, concurrency=8, options=options(), order_by="payload.n") as at:
        at.put(*[event("a", number) for number in range(0, 6, 2)])
        await at.settled()
    assert sink.most > 1


async def test_a_key_is_printed():
    async with bench(None, options=options(update="u"), only=[]) as at:
        at.put(event("a", 7))
        await at.settled()
    assert at.shown == ["c → r → s (test) (thread: a) (update: u): 7"]


def test_a_key_uses_no_lookup():
    environment = TemplateEnvironment(lookups=("user",)).with_lookups
    with pytest.raises(
        TemplateFaults, match="thread: this key can't use the lookup `user`, because the router needs the key before"
    ):
        compile_options(options(thread="{{ user.id }}"), environment)
