"""The webpush sink: what a browser gets, who is said to send it, and what each answer of a push service means."""

import asyncio
import json

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from router.errors import GoneError, PartialError, PermanentError, SinkError, TransientError
from tests.support.browsers import SUBJECT, VAPID_PUBLIC, Browser, bytes_of, decrypt, pushing
from tests.support.http import Reply
from tests.support.sinks import RECEIVED, make_event, plugin_module
from tests.support.waiting import until

CREATED = Reply(201, headers={"Location": "https://push.example.org/m/1"})


def order(*browsers, **more):
    """An event for these browsers."""
    found = [browser.subscription for browser in browsers]
    return make_event({"id": 7, "message": "On its way: 你好", "browsers": found, **more})


async def failure(sink, event):
    """The error of a delivery."""
    with pytest.raises((TransientError, PermanentError, GoneError, SinkError, PartialError)) as raised:
        await sink.deliver(event)
    return raised.value


def test_the_decryption_of_these_tests_is_that_of_the_rfc():
    """RFC 8291, appendix A."""
    body = bytes_of(
        "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27ml"
        "mlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPT"
        "pK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
    )
    number = int.from_bytes(bytes_of("q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"), "big")
    private = ec.derive_private_key(number, ec.SECP256R1())
    plain = decrypt(body, private, bytes_of("BTBZMqHH6r4Tts7J_aSIgg"))
    assert plain == b"When I grow up, I want to be a watermelon"


async def test_a_browser_gets_a_notification_that_it_alone_can_read():
    async with pushing(ttl="10m", urgency="{{ payload.urgency }}") as (service, sink):
        service.default = CREATED
        jane = Browser(service.url)
        assert await sink.deliver(order(jane, urgency="high")) == "HTTP 201"
        assert await sink.deliver(order(jane, urgency="low")) == "HTTP 201"
    first, second = service.requests
    assert (first.method, first.path) == ("POST", jane.path)
    sent = {name: first.headers[name] for name in ("TTL", "Urgency", "Content-Encoding", "Content-Type")}
    assert sent == {
        "TTL": "600",
        "Urgency": "high",
        "Content-Encoding": "aes128gcm",
        "Content-Type": "application/octet-stream",
    }
    assert second.headers["Urgency"] == "low"
    shown = jane.read(first.body)
    assert len(shown.pop("tag")) == 32
    assert shown == {
        "title": "Order 7",
        "body": "On its way: 你好",
        "timestamp": int(RECEIVED.timestamp() * 1000),
        "data": {"id": "e-1", "channel": "notification"},
    }
    assert jane.read(second.body)["tag"] == jane.read(first.body)["tag"]
    assert first.body[:86] != second.body[:86], "each message has a salt and a key of its own"


async def test_the_sender_proves_who_it_is():
    """RFC 8292: a JWT signed by ES256 for the origin of the push service, and the public key beside it."""
    async with pushing(ttl="0s") as (service, sink):
        jane = Browser(service.url)
        for _ in range(2):
            await sink.deliver(order(jane))
    one, other = (seen.headers["Authorization"] for seen in service.requests)
    assert one == other, "a token is used until it nears its end"
    assert service.last.headers["TTL"] == "0"
    scheme, _, rest = one.partition(" ")
    parts = dict(part.strip().split("=", 1) for part in rest.split(","))
    assert (scheme, parts.keys(), parts["k"]) == ("vapid", {"t", "k"}, VAPID_PUBLIC)
    signed, _, signature = parts["t"].rpartition(".")
    head, claims = (json.loads(bytes_of(part)) for part in signed.split("."))
    assert head == {"typ": "JWT", "alg": "ES256"}
    assert (claims["aud"], claims["sub"]) == (service.url, SUBJECT)
    left = claims["exp"] - sink.context.clock.now()
    assert 3600 < left < 24 * 3600
    raw = bytes_of(signature)
    numbers = (int.from_bytes(half, "big") for half in (raw[:32], raw[32:]))
    public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), bytes_of(VAPID_PUBLIC))
    public.verify(encode_dss_signature(*numbers), signed.encode(), ec.ECDSA(hashes.SHA256()))


