"""Chat messages that answer or replace earlier ones, on services that refuse what they do not know, and a real Redis."""

from __future__ import annotations

import contextlib
import time

import pytest
from pydantic import ValidationError

from router.broker.plugins.message_memory import RedisMessageMemory
from router.broker.plugins.redis_pool import RedisPool
from router.broker.server import client
from router.errors import PartialError, SinkError, TransientError
from tests.support.chat import HOOK, TOKEN, bot, chat, webhook
from tests.support.chat_services import BOTS, Discord, Telegram
from tests.support.http import Reply, stand_in
from tests.support.redis import free_port
from tests.support.sinks import make_event, validate

KEY = "{event-router}:thread:sink-under-test"
THREAD = {"thread": "{{ payload.order }}"}
UPDATE = {"update": "{{ payload.order }}"}


@contextlib.asynccontextmanager
async def memory(url):
    pool = RedisPool(client.server(url))
    try:
        yield RedisMessageMemory(pool, KEY, time.time)
    finally:
        await pool.close()


def order(number, text, **more):
    return make_event({"order": number, "message": text, **more}, id=f"e-{text}")


@contextlib.asynccontextmanager
async def bots(redis_server, options):
    """Yield one sink after the other, each a bot of its service, with what the service shows."""

    async def each():
        for name, (kind, address) in BOTS.items():
            redis_server.do("DEL", KEY)
            async with stand_in() as server, memory(redis_server.url) as messages:
                service = kind()
                service.attach(server)
                async with chat(bot(server, name, address, **options), messages) as sink:
                    yield service, sink

    async with contextlib.aclosing(each()) as found:
        yield found


def shown(service):
    """Texts, each with the text that it answers."""
    return [
        (each.text, service.shown[each.answers].text if each.answers in service.shown else each.answers)
        for each in service.shown.values()
    ]


async def test_later_messages_of_a_key_answer_the_first_one(redis_server):
    async with bots(redis_server, THREAD) as each:
        async for service, sink in each:
            for number, text in [(1, "a"), (2, "b"), (1, "c"), (1, "d"), ("", "e"), ("", "f")]:
                assert await sink.deliver(order(number, text))
            assert shown(service) == [("a", None), ("b", None), ("c", "a"), ("d", "a"), ("e", None), ("f", None)]
            assert len({message.channel for message in service.shown.values()}) == 1
            service.shown.clear()  # somebody deletes them
            for text in ("g", "h"):
                await sink.deliver(order(1, text))
            assert shown(service) == [("g", None), ("h", "g")]
            (told,) = sink.context.logged
            assert told["event"] == "a message can't be replied to, so a new thread begins"


async def test_later_messages_of_a_key_replace_the_earlier_one(redis_server):
    async with bots(redis_server, UPDATE) as each:
        async for service, sink in each:
            for number, text in [(1, "a"), (2, "b"), (1, "c"), (1, "c")]:
                assert await sink.deliver(order(number, text))
            assert shown(service) == [("c", None), ("b", None)]
            service.shown.clear()
            for text in ("d", "e"):
                await sink.deliver(order(1, text))
            assert shown(service) == [("e", None)]
            (told,) = sink.context.logged
            assert told["event"] == "a message can't be changed, so a new message is sent"


async def test_a_thread_may_have_messages_that_are_replaced(redis_server):
    keys = {"thread": "{{ payload.customer }}", "update": "{{ payload.order | default('') }}"}
    async with bots(redis_server, keys) as each:
        async for service, sink in each:
            for text, number in [("hello", ""), ("paid", 1), ("shipped", 1), ("bye", "")]:
                await sink.deliver(order(number, text, customer="jane"))
            assert shown(service) == [("hello", None), ("shipped", "hello"), ("bye", "hello")]
            # The key of an answer may begin a thread elsewhere, which joins the thread of that answer.
            await sink.deliver(order("", "where is it?", customer="1"))
            below = list(service.shown.values())[-1].answers
            assert service.shown[below].text in {"hello", "shipped"}


