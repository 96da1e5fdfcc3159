"""Lists as sources and CloudEvents as messages, with the real daemon."""

import base64
import json
import signal

from tests.support.daemon import daemon
from tests.support.lists import items, left

NOTIFICATION = {"channels": ["jobs", "notification"], "file": "notification.json"}


def setup(source, **keys):
    return {
        "sources": {"in": source},
        "schemas": [NOTIFICATION],
        "sinks": {"audit": {"type": "log", "path": "audit.jsonl", "queue": "memory"}},
        "routes": [{"id": "all", "sinks": ["audit"]}],
        **keys,
    }


def jobs(*numbers):
    return [json.dumps({"user_id": number, "message": "do it"}) for number in numbers]


def lines(running):
    file = running.folder / "audit.jsonl"
    written = file.read_bytes() if file.exists() else b""
    return [json.loads(line) for line in written[: written.rfind(b"\n") + 1].splitlines()]


async def test_a_plain_lpush_is_enough(redis_server, tmp_path):
    with redis_server.client() as client:
        client.lpush("jobs", *jobs(1, 2), "{broken", *jobs(3))
        async with daemon(redis_server, tmp_path / "a", setup({"type": "list", "keys": ["jobs"]})) as running:
            await running.until(lambda: len(lines(running)) == 3)
            client.lpush("jobs", *jobs(4))
            await running.until(lambda: len(lines(running)) == 4)
            assert [line["payload"]["user_id"] for line in lines(running)] == [1, 2, 3, 4]
            assert {(line["source"], line["channel"]) for line in lines(running)} == {("in", "jobs")}
            await running.until(lambda: len(running.letters()) == 1)
            assert [(letter["reason"], letter["payload"]) for letter in running.letters()] == [("decode", "{broken")]
            assert await running.stop() == 0
            closing = running.closing()
            assert (closing["received"], closing["delivered"], closing["rejected"]) == (5, 4, {"decode": 1})
        assert client.keys("*jobs*") == [items().encode()]
        assert left(client) == 0


async def test_kill_9_of_one_of_two_loses_nothing(redis_server, tmp_path):
    total = 2000
    config = setup({"type": "list", "keys": ["jobs"], "lease": "2s", "max_in_flight": 50})
    with redis_server.client() as client:
        async with (
            daemon(redis_server, tmp_path / "a", config, arguments=("--instance", "a")) as first,
            daemon(redis_server, tmp_path / "b", config, arguments=("--instance", "b")) as second,
        ):
            for begin in range(0, total, 100):
                client.lpush("jobs", *jobs(*range(begin + 1, begin + 101)))
                if begin == total // 2:
                    await first.until(lambda: first.count("audit.jsonl") and second.count("audit.jsonl"))
                    first.process.signal(signal.SIGKILL)
            await second.until(lambda: len(_seen(first, second)) == total, "for the other router's items")
            both = first.count("audit.jsonl") + second.count("audit.jsonl")
            assert total <= both <= total + 50
            await second.until(lambda: left(client) == 0)
            assert await second.stop() == 0


def _seen(*routers):
    seen = set()
    for running in routers:
        file = running.folder / "audit.jsonl"
        for line in file.read_bytes().split(b"\n")[:-1] if file.exists() else []:
            seen.add(json.loads(line)["payload"]["user_id"])
    return seen


CRASH = """
import os
from router.api import hookimpl

def crash(event, options):
    if event.payload["message"] == "poison":
        os._exit(9)
    with open(os.path.join(os.path.dirname(__file__), "..", "delivered"), "a") as file:
        file.write(f"{event.payload['user_id']}\\n")

@hookimpl
def register_sinks(register):
    register("crash", crash)
"""


def _numbers(folder):
    file = folder / "delivered"
    return {int(line) for line in file.read_text().split("\n")[:-1]} if file.exists() else set()


async def test_what_kills_the_process_is_found_and_its_neighbours_are_delivered(redis_server, tmp_path):
    folder = tmp_path / "a"
    (folder / "plugins").mkdir(parents=True)
    (folder / "plugins" / "crash.py").write_text(CRASH)
    config = setup({"type": "list", "keys": ["jobs"], "max_deliveries": 3})
    config["sinks"] = {"crash": {"type": "crash", "queue": "memory", "concurrency": 1}}
    config["routes"] = [{"id": "all", "sinks": ["crash"]}]
    deaths, letters = 0, []
    with redis_server.client() as client:
        client.lpush(
            "jobs", *jobs(*range(1, 61)), json.dumps({"user_id": 99, "message": "poison"}), *jobs(*range(61, 91))
        )
        while not letters:
            try:
                async with daemon(redis_server, folder, config) as running:
                    await running.until(lambda r=running: r.letters() and len(_numbers(folder)) == 90)
                    letters = running.letters()
                    assert await running.stop() == 0
            except AssertionError:
                deaths += 1
                assert deaths < 10
        assert [(letter["reason"], json.loads(letter["payload"])["user_id"]) for letter in letters] == [("poison", 99)]
        assert _numbers(folder) == set(range(1, 91))
        assert deaths == 4
        assert left(client) == 0


FLAKY = """
from router.api import TransientError, hookimpl

tried = set()

def flaky(event, options):
    if event.id not in tried:
        tried.add(event.id)
        raise TransientError("not now")

@hookimpl
def register_sinks(register):
    register("flaky", flaky)
"""