async def test_what_is_too_long_is_never_sent():
    async with pushing(title="t", text="{{ payload.message }}") as (service, sink):
        jane = Browser(service.url)
        await sink.deliver(order(jane, message=""))
        room = 3993 - len(json.dumps(jane.read(service.last.body), separators=(",", ":")))
        await sink.deliver(order(jane, message="x" * room))
        assert len(service.last.body) == 4096
        error = await failure(sink, order(jane, message="x" * (room + 1)))
    assert type(error) is PermanentError
    assert "(in bytes: 3,994, at most 3,993): shorten `text`" in str(error)
    assert len(service.requests) == 2


@pytest.mark.parametrize(
    ("reply", "kind", "seconds"),
    [
        (Reply(404), GoneError, None),
        (Reply(410, body=b"unsubscribed"), GoneError, None),
        (Reply(413), PermanentError, None),
        (Reply(400, body=b"no TTL"), PermanentError, None),
        (Reply(302, headers={"Location": "https://example.org"}), PermanentError, None),
        (Reply(429, headers={"Retry-After": "17"}), TransientError, 17.0),
        (Reply(503, headers={"Retry-After": "120"}), TransientError, 120.0),
        (Reply(500), TransientError, None),
        (Reply(401), SinkError, None),
        (Reply(403, body=b"BadJwtToken"), SinkError, None),
    ],
)
async def test_what_an_answer_means(reply, kind, seconds):
    async with pushing() as (service, sink):
        service.script(reply)
        error = await failure(sink, order(Browser(service.url)))
    assert type(error) is kind
    assert str(error).startswith(f"HTTP {reply.status}")
    assert getattr(error, "retry_after", None) == seconds
    if kind is TransientError:
        assert error.scope == "address", "a push service holds up its own browsers alone"


async def test_a_refusal_is_that_of_one_browser_once_another_was_reached():
    """Any user can subscribe with a server that refuses everything: that must not hold up the others."""
    async with pushing() as (service, sink):
        jane, eve = Browser(service.url, "jane"), Browser(service.url, "eve")
        service.rule = lambda seen: Reply(403) if seen.path == eve.path else CREATED
        assert type(await failure(sink, order(eve))) is SinkError
        again = await failure(sink, order(eve))
        assert (type(again), again.retry_after, again.scope) == (TransientError, 600.0, "address")
        await sink.deliver(order(jane))
        mallory = Browser("https://127.0.0.1:9", "mallory")
        mallory.path, mallory.endpoint = eve.path, f"{service.url}{eve.path}?new"
        assert type(await failure(sink, order(mallory))) is TransientError


async def test_each_browser_fails_alone_and_the_app_is_told_of_those_that_are_gone():
    published = []

    class Redis:
        async def call(self, *words):
            published.append(words)

    async with pushing(gone={"publish": "push:gone"}) as (service, sink):
        sink.context.redis = Redis()
        jane, old, busy = (Browser(service.url, name) for name in ("jane", "old", "busy"))
        answers = {old.path: Reply(410), busy.path: Reply(429, headers={"Retry-After": "9"})}
        service.rule = lambda seen: answers.get(seen.path, CREATED)
        broken = {**jane.subscription, "endpoint": f"{service.url}/broken", "keys": {"auth": "x"}}
        event = order(jane, old, busy, user_id=42)
        event.payload["browsers"].append(broken)
        error = await failure(sink, event)
        assert sorted(seen.path for seen in service.requests) == [busy.path, jane.path, old.path]
    assert {endpoint: type(each) for endpoint, each in error.failures.items()} == {
        old.endpoint: GoneError,
        busy.endpoint: TransientError,
        broken["endpoint"]: PermanentError,
    }
    [(command, channel, told)] = published
    assert (command, channel) == ("PUBLISH", "push:gone")
    told = json.loads(told)
    assert (told["endpoint"], told["status"], told["sink"]) == (old.endpoint, 410, "sink-under-test")
    assert (told["event"]["id"], told["event"]["payload"]["user_id"]) == ("e-1", 42)


