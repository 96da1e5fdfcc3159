"""Whatever has a task that talks to Redis ends, though a cancellation of it may be swallowed on its way."""

import asyncio

from router.broker.pubsub.pubsub_source import PubSubSource
from router.broker.server.link import cancelled
from router.broker.server.repeating import Repeating
from tests.support.streams import Desk
from tests.support.waiting import PATIENCE

DEAF_TO = 3
"""Cancellations that a planted task does not hear: more than the stop and the close of a part together."""


async def deaf(times=DEAF_TO, heard_at=None):
    """A task that does not hear the first cancellations, as when each meets the answer that is waited for.

    `heard_at` gets the number of those when it ends.
    """
    swallowed = 0
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if swallowed == times:
                if heard_at is not None:
                    heard_at.append(swallowed)
                raise
            swallowed += 1


async def heard(task):
    await asyncio.sleep(0)  # it has to be under way to swallow anything
    return task


async def test_a_task_is_cancelled_until_it_hears():
    tasks = [await heard(asyncio.create_task(deaf(times))) for times in range(4)]
    async with asyncio.timeout(PATIENCE):
        await cancelled(tasks)
    assert all(task.cancelled() for task in tasks)
    await cancelled([])


async def test_a_subscription(start_server, clock):
    server = start_server()
    source = PubSubSource("in", server.url, ["jobs"], [], receiver=Desk(), clock=clock)
    await source.start()
    await cancelled([source._task])
    source._task = task = await heard(asyncio.create_task(deaf()))
    async with asyncio.timeout(PATIENCE):
        await source.stop()
    assert task.cancelled()


async def test_what_repeats():
    begun, heard_at = asyncio.Event(), []

    async def work():
        begun.set()
        await deaf(heard_at=heard_at)

    repeating = Repeating("it", work, 1.0)
    repeating.start()
    await begun.wait()
    async with asyncio.timeout(PATIENCE):
        await repeating.close()
    assert heard_at == [DEAF_TO], "it was cancelled until it heard, and has ended"
