"""The stall watch: a loop that is blocked is reported with its place, a busy one is not, and a sleeping one is left asleep."""

import asyncio
import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
import structlog
import uvloop

from router.engine.calling.stall import StallWatch
from tests.support.waiting import block, stays, until

HERE = Path(__file__)


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def watched(request):
    """Runs a coroutine on a loop that is watched, and returns the log."""

    def run(main, plugins=(HERE,)):
        async def watch():
            stall = StallWatch(plugins)
            stall.start()
            try:
                await main(lambda: [entry["event"] for entry in logs])
            finally:
                stall.stop()

        with structlog.testing.capture_logs() as logs, asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(watch())
        return logs

    return run


def wait_for_a_process():
    subprocess.run([sys.executable, "-c", "import time; time.sleep(1)"], check=True, capture_output=True)


@pytest.mark.parametrize("blocks", [lambda: block(1.0), wait_for_a_process])
def test_a_blocked_loop_is_logged_with_its_place_and_when_it_runs_again(watched, blocks):
    async def main(told):
        blocks()
        await until(lambda: len(told()) == 2)

    began, ended = watched(main)
    assert began["event"].startswith("a plugin blocks the event loop")
    assert began["at"].startswith(f"{HERE}:")
    assert ended["event"] == "the event loop was blocked and is running again"
    assert 0.5 <= ended["seconds"] < 60


def test_a_loop_that_is_blocked_by_others_than_plugins_is_logged_too(watched):
    async def main(told):
        asyncio.get_running_loop().call_soon(block, 1.0)
        await until(lambda: len(told()) == 2)

    assert watched(main, plugins=())[0]["event"] == "the event loop is blocked"


def test_a_busy_loop_is_not_blocked(watched):
    async def main(told):
        async def busy():
            while True:
                block(0.01)
                await asyncio.sleep(0)

        task = asyncio.create_task(busy())
        await stays(lambda: not told(), 1.5)
        task.cancel()

    assert watched(main) == []


def test_a_sleeping_loop_is_not_woken(watched):
    asked = []

    async def main(told):
        loop = asyncio.get_running_loop()
        ask = loop.call_soon_threadsafe
        loop.call_soon_threadsafe = lambda *what: (asked.append(what), ask(*what))
        with contextlib.suppress(TimeoutError):  # unlike `stays`, this wakes the loop once
            await asyncio.wait_for(asyncio.Event().wait(), 1.5)

    watched(main)
    assert len(asked) <= 1  # it may have been seen on its way to sleep