async def test_an_app_that_can_not_be_told_costs_one_line_of_the_log():
    class Redis:
        async def call(self, *_words):
            raise SinkError("NOPERM")

    async with pushing(gone={"publish": "push:gone"}) as (service, sink):
        sink.context.redis = Redis()
        service.default = Reply(410)
        for _ in range(2):
            assert type(await failure(sink, order(Browser(service.url)))) is GoneError
    [line] = sink.context.logged
    assert (line["level"], line["channel"], line["error"]) == ("warning", "push:gone", "NOPERM")


class Counting:
    """An HTTP client that counts the answers that it has handed over."""

    def __init__(self, client):
        self.client = client
        self.answers = 0

    async def request(self, *words, **more):
        answer = await self.client.request(*words, **more)
        self.answers += 1
        return answer


async def test_an_attempt_that_was_cut_off_does_not_repeat_what_was_sent():
    async with pushing() as (service, sink):
        jane, slow = Browser(service.url, "jane"), Browser(service.url, "slow")
        service.rule = lambda seen: Reply(how="hang") if seen.path == slow.path else CREATED
        event = order(jane, slow)
        counting = sink.context.http = Counting(sink.context.http)
        first = asyncio.create_task(sink.deliver(event))
        await until(lambda: len(service.requests) == 2 and counting.answers)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        service.rule = None
        assert await sink.deliver(event) == "HTTP 201, HTTP 200"
        assert [seen.path for seen in service.requests].count(jane.path) == 1


async def test_an_attempt_that_was_cut_off_does_not_ask_again_who_has_failed():
    async with pushing() as (service, sink):
        old, slow = Browser(service.url, "old"), Browser(service.url, "slow")
        service.rule = lambda seen: Reply(how="hang") if seen.path == slow.path else Reply(410)
        event = order(old, slow)
        counting = sink.context.http = Counting(sink.context.http)
        first = asyncio.create_task(sink.deliver(event))
        await until(lambda: len(service.requests) == 2 and counting.answers)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        service.rule = None
        error = await failure(sink, event)
        assert {endpoint: type(each) for endpoint, each in error.failures.items()} == {old.endpoint: GoneError}
        assert [seen.path for seen in service.requests].count(old.path) == 1


async def test_a_push_service_without_an_answer_is_the_failure_of_its_browsers_alone(monkeypatch):
    async with pushing() as (service, sink):
        jane, slow = Browser(service.url, "jane"), Browser(service.url, "slow")
        await sink.deliver(order(jane))
        monkeypatch.setitem(vars(plugin_module("webpush"))["_names"], "REQUEST_TIMEOUT", 0.3)
        service.rule = lambda seen: Reply(how="hang") if seen.path == slow.path else CREATED
        error = await failure(sink, order(slow, jane))
    assert str(error.failures[slow.endpoint]) == "the push service did not answer within 0.3 s"


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("http://push.example.org/1", "not an https:// URL"),
        ("https:///1", "not an https:// URL"),
        ("ftp://push.example.org/1", "not an https:// URL"),
        ("https://127.0.0.1/1", "private address"),
        ("https://[::1]/1", "IPv6 address"),
        ("https://metadata.localhost/1", "private address"),
    ],
)
async def test_an_endpoint_can_not_lead_inside(endpoint, said):
    async with pushing(allow_private=False) as (service, sink):
        jane = Browser(service.url)
        jane.endpoint = endpoint
        error = await failure(sink, order(jane))
    assert type(error) is PermanentError
    assert said in str(error)
    assert endpoint not in str(error)
    assert service.requests == []


@pytest.mark.parametrize(
    "change",
    [
        {"keys": None},
        {"keys": {}},
        {"keys": {"p256dh": "AAAA", "auth": "AAAAAAAAAAAAAAAAAAAAAA"}},
        {"keys": {"p256dh": "B" + "A" * 86, "auth": "AAAAAAAAAAAAAAAAAAAAAA"}},
        {"keys": {"p256dh": VAPID_PUBLIC, "auth": "short"}},
        {"keys": {"p256dh": 7, "auth": "AAAAAAAAAAAAAAAAAAAAAA"}},
    ],
)
async def test_keys_that_are_none_fail_for_good(change):
    async with pushing() as (service, sink):
        event = order(Browser(service.url))
        event.payload["browsers"][0].update(change)
        error = await failure(sink, event)
    assert type(error) is PermanentError
    assert "subscription" in str(error)
    assert service.requests == []
