"""The real router on a stream: ended in order, killed, poisoned."""

import asyncio
import os
import signal
from collections import Counter
from functools import partial

import pytest

from tests.support.daemon import DEAD, daemon
from tests.support.streams import pending

GROUP = "event-router"
CONFIG = {
    "sources": {"billing": {"type": "stream", "streams": ["billing"], "start": "oldest", "claim": {"idle": "3s"}}},
    "schemas": [{"channels": ["billing"], "file": "notification.json"}],
    "sinks": {"audit": {"type": "log", "path": "audit.jsonl"}},
    "routes": [{"id": "all", "sinks": ["audit"]}],
}

KILLER = """
import os
from router.api import hookimpl

async def fragile(event, options):
    if event.payload.get("message") == "poison":
        os._exit(9)

@hookimpl
def register_sinks(register):
    register("fragile", fragile, queue="memory")
"""


def fill(server, numbers, message="m"):
    with server.client() as client:
        pipeline = client.pipeline(transaction=False)
        for number in numbers:
            pipeline.xadd("billing", {"payload": f'{{"user_id": {number}, "message": "{message}"}}'})
        pipeline.execute()


def written(router, number):
    return router.count() >= number


def delivered(router):
    return Counter(line["payload"]["user_id"] for line in router.lines())


@pytest.fixture
def server(start_server):
    return start_server()


async def test_sigterm_under_load_loses_and_repeats_nothing(server, tmp_path):
    fill(server, range(1, 10_001))
    for _ in range(3):
        async with daemon(server, tmp_path, CONFIG) as router:
            target = min(router.count() + 1, 10_000)
            await router.until(partial(written, router, target))
            assert await router.stop() == 0
    async with daemon(server, tmp_path, CONFIG) as router:
        await router.until(lambda: router.count() >= 10_000)
        await router.until(lambda: not pending(server, "billing", GROUP))
        assert await router.stop() == 0
        assert delivered(router) == dict.fromkeys(range(1, 10_001), 1)


async def test_kill_9_loses_nothing(server, tmp_path):
    fill(server, range(1, 5001))
    for _ in range(2):
        async with daemon(server, tmp_path, CONFIG) as router:
            router.process.signal(signal.SIGKILL)
            await asyncio.to_thread(router.process.wait)
    async with daemon(server, tmp_path, CONFIG) as router:
        await router.until(lambda: len(delivered(router)) == 5000 and not pending(server, "billing", GROUP))
        assert set(delivered(router)) == set(range(1, 5001))


async def test_what_can_not_be_taken_is_a_dead_letter_and_acknowledged(server, tmp_path):
    server.do("XADD", "billing", "*", "payload", "no json")
    server.do("XADD", "billing", "*", "payload", '{"user_id": "x"}')
    server.do("XADD", "billing", "*", "data", "x")
    fill(server, [1])
    async with daemon(server, tmp_path, CONFIG) as router:
        await router.until(lambda: router.count() == 1 and len(router.letters()) == 3)
        await router.until(lambda: not pending(server, "billing", GROUP))
        assert sorted(letter["reason"] for letter in router.letters()) == ["decode", "field", "schema"]
        await router.stop()
        assert router.closing()["rejected"] == {"decode": 1, "field": 1, "schema": 1}


async def test_the_one_that_kills_is_given_up_and_the_others_are_delivered(server, tmp_path):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "fragile.py").write_text(KILLER)
    config = {
        **CONFIG,
        "sinks": {**CONFIG["sinks"], "fragile": {"type": "fragile"}},
        "routes": [{"id": "all", "sinks": ["audit", "fragile"]}],
    }
    fill(server, range(1, 501))
    fill(server, [9999], "poison")
    fill(server, range(501, 1001))
    for _ in range(20):
        try:
            async with daemon(server, tmp_path, config) as router:
                # The last entry may not be read before those that were left behind are over.
                await router.until(lambda r=router: server.do("XLEN", DEAD) and 1000 in delivered(r))
                await router.until(lambda: not pending(server, "billing", GROUP))
                break
        except AssertionError as error:
            assert "ended" in str(error)  # noqa: PT017  # it has killed itself again
    [letter] = router.letters()
    assert (letter["reason"], '"poison"' in letter["payload"]) == ("poison", True)
    assert set(delivered(router)) - {9999} == set(range(1, 1001))


