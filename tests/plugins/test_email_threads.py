"""Mails that answer the first one of their key (RFC 5322 section 3.6.4), on a real SMTP server and a real Redis."""

from __future__ import annotations

import contextlib
import time

import pytest
from pydantic import ValidationError

from router.broker.plugins.message_memory import RedisMessageMemory
from router.broker.plugins.redis_pool import RedisPool
from router.broker.server import client
from router.errors import PartialError, SinkError, TransientError
from tests.support.sinks import FakeContext, make_event, open_sink, validate
from tests.support.smtp import smtp_server

A, B, C = "a@example.org", "b@example.org", "c@example.org"
MAIL = {"from": "shop@example.org", "to": "{{ payload.to }}", "text": "Hello", "thread": "{{ payload.order }}"}


@contextlib.asynccontextmanager
async def mail_sink(redis_server, **options):
    pool = RedisPool(client.server(redis_server.url))
    context = FakeContext()
    context.messages = RedisMessageMemory(pool, "{event-router}:thread:sink-under-test", time.time)
    try:
        async with smtp_server() as box:
            values = {"host": "127.0.0.1", "port": box.port, "tls": "none", **MAIL, **options}
            async with open_sink("email", values, context=context) as sink:
                yield box, sink
    finally:
        await pool.close()


def order(number, name, *to):
    return make_event({"order": number, "to": list(to)}, id=name)


def mails(box):
    """The recipients of each mail, its name, and the name of the mail that it answers."""
    found = []
    for mail in box.taken:
        named = [str(mail.message[header] or "").split("/")[0].strip("<") for header in ("Message-ID", "In-Reply-To")]
        assert mail.message["In-Reply-To"] == mail.message["References"]
        found.append(("".join(address[0] for address in mail.recipients), *named))
    return found


async def test_later_mails_of_a_key_answer_the_first_one(redis_server):
    async with mail_sink(redis_server) as (box, sink):
        for event in (
            order(1, "m1", A),
            order(2, "m2", A),
            order(1, "m3", A, B),
            order(1, "m4", A, B),
            order(1, "m4", A, B),  # an attempt whose answer was lost
            order("", "m5", A),
            order("", "m6", A),
        ):
            await sink.deliver(event)
        assert mails(box) == [
            ("a", "m1", ""),
            ("a", "m2", ""),
            ("a", "m3", "m1"),
            ("b", "m3", ""),
            *[("a", "m4", "m1"), ("b", "m4", "m3")] * 2,
            ("a", "m5", ""),
            ("a", "m6", ""),
        ]
        await sink.deliver(order(1, "m1", A))  # the first mail once more is no answer to itself
        assert mails(box)[-1] == ("a", "m1", "")


async def test_a_shared_mail_has_one_thread_for_all(redis_server):
    async with mail_sink(redis_server, separate=False) as (box, sink):
        await sink.deliver(order(1, "m1", A))
        box.recipients[C] = ["451 later", None]
        with pytest.raises(PartialError):
            await sink.deliver(order(1, "m2", A, B, C))
        await sink.deliver(order(1, "m3", B))
        assert mails(box) == [("a", "m1", ""), ("ab", "m2", "m1"), ("b", "m3", "m1")]


async def test_no_mail_is_sent_twice_because_redis_was_away(redis_server):
    async with mail_sink(redis_server) as (box, sink):
        redis_server.do("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(TransientError):
            await sink.deliver(order(1, "m1", A, B))
        redis_server.do("CONFIG", "SET", "maxmemory", "0")
        await sink.deliver(order(1, "m1", A, B))
        await sink.deliver(order(1, "m2", A))
        assert mails(box) == [("a", "m1", ""), ("b", "m1", ""), ("a", "m2", "m1")]
        sink.context.messages = None
        with pytest.raises(SinkError, match="needs the router's Redis"):
            await sink.deliver(order(1, "m3", A))


@pytest.mark.parametrize("header", ["References", "in-reply-to"])
def test_the_headers_of_a_thread_are_not_set_twice(header):
    with pytest.raises(ValidationError, match=f"remove `headers.{header}` or `thread`") as caught:
        validate("email", {**MAIL, "headers": {header: "<a@b>"}})
    assert [each["loc"] for each in caught.value.errors()] == [("thread",)]
