"""The redis sink on a real server: what is written, what it answers, and what each failure means."""

from __future__ import annotations

import asyncio
import contextlib
import json
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.broker.plugins.redis_pool import RedisPool
from router.broker.server import client
from router.errors import PermanentError, SinkError, TemplateError, TransientError
from tests.support.redis import RedisServer, free_port
from tests.support.sinks import FakeContext, make_event, open_sink


class Context(FakeContext):
    """A context with a client of the router's Redis, and of any other; closed by the test."""

    def __init__(self, url):
        super().__init__()
        self.pools = {}
        self._url = url

    @property
    def redis(self):
        return self.redis_at(self._url)

    def redis_at(self, url):
        return self.pools.setdefault(url, RedisPool(client.server(url)))


@contextlib.asynccontextmanager
async def redis_sink(server, **values):
    context = Context(server)
    try:
        async with open_sink("redis", values, context=context) as sink:
            yield sink
    finally:
        for pool in context.pools.values():
            await pool.close()


RAW = b'{"user_id": 42,\n "message": "na\xc3\xafve \\u0000 12345678901234567890"}'


async def test_an_entry_has_the_payload_as_published_and_the_key(redis_server):
    async with redis_sink(redis_server.url, xadd="inbox:{{ payload.user_id }}") as sink:
        (answer,) = await sink.deliver_batch([make_event(raw=RAW)])
    [(entry, fields)] = redis_server.client().xrange("inbox:42")
    assert fields == {b"payload": RAW, b"key": b"e-1:notify:sink-under-test"}
    assert answer == entry.decode()


async def test_maxlen_keeps_the_newest_exactly(redis_server):
    async with redis_sink(redis_server.url, xadd="inbox", maxlen=3) as sink:
        await sink.deliver_batch([make_event(n) for n in range(10)])
    assert [fields[b"payload"] for _, fields in redis_server.client().xrange("inbox")] == [b"7", b"8", b"9"]


@pytest.mark.parametrize(("command", "left"), [("lpush", [b"3", b"2", b"1"]), ("rpush", [b"1", b"2", b"3"])])
async def test_a_list_gets_the_items_in_their_order(redis_server, command, left):
    async with redis_sink(redis_server.url, **{command: "jobs"}) as sink:
        answers = await sink.deliver_batch([make_event(n) for n in (1, 2, 3)])
    assert answers == ["1 item", "2 items", "3 items"]
    assert redis_server.do("LRANGE", "jobs", 0, -1) == left


async def test_a_published_message_tells_how_many_heard_it(redis_server):
    with redis_server.client() as listener, listener.pubsub() as heard:
        heard.subscribe("next")
        assert heard.get_message(timeout=30)["type"] == "subscribe"
        async with redis_sink(redis_server.url, publish="next", template="{{ payload.n }} 🚀") as sink:
            assert await sink.deliver_batch([make_event({"n": 1})]) == ["1 subscriber"]
        async with redis_sink(redis_server.url, publish="nobody") as sink:
            assert await sink.deliver_batch([make_event({"n": 1})]) == ["0 subscribers"]
        assert heard.get_message(timeout=30)["data"] == "1 🚀".encode()


async def test_another_server_is_reached_by_its_url(redis_server, start_server):
    other = start_server()
    async with redis_sink(redis_server.url, rpush="jobs", url=f"{other.url}/2") as sink:
        await sink.deliver_batch([make_event(1)])
    assert other.do("LLEN", "jobs", db=2) == 1
    assert redis_server.do("EXISTS", "jobs") == 0


async def test_a_failure_in_a_batch_is_one_delivery_s_own(redis_server):
    redis_server.do("SET", "inbox:2", "a text")
    async with redis_sink(redis_server.url, xadd="inbox:{{ payload }}") as sink:
        first, wrong, last = await sink.deliver_batch([make_event(n) for n in (1, 2, 3)])
    assert isinstance(first, str)
    assert isinstance(last, str)
    assert isinstance(wrong, PermanentError)
    assert "WRONGTYPE" in str(wrong)
    assert redis_server.do("EXISTS", "inbox:1", "inbox:3") == 2


async def test_a_full_server_is_tried_again(redis_server):
    redis_server.do("CONFIG", "SET", "maxmemory", "1")
    async with redis_sink(redis_server.url, rpush="jobs") as sink:
        (refused,) = await sink.deliver_batch([make_event(1)])
    assert isinstance(refused, TransientError)
    assert "OOM" in str(refused)


