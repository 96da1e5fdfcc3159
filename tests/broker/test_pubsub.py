from __future__ import annotations

import asyncio
import time

import pytest
import structlog.testing
import uvloop
from msgspec.structs import replace

from router.broker.pubsub.pubsub_source import PubSubSource, Timing
from router.broker.pubsub.read_ahead import BLOCK, SLICE
from router.broker.server.client import SILENCE
from router.errors import ConfigError, UnavailableError
from tests.broker.conftest import QUICK, WATCHFUL, Recorder, grow_old, one_more_byte
from tests.support.proxy import DOWN, UP, Proxy
from tests.support.waiting import PATIENCE, until


def test_a_dead_peer_is_found_within_ten_seconds_and_the_way_back_is_short():
    timing = Timing()
    assert timing.ping_every == 1.0
    assert timing.dead_after == SILENCE == 9.0
    assert timing.longest_delay <= 2.0


async def test_ready_means_confirmed_by_the_server(redis_server, source, recorder):
    web = source(redis_server.url, ["a", "b"], ["c*"])
    assert (web.up, web.reason) == (False, "not started")
    await web.start()
    assert (web.up, web.reason) == (True, None)
    assert redis_server.do("PUBSUB", "NUMSUB", "a", "b") == [b"a", 1, b"b", 1]
    assert redis_server.do("PUBSUB", "NUMPAT") == 1
    redis_server.do("PUBLISH", "cc", "x")
    await until(lambda: recorder.events == [(b"cc", b"c*", b"x")])


async def test_the_connection_carries_its_name(redis_server, source):
    await source(redis_server.url, ["a"], client_name="event-router:one").start()
    assert b"name=event-router:one" in redis_server.do("CLIENT", "LIST", "TYPE", "pubsub")


async def test_a_unix_socket(redis_server, source, recorder):
    web = source(f"unix://{redis_server.socket}", ["a"])
    await web.start()
    redis_server.do("PUBLISH", "a", "x")
    await until(lambda: recorder.payloads == [b"x"])
    assert str(redis_server.socket) in web.address


async def test_tls(start_server, source, recorder):
    server = start_server("redis", tls=True)
    web = source(server.tls_url, ["a"])
    await web.start()
    with server.client() as redis:
        for size in (1, 200_000):
            redis.publish("a", b"x" * size)
    await until(lambda: [len(p) for p in recorder.payloads] == [1, 200_000])
    server.do("CLIENT", "KILL", "TYPE", "pubsub")
    await until(lambda: web.gaps == 1 and web.up)
    server.do("PUBLISH", "a", "again")
    await until(lambda: len(recorder.payloads) == 3)
    assert recorder.payloads[-1] == b"again"


async def test_a_certificate_that_cannot_be_trusted_is_a_config_error(start_server, source):
    server = start_server("redis", tls=True)
    with pytest.raises(ConfigError, match=r"certificate can't be trusted.*ssl_ca_certs"):
        await source(f"rediss://localhost:{server.tls_port}", ["a"]).start()
    with pytest.raises(UnavailableError, match=r"no answer in time \(if the server does not speak TLS"):
        await source(f"rediss://localhost:{server.port}", ["a"], timing=Timing(open=0.2), connect_timeout=1.0).start()


async def test_a_wrong_password_is_a_config_error(start_server, kind, source):
    server = start_server(kind, options={"requirepass": "hunter2"})
    for login, said in (("wrong@", "refused the login"), ("", "requires a password")):
        with pytest.raises(ConfigError, match=said) as caught:
            await source(f"redis://{login and ':'}{login}127.0.0.1:{server.port}", ["a"]).start()
        assert "wrong" not in str(caught.value)
    await source(server.url, ["a"]).start()