async def test_deliver_print_takes_nothing_from_others(server, tmp_path):
    fill(server, [1])
    async with daemon(server, tmp_path, {**CONFIG, "deliver": "print"}) as router:
        fill(server, [2])
        await router.until(lambda: router.count() == 1)
        assert delivered(router) == {2: 1}
    with server.client() as client:
        assert client.xinfo_groups("billing") == []


async def test_the_other_router_finishes_the_work_of_one_that_was_killed(server, tmp_path):
    fill(server, range(1, 3001))
    slow = {**CONFIG["sinks"]["audit"], "concurrency": 1, "batch": {"max_events": 10}}
    config = {**CONFIG, "sinks": {"audit": slow}}
    async with (
        daemon(server, tmp_path / "one", config, arguments=("--instance", "one")) as one,
        daemon(server, tmp_path / "two", config, arguments=("--instance", "two")) as two,
    ):
        os.kill(one.process.pid, signal.SIGKILL)
        await two.until(lambda: not pending(server, "billing", GROUP))
        fill(server, [3001])
        await two.until(lambda: 3001 in delivered(two) and not pending(server, "billing", GROUP))
        assert set(delivered(one)) | set(delivered(two)) == set(range(1, 3002))


async def test_a_durable_queue_takes_the_entries_over(server, tmp_path):
    config = {**CONFIG, "sinks": {"audit": {"type": "log", "path": "audit.jsonl", "queue": "redis"}}}
    fill(server, range(1, 2001))
    async with daemon(server, tmp_path, config) as router:
        await router.until(lambda: router.count() > 0)
        router.process.signal(signal.SIGKILL)
        await asyncio.to_thread(router.process.wait)
    async with daemon(server, tmp_path, config) as router:
        await router.until(lambda: len(delivered(router)) == 2000 and not pending(server, "billing", GROUP))
        assert set(delivered(router)) == set(range(1, 2001))


async def test_sinks_of_both_kinds_under_one_entry(server, tmp_path):
    config = {
        **CONFIG,
        "sinks": {
            "audit": {"type": "log", "path": "audit.jsonl"},
            "kept": {"type": "log", "path": "kept.jsonl", "queue": "redis"},
        },
        "routes": [{"id": "all", "sinks": ["audit", "kept"]}],
    }
    fill(server, range(1, 2001))
    async with daemon(server, tmp_path, config) as router:
        await router.until(lambda: router.count() >= 2000 and router.count("kept.jsonl") >= 2000)
        await router.until(lambda: not pending(server, "billing", GROUP))
        assert await router.stop() == 0
        assert (router.count(), router.count("kept.jsonl")) == (2000, 2000)
    assert server.do("HLEN", "{event-router}:handed-over") == 0


async def test_nothing_is_called_trimmed_when_redis_was_restarted_and_then_the_router(start_server, tmp_path):
    """Redis 7.0 forgets at a restart from its append-only file how much the group has read."""
    server = start_server("redis", options={"appendonly": "yes", "appendfsync": "always"})
    seen = 0
    for _ in range(2):
        async with daemon(server, tmp_path, CONFIG) as router:
            for _ in range(2):
                fill(server, range(seen + 1, seen + 101))
                seen += 100
                await router.until(partial(written, router, seen))
                await router.until(lambda: not pending(server, "billing", GROUP))
                server.do("XTRIM", "billing", "MAXLEN", 10)
                server.kill()
                server.start()
            fill(server, [seen + 1])
            seen += 1
            await router.until(partial(written, router, seen))
            assert await router.stop() == 0
            assert "were trimmed" not in router.process.err
            assert "trimmed" not in router.closing()