async def test_a_webhook_of_discord_replaces_its_message(redis_server):
    async with stand_in() as server, memory(redis_server.url) as messages:
        service = Discord()
        service.attach(server)
        options = webhook(server, "discord", **UPDATE) | {"url": f"{server.url}{HOOK}?thread_id=9"}
        async with chat(options, messages) as sink:
            for text in ("a", "b"):
                await sink.deliver(order(1, text))
            service.shown.clear()
            for text in ("c", "d"):
                await sink.deliver(order(1, text))
    assert shown(service) == [("d", None)]
    assert {request.query for request in server.requests} == {"thread_id=9&wait=true", "thread_id=9"}


async def test_a_webhook_of_google_chat_needs_no_memory():
    async with stand_in() as server:
        options = webhook(server, "google-chat", **THREAD) | {"url": f"{server.url}{HOOK}?key=K"}
        async with chat(options) as sink:
            for number in (1, 1, 2, ""):
                await sink.deliver(order(number, "a"))
    first, second, third, fourth = server.requests
    assert first.query == "key=K&messageReplyOption=REPLY_MESSAGE_FALLBACK_TO_NEW_THREAD"
    assert first.json["thread"] == second.json["thread"] != third.json["thread"]
    assert (fourth.query, fourth.json) == ("key=K", {"text": "a"})


@pytest.mark.parametrize(
    ("service", "key", "cure"),
    [
        ("slack", "thread", "a bot can: give `token` and `to` instead of `url`"),
        ("mattermost", "update", "a bot can: give `token` and `to` instead of `url`"),
        ("discord", "thread", "a bot can"),
        ("google-chat", "update", "no bot for this service, so remove this option"),
        ("teams", "thread", "no bot for this service, so remove this option"),
    ],
)
def test_a_webhook_that_can_not_is_told_so_with_the_cure(service, key, cure):
    with pytest.raises(ValidationError, match=cure) as caught:
        validate("chat", {"service": service, "url": "https://chat.example.org/hook", "text": "a", key: "k"})
    assert [each["loc"] for each in caught.value.errors()] == [(key,)]


async def test_what_was_sent_is_not_sent_again_because_redis_was_away(redis_server):
    """The service has the message, and then Redis refuses it: the next attempt writes it and sends nothing."""
    async with stand_in() as server, memory(redis_server.url) as messages:
        service = Telegram()
        service.attach(server)
        async with chat(bot(server, "telegram", ["42", "43"], **THREAD), messages) as sink:
            redis_server.do("CONFIG", "SET", "maxmemory", "1")
            event = order(1, "a")
            with pytest.raises(PartialError) as caught:
                await sink.deliver(event)
            assert {address: type(each) for address, each in caught.value.failures.items()} == {
                "42": TransientError,
                "43": TransientError,
            }
            redis_server.do("CONFIG", "SET", "maxmemory", "0")
            assert await sink.deliver(event) == "101, 102"
            await sink.deliver(order(1, "b"))
    assert shown(service) == [("a", None), ("a", None), ("b", "a"), ("b", "a")]


async def test_without_redis_nothing_is_sent():
    async with stand_in() as server, memory(f"redis://127.0.0.1:{free_port()}") as away:
        for messages, error in [(away, TransientError), (None, SinkError)]:
            async with chat(bot(server, "telegram", "42", **THREAD), messages) as sink:
                with pytest.raises(error):
                    await sink.deliver(order(1, "a"))
    assert not server.requests


async def test_a_place_of_another_service_is_none(redis_server):
    async with stand_in() as server, memory(redis_server.url) as messages:
        await messages.keep({("1", "42"): '{"service":"slack","channel":"C1","id":"7"}', ("2", "42"): "nonsense"})
        async with chat(bot(server, "telegram", "42", **UPDATE), messages) as sink:
            server.default = Reply(json={"ok": True, "result": {"message_id": 5, "chat": {"id": 42}}})
            for number in (1, 2, 1):
                await sink.deliver(order(number, "a"))
    sent = [request.path.rpartition("/")[2] for request in server.requests]
    assert sent == ["sendMessage", "sendMessage", "editMessageText"]
    assert TOKEN not in str([request.body for request in server.requests])
