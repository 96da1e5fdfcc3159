"""What the parser makes of bytes that no healthy server sends, and of chunks cut anywhere: against a scripted peer."""

from __future__ import annotations

import asyncio

import pytest
import structlog.testing
from msgspec.structs import replace

from router.broker.pubsub.pubsub_source import Timing
from tests.broker.conftest import QUICK, WATCHFUL, grow_old
from tests.support.pubsub_peer import CONFIRMED, message, saying
from tests.support.waiting import PATIENCE, until


async def test_a_message_may_be_cut_anywhere(peer, source, recorder):
    stream = CONFIRMED + message(b"one") + message(b"") + message(b"\r\n") + message(b"two")
    peer.say = saying(*(stream[i : i + 1] for i in range(len(stream))))
    await source(f"redis://127.0.0.1:{peer.port}", ["a"]).start()
    await until(lambda: len(recorder.payloads) == 4)
    assert recorder.payloads == [b"one", b"", b"\r\n", b"two"]


async def test_messages_between_confirmations_are_not_lost(peer, source, recorder):
    second = CONFIRMED.replace(b"$1\r\na", b"$1\r\nb")
    answers = iter([saying(CONFIRMED + message(b"early")), saying(message(b"between") + second)])

    async def say(writer: asyncio.StreamWriter) -> None:
        await next(answers)(writer)

    peer.say = say
    await source(f"redis://127.0.0.1:{peer.port}", ["a", "b"]).start()
    assert recorder.payloads == [b"early", b"between"]


@pytest.mark.parametrize(
    "nonsense",
    [
        b"?what\r\n",
        b":5\r\n",
        b"$-1\r\n",
        b"*0\r\n",
        b"*1\r\n:1\r\n",
        b"*3\r\n$3\r\nfoo\r\n$1\r\na\r\n:1\r\n",
        b"+OK\r\n+OK\r\n",
    ],
)
async def test_nonsense_ends_the_connection_after_what_came_before_it(peer, source, recorder, nonsense):
    peer.pong = b""
    peer.say = saying(CONFIRMED)
    web = source(f"redis://127.0.0.1:{peer.port}", ["a"])
    await web.start()
    with structlog.testing.capture_logs() as logs:
        peer.send(message(b"good") + nonsense)
        await until(lambda: web.gaps)
    assert recorder.payloads[0] == b"good"
    assert "bytes that are not valid in pub/sub" in logs[0]["reason"]


async def test_a_wrong_confirmation_is_none(peer, source):
    peer.say = saying(CONFIRMED.replace(b"$1\r\na", b"$1\r\nx"))
    heard: list[str] = []
    web = source(f"redis://127.0.0.1:{peer.port}", ["a"], connect_timeout=None, waiting=heard.append)
    starting = asyncio.create_task(web.start())
    await until(lambda: heard)
    assert "bytes that are not valid in pub/sub" in heard[0]
    starting.cancel()
    await asyncio.wait([starting])


async def test_a_subscription_that_the_server_ends_is_a_loss(peer, source):
    peer.say = saying(CONFIRMED)
    web = source(f"redis://127.0.0.1:{peer.port}", ["a"])
    await web.start()
    with structlog.testing.capture_logs() as logs:
        peer.send(b"*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n")
        await until(lambda: web.gaps == 1 and web.up)
    assert "the subscription is lost" in logs[0]["event"]


async def test_a_subscribe_without_an_answer_is_tried_again(peer, source):
    peer.say = saying()
    heard: list[str] = []
    web = source(f"redis://127.0.0.1:{peer.port}", ["a"], waiting=heard.append, timing=WATCHFUL)
    starting = asyncio.create_task(web.start())
    await until(lambda: heard)
    assert "no answer to SUBSCRIBE in time" in heard[0]
    peer.say = saying(CONFIRMED)
    await starting
    assert web.up


