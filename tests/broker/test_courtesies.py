"""Commands that the router can do without may be missing: renamed, forbidden, or unknown to what answers there."""

import asyncio

import pytest

from router.broker.pubsub.pubsub_source import PubSubSource
from router.broker.server import client
from router.broker.server.durability import Durability
from router.broker.server.server_check import ServerCheck
from tests.support.engine import make_event
from tests.support.lists import Taker
from tests.support.queues import Line
from tests.support.streams import Desk, add, running
from tests.support.waiting import until

COURTESIES = ["CLIENT", "INFO", "CONFIG", "PING", "ECHO", "COMMAND"]

REFUSALS = {
    "renamed": b"-ERR unknown command `CLIENT`, with args beginning with: `SETNAME`, `x`, \r\n",
    "no such subcommand": b"-ERR unknown subcommand 'SETNAME'. Try CLIENT HELP.\r\n",
    "old": b"-ERR Syntax error, try CLIENT (LIST | KILL | GETNAME | SETNAME)\r\n",
    "forbidden": b"-NOPERM User default has no permissions to run the 'client|setname' command\r\n",
    "Envoy": b"-ERR unsupported command\r\n",
    "twemproxy": b"-ERR Unknown command\r\n",
    "Dragonfly": b"-ERR Unknown subcommand or wrong number of arguments for 'SETNAME'. Try CLIENT HELP.\r\n",
}


@pytest.mark.parametrize("command", COURTESIES)
async def test_every_kind_of_source_and_a_queue_work_without(start_server, kind, clock, command):
    server = start_server(kind, options={"rename-command": f"{command} "})
    stream, jobs, web = Desk(), Desk(), Desk()
    listed = Taker(server.url, ["a", "b"], jobs, clock)
    heard = PubSubSource("web", server.url, ["notification"], [], receiver=web, clock=clock)
    line = Line(server.url).start()
    server_check = ServerCheck(server.url, every=0.05)
    durability = Durability(client.server(server.url), every=0.05)
    server_check.start()
    durability.start()
    try:
        async with running(server.url, ["billing"], stream, clock):
            await asyncio.gather(listed.start(), heard.start())
            add(server, "billing", b"1")
            server.do("LPUSH", "a", b"2")
            server.do("PUBLISH", "notification", b"3")
            line.put(make_event())
            await line.deliver_all(1)
            await until(lambda: (stream.payloads, jobs.payloads, web.payloads) == ([b"1"], [b"2"], [b"3"]))
            assert listed.source.up
            assert heard.up
            assert server_check.reason is None
            assert line.queue.reason is None
            server.do("LPUSH", "b", b"4")
            await until(lambda: jobs.payloads == [b"2", b"4"])
    finally:
        await listed.end()
        await heard.stop()
        await line.end()
        await server_check.close()
        await durability.close()


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS.keys())
async def test_a_connection_may_stay_without_a_name_however_that_is_said(refusal):
    over = asyncio.Event()

    async def serve(reader, writer):
        while line := await reader.readline():
            word = line.strip().upper()
            if word == b"CLIENT":
                writer.write(refusal)
            elif word == b"PING":
                writer.write(b"+PONG\r\n")
        writer.close()
        over.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        connection = await client.dial(client.server(f"redis://127.0.0.1:{port}"))
        assert connection.is_connected
        await client.close(connection)
        await over.wait()
