"""Other channels for a pub/sub source that goes on: nothing of what stays is missed, and nothing comes twice."""

from __future__ import annotations

import threading

import pytest

from router.errors import ConfigError, UnavailableError
from tests.support.proxy import Proxy
from tests.support.waiting import until


class Publisher:
    """Publishes numbers without a pause, on several channels at once, until it is stopped."""

    def __init__(self, server, *channels):
        self.channels = channels
        self.number = 0
        self._server = server
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._publish, daemon=True)

    def _publish(self):
        with self._server.client() as redis:
            while not self._over.is_set():
                pipeline = redis.pipeline(transaction=False)
                for _ in range(50):
                    for channel in self.channels:
                        pipeline.publish(channel, self.number)
                    self.number += 1
                pipeline.execute()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join(10)


async def given_up(server, channel):
    """Wait until the server has done what a switch asks for: giving up what is not wanted any more is the last of it."""
    await until(lambda: server.subscribers(channel) == 0)


async def switched(web, names, globs):
    await web.prepare(names, globs)
    web.switch()


async def test_a_channel_that_stays_comes_once_and_in_order_whatever_matches_it(redis_server, source, recorder):
    web = source(redis_server.url, ["a"], ["b*"])
    await web.start()
    plans = [([], ["*", "a*"]), (["a", "b"], []), (["b"], ["a*"]), (["a"], ["b*"])] * 10
    with Publisher(redis_server, "a", "b") as publisher:
        for names, globs in plans:
            seen = len(recorder.payloads)
            await until(lambda seen=seen: len(recorder.payloads) > seen + 500)
            await switched(web, names, globs)
    published = publisher.number
    for channel in (b"a", b"b"):
        await until(lambda channel=channel: _of(recorder, channel)[-1:] == [published - 1])
        numbers = _of(recorder, channel)
        assert numbers == list(range(numbers[0], published))
    assert web.gaps == 0
    await until(lambda: redis_server.do("PUBSUB", "NUMSUB", "a", "b") == [b"a", 1, b"b", 0])
    assert redis_server.do("PUBSUB", "NUMPAT") == 1


def _of(recorder, channel):
    return [int(payload) for name, _, payload in recorder.events if name == channel]


async def test_what_comes_new_counts_from_the_switch_on(redis_server, source, recorder):
    web = source(redis_server.url, ["a", "old"])
    await web.start()
    await web.prepare(["a", "n"], ["g*"])
    with redis_server.client() as redis:
        for channel in ("n", "g1", "a"):
            redis.publish(channel, "before")
    await until(lambda: recorder.events == [(b"a", None, b"before")])
    web.switch()
    await given_up(redis_server, "old")
    with redis_server.client() as redis:
        for channel in ("n", "g1", "a"):
            redis.publish(channel, "after")
    await until(lambda: len(recorder.events) == 4)
    assert recorder.events[1:] == [(b"n", None, b"after"), (b"g1", b"g*", b"after"), (b"a", None, b"after")]


async def test_what_is_given_up_is_unsubscribed(redis_server, source, recorder):
    web = source(redis_server.url, ["a"])
    await web.start()
    await web.prepare(["a", "n"], [])
    web.give_up()
    await until(lambda: redis_server.do("PUBSUB", "NUMSUB", "a", "n") == [b"a", 1, b"n", 0])
    web.switch()
    redis_server.do("PUBLISH", "a", "x")
    await until(lambda: recorder.payloads == [b"x"])
    assert (web.up, web.gaps) == (True, 0)


async def test_a_refused_channel_changes_nothing(redis_server, source, recorder):
    redis_server.do("ACL", "SETUSER", "app", "on", ">pw", "+@all", "resetchannels", "&a", "&b")
    web = source(f"redis://app:pw@127.0.0.1:{redis_server.port}", ["a"])
    await web.start()
    with pytest.raises(ConfigError, match="refuses the channel 'secret'"):
        await web.prepare(["a", "b", "secret"], [])
    await until(lambda: redis_server.do("PUBSUB", "NUMSUB", "a", "b") == [b"a", 1, b"b", 0])
    redis_server.do("PUBLISH", "a", "x")
    await until(lambda: recorder.payloads == [b"x"])
    await switched(web, ["b"], [])
    await until(lambda: redis_server.do("PUBSUB", "NUMSUB", "a", "b") == [b"a", 0, b"b", 1])
    assert (web.up, web.reason, web.gaps) == (True, None, 0)


async def test_a_refused_subscription_that_is_not_wanted_any_more_is_no_reason_to_be_down(redis_server, source):
    web = source(redis_server.url, ["a", "b"])
    await web.start()
    redis_server.do("ACL", "SETUSER", "default", "resetchannels", "&a")
    redis_server.do("CLIENT", "KILL", "TYPE", "pubsub")
    await until(lambda: "refuses the channel 'b'" in (web.reason or ""))
    await switched(web, ["a"], [])
    assert (web.up, web.reason) == (True, None)


async def test_without_a_connection_nothing_can_be_prepared(redis_server, source):
    async with Proxy(redis_server.port) as proxy:
        web = source(proxy.url, ["a"])
        await web.start()
        proxy.refuse = True
        proxy.cut()
        await until(lambda: web.gaps)
        with pytest.raises(UnavailableError, match="source web is not connected"):
            await web.prepare(["a", "b"], [])
        proxy.refuse = False
        await until(lambda: web.up)


async def test_a_connection_that_is_made_anew_asks_for_what_is_in_force(redis_server, source, recorder):
    async with Proxy(redis_server.port) as proxy:
        web = source(proxy.url, ["a"])
        await web.start()
        await web.prepare(["b"], [])
        proxy.refuse = True
        proxy.cut()
        await until(lambda: web.gaps)
        web.switch()
        proxy.refuse = False
        await until(lambda: web.up)
        await until(lambda: redis_server.do("PUBSUB", "NUMSUB", "a", "b") == [b"a", 0, b"b", 1])
        redis_server.do("PUBLISH", "b", "x")
        await until(lambda: recorder.payloads == [b"x"])
        assert (web.up, web.gaps) == (True, 1)


async def test_copies_are_counted_across_a_switch(redis_server, source, recorder):
    web = source(redis_server.url, ["a", "old"], ["*"])
    await web.start()
    redis_server.do("PUBLISH", "a", "1")
    await until(lambda: web.duplicates == 1)
    await switched(web, ["a"], ["a*", "*"])
    await given_up(redis_server, "old")
    redis_server.do("PUBLISH", "a", "2")
    await until(lambda: web.duplicates == 3)
    assert recorder.payloads == [b"1", b"2"]
