"""The sockets of the admin side: who gets in, what is replaced, what is refused."""

import os
import socket
import stat
from pathlib import Path

import pytest

from router.admin.sockets import LONGEST, Listener, connect, default_address
from router.config.scalars import Address
from router.errors import ConfigError
from tests.support.redis import free_port


@pytest.fixture
def listen():
    """Listen at an address; closed after the test."""
    listeners = []

    def listening(address):
        listeners.append(Listener(address))
        return listeners[-1]

    yield listening
    for listener in listeners:
        listener.close()


def message(raised):
    [problem] = raised.value.problems
    assert problem.path == "admin.listen"
    return problem.message


def long(folder):
    """A path too long for the kernel, below the folder."""
    deep = folder / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    assert len(os.fsencode(deep)) > LONGEST
    return deep


def accepted(listener):
    """A connection that the listener takes, and what was sent over it."""
    listener.socket.setblocking(True)
    taken, _ = listener.socket.accept()
    with taken:
        return taken.recv(100)


@pytest.mark.parametrize("place", [lambda folder: folder, long], ids=["short", "long"])
def test_a_unix_socket_is_its_owners_alone(tmp_path, listen, place):
    address = default_address(place(tmp_path), "orders")
    assert address.path.endswith("/orders.sock")
    listener = listen(address)
    mode = Path(address.path).stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600
    with connect(address, 5) as connection:
        connection.sendall(b"hello")
        assert accepted(listener) == b"hello"
    listener.close()
    assert not Path(address.path).exists()


def test_its_mode_does_not_depend_on_the_umask(tmp_path, listen):
    before = os.umask(0)
    try:
        listen(Address(str(tmp_path / "a.sock")))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.sock").stat().st_mode) == 0o600


@pytest.mark.parametrize("place", [lambda folder: folder, long], ids=["short", "long"])
def test_what_a_dead_process_left_is_replaced(tmp_path, listen, monkeypatch, place):
    folder = place(tmp_path)
    monkeypatch.chdir(folder)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind("a.sock")
        dead.listen()
    assert (folder / "a.sock").is_socket()
    listener = listen(Address(str(folder / "a.sock")))
    with connect(listener.address, 5) as connection:
        connection.sendall(b"new")
        assert accepted(listener) == b"new"


def test_a_living_one_is_refused(tmp_path, listen):
    address = Address(str(tmp_path / "a.sock"))
    first = listen(address)
    with pytest.raises(ConfigError) as raised:
        Listener(address)
    assert message(raised) == f"another process listens at {address.path}; stop it, or choose another path"
    connect(address, 5).close()
    assert accepted(first) == b""


def test_a_living_one_that_is_too_busy_to_answer_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind("a.sock")
        busy.listen(0)
        waiting.connect("a.sock")
        with pytest.raises(ConfigError, match="another process listens"):
            Listener(Address(str(tmp_path / "a.sock")))


def test_a_file_that_is_no_socket_stays(tmp_path):
    path = tmp_path / "a.sock"
    path.write_text("precious")
    with pytest.raises(ConfigError) as raised:
        Listener(Address(str(path)))
    assert message(raised) == f"{path} exists and is not a socket; remove it, or choose another path"
    assert path.read_text() == "precious"


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "a.sock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="not a socket"):
        Listener(Address(str(tmp_path / "a.sock")))


def test_a_socket_that_another_put_there_meanwhile_is_left_alone(tmp_path, listen, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listener = listen(Address(str(tmp_path / "a.sock")))
    (tmp_path / "a.sock").unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind("a.sock")
        listener.close()
        assert (tmp_path / "a.sock").is_socket()


def test_a_folder_that_is_not_there(tmp_path):
    address = Address(str(tmp_path / "none" / "a.sock"))
    with pytest.raises(ConfigError) as raised:
        Listener(address)
    assert message(raised) == f"can't listen at {address}: no such file or directory"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "0.0.0.0", "::"])
def test_tcp(host, listen):
    if ":" in host and not Path("/proc/net/if_inet6").exists():
        pytest.skip("no IPv6 here")
    listener = listen(Address(None, host, 0))
    assert listener.address.port
    with connect(listener.address, 5) as connection:
        connection.sendall(b"hello")
        assert accepted(listener) == b"hello"


def test_a_port_that_is_taken(listen):
    taken = listen(Address(None, "127.0.0.1", 0)).address
    with pytest.raises(ConfigError) as raised:
        Listener(taken)
    assert message(raised) == (
        f"can't listen at {taken}: address already in use; another program uses it: choose another port"
    )


def test_an_address_of_another_machine():
    with pytest.raises(ConfigError) as raised:
        Listener(Address(None, "192.0.2.1", free_port()))  # RFC 5737: nobody's
    assert "can't listen at 192.0.2.1:" in message(raised)


def test_nobody_listens(tmp_path):
    with pytest.raises(FileNotFoundError):
        connect(Address(str(tmp_path / "a.sock")), 5)
    with pytest.raises(ConnectionRefusedError):
        connect(Address(None, "127.0.0.1", free_port()), 5)


def test_no_descriptor_stays_open(tmp_path):
    address = Address(str(long(tmp_path) / "a.sock"))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        listener = Listener(address)
        with pytest.raises(ConfigError):
            Listener(address)
        connect(address, 5).close()
        listener.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
