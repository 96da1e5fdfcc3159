"""The log sink: journald and syslog, against real sockets that a test opens."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router.errors import PermanentError, SinkError, TransientError
from router.escaping import escape
from router.events import json_line
from tests.support.datagrams import DatagramService, descriptors, parse_entry, parse_message
from tests.support.sinks import RECEIVED, all_written, is_written, make_event, open_sink, validate
from tests.support.waiting import stays, until

TARGETS = ["journald", "syslog"]
HOSTILE = 'a\nMESSAGE=forged\n"} \\ "] \x00 \r\x1b[2J\u2028 \U0001f680 ü'


@pytest.fixture
def service():
    """A service that does not listen yet. Its folder has a short name, because the path of a socket must be short."""
    with tempfile.TemporaryDirectory() as folder:
        yield DatagramService(Path(folder, "socket"))


def options(service: DatagramService, target: str, **more: Any) -> dict[str, Any]:
    return {"target": target, "socket": service.path, **more}


def events(count: int, **fields: Any) -> list[Any]:
    return [make_event({"n": n}, id=f"e-{n}", **fields) for n in range(count)]


def ids(service: DatagramService, target: str) -> list[str]:
    """The ids of the events that have arrived, in order."""
    assert service.received >= 0
    if target == "journald":
        return [dict(parse_entry(each.content))["EVENT_ID"].decode() for each in service.taken]
    return [parse_message(each.content).data["event@32473"]["event_id"] for each in service.taken]


# --- what is sent ----------------------------------------------------------------------------------------------------


async def test_an_entry_of_the_journal_has_each_field_once(service):
    event = make_event({"message": "hi"}, channel="orders.new", route="urgent")
    with service:
        async with open_sink("log", options(service, "journald")) as sink:
            assert all_written(await sink.deliver_batch([event]))
        await until(lambda: service.received == 1)
    assert parse_entry(service.taken[0].content) == [
        ("MESSAGE", json_line(event)),
        ("PRIORITY", b"6"),
        ("SYSLOG_IDENTIFIER", b"event-router"),
        ("EVENT_ID", b"e-1"),
        ("SOURCE", b"web-app"),
        ("CHANNEL", b"orders.new"),
        ("ROUTE", b"urgent"),
    ]


async def test_a_message_of_syslog_has_the_same_fields_as_structured_data(service):
    event = make_event({"message": "hi"}, channel="orders.new", route="urgent")
    with service:
        async with open_sink("log", options(service, "syslog")) as sink:
            assert all_written(await sink.deliver_batch([event]))
        await until(lambda: service.received == 1)
    found = parse_message(service.taken[0].content)
    fields = {"event_id": "e-1", "source": "web-app", "channel": "orders.new", "route": "urgent"}
    assert (found.priority, found.at, found.data) == (3 * 8 + 6, RECEIVED, {"event@32473": fields})
    assert (found.host, found.app, found.process, found.kind) == (
        socket.gethostname(),
        "event-router",
        str(os.getpid()),
        None,
    )
    assert found.text.encode() == json_line(event)


@pytest.mark.parametrize(
    ("name", "shown"), [("a host", None), ("höst", None), ("", None), ("web-1.example", "web-1.example")]
)
async def test_a_host_name_that_syslog_does_not_allow_is_nil(service, monkeypatch, name, shown):
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    with service:
        async with open_sink("log", options(service, "syslog")) as sink:
            await sink.deliver_batch(events(1))
        await until(lambda: service.received == 1)
    assert parse_message(service.taken[0].content).host == shown


TEXTS = st.text(st.characters(exclude_categories=())) | st.just(HOSTILE)


@given(message=TEXTS, name=TEXTS, channel=TEXTS, route=TEXTS)
@example(message=HOSTILE, name=HOSTILE, channel=HOSTILE, route=HOSTILE)
@example(message="\n", name="", channel="\n\n", route='"')
@example(message="\ud800", name="\udfff\n", channel="\\]", route="\x00")
def test_any_text_arrives_as_it_was_sent(message, name, channel, route):
    event = make_event({"text": message.encode("utf-8", "replace").decode()}, id=name, channel=channel, route=route)
    taken = asyncio.run(sent(event, "{{ payload.text }}"))
    entry = parse_entry(taken["journald"])
    expected = {"MESSAGE": event.payload["text"], "EVENT_ID": name, "CHANNEL": channel, "ROUTE": route}
    assert len(entry) == 7
    assert {field: text.encode("utf-8", "backslashreplace") for field, text in expected.items()}.items() <= dict(
        entry
    ).items()
    found = parse_message(taken["syslog"])
    assert found.text == escape(event.payload["text"])
    values = {"event_id": name, "channel": channel, "route": route}
    assert {field: escape(value) for field, value in values.items()}.items() <= found.data["event@32473"].items()
    assert not {"\n", "\0", "\x1b"} & {*taken["syslog"].decode()}


async def sent(event: Any, template: str) -> dict[str, bytes]:
    """The datagram that each target gets for an event."""
    found = {}
    for target in TARGETS:
        with tempfile.TemporaryDirectory() as folder, DatagramService(Path(folder, "s")) as service:
            async with open_sink("log", options(service, target, template=template)) as sink:
                assert all_written(await sink.deliver_batch([event]))
            assert service.received == 1
            found[target] = service.taken[0].content
    return found


@pytest.mark.parametrize(("target", "shown"), [("journald", "a\nb\x1b[2J"), ("syslog", r"a\nb\u001b[2J")])
def test_the_preview_is_the_text_that_is_sent(target, shown):
    template = validate("log", {"target": target, "template": "a\nb\x1b[2J"})
    assert template.preview(make_event({})) == shown
    assert validate("log", {"target": target}).preview(make_event({})) == ""


# --- large events ----------------------------------------------------------------------------------------------------

LARGE = {"text": "x" * (6 * 1024 * 1024)}


async def test_an_entry_too_large_for_a_datagram_comes_in_a_sealed_file(service):
    batch = [*events(1), make_event(LARGE, id="large"), make_event({}, id="last")]
    open_before = descriptors()
    with service:
        async with open_sink("log", options(service, "journald")) as sink:
            assert all_written(await sink.deliver_batch(batch))
        await until(lambda: service.received == 3)
    assert ids(service, "journald") == ["e-0", "large", "last"]
    small, large, last = service.taken
    assert small.seals is None
    assert last.seals is None
    assert large.seals == fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    assert dict(parse_entry(large.content))["MESSAGE"] == json_line(batch[1])
    assert descriptors() == open_before


async def test_a_large_entry_waits_for_room_like_others(service):
    with service:
        service.fail("silent")
        async with open_sink("log", options(service, "journald")) as sink:
            task = asyncio.create_task(sink.deliver_batch([make_event(LARGE, id="large")]))
            await stays(lambda: not task.done(), 0.02)
            service.recover()
            assert all_written(await task)
        await until(lambda: service.received == 1)
    assert service.taken[0].seals is not None


async def test_a_file_that_can_not_be_made_is_transient(service, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with service:
        async with open_sink("log", options(service, "journald")) as sink:
            monkeypatch.setattr(os, "memfd_create", full)
            (result,) = await sink.deliver_batch([make_event(LARGE)])
    assert isinstance(result, TransientError)
    assert "No space left on device" in str(result)


async def test_a_message_of_syslog_too_large_for_a_datagram_is_given_up_alone(service):
    batch = [make_event({}, id="first"), make_event(LARGE, id="large"), make_event({}, id="last")]
    with service:
        async with open_sink("log", options(service, "syslog")) as sink:
            first, large, last = await sink.deliver_batch(batch)
        await until(lambda: service.received == 2)
    assert ids(service, "syslog") == ["first", "last"]
    assert is_written(first)
    assert is_written(last)
    assert isinstance(large, PermanentError)
    assert f"more than a datagram to {service.path} can hold" in str(large)


# --- services that are away, slow or restarted ----------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
async def test_a_service_that_is_away_is_transient(service, target):
    with pytest.raises(TransientError, match="there is no such socket"):
        async with open_sink("log", options(service, target)):
            pass
    with service:
        async with open_sink("log", options(service, target)) as sink:
            assert all_written(await sink.deliver_batch(events(1)))
            service.stop()
            results = await sink.deliver_batch(events(3))
            assert [type(result) for result in results] == [TransientError] * 3
            assert str(results[0]) == f"can't write {service.path}: there is no such socket"
            service.listen()
            assert all_written(await sink.deliver_batch(events(3)))
        await until(lambda: service.received == 4)
    assert ids(service, target) == ["e-0", "e-0", "e-1", "e-2"]


async def test_a_socket_that_nobody_reads_any_more_is_transient(service):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as left:
        left.bind(service.path)
    with pytest.raises(TransientError, match="nothing listens to it"):
        async with open_sink("log", options(service, "syslog")):
            pass


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("make", [Path.touch, Path.mkdir])
async def test_a_path_that_is_no_socket_is_told_as_such(service, target, make):
    make(Path(service.path))
    with pytest.raises(SinkError, match=f"can't write {service.path}: it is not a socket"):
        async with open_sink("log", options(service, target)):
            pass


async def test_a_restarted_service_gets_the_next_event_at_once(service):
    with service:
        async with open_sink("log", options(service, "syslog")) as sink:
            assert all_written(await sink.deliver_batch(events(1)))
            service.stop()
            service.listen()
            assert all_written(await sink.deliver_batch([make_event({}, id="next")]))
        await until(lambda: service.received == 2)
    assert ids(service, "syslog") == ["e-0", "next"]


async def test_a_service_that_ends_while_the_sink_waits_for_it_is_transient(service):
    with service:
        service.fail("silent")
        async with open_sink("log", options(service, "journald")) as sink:
            task = asyncio.create_task(sink.deliver_batch(events(2)))
            await stays(lambda: not task.done(), 0.02)
            service.stop()
            assert [type(result) for result in await task] == [TransientError] * 2


@pytest.mark.parametrize("target", TARGETS)
async def test_a_slow_service_holds_up_nobody_and_gets_each_event_once(service, target):
    """Half of the batch goes out, the attempt is cancelled, and the next attempt sends the rest."""
    with service:
        service.hold()
        async with open_sink("log", options(service, target)) as sink:
            task = asyncio.create_task(sink.deliver_batch(events(2000)))
            await stays(lambda: not task.done(), 0.02)  # the event loop runs meanwhile
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            service.listen()
            assert all_written(await sink.deliver_batch(events(2000)))
            await until(lambda: service.received == 2000)
    assert ids(service, target) == [f"e-{n}" for n in range(2000)]


async def test_several_workers_may_wait_for_one_slow_service(service):
    with service:
        service.hold()
        service.fill()
        async with open_sink("log", options(service, "journald")) as sink:
            tasks = [asyncio.create_task(sink.deliver_batch([event])) for event in events(4)]
            await stays(lambda: not any(task.done() for task in tasks), 0.02)
            service.listen()
            assert all(map(all_written, await asyncio.gather(*tasks)))
        await until(lambda: service.received == 4)


async def test_a_socket_for_streams_is_the_sinks_fault(service):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(service.path)
        listening.listen()
        with pytest.raises(SinkError, match="it is not a socket for datagrams"):
            async with open_sink("log", options(service, "syslog")):
                pass


def test_the_usual_sockets():
    paths = [validate("log", {"target": target}).socket_path for target in ("journald", "syslog", "stdout")]
    assert paths == ["/run/systemd/journal/socket", "/dev/log", None]
