"""`explain` and a running daemon agree: generated routes and events, over reloads, delivery by delivery.

`EXPLAIN_EVENTS` sets the number of events.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter

import pytest

from router.admin.admin_client import Client
from router.admin.sockets import default_address
from router.cli.first_steps import explanation
from router.ops.loading import load
from router.ops.simulation import Message, Simulator, is_made_up
from tests.support.daemon import NOTIFICATION, daemon
from tests.support.http import stand_in
from tests.support.process import run
from tests.test_reload import reload

EVENTS = int(os.environ.get("EXPLAIN_EVENTS", "150"))
RELOADS = 2
SEED = int(os.environ.get("EXPLAIN_SEED", "7"))

CHANNELS = ("a.one", "a.two", "b", "jobs")
MATCHES = [
    {"severity": ["high", "critical"]},
    {"order.total": {"gt": 100}},
    {"order.total": {"gte": 50, "lt": 150}, "severity": {"ne": "low"}},
    {"any": [{"user_id": 1}, {"tags": {"contains": "vip"}}]},
    {"tags.*": {"prefix": "v"}},
    {"order.total": {"exists": False}},
    {"message": {"regex": "^h"}},
]
WHENS = [
    "payload.order.total > 100",
    "payload.user_id % 2 == 0",
    "'vip' in payload.tags",
    "100 / payload.user_id > 30",
    "event.channel == 'b' or payload.severity == 'high'",
    "route == 'r1'",
]
ONLY_IFS = ["payload.user_id != 2", "on(payload.wants, true)", "payload.severity == 'high' or payload.message"]


class Author:
    """Writes configurations and payloads by chance."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance

    def maybe(self, share, value):
        return value if self.chance.random() < share else None

    def route(self, number, sinks):
        chance = self.chance
        chosen = chance.sample(sinks, chance.randint(1, 2))
        entries = [
            {"sink": name, "text": "own {{ payload.message }}"} if name == "chat" and chance.random() < 0.3 else name
            for name in chosen
        ]
        keys = {
            "sources": self.maybe(0.2, [chance.choice(["web", "work"])]),
            "channels": self.maybe(0.4, chance.choice([["a.*"], ["b", "jobs"], ["a.one"]])),
            "match": self.maybe(0.6, chance.choice(MATCHES)),
            "when": self.maybe(0.3, chance.choice(WHENS)),
            "expires": self.maybe(0.2, chance.choice(["1h", "{{ payload.until }}"])),
            "final": self.maybe(0.15, True),
            "enabled": self.maybe(0.1, False),
        }
        written = {key: value for key, value in keys.items() if value is not None}
        return {"id": f"r{number}", "sinks": entries, **written}

    def setup(self, url):
        chance = self.chance
        chat = {
            "type": "chat",
            "service": "telegram",
            "token": "8123456789:AAE-fictitious-token",
            "api": url,
            "allow_private": True,
            "to": "{{ payload.to }}",
            "text": "{{ event.channel }}: {{ payload.message }}",
            **({"only_if": chance.choice(ONLY_IFS)} if chance.random() < 0.7 else {}),
        }
        sinks = {
            "chat": chat,
            "audit": {"type": "log", "path": "audit.jsonl"},
            "lines": {"type": "log", "path": "lines.txt", "template": "{{ payload.order.total }}"},
            "some": {"type": "log", "path": "some.jsonl", "only_if": chance.choice(ONLY_IFS)},
        }
        return {
            "sources": {
                "web": {"type": "pubsub", "channels": ["a.*", "b"], "id": "id", "max_bytes": 2000},
                "work": {"type": "stream", "streams": ["jobs"], "start": "oldest", "id": "id"},
            },
            "schemas": [
                {"channels": ["b"], "file": "notification.json", "mode": chance.choice(["enforce", "warn"])},
                {"channels": ["a.two"], "file": "notification.json"},
            ],
            "sinks": sinks,
            "routes": [self.route(number, list(sinks)) for number in range(chance.randint(3, 7))],
            "unmatched": chance.choice(["drop", "dead-letter", ["audit"]]),
        }

    def payload(self, number):
        chance = self.chance
        fields = {
            "user_id": chance.choice([0, 1, 2, 3, "x"]),
            "message": chance.choice(["hello", "hey you", "bye", ""]),
            "severity": chance.choice(["low", "high", "critical", 5]),
            "order": chance.choice([{"total": chance.choice([10, 50, 100.5, 150, "x"])}, {}]),
            "tags": chance.choice([["vip"], ["new", "vip"], [], "vip"]),
            "to": chance.choice([f"{chance.randint(1, 9)}", "", ["1", "2"], "3\n4"]),
            "wants": chance.choice(["yes", "no", "perhaps", None]),
            "until": chance.choice(["2020-01-01T00:00:00Z", "2099-01-01T00:00:00Z", "soon"]),
        }
        kept = {key: value for key, value in fields.items() if chance.random() < 0.85}
        if chance.random() < 0.04:
            return b'{"id": "e-%d", ' % number + b"x" * chance.choice([1, 3000])
        return json.dumps({"id": f"e-{number}", **kept}).encode()