async def test_a_refused_channel_is_a_config_error_that_names_it(redis_server, source):
    redis_server.do("ACL", "SETUSER", "bob", "on", ">pw", "+@all", "&ok", "&fine*")
    url = f"redis://bob:pw@127.0.0.1:{redis_server.port}"
    with pytest.raises(ConfigError) as caught:
        await source(url, ["ok", "secret"], ["fine*", "x*"]).start()
    told = str(caught.value)
    assert "sources.web: " in told
    assert "the channel 'secret'" in told
    assert "the pattern 'x*'" in told
    assert "'ok'" not in told
    assert "'fine*'" not in told
    assert "pw" not in told
    await until(lambda: redis_server.do("CLIENT", "LIST", "TYPE", "pubsub") == b"")


async def test_nobody_there_is_unavailable_and_names_address_and_cause(source):
    async with Proxy(1) as gone:
        url = gone.url
    heard: list[str] = []
    web = source(url, ["a"], connect_timeout=1.0, waiting=heard.append)
    with pytest.raises(UnavailableError, match=rf"{url}: connection refused \(source web, tried for 1 s\)"):
        await web.start()
    assert len(heard) > 1
    assert set(heard) == {f"{url}: connection refused"}


async def test_a_server_that_says_nothing_is_unavailable(source, redis_server):
    async with Proxy(redis_server.port) as proxy:
        proxy.blackhole()
        with pytest.raises(UnavailableError, match=f"{proxy.url}: no answer yet"):
            await source(proxy.url, ["a"], connect_timeout=1.0).start()


async def test_it_waits_for_a_server_that_comes_later(start_server, kind, source, recorder):
    server = start_server(kind)
    server.stop()
    heard: list[str] = []
    web = source(server.url, ["a"], connect_timeout=None, waiting=heard.append)
    starting = asyncio.create_task(web.start())
    await until(lambda: len(heard) > 3)
    assert not starting.done()
    server.start()
    await starting
    assert web.gaps == 0
    server.do("PUBLISH", "a", "x")
    await until(lambda: recorder.payloads == [b"x"])


async def test_loading_is_not_there_yet(start_server, kind, source):
    slow = {"key-load-delay": "5000", "loading-process-events-interval-bytes": "1024", "save": "3600 1000000"}
    server = start_server(kind, options=slow)
    with server.client() as redis:
        redis.mset({f"key{i}": "x" * 100 for i in range(150)})
        redis.save()
    server.kill()
    server.start(ready=(b"-LOADING",))
    heard: list[str] = []
    await source(server.url, ["a"], connect_timeout=PATIENCE, waiting=heard.append).start()
    assert heard
    assert set(heard) == {f"{server.url}: Redis is still loading its data"}


async def test_client_kill_opens_a_gap_that_is_counted_and_measured(redis_server, source, recorder):
    web = source(redis_server.url, ["a", "b"], ["c*"])
    await web.start()
    running = asyncio.create_task(web.run())
    for number in range(1, 6):
        redis_server.do("CLIENT", "KILL", "TYPE", "pubsub")
        await until(lambda number=number: web.gaps == number and web.up)
        assert redis_server.do("PUBSUB", "NUMSUB", "a", "b") == [b"a", 1, b"b", 1]
        assert redis_server.do("PUBSUB", "NUMPAT") == 1
    assert web.gap_seconds > 0
    redis_server.do("PUBLISH", "a", "x")
    await until(lambda: recorder.payloads == [b"x"])
    assert not running.done()
    await web.stop()
    await running


async def test_a_gap_lasts_from_the_byte_before_it_to_the_confirmation_after_it(redis_server, source, clock):
    async with Proxy(redis_server.port) as proxy:
        web = source(proxy.url, ["a"])
        await web.start()
        for number, lost_for in enumerate((100.0, 1000.0), 1):
            before = web.gap_seconds
            await one_more_byte(web, clock)  # the connection is watched
            clock.ahead += 10_000  # before the loss: answers to what was asked after it say that nothing is lost yet
            for _ in range(3):
                began = await one_more_byte(web, clock)
            proxy.refuse = True
            proxy.cut()
            await until(lambda number=number: web.gaps == number)
            assert web.gap_seconds == before, "it has not ended"
            clock.ahead += lost_for
            proxy.refuse = False
            await until(lambda: web.up)
            assert lost_for < web.gap_seconds - before <= clock.monotonic() - began


