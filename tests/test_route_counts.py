"""What the daemon counts for its routes and for schemas that only warn: in its metrics and in `status`, across reloads."""

from __future__ import annotations

import asyncio
import urllib.request
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from router.admin.admin_client import Client
from router.config.scalars import Address
from tests.support.daemon import Daemon, daemon
from tests.support.process import run
from tests.support.redis import free_port
from tests.support.waiting import PATIENCE
from tests.test_reload import reload

AUDIT = {"type": "log", "path": "audit.jsonl"}


def setup(port: int, *routes: dict[str, Any], **keys: Any) -> dict[str, Any]:
    return {
        "admin": {"listen": f"127.0.0.1:{port}"},
        "sources": {
            "web": {"type": "pubsub", "channels": ["orders", "other"]},
            "jobs": {"type": "stream", "streams": ["jobs"], "start": "oldest"},
        },
        "sinks": {"audit": AUDIT, "queued": {**AUDIT, "path": "queued.jsonl", "queue": "redis"}},
        "routes": list(routes),
        **keys,
    }


def route(name: str, *sinks: str, **keys: Any) -> dict[str, Any]:
    return {"id": name, "sinks": list(sinks or ("audit",)), **keys}


def told_by(port: int) -> Any:
    return Client(Address(None, "127.0.0.1", port)).get("/api/status")


def taken(port: int) -> dict[str, int]:
    """How many events each route took, by the metrics; `status` says the same."""
    told = {name: each["events"] for name, each in told_by(port)["routes"].items()}
    assert series(port, "event_router_route_events_total", "route") == told
    return told


def series(port: int, name: str, label: str) -> dict[str, int]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        samples = [sample for family in families for sample in family.samples if sample.name == name]
    return {sample.labels[label]: int(sample.value) for sample in samples}


async def replay(router: Daemon) -> None:
    done = await asyncio.to_thread(run, "dlq", "replay", "-c", router.folder / "config.yaml", cwd=router.folder)
    assert done.code == 0, done.err


async def test_routes_count_what_they_take_and_a_reload_keeps_the_counts_of_those_that_stay(redis_server, tmp_path):
    port = free_port()
    routes = [
        route("everything", channels=["orders", "jobs"]),
        route("large", "audit", "queued", match={"total": {"gt": 100}}),
        route("odd", when="payload.n % 2 == 1", channels=["orders"], final=True),
        route("rest", "queued", channels=["orders"]),
        route("off", enabled=False),
    ]
    async with daemon(redis_server, tmp_path, setup(port, *routes, unmatched="dead-letter")) as router:
        assert taken(port) == {"everything": 0, "large": 0, "odd": 0, "rest": 0}
        router.publish("orders", *[{"n": n, "total": 98 + n} for n in range(6)])
        for n in range(4):
            redis_server.do("XADD", "jobs", "*", "payload", f'{{"n": {n}, "total": {n * 200}}}')
        router.publish("other", {"n": 1})
        expected = {"everything": 10, "large": 6, "odd": 3, "rest": 3}
        await router.until(lambda: taken(port) == expected and len(router.letters()) == 1)
        told = told_by(port)
        assert told["balanced"]
        assert told["books"]["sinks"]["audit"]["accepted"] == 10  # one message, once
        assert sum(book["routed"] for book in told["books"]["sources"].values()) == 10

        others = [route("new", match={"n": 1}), routes[0], route("large", match={"total": {"gt": 1000}})]
        await reload(router, setup(port, *others))
        assert taken(port) == {"new": 0, "everything": 10, "large": 6}
        await replay(router)  # the letter takes the whole way again
        router.publish("orders", {"n": 1, "total": 9999}, {"n": 2})
        await router.until(lambda: taken(port) == {"new": 2, "everything": 12, "large": 7})

        await reload(router, setup(port, *routes))
        assert taken(port) == {"everything": 12, "large": 7, "odd": 0, "rest": 0}
        assert told_by(port)["balanced"]
        assert await router.stop() == 0


async def test_events_that_a_schema_only_warns_of_are_counted(redis_server, tmp_path):
    port = free_port()
    schemas = [{"channels": ["orders", "jobs"], "file": "notification.json", "mode": "warn"}]
    async with daemon(redis_server, tmp_path, setup(port, route("all"), schemas=schemas)) as router:
        assert series(port, "event_router_schema_warnings_total", "source") == {"web": 0, "jobs": 0}
        router.publish("orders", {"user_id": 1, "message": "hi"}, {"user_id": 0}, {"user_id": "1"})
        router.publish("other", {"user_id": "1"})
        redis_server.do("XADD", "jobs", "*", "payload", "{}")
        await router.until(lambda: taken(port) == {"all": 5})
        assert series(port, "event_router_schema_warnings_total", "source") == {"web": 2, "jobs": 1}
        told = told_by(port)
        assert {name: each["schema_warnings"] for name, each in told["sources"].items()} == {"web": 2, "jobs": 1}
        assert told["balanced"]
        assert await router.stop() == 0
