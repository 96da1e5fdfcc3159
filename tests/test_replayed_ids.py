"""A dead letter that is replayed and fails again keeps its id, whichever router replays it and whatever is killed."""

import asyncio

from tests.support.daemon import DEAD, daemon
from tests.support.process import run
from tests.support.redis import free_port

GOOD, BAD = {"user_id": 1, "message": "hi"}, {"user_id": "x", "message": "hi"}


def setup(*, schemas):
    dead = {"type": "chat", "service": "slack", "url": f"http://127.0.0.1:{free_port()}/", "text": "hi"}
    dead |= {"allow_private": True, "retry": {"attempts": 1}}
    split = {"type": "failing", "to": ["a@x", "b@x"], "retry": {"attempts": 1}, "queue": "memory"}
    return {
        "sources": {"web-app": {"type": "pubsub", "channels": ["notification"]}},
        "schemas": [{"channels": ["notification"], "file": "notification.json"}] if schemas else [],
        "sinks": {"one": dead, "two": {**dead, "queue": "memory"}, "split": split},
        "routes": [{"id": "all", "sinks": ["one", "two", "split"]}],
    }


SPLIT = """\
from router.api import Addresses, PartialError, PermanentError, SinkOptions, hookimpl


class Options(SinkOptions):
    to: Addresses


async def failing(event, options):
    raise PartialError({address: PermanentError("no such mailbox") for address in options.to})


@hookimpl
def register_sinks(register):
    register("failing", failing, options=Options)
"""


def ids(router):
    """The letters by their ids: no two share one."""
    letters = router.letters()
    found = {letter["id"]: (letter["event_id"], letter.get("sink"), letter.get("address")) for letter in letters}
    assert len(found) == len(letters)
    return found


async def replayed(router, number):
    """The ids after every letter has been replayed and has failed again."""
    with router.server.client() as client:
        before = {entry for entry, _ in client.xrange(DEAD)}
        assert (await asyncio.to_thread(run, "dlq", "replay", "--yes", cwd=router.folder)).code == 0
        await router.until(lambda: len({e for e, _ in client.xrange(DEAD)} - before) == client.xlen(DEAD) == number)
    return ids(router)


async def test_a_letter_that_is_replayed_and_fails_again_keeps_its_id(redis_server, tmp_path):
    (tmp_path / "plugins").mkdir(mode=0o755)
    (tmp_path / "plugins" / "failing.py").write_text(SPLIT)
    (tmp_path / "plugins" / "failing.py").chmod(0o644)
    async with daemon(redis_server, tmp_path, setup(schemas=True)) as router:
        router.publish("notification", GOOD, BAD)
        await router.until(lambda: len(router.letters()) == 5)
        first = ids(router)
        assert sorted(map(str, first.values())) == sorted(map(str, (await replayed(router, 5)).values()))
        assert ids(router) == first
        assert len({event for event, *_ in first.values()}) == 2
        router.process.signal(9)
        router.process.wait()
        assert (await asyncio.to_thread(run, "dlq", "replay", "--yes", cwd=tmp_path)).code == 0
        assert router.letters() == []
    async with daemon(redis_server, tmp_path, setup(schemas=True), arguments=("--instance", "other")) as router:
        await router.until(lambda: len(router.letters()) == 5, "what was to be replayed fails again")
        assert ids(router) == first
    async with daemon(redis_server, tmp_path, setup(schemas=False)) as router:
        # The event that did not fit is four deliveries now; each has a letter of its own from here on.
        now = await replayed(router, 8)
        assert {letter: of for letter, of in first.items() if of[1]}.items() <= now.items()
        assert await replayed(router, 8) == now
