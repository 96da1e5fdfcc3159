"""The recording router: what each sink gets of an event, without Redis."""

from __future__ import annotations

import time

import pytest

from router.errors import ConfigError
from router.testing import HttpService, ManualClock, RecordingRouter
from tests.support.process import ROOT
from tests.support.waiting import wait_until

CONFIG = {
    "version": 1,
    "sources": {
        "shop": {"type": "pubsub", "channels": ["orders.*", "notification"]},
        "shell": {"type": "stream", "streams": ["command"], "format": "text"},
    },
    "lookups": {"user": {"type": "redis-hash", "key": "user:{{ payload.user_id }}", "missing": "suppress"}},
    "sinks": {
        "audit": {"type": "log", "path": "audit.jsonl"},
        "lines": {"type": "log", "path": "lines.log", "template": "{{ payload }}"},
        "mail": {
            "type": "email",
            "host": "smtp.example.org",
            "password": "${NOT_SET}",
            "from": "shop@example.org",
            "to": "{{ user.email }}",
            "subject": "Order {{ payload.id }}",
            "text": "Dear {{ user.name }}, it is {{ event.received_at | time('%H:%M') }}.",
            "only_if": "on(user.wants_mail, true)",
        },
    },
    "routes": [
        {
            "id": "orders",
            "channels": ["orders.*"],
            "match": {"total": {"gt": 0}},
            "expires": "15m",
            "sinks": ["audit", "mail"],
        },
        {"id": "lines", "sources": ["shell"], "sinks": ["lines"]},
    ],
    "deliver": "print",
}
USERS = {
    "user:42": {"name": "Jane", "email": "jane@example.org"},
    "user:43": {"name": "Joe", "email": "joe@example.org", "wants_mail": "no"},
}


async def test_what_each_sink_gets():
    async with RecordingRouter(CONFIG, lookups={"user": USERS}, clock=ManualClock()) as router:
        for user in (42, 43, 44):
            router.publish("orders.paid", {"id": 7, "total": 20, "user_id": user}, headers={"traceparent": "x"})
        router.publish("orders.paid", {"id": 8, "total": 0, "user_id": 42})
        router.publish("orders.paid", b'{"id": ')
        router.publish("command", "restart")
        await router.settled()
        assert [each.event.payload["user_id"] for each in router.attempts("audit")] == [42, 43, 44]
        [mail] = router.attempts("mail")
        assert (mail.options.to, mail.options.subject) == (["jane@example.org"], "Order 7")
        assert mail.options.text == "Dear Jane, it is 03:04."
        assert (mail.event.channel, mail.event.pattern, mail.event.route) == ("orders.paid", "orders.*", "orders")
        assert mail.event.headers == {"traceparent": "x"}
        assert (mail.answer, mail.error) == (None, None)
        assert router.suppressed("mail") == {"only_if": 1, "lookup": 1}
        assert router.unmatched == 1
        assert [letter.reason for letter in router.dead_letters] == ["decode"]
        assert [each.options.template for each in router.attempts("lines")] == ["restart"]


async def test_a_sink_that_is_called_delivers_and_its_answers_and_errors_are_recorded():
    with HttpService({"id": "m1"}) as service:
        chat = {
            "type": "chat",
            "service": "discord",
            "url": f"{service.url}/api/webhooks/1/secret",
            "allow_private": True,
        }
        chat |= {"text": "{{ payload.message }}", "retry": {"initial": "1ms", "max_delay": "1ms"}}
        config = {
            "version": 1,
            "sources": {"web": {"type": "pubsub", "channels": ["notification"]}},
            "sinks": {"chat": chat, "other": chat},
            "routes": [{"id": "all", "sinks": ["chat", "other"]}],
        }
        async with RecordingRouter(config, call=["chat"]) as router:
            service.fail("unavailable", times=1)
            router.publish("notification", {"message": "hi"})
            await router.settled()
            failed, delivered = router.attempts("chat")
            assert "HTTP 503" in str(failed.error)
            assert (delivered.answer, delivered.error, delivered.event.attempt) == ("m1", None, 2)
            assert [request.json()["content"] for request in service.requests] == ["hi", "hi"]
            assert len(router.attempts("other")) == 1
            service.fail("unavailable")
            router.publish("notification", {"message": "hi"})
            with pytest.raises(TimeoutError, match=r"not settled within 0\.1 s: 1 delivery of the sink chat"):
                await router.settled(0.1)


async def test_the_clock_is_that_of_the_test():
    clock = ManualClock()
    with HttpService() as service:
        chat = {"type": "chat", "service": "slack", "url": f"{service.url}/services/secret", "allow_private": True}
        chat |= {"text": "hi", "retry": {"initial": "1ms", "max_delay": "1ms"}, "breaker": {"failures": 100_000}}
        config = {
            "version": 1,
            "sources": {"web": {"type": "pubsub", "channels": ["n"]}},
            "sinks": {"chat": chat},
            "routes": [{"id": "all", "expires": "15m", "sinks": ["chat"]}],
        }
        service.fail("unavailable")
        async with RecordingRouter(config, call=["chat"], clock=clock) as router:
            router.publish("n", {})
            with pytest.raises(TimeoutError):
                await router.settled(0.05)
            clock.advance(16 * 60)
            await router.settled()
            [letter] = router.dead_letters
            assert (letter.reason, letter.received_at) == ("expired", "2026-01-02T03:04:05.000000Z")


def test_a_clock_stands_still_and_never_goes_back():
    clock = ManualClock()
    before, real = clock.now(), time.monotonic()
    wait_until(lambda: time.monotonic() > real)
    clock.advance(1.5)
    assert (clock.now() - before, clock.monotonic()) == (1.5, 1.5)
    with pytest.raises(ValueError, match="can't be advanced by -1 s"):
        clock.advance(-1)


async def test_the_example_configuration_can_be_played():
    async with RecordingRouter(ROOT / "config.example.yaml") as router:
        router.publish("notification", {"user_id": 42, "message": "hi"})
        await router.settled()
        assert [each.options.text for each in router.attempts("user-chat")] == ["hi"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"call": ["mial"]}, "the configuration has no sink 'mial'; it has audit, lines, mail"),
        ({"lookups": {"users": {}}}, "the configuration has no lookup 'users'; it has user"),
        ({}, "the lookup user reads from a Redis server, which a test does not have: pass its records"),
    ],
)
async def test_names_that_do_not_exist_are_refused(more, said):
    with pytest.raises(ValueError, match=said):
        async with RecordingRouter(CONFIG, **more):
            pass


async def test_a_message_that_no_source_reads_is_refused():
    async with RecordingRouter(CONFIG, lookups={"user": USERS}) as router:
        with pytest.raises(ValueError, match=r"no source reads the channel 'order\.paid'"):
            router.publish("order.paid", {})
        with pytest.raises(
            ValueError, match="the source 'shell' does not exist or does not read the channel 'notification'"
        ):
            router.publish("notification", {}, source="shell")


async def test_a_configuration_that_can_not_work_is_refused():
    with pytest.raises(ConfigError, match="no-such-type"):
        async with RecordingRouter({**CONFIG, "sinks": {"audit": {"type": "no-such-type"}}}):
            pass
