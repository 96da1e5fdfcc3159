"""Records that are fetched key by key: what one key costs the others."""

import asyncio

from router.errors import TransientError
from router.ops.lookups import one_by_one
from router.ops.lookups.one_by_one import AT_ONCE, OneByOne


async def test_a_key_without_an_answer_fails_alone(monkeypatch):
    monkeypatch.setattr(one_by_one, "PATIENCE", 0.1)
    ended = asyncio.Event()

    async def fetch(key):
        if key != "silent":
            return {"key": key}
        try:
            return await asyncio.Event().wait()
        finally:
            ended.set()

    first, silent, last = await OneByOne().fetch(["a", "silent", "b"], fetch)
    assert (first, last) == ({"key": "a"}, {"key": "b"})
    assert isinstance(silent, TransientError)
    await ended.wait()


async def test_so_many_are_under_way_at_once_and_the_answers_are_in_order():
    running = most = 0

    async def fetch(key):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return int(key)

    assert await OneByOne().fetch([str(number) for number in range(100)], fetch) == list(range(100))
    assert most == AT_ONCE
