"""Conditions of routes under the real daemon: pub/sub and streams, and a reload that changes them."""

from __future__ import annotations

from collections import Counter
from typing import Any

from router.admin.admin_client import Client
from router.admin.sockets import default_address
from tests.support.daemon import daemon
from tests.test_reload import reload

AUDIT = {"type": "log", "path": "audit.jsonl"}


def setup(*routes: dict[str, Any], **keys: Any) -> dict[str, Any]:
    return {
        "sources": {
            "web": {"type": "pubsub", "channels": ["orders"]},
            "jobs": {"type": "stream", "streams": ["jobs"], "start": "oldest"},
        },
        "sinks": {"audit": AUDIT, "large": {**AUDIT, "path": "large.jsonl"}},
        "routes": list(routes),
        **keys,
    }


def told_by(router: Any) -> Any:
    return Client(default_address(router.folder / "state" / "event-router", "default")).get("/api/status")


def taken(router: Any, name: str = "audit.jsonl") -> Counter[tuple[str, int]]:
    return Counter((line["route"], line["payload"]["n"]) for line in router.lines(name))


async def test_match_and_when_decide_and_one_message_is_delivered_once(redis_server, tmp_path):
    routes = [
        {"id": "large", "match": {"order.total": {"gt": 100}}, "sinks": ["large", "audit"]},
        {"id": "share", "when": "100 / payload.n > 30 and event.headers.region != 'us'", "sinks": ["audit"]},
        {"id": "rest", "channels": ["orders"], "match": {"n": [0, 9]}, "sinks": ["audit"], "expires": "1h"},
    ]
    async with daemon(redis_server, tmp_path, setup(*routes, unmatched="dead-letter")) as router:
        router.publish("orders", *[{"n": n, "order": {"total": 99 + n}} for n in range(4)], {"n": 9}, {"n": 10})
        for n, region in ((20, "eu"), (2, "eu"), (2, "us")):
            redis_server.do("XADD", "jobs", "*", "payload", f'{{"n": {n}}}', "region", region)
        await router.until(lambda: router.count() >= 6 and len(router.letters()) >= 3)
        assert taken(router, "large.jsonl") == {("large", 2): 1, ("large", 3): 1}
        by_share = {("share", 1): 1, ("share", 2): 1}
        assert taken(router) == {("rest", 0): 1, ("large", 2): 1, ("large", 3): 1, ("rest", 9): 1, **by_share}
        assert {(letter["reason"], letter["detail"]) for letter in router.letters()} == {
            ("unmatched", "the conditions of no route are met")
        }
        told = told_by(router)
        assert told["balanced"]
        assert told["expression_failures"] == {"routes.share.when": 1}
        assert told["books"]["sinks"]["audit"]["accepted"] == 6
        assert told["books"]["sources"]["web"]["routed"] == 5
        assert await router.stop() == 0
    (line,) = [each for each in router.process.err.splitlines() if "could not be evaluated" in each]
    assert "routes.share.when" in line
    assert "division by zero" in line


async def test_a_reload_changes_what_a_route_takes(redis_server, tmp_path):
    def one(wanted: object) -> dict[str, Any]:
        return setup({"id": "some", "match": {"flag": wanted}, "sinks": ["audit"]})

    events = [{"n": n, "flag": flag} for n, flag in enumerate((1, True, "x", None))]
    async with daemon(redis_server, tmp_path, one(1)) as router:
        router.publish("orders", *events)
        await router.until(lambda: router.count() == 1)
        await reload(router, one(True))
        await router.until(lambda: "changed some" in router.process.err)
        router.publish("orders", *events)
        await router.until(lambda: router.count() == 2)
        await reload(router, one({"exists": True}))
        router.publish("orders", *events)
        await router.until(lambda: router.count() == 6)
        assert taken(router) == {("some", 0): 2, ("some", 1): 2, ("some", 2): 1, ("some", 3): 1}
        assert await router.stop() == 0
