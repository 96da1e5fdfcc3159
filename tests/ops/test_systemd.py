"""sd_notify: what is sent, and that nothing ever goes wrong by it."""

import contextlib
import os
import socket
import time

import pytest

from router.ops import systemd
from tests.support.process import NotifySocket


@pytest.fixture
def manager(tmp_path, monkeypatch):
    listener = NotifySocket(str(tmp_path / "notify.sock"))
    monkeypatch.setenv("NOTIFY_SOCKET", listener.address)
    yield listener
    listener.close()


def test_a_reload_tells_its_time_in_the_same_datagram(manager):
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert systemd.reloading("reading")
    manager.wait("RELOADING=1")
    [message] = manager.messages
    reloading, moment, status = message.splitlines()
    assert (reloading, status) == ("RELOADING=1", "STATUS=reading")
    assert before <= int(moment.removeprefix("MONOTONIC_USEC=")) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: systemd.ready("12 routes"), "READY=1\nSTATUS=12 routes"),
        (lambda: systemd.stopping("draining"), "STOPPING=1\nSTATUS=draining"),
        (lambda: systemd.status("waiting for Redis"), "STATUS=waiting for Redis"),
        (systemd.alive, "WATCHDOG=1"),
        (lambda: systemd.extend_timeout(1.5), "EXTEND_TIMEOUT_USEC=1500000"),
        (lambda: systemd.extend_timeout(20, "waiting"), "EXTEND_TIMEOUT_USEC=20000000\nSTATUS=waiting"),
        (lambda: systemd.status("two\nlines\rREADY=1"), "STATUS=two lines READY=1"),
        (lambda: systemd.status("sur\udc80rogate"), "STATUS=sur\\udc80rogate"),
    ],
)
def test_each_call_is_one_datagram(manager, call, expected):
    assert call()
    manager.wait(expected.splitlines()[0])
    assert manager.messages == [expected]


def test_an_abstract_socket_is_reached(monkeypatch):
    name = f"event-router-test-{time.monotonic_ns()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}")
        listener.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        assert systemd.ready("up")
        assert listener.recv(1024) == b"READY=1\nSTATUS=up"


@pytest.mark.parametrize(
    "address", ["", "relative/path", "/nowhere/at/all.sock", "@nobody-listens-here", "/" + "x" * 300, "vsock:2:1234"]
)
def test_without_a_manager_nothing_happens(monkeypatch, address):
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert systemd.ready("up") is False


@pytest.fixture
def deaf_manager(tmp_path, monkeypatch):
    """A manager that reads nothing, and whose socket is full."""
    path = tmp_path / "full.sock"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other,
    ):
        listener.bind(str(path))
        other.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            for _ in range(100_000):
                other.sendto(b"x" * 1000, str(path))
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        yield


@pytest.mark.usefixtures("deaf_manager")
def test_a_manager_that_does_not_read_holds_up_for_a_second_at_most(monkeypatch):
    assert systemd._PATIENCE <= 1
    monkeypatch.setattr(systemd, "_PATIENCE", 0.05)
    assert systemd.ready("up") is False


@pytest.mark.usefixtures("deaf_manager")
def test_what_is_sent_again_and_again_never_waits_for_the_manager(monkeypatch):
    monkeypatch.setattr(systemd, "_PATIENCE", 3600.0)
    assert systemd.status("12 routes") is False
    assert systemd.alive() is False


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": ""}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "60000000", "NOTIFY_SOCKET": ""}, None),
    ],
)
def test_whether_and_how_often_the_manager_wants_to_hear_that_all_is_well(monkeypatch, variables, seconds):
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"NOTIFY_SOCKET": "/run/systemd/notify"} | variables).items():
        monkeypatch.setenv(name, value)
    assert systemd.watchdog() == seconds


def test_managed_says_whether_a_manager_waits(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not systemd.managed()
    assert systemd.ready("up") is False
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    assert systemd.managed()