async def test_a_missing_right_is_a_fault_of_the_sink(redis_server):
    """The user of the documentation has the rights that it takes, for the inboxes alone."""
    rule = "on >PASSWORD +ping +echo +client|setname +xadd ~inbox:*"
    redis_server.do("ACL", "SETUSER", "router", *rule.split())
    url = f"redis://router:PASSWORD@127.0.0.1:{redis_server.port}"
    async with redis_sink(url, xadd="inbox:{{ payload }}") as sink:
        assert isinstance((await sink.deliver_batch([make_event(1)]))[0], str)
    async with redis_sink(url, xadd="outbox:{{ payload }}") as sink:
        (refused,) = await sink.deliver_batch([make_event(1)])
    assert isinstance(refused, SinkError)
    assert "PASSWORD" not in str(refused)


async def test_a_server_that_is_away_fails_the_whole_batch(redis_server):
    async with redis_sink(f"redis://127.0.0.1:{free_port()}", rpush="jobs") as sink:
        for failed in await sink.deliver_batch([make_event(1), make_event(2)]):
            assert isinstance(failed, TransientError)
            assert "connection refused" in str(failed)
    async with redis_sink(redis_server.url, rpush="jobs") as sink:
        assert await sink.deliver_batch([make_event(1)]) == ["1 item"]
        redis_server.kill()
        (failed,) = await sink.deliver_batch([make_event(2)])
        assert isinstance(failed, TransientError)


async def test_a_large_batch_is_several_pipelines_and_what_was_sent_before_a_failure_counts():
    calls = []

    class Client:
        async def pipeline(self, commands):
            calls.append(len(commands))
            if len(calls) == 2:
                raise TransientError("away")
            return [1] * len(commands)

    context = SimpleNamespace(redis=Client())
    async with open_sink("redis", {"rpush": "jobs"}, context=context) as sink:
        results = await sink.deliver_batch([make_event("x" * 1024**2) for _ in range(10)])
    assert calls == [4, 4]
    assert results[:4] == ["1 item"] * 4
    assert [str(failed) for failed in results[4:]] == ["away"] * 6


async def test_without_a_redis_it_opens_and_delivers_nothing():
    context = SimpleNamespace(redis=None)
    async with open_sink("redis", {"rpush": "jobs"}, context=context) as sink:
        with pytest.raises(SinkError, match="no Redis"):
            await sink.deliver_batch([make_event(1)])


HOSTILE = st.text(st.sampled_from("\"'\n\r\0 *?[{}}\\%:,🚀é\u2028\ud800\udfff"), max_size=12)
TEXTS = st.lists(HOSTILE | st.text(st.characters(exclude_categories=()), max_size=12), min_size=1, max_size=20)


@pytest.fixture(scope="module")
def one_server(tmp_path_factory):
    """A server for all examples."""
    server = RedisServer("valkey", tmp_path_factory.mktemp("redis")).start()
    yield server
    server.kill()


@given(texts=TEXTS)
@settings(max_examples=40)
def test_any_text_reaches_the_key_unharmed_or_is_refused_with_a_reason(one_server, texts):
    """Each text is in a payload as JSON writes it, in the key, in the value, and in an event's id."""
    texts = [json.loads(json.dumps(text)) for text in texts]  # two surrogates in a row may be one character
    raws = [json.dumps({"user_id": text}).encode() for text in texts]

    async def deliver():
        async with redis_sink(one_server.url, rpush="inbox:{{ payload.user_id }}") as sink:
            events = []
            for text, raw in zip(texts, raws, strict=True):
                event = make_event(raw=raw, id=text)
                try:
                    sink.render(event)
                except TemplateError as error:
                    refused[text] = str(error)
                else:
                    events.append((text, event))
            for (text, _), result in zip(events, await sink.deliver_batch([e for _, e in events]), strict=True):
                if isinstance(result, Exception):
                    refused[text] = str(result)

    refused: dict[str, str] = {}
    one_server.do("FLUSHALL")
    asyncio.run(deliver())
    for text, reason in refused.items():
        assert any("\ud800" <= sign <= "\udfff" for sign in text)
        assert reason
    for text, raw in zip(texts, raws, strict=True):
        if text not in refused:
            assert raw in one_server.do("LRANGE", f"inbox:{text}".encode(), 0, -1)
    assert one_server.do("DBSIZE") == len({text for text in texts if text not in refused})


@given(text=HOSTILE)
@settings(max_examples=20)
def test_any_text_in_the_value_and_in_the_id_of_an_event(one_server, text):
    text = json.loads(json.dumps(text))

    async def deliver():
        async with redis_sink(one_server.url, xadd="inbox", template="{{ payload }}", maxlen=1) as sink:
            try:
                return await sink.deliver_batch([make_event(raw=json.dumps(text).encode(), id=text)])
            except TemplateError as error:
                return [error]

    (result,) = asyncio.run(deliver())
    if isinstance(result, Exception):
        assert any("\ud800" <= sign <= "\udfff" for sign in text)
        return
    [(_, fields)] = one_server.client().xrevrange("inbox", count=1)
    assert fields[b"payload"] == text.encode()
    assert fields[b"key"].endswith(b":notify:sink-under-test")