async def test_a_server_that_restarts_is_found_again(redis_server, source, recorder):
    web = source(redis_server.url, ["a"])
    await web.start()
    redis_server.kill()
    await until(lambda: "connection refused" in (web.reason or ""))
    assert not web.up
    redis_server.start()
    await until(lambda: web.up)
    assert web.gaps == 1
    redis_server.do("PUBLISH", "a", "x")
    await until(lambda: recorder.payloads == [b"x"])


async def test_a_server_that_stands_still_is_noticed(redis_server, source):
    async with Proxy(redis_server.port) as proxy:
        web = source(proxy.url, ["a"], timing=WATCHFUL)
        await web.start()
        redis_server.pause()
        with structlog.testing.capture_logs() as logs:
            await until(lambda: logs)
        assert "no byte from the server" in logs[0]["reason"]
        redis_server.resume()
        await until(lambda: web.up)
        assert web.gap_seconds > WATCHFUL.dead_after


async def test_a_silence_is_noticed_after_no_more_pings_than_there_is_time_for(redis_server, source):
    async with Proxy(redis_server.port) as proxy:
        web = source(proxy.url, ["a"], timing=WATCHFUL)
        await web.start()
        gaps = web.gaps
        proxy.refuse = True
        proxy.blackhole(UP)
        await until(lambda: web.gaps > gaps)
        pings = proxy.swallowed / len(b"PING\r\n")
        assert 1 <= pings <= WATCHFUL.dead_after / WATCHFUL.ping_every + 1


@pytest.mark.parametrize("directions", [(UP, DOWN), (UP,), (DOWN,)])
async def test_a_dead_path_is_noticed_and_the_way_back_is_short(redis_server, source, recorder, directions):
    async with Proxy(redis_server.port) as proxy:
        web = source(proxy.url, ["a"], timing=replace(WATCHFUL, open=1000.0))  # tries that hang do so for good
        await web.start()
        gaps, accepted = web.gaps, proxy.accepted
        proxy.blackhole(*directions)
        await until(lambda: web.gaps > gaps)
        await until(lambda: proxy.accepted > accepted + 1)
        proxy.heal()
        await until(lambda: web.up)
        assert web.gap_seconds > WATCHFUL.dead_after
        redis_server.do("PUBLISH", "a", "x")
        await until(lambda: b"x" in recorder.payloads)


async def test_a_quiet_but_healthy_server_is_left_alone(redis_server, source, clock):
    async with Proxy(redis_server.port) as proxy:
        proxy.latency = 0.02
        web = source(proxy.url, ["a"], timing=Timing(ping_every=0.01))
        await web.start()
        await grow_old(web, clock, 2 * Timing().dead_after)
        assert (web.up, web.gaps) == (True, 0)


async def test_our_own_event_loop_standing_still_is_no_loss(redis_server, source, recorder, clock):
    web = source(redis_server.url, ["a"], timing=Timing(ping_every=0.05))
    await web.start()
    for number in range(3):
        await one_more_byte(web, clock)
        redis_server.do("PUBLISH", "a", "x")
        clock.ahead += 2 * Timing().dead_after  # what has come is not read meanwhile
        await until(lambda number=number: len(recorder.payloads) > number)
    await grow_old(web, clock, 0.4)
    assert (web.up, web.gaps) == (True, 0)
    assert recorder.payloads == [b"x"] * 3