async def test_what_is_tried_again_stays_in_hand_until_it_is_delivered(redis_server, tmp_path):
    folder = tmp_path / "a"
    (folder / "plugins").mkdir(parents=True)
    (folder / "plugins" / "flaky.py").write_text(FLAKY)
    config = setup({"type": "list", "keys": ["jobs"]})
    config["sinks"]["flaky"] = {
        "type": "flaky",
        "queue": "memory",
        "retry": {"initial": "100ms"},
        "breaker": {"failures": 1000},
    }
    config["routes"] = [{"id": "all", "sinks": ["audit", "flaky"]}]
    with redis_server.client() as client:
        client.lpush("jobs", *jobs(*range(1, 51)))
        async with daemon(redis_server, folder, config) as running:
            await running.until(lambda: left(client) == 0)
            assert await running.stop() == 0
            assert running.closing()["delivered"] == 100


async def test_from_a_list_through_redis_queues_nothing_is_lost_or_left(redis_server, tmp_path):
    total = 1000
    config = setup({"type": "list", "keys": ["jobs"]})
    config["sinks"]["audit"]["queue"] = "redis"
    with redis_server.client() as client:
        async with daemon(redis_server, tmp_path / "a", config) as running:
            client.lpush("jobs", *jobs(*range(1, total + 1)))
            await running.until(lambda: running.count("audit.jsonl") > 0)
            running.process.signal(signal.SIGKILL)
        async with daemon(redis_server, tmp_path / "a", config) as running:
            await running.until(lambda: len(_seen(running)) == total)
            await running.until(lambda: left(client) == 0)
            assert await running.stop() == 0
        assert running.count("audit.jsonl") < total + 1200


async def test_sigterm_repeats_nothing(redis_server, tmp_path):
    total = 1500
    config = setup({"type": "list", "keys": ["jobs"]})
    with redis_server.client() as client:
        client.lpush("jobs", *jobs(*range(1, total + 1)))
        for _ in range(3):
            async with daemon(redis_server, tmp_path / "a", config) as running:
                before = running.count("audit.jsonl")
                await running.until(lambda r=running, n=before: r.count("audit.jsonl") > n or client.llen("jobs") == 0)
                assert await running.stop() == 0
        async with daemon(redis_server, tmp_path / "a", config) as running:
            await running.until(lambda: running.count("audit.jsonl") == total)
            assert await running.stop() == 0
        assert [line["payload"]["user_id"] for line in lines(running)] == list(range(1, total + 1))


async def test_printing_leaves_lists_alone(redis_server, tmp_path):
    config = setup({"type": "list", "keys": ["jobs"]}, deliver="print")
    with redis_server.client() as client:
        client.lpush("jobs", *jobs(1))
        async with daemon(redis_server, tmp_path / "a", config) as running:
            await running.until(lambda: "a list is not read" in running.process.err)
            assert await running.stop() == 0
        assert client.keys("*") == [b"jobs"]


async def test_a_heartbeat_stands_wherever_a_router_shares_work(redis_server, start_server, tmp_path):
    other = start_server()
    config = setup({"type": "list", "keys": ["jobs"], "url": other.url})
    with redis_server.client() as own, other.client() as there:

        def beats():
            return own.keys("{event-router}:router:*-a"), there.keys("{jobs}:event-router:router:*-a")

        async with daemon(redis_server, tmp_path / "a", config, arguments=("--instance", "a")) as running:
            await running.until(lambda: all(beats()))
            ((here,), (beside,)) = beats()
            assert own.get(here) == there.get(beside)
            assert await running.stop() == 0
        assert beats() == ([], [])


async def test_cloudevents(redis_server, tmp_path):
    def envelope(**changes):
        data = {"user_id": 7, "message": "größer"}
        fields = {"specversion": "1.0", "id": "A-1", "source": "/shop", "type": "order.paid", "data": data}
        return {name: value for name, value in (fields | changes).items() if value is not None}

    config = setup({"type": "pubsub", "channels": ["notification"], "format": "cloudevents"})
    encoded = base64.b64encode(b'{"user_id": 8, "message": "coded"}').decode()
    async with daemon(redis_server, tmp_path / "a", config) as running:
        running.publish(
            "notification",
            envelope(),
            envelope(data=None, data_base64=encoded, id="A-2"),
            envelope(id=None),
            envelope(data={"user_id": 0, "message": "bad"}),
            b'{"specversion":"1.0","id":"A-3","source":"/shop","type":"t","data":{"user_id": 9 ,"message":"x","n":1.00}}',
        )
        await running.until(lambda: running.count("audit.jsonl") == 3 and len(running.letters()) == 2)
        assert [(line["id"], line["payload"]["user_id"]) for line in lines(running)] == [
            ("/shop#A-1", 7),
            ("/shop#A-2", 8),
            ("/shop#A-3", 9),
        ]
        assert '"payload":{"user_id": 9 ,"message":"x","n":1.00}' in (running.folder / "audit.jsonl").read_text()
        letters = running.letters()
        assert [letter["reason"] for letter in letters] == ["decode", "schema"]
        assert "`id` is missing" in letters[0]["detail"]
        assert json.loads(letters[1]["payload"])["source"] == "/shop"
        assert await running.stop() == 0


async def test_an_id_from_the_payload(redis_server, tmp_path):
    config = setup({"type": "list", "keys": ["jobs"], "id": "order.number"})
    with redis_server.client() as client:
        good = {"user_id": 1, "message": "m", "order": {"number": "B-17"}}
        client.lpush("jobs", json.dumps(good), *jobs(2))
        async with daemon(redis_server, tmp_path / "a", config) as running:
            await running.until(lambda: running.count("audit.jsonl") == 2)
            first, second = (line["id"] for line in lines(running))
            last = client.xinfo_stream(items())["last-generated-id"]
            assert first == "B-17"
            assert second == f"jobs/{last.decode()}"
            assert await running.stop() == 0
