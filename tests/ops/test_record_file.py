"""The file of a lookup: when it is looked at, and read again."""

from __future__ import annotations

import asyncio

from router.ops.lookups import record_file
from router.ops.lookups.record_file import RecordFile
from tests.support.waiting import stays, until


class HandClock:
    """A clock that only the test advances."""

    time = 1000.0

    def now(self):
        return self.time

    monotonic = now


def made(path, ttl=60.0):
    clock = HandClock()
    return RecordFile(str(path), "id", ttl=ttl, clock=clock, run_blocking=asyncio.to_thread), clock


async def name_of(file, key="42"):
    [record] = await file.fetch_many([key])
    return None if record is None else record["name"]


def replace(path, text):
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


async def test_the_first_delivery_after_a_change_gets_the_new_record_once_the_file_is_looked_at(tmp_path):
    path = tmp_path / "users.csv"
    replace(path, "id,name\n42,Jane\n")
    file, clock = made(path)
    assert await name_of(file) == "Jane"
    replace(path, "id,name\n42,Joan\n")
    clock.time += record_file.LOOK - 0.01
    assert await name_of(file) == "Jane"
    clock.time += 0.01
    assert await asyncio.gather(name_of(file), name_of(file), name_of(file, "43")) == ["Joan", "Joan", None]


async def test_a_file_that_is_being_written_is_read_when_it_is_whole(tmp_path):
    path = tmp_path / "users.csv"
    path.write_text("id,name\n42,Jane\n")
    file, _ = made(path, ttl=0.0)
    await name_of(file)
    path.write_text("id,name\n")
    asking = asyncio.create_task(name_of(file))
    await stays(lambda: not asking.done(), record_file.QUIET / 2)
    path.write_text("id,name\n42,Joan\n")
    assert await asking == "Joan"


async def test_a_file_that_goes_on_changing_is_read_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(record_file, "QUIET", 0.001)
    path = tmp_path / "users.csv"
    path.write_text("id,name\n42,Jane\n")
    file, _ = made(path, ttl=0.0)
    await name_of(file)
    sizes = iter(range(10**6))
    file._state_now = lambda: (0, next(sizes), 0)
    path.write_text("id,name\n42,Joan\n")
    assert await name_of(file) == "Joan"


async def test_a_broken_file_leaves_the_old_records_and_needs_no_delivery_to_be_noticed(tmp_path):
    path = tmp_path / "users.csv"
    path.write_text("id,name\n42,Jane\n")
    file, _ = made(path, ttl=0.0)
    await name_of(file)
    path.unlink()
    file.look()
    await until(lambda: file.fault)
    assert await name_of(file) == "Jane"
    replace(path, "id,name\n42,Joan\n")
    assert await name_of(file) == "Joan"
    assert file.fault is None


async def test_a_reading_goes_on_when_the_delivery_that_waits_for_it_gives_up(tmp_path):
    path = tmp_path / "users.csv"
    path.write_text("id,name\n42,Jane\n")
    file, _ = made(path)
    go_on = asyncio.Event()

    async def slow(function, *args):
        await go_on.wait()
        return function(*args)

    file._run_blocking = slow
    asking = asyncio.create_task(name_of(file))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    go_on.set()
    await until(lambda: file.loaded)
    assert await name_of(file) == "Jane"