async def test_standing_still_over_an_event_just_received_is_no_loss(redis_server, source, clock):
    """The bytes that the blocking receiver was called with came before the standstill, and do not end the pardon for it."""
    received = []

    class Blocking:
        def receive(self, _source, batches):
            received.append(batches)
            clock.ahead += 2 * Timing().dead_after

    web = source(redis_server.url, ["a"], receiver=Blocking(), timing=Timing(ping_every=0.05))
    await web.start()
    for number in range(4):
        redis_server.do("PUBLISH", "a", "1")
        await until(lambda number=number: len(received) > number)
        await grow_old(web, clock, 0.2)
    await grow_old(web, clock, 0.4)
    assert (web.gaps, web.up) == (0, True)


async def test_resets_in_a_row_are_met_with_growing_delays(redis_server, source, monkeypatch):
    monkeypatch.setattr("router.broker.server.client.random.random", lambda: 1.0)
    delays = [0.02 * 2**number for number in range(6)]
    async with Proxy(redis_server.port) as proxy:
        web = source(proxy.url, ["a"], timing=Timing(first_delay=delays[0], longest_delay=2.0, stable=PATIENCE))
        await web.start()
        began = time.monotonic()
        for number in range(1, len(delays) + 1):
            await until(lambda number=number: web.gaps == number - 1 and web.up)
            proxy.reset()
        await until(lambda: web.gaps == len(delays) and web.up)
        assert time.monotonic() - began >= sum(delays[: len(delays)])


async def test_a_permission_lost_meanwhile_is_asked_for_again(redis_server, source, recorder):
    redis_server.do("ACL", "SETUSER", "bob", "on", ">pw", "+@all", "&a", "&b")
    web = source(f"redis://bob:pw@127.0.0.1:{redis_server.port}", ["a", "b"])
    await web.start()
    redis_server.do("ACL", "SETUSER", "bob", "resetchannels", "&a")
    await until(lambda: "refuses the channel 'b'" in (web.reason or ""))
    redis_server.do("PUBLISH", "a", "the other goes on")
    await until(lambda: recorder.payloads == [b"the other goes on"])
    redis_server.do("ACL", "SETUSER", "bob", "&b")
    await until(lambda: web.up)
    assert web.gaps == 1
    redis_server.do("PUBLISH", "b", "x")
    await until(lambda: recorder.payloads[-1] == b"x")


async def test_a_login_lost_meanwhile_is_tried_again(redis_server, source):
    redis_server.do("ACL", "SETUSER", "bob", "on", ">pw", "+@all", "&*")
    web = source(f"redis://bob:pw@127.0.0.1:{redis_server.port}", ["a"])
    await web.start()
    redis_server.do("ACL", "SETUSER", "bob", "off")
    redis_server.do("CLIENT", "KILL", "TYPE", "pubsub")
    await until(lambda: "refused the login" in (web.reason or ""))
    assert (web.up, web.gaps) == (False, 1)
    redis_server.do("ACL", "SETUSER", "bob", "on")
    await until(lambda: web.up)
    assert (web.reason, web.gaps) == (None, 1)


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run])
def test_a_burst_comes_whole_and_in_order(redis_server, clock, runner):
    recorder, events = Recorder(), 100_000

    async def scenario() -> None:
        web = PubSubSource(
            "web", redis_server.url, ["a"], ["a*"], receiver=recorder, clock=clock, connect_timeout=PATIENCE
        )
        await web.start()
        await asyncio.to_thread(publish)
        await until(lambda: len(recorder.payloads) >= events)
        await web.stop()
        assert web.duplicates == events

    def publish() -> None:
        with redis_server.client() as redis:
            for begin in range(0, events, 1000):
                with redis.pipeline(transaction=False) as pipe:
                    for number in range(begin, begin + 1000):
                        pipe.publish("a", number)
                    pipe.execute()

    runner(scenario())
    assert recorder.payloads == [b"%d" % number for number in range(events)]
    assert recorder.calls < events / 20


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run])
def test_under_a_flood_others_have_their_turn_after_each_chunk(start_server, clock, runner, tls):
    server, recorder, at_once, most = start_server("redis", tls=tls), Recorder(), 0, 0

    class Fair:
        def receive(self, source, batches):
            nonlocal at_once, most
            recorder.receive(source, batches)
            at_once += sum(len(payload) for batch in batches for payload in batch.payloads)
            most = max(most, at_once)
            asyncio.get_running_loop().call_soon(others)

    def others():
        nonlocal at_once
        at_once = 0

    async def scenario() -> None:
        web = PubSubSource(
            "web",
            server.tls_url if tls else server.url,
            ["a"],
            [],
            receiver=Fair(),
            clock=clock,
            connect_timeout=PATIENCE,
        )
        await web.start()
        with server.client() as redis, redis.pipeline(transaction=False) as pipe:  # nobody reads meanwhile
            for _ in range(2000):
                pipe.publish("a", b"x" * 1000)
            pipe.execute()
        await until(lambda: len(recorder.payloads) == 2000)
        await web.stop()

    runner(scenario())
    assert most <= 2 * SLICE, "a slice of what was read ahead, and a chunk that came when nothing waited any more"