def told_by(router):
    return Client(default_address(router.folder / "state" / "event-router", "default")).get("/api/status")


async def published(router, events, sent):
    """Publish events, and wait until all that came of them is over."""
    with router.server.client() as client:
        for channel, raw in events:
            if channel == "jobs":
                client.xadd(channel, {"payload": raw})
            else:
                client.publish(channel, raw)

    def over():
        status = told_by(router)
        books = status["books"]
        received = sum(book["received"] for book in books["sources"].values())
        waiting = sum(book["pending"] for book in books["sinks"].values())
        # The books of queues in Redis are read now and then: they may not know yet what the router has planned.
        known = sum(book["accepted"] for book in books["sinks"].values()) >= books["process"]["planned"]
        return received == sent and known and not waiting and status["balanced"]

    await router.until(over, "for all deliveries to be over")


def explained(config, channel, raw):
    """What `explain --json` prints of an event, as data."""
    found = Simulator(config).simulate(Message(channel.encode(), raw, time.time()))
    return json.loads(json.dumps(explanation.document(found), default=lambda value: json.loads(bytes(value))))


def fates(document):
    """The deliveries of an explanation, as (event, route, sink, reason or addresses)."""
    for each in document["deliveries"]:
        end = each["suppressed"] or ", ".join(each["to"]) or None
        yield document["event"]["id"], each["route"], each["sink"], end


def settled(router):
    """The deliveries that the daemon settled, in the same form, and the events that it routed nowhere."""
    deliveries, nowhere = Counter(), Counter()
    for text in router.process.err.splitlines():
        line = json.loads(text) if text.startswith("{") else {}
        if line.get("event") == "event not routed":
            nowhere[line["outcome"], line.get("reason")] += 1
        elif line.get("event") == "delivery settled" and line["outcome"] != "handed_over":
            end = line.get("address") if line["outcome"] == "delivered" else line["reason"]
            deliveries[line["event_id"], line["route"], line["sink"], end] += 1
    return deliveries, nowhere


def steady(document):
    """An explanation without what is new each time: when the event came, and an id that it did not bring itself."""
    event = {key: value for key, value in document["event"].items() if key != "received_at"}
    return {**document, "event": {**event, "id": "" if is_made_up(event["id"]) else event["id"]}}


async def generation(router, author, first, number):
    """Publish events under the configuration in force; return what `explain` says of them."""
    config = load(router.folder / "config.yaml", environ={})
    events = [(author.chance.choice(CHANNELS), author.payload(first + n)) for n in range(number)]
    await published(router, events, first + number)
    documents = [explained(config, *event) for event in events]
    for place in author.chance.sample(range(number), 2):  # the command itself prints what was compared
        channel, raw = events[place]
        done = run("explain", "--json", "--channel", channel, "-", cwd=router.folder, stdin=raw.decode() + "\n")
        printed, known = json.loads(done.out), documents[place]
        assert done.code == (0 if any(not each["suppressed"] for each in known["deliveries"]) else 1)
        assert steady(printed) == steady(known)
    return documents


@pytest.mark.parametrize("kind", ["valkey"])
async def test_explain_and_the_daemon_agree(redis_server, tmp_path, kind):
    author = Author(random.Random(SEED))
    each = EVENTS // (RELOADS + 1)
    documents = []
    async with stand_in() as bot:
        arguments = ("--log-level", "debug", "--log-format", "json")
        async with daemon(redis_server, tmp_path, author.setup(bot.url), arguments=arguments) as router:
            assert (tmp_path / "notification.json").read_text() == json.dumps(NOTIFICATION)
            for number in range(RELOADS + 1):
                if number:
                    await reload(router, {"redis": {"url": redis_server.url}, **author.setup(bot.url)})
                documents += await generation(router, author, number * each, each)
            assert await router.stop() == 0
            deliveries, nowhere = settled(router)
        posts = Counter((str(seen.json["chat_id"]), seen.json["text"]) for seen in bot.requests)
    assert Counter(fate for document in documents for fate in fates(document)) == deliveries
    expected = Counter(
        (document["outcome"], document["schema"]["errors"][0]["keyword"])
        for document in documents
        if document["outcome"] == "rejected"
    )
    assert sum(nowhere.values()) == sum(
        document["outcome"] == "rejected" or not document["deliveries"] for document in documents
    )
    rejected = Counter({reason: n for (outcome, reason), n in nowhere.items() if outcome == "rejected"})
    told = Counter()
    for (_, keyword), number in expected.items():
        told[keyword if keyword in {"decode", "too_large"} else "schema"] += number
    assert rejected == told
    assert posts == Counter(
        (address, one["rendered"]["text"])
        for document in documents
        for one in document["deliveries"]
        if one["sink"] == "chat" and one["suppressed"] is None
        for address in one["to"]
    )
    for document in documents:
        matched = {route["id"] for route in document["routes"] if route["matched"]}
        by = {name for one in document["deliveries"] for name in (one["route"], *one["merged"])}
        assert matched == by - {"unmatched"}
    ends = {fate[3] for fate in deliveries}
    assert {"only_if", "no_address", "template", "address", "expired"} <= ends, "the generator is too tame"
    assert {"decode", "too_large", "schema"} <= rejected.keys()