async def test_refused_for_now_is_tried_again(peer, source):
    peer.say = saying(b"-LOADING Redis is loading the dataset in memory\r\n")
    heard: list[str] = []
    web = source(f"redis://127.0.0.1:{peer.port}", ["a"], waiting=heard.append)
    starting = asyncio.create_task(web.start())
    await until(lambda: heard)
    assert "LOADING" in heard[0]
    peer.say = saying(CONFIRMED)
    await starting


async def test_a_refused_ping_is_a_sign_of_life_too(peer, source, clock):
    peer.pong = b"-NOPERM no PING for you\r\n"
    peer.say = saying(CONFIRMED)
    web = source(f"redis://127.0.0.1:{peer.port}", ["a"], timing=Timing(ping_every=0.01))
    await web.start()
    await grow_old(web, clock, 2 * Timing().dead_after)
    assert (web.up, web.gaps) == (True, 0)


async def test_a_run_goes_on_over_the_slices_of_a_chunk(peer, source, recorder):
    peer.say = saying(CONFIRMED + message(b"x" * 100) * 5000)
    await source(f"redis://127.0.0.1:{peer.port}", ["a"]).start()
    await until(lambda: len(recorder.payloads) == 5000)
    assert len(recorder.batches) == recorder.calls


async def test_stop_takes_what_comes_before_the_last_confirmation(peer, source, recorder):
    peer.pong = b""
    peer.say = saying(CONFIRMED)
    peer.parting = b"-NOPERM no PING for you\r\n" + message(b"late") + b"*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n"
    web = source(f"redis://127.0.0.1:{peer.port}", ["a"])
    await web.start()
    await until(lambda: peer.pings > 1)
    await web.stop()
    assert recorder.payloads == [b"late"]


@pytest.mark.parametrize("waited", [b"", message(b"late"), message(b"late") * 3 + b"+PONG\r\n"])
async def test_a_gap_that_began_while_the_router_stood_still_is_measured_from_the_last_byte_before(
    peer, source, clock, waited
):
    writers: list[asyncio.StreamWriter] = []

    async def say(writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(CONFIRMED + message(b"good"))

    peer.pong = b""
    peer.say = say
    web = source(f"redis://127.0.0.1:{peer.port}", ["a"], timing=replace(QUICK, dead_after=1000.0))
    await web.start()
    await until(lambda: web.last_byte)
    began = clock.monotonic()
    clock.ahead += 500.0
    writers[0].write(waited)
    writers[0].close()  # as a server does to whoever does not read
    await until(lambda: web.gaps == 1 and web.up)
    assert 500.0 <= web.gap_seconds <= clock.monotonic() - began + PATIENCE


@pytest.mark.parametrize("silences", [1, 2])
async def test_a_silence_after_which_a_ping_was_answered_is_no_part_of_a_later_gap(peer, source, clock, silences):
    writers: list[asyncio.StreamWriter] = []

    async def say(writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(CONFIRMED)

    peer.say = say
    web = source(f"redis://127.0.0.1:{peer.port}", ["a"], timing=replace(QUICK, dead_after=1000.0))
    await web.start()
    for _ in range(silences):
        clock.ahead += 500.0
        asked = peer.pings
        await until(lambda asked=asked: peer.pings >= asked + 3)  # by then the one sent after the silence is answered
    writers[0].close()
    await until(lambda: web.gaps == 1 and web.up)
    assert web.gap_seconds < 500.0


async def test_the_answer_to_a_ping_from_before_a_silence_proves_nothing(peer, source, clock):
    writers: list[asyncio.StreamWriter] = []

    async def say(writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(CONFIRMED)

    peer.pong = b""
    peer.say = say
    web = source(f"redis://127.0.0.1:{peer.port}", ["a"], timing=replace(QUICK, dead_after=1000.0))
    await web.start()
    clock.ahead += 20.0
    writers[0].write(message(b"after the first"))
    asked = peer.pings
    await until(lambda: peer.pings >= asked + 2)  # a PING that would prove it is under way
    clock.ahead += 20.0
    writers[0].write(b"+PONG\r\n" * (peer.pings - 1))
    writers[0].close()
    await until(lambda: web.gaps == 1 and web.up)
    assert web.gap_seconds >= 40.0