@pytest.mark.parametrize("size", [0, 1, SLICE - 1, SLICE, SLICE + 1, BLOCK - 1, BLOCK, BLOCK + 1, 8 * 1024**2])
async def test_a_payload_of_any_size_and_bytes(redis_server, source, recorder, size):
    await source(redis_server.url, ["a"]).start()
    payload = (bytes(range(256)) * (size // 256 + 1))[:size]
    with redis_server.client() as redis, redis.pipeline(transaction=False) as pipe:
        pipe.publish("a", b"before").publish("a", payload).publish("a", b"after").execute()
    await until(lambda: len(recorder.payloads) == 3)
    assert recorder.payloads == [b"before", payload, b"after"]


async def test_stop_under_flood_hands_on_all_that_was_published_before(redis_server, source, recorder):
    web = source(redis_server.url, ["a"])
    await web.start()
    running, last, go = asyncio.create_task(web.run()), [0], [True]

    def flood() -> None:
        with redis_server.client() as redis:
            while go[0]:
                with redis.pipeline(transaction=False) as pipe:
                    for _ in range(100):
                        last[0] += 1
                        pipe.publish("a", last[0])
                    pipe.execute()

    flooding = asyncio.create_task(asyncio.to_thread(flood))
    await until(lambda: len(recorder.payloads) > 2000)
    published = last[0] - 100  # its answers have come
    await web.stop()
    received, stopped_at = recorder.payloads, last[0]
    await running
    await until(lambda: last[0] > stopped_at + 1000)  # the flood goes on
    assert recorder.payloads == received, "nothing comes after stop"
    assert received == [b"%d" % number for number in range(1, len(received) + 1)]
    assert len(received) >= published
    assert (web.up, web.reason) == (False, "stopped")
    go[0] = False
    await flooding


async def test_other_tasks_run_while_the_data_never_stops(redis_server, source, recorder):
    await source(redis_server.url, ["a"]).start()
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    busy = asyncio.create_task(other())
    payload = b"x" * 1000
    with redis_server.client() as redis:
        for _ in range(20):
            with redis.pipeline(transaction=False) as pipe:
                for _ in range(500):
                    pipe.publish("a", payload)
                await asyncio.to_thread(pipe.execute)
    await until(lambda: len(recorder.payloads) == 10_000)
    busy.cancel()
    assert turns >= recorder.calls / 40


async def test_stop_while_the_server_is_gone_waits_for_nothing(redis_server, source):
    web = source(redis_server.url, ["a"], timing=replace(QUICK, leave=1000.0))
    await web.start()
    running = asyncio.create_task(web.run())
    redis_server.kill()
    await until(lambda: web.gaps)
    async with asyncio.timeout(PATIENCE):
        await web.stop()
        await running
    assert web.gap_seconds > 0


async def test_stop_while_the_server_stands_still_is_bounded(redis_server, source):
    assert Timing().leave == 2.0
    web = source(redis_server.url, ["a"], timing=replace(QUICK, leave=0.2))
    await web.start()
    redis_server.pause()
    async with asyncio.timeout(PATIENCE):
        await web.stop()
    assert not web.up


async def test_stop_twice_and_before_start_is_harmless(redis_server, source):
    web = source(redis_server.url, ["a"])
    await web.stop()
    await web.start()
    await web.stop()
    await web.stop()
    await until(lambda: redis_server.subscribers("a") == 0)
    assert (web.up, web.reason, web.gaps) == (False, "stopped", 0)


async def test_a_receiver_that_fails_opens_a_gap_and_ends_nothing(redis_server, source, recorder):
    class Broken:
        def receive(self, source, batches):
            if batches[0].payloads == [b"x"]:
                raise ZeroDivisionError("a bug")
            recorder.receive(source, batches)

    web = source(redis_server.url, ["a"], receiver=Broken())
    await web.start()
    running = asyncio.create_task(web.run())
    with structlog.testing.capture_logs() as logs:
        redis_server.do("PUBLISH", "a", "x")
        await until(lambda: web.gaps == 1 and web.up)
    assert [type(line["exc_info"]) for line in logs if line["log_level"] == "critical"] == [ZeroDivisionError]
    redis_server.do("PUBLISH", "a", "y")
    await until(lambda: recorder.payloads == [b"y"])
    assert not running.done()
    await web.stop()
    await running


async def test_run_ends_when_it_is_cancelled(redis_server, source):
    web = source(redis_server.url, ["a"])
    await web.start()
    running = asyncio.create_task(web.run())
    await asyncio.sleep(0)  # it has begun to wait
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    assert not web.up
    await until(lambda: redis_server.subscribers("a") == 0)


async def test_gaps_are_logged_on_their_edges_only(redis_server, source, clock):
    tries: list[str] = []
    web = source(redis_server.url, ["a"], waiting=tries.append)
    await web.start()
    with structlog.testing.capture_logs() as logs:
        redis_server.kill()
        await until(lambda: len(tries) > 10)
        clock.ahead += 1000
        redis_server.start()
        await until(lambda: web.up)
    assert len(logs) <= 4
    assert "the subscription is lost" in logs[0]["event"]
    assert "subscription is restored" in logs[-1]["event"]
    assert logs[-1]["gap_seconds"] >= 1000


def test_uvloop_heals_too(redis_server, clock):
    async def scenario() -> None:
        recorder = Recorder()
        web = PubSubSource(
            "web",
            redis_server.url,
            ["a"],
            [],
            receiver=recorder,
            clock=clock,
            timing=WATCHFUL,
            connect_timeout=PATIENCE,
        )
        await web.start()
        redis_server.do("CLIENT", "KILL", "TYPE", "pubsub")
        await until(lambda: web.gaps and web.up)
        gaps = web.gaps
        redis_server.pause()
        await until(lambda: web.gaps > gaps)
        redis_server.resume()
        await until(lambda: web.up)
        redis_server.do("PUBLISH", "a", "x")
        await until(lambda: recorder.payloads)
        await web.stop()
        assert recorder.payloads == [b"x"]

    uvloop.run(scenario())


def test_tls_on_uvloop(start_server, clock):
    server = start_server("redis", tls=True)

    async def scenario() -> None:
        recorder = Recorder()
        web = PubSubSource(
            "web", server.tls_url, ["a"], [], receiver=recorder, clock=clock, timing=QUICK, connect_timeout=PATIENCE
        )
        await web.start()
        server.do("PUBLISH", "a", "x" * 300_000)
        await until(lambda: recorder.payloads)
        await web.stop()
        assert [len(payload) for payload in recorder.payloads] == [300_000]

    uvloop.run(scenario())
