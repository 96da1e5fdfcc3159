"""A server that forgets on a restart, or on its replica, how much a group has read: no entry is called trimmed for that.

Redis 7.0 writes an XREADGROUP to its append-only file, and to its replicas, as XCLAIM, which does not count.
"""

from __future__ import annotations

from functools import partial

import pytest
from structlog.testing import capture_logs

from tests.broker.conftest import until
from tests.support.streams import Desk, add, pending, running

AOF = {"appendonly": "yes", "appendfsync": "always"}


@pytest.fixture
def desk():
    return Desk()


@pytest.fixture
def server(kind, start_server):
    return start_server(kind, options=AOF)


def numbers(first, last):
    return [b"%d" % n for n in range(first, last)]


def restart(server):
    server.kill()
    server.start()


def counts(server):
    """How many entries the group has read, and how many were ever added, as the server counts them."""
    with server.client() as client:
        (group,) = client.xinfo_groups("billing")
        return group["entries-read"], client.xinfo_stream("billing")["entries-added"]


def trimmings(logs):
    return [(line["number"], line["counted"]) for line in logs if "trimmed" in line["event"]]


async def looked(server, desk):
    """Wait until the source has looked at its group and read on, and the server's count is right."""
    add(server, "billing", b"look")
    await all_read(server, desk, [b"look"])

    def right():
        read, added = counts(server)
        return read == added

    await until(right)


async def all_read(server, desk, payloads):
    await until(lambda: desk.payloads[-len(payloads) :] == payloads and not pending(server, "billing"))


async def test_a_router_that_lives_through_restarts_reports_nothing_and_then_a_real_trim_exactly(server, desk, clock):
    add(server, "billing", *numbers(0, 30))
    with capture_logs() as logs:
        async with running(server.url, ["billing"], desk, clock, max_in_flight=10) as source:
            await all_read(server, desk, numbers(0, 30))
            await looked(server, desk)
            for first in (30, 60):
                add(server, "billing", *numbers(first, first + 30))
                await all_read(server, desk, numbers(first, first + 30))
                restart(server)
                add(server, "billing", b"after")
                await all_read(server, desk, [b"after"])
                await looked(server, desk)
                assert source.trimmed == 0
            assert trimmings(logs) == []
            desk.hold = True
            add(server, "billing", *numbers(100, 120))
            await until(lambda: len(desk.held) == 10)
            server.do("XTRIM", "billing", "MAXLEN", 3)
            await until(lambda: source.trimmed == 7)
            desk.hold = False
            desk.settle()
            await all_read(server, desk, numbers(117, 120))
            assert source.trimmed == 7
    assert len(trimmings(logs)) == 1


async def test_a_router_that_was_restarted_too_reports_nothing_and_then_a_real_trim(server, desk, clock):
    with capture_logs() as logs:
        for first in (0, 30):
            async with running(server.url, ["billing"], desk, clock) as source:
                await looked(server, desk)
                add(server, "billing", *numbers(first, first + 30))
                await all_read(server, desk, numbers(first, first + 30))
            server.do("XTRIM", "billing", "MAXLEN", 5)
            restart(server)
        async with running(server.url, ["billing"], desk, clock, max_in_flight=2) as source:
            await looked(server, desk)
            assert source.trimmed == 0
            assert trimmings(logs) == []
            desk.hold = True
            add(server, "billing", *numbers(60, 70))
            await until(lambda: len(desk.held) == 2)
            server.do("XTRIM", "billing", "MAXLEN", 3)
            await until(lambda: source.trimmed == 5)
            desk.hold = False
            desk.settle()
            await all_read(server, desk, numbers(67, 70))


async def test_the_count_of_a_restarted_server_is_at_least_so_many_for_a_router_that_begins(start_server, desk, clock):
    server = start_server("redis", options=AOF)
    async with running(server.url, ["billing"], desk, clock) as source:
        await looked(server, desk)
        add(server, "billing", *numbers(0, 30))
        await all_read(server, desk, numbers(0, 30))
    server.kill()
    server.start()
    assert counts(server)[0] != 31, "this server forgets"
    async with running(server.url, ["billing"], desk, clock) as source:
        await looked(server, desk)
        assert (source.trimmed, source.trimmed_exact) == (0, False)
    async with running(server.url, ["billing"], desk, clock) as source:
        await looked(server, desk)
        assert (source.trimmed, source.trimmed_exact) == (0, True), "its count was put right, and it has run since"


async def test_what_was_trimmed_behind_a_restart_is_known_where_the_router_has_counted_itself(
    start_server, desk, clock
):
    """The router lives, reads nothing meanwhile, and nobody else reads: no count of the server is needed."""
    server = start_server("redis", options=AOF)
    desk.hold = True
    async with running(server.url, ["billing"], desk, clock, max_in_flight=10) as source:
        add(server, "billing", *numbers(0, 30))
        await until(lambda: len(desk.held) == 10)
        restart(server)
        server.do("XTRIM", "billing", "MAXLEN", 5)
        await until(lambda: source.trimmed == 15)
        assert source.trimmed_exact
        desk.hold = False
        desk.settle()
        await all_read(server, desk, numbers(25, 30))
        assert (source.trimmed, source.trimmed_exact) == (15, True)


async def test_a_replica_that_is_promoted_again_and_again_is_not_trusted(kind, start_server, desk, clock):
    """The first server is a master a second time: that it was told once that its count is right says nothing then."""
    master, replica = start_server(kind), start_server(kind)
    with capture_logs() as logs:
        for first in (0, 30, 60):
            replica.do("REPLICAOF", "127.0.0.1", master.port)
            await until(partial(in_sync, master))
            async with running(master.url, ["billing"], desk, clock) as source:
                await looked(master, desk)
                add(master, "billing", *numbers(first, first + 30))
                await all_read(master, desk, numbers(first, first + 30))
                assert source.trimmed == 0
            await until(partial(master.do, "WAIT", 1, 1000))
            replica.do("REPLICAOF", "NO", "ONE")
            master, replica = replica, master
    assert trimmings(logs) == []


async def test_a_snapshot_is_older_and_agrees_with_itself(kind, start_server, desk, clock):
    server = start_server(kind, options={"save": "3600 1"})
    with capture_logs() as logs:
        async with running(server.url, ["billing"], desk, clock) as source:
            add(server, "billing", *numbers(0, 30))
            await all_read(server, desk, numbers(0, 30))
            await looked(server, desk)
            server.do("SAVE")
            add(server, "billing", *numbers(30, 60))
            await all_read(server, desk, numbers(30, 60))
            restart(server)
            add(server, "billing", *numbers(60, 70))
            await all_read(server, desk, numbers(60, 70))
            await looked(server, desk)
            assert source.trimmed == 0
    assert trimmings(logs) == []


def in_sync(master):
    about = master.do("INFO", "replication")
    return about.get("slave0", {}).get("state") == "online"
