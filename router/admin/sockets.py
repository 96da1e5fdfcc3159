"""The code that server and client of the admin side share: the sockets, and the paths of requests; floor 6.

A unix socket is accessible to its owner alone (mode 0600) from the moment of its creation. The socket of a dead process
is replaced; a socket in use is never replaced. The kernel accepts paths of up to 107 bytes. A socket with a longer path
is reached through a file descriptor of its folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from router.config.scalars import Address
from router.errors import ConfigError, Problem

STATUS = "/api/status"
"""The path of the status document."""

RELOAD = "/api/reload"
"""The path at which a POST reloads the configuration."""

LONGEST = 107
"""Bytes of the longest path that fits into a `sockaddr_un` (unix(7))."""

BACKLOG = 64
"""The largest number of connections that wait to be accepted."""


def default_address(state: Path, instance: str) -> Address:
    """Return the default address of the admin side: a unix socket in the state directory."""
    return Address(str(state / f"{instance}.sock"))


class Listener:
    """A listening socket.

    The attribute `address` has the real port if the given port was 0. Raises `ConfigError` if listening is impossible.
    """

    def __init__(self, address: Address) -> None:
        self._path = None if address.path is None else Path(address.path)
        self._inode: int | None = None
        self._held = contextlib.ExitStack()
        try:
            self.socket = self._unix(self._path) if self._path else _tcp(address)
        except BaseException as error:
            self._held.close()
            if isinstance(error, OSError):
                raise _problem(address, error) from error
            raise
        self.socket.setblocking(False)
        self.address = address if self._path else address._replace(port=self.socket.getsockname()[1])

    def _unix(self, path: Path) -> socket.socket:
        name = self._held.enter_context(_name(path))
        _make_room(path, name)
        listening = socket.socket(socket.AF_UNIX)
        try:
            os.fchmod(listening.fileno(), 0o600)  # Linux creates the file with this mode; `chmod` below comes too late
            listening.bind(name)
            path.chmod(0o600)
            listening.listen(BACKLOG)
            self._inode = path.stat().st_ino
        except BaseException:
            listening.close()
            raise
        return listening

    def close(self) -> None:
        """Close the socket, and remove its file unless another process has replaced it."""
        self.socket.close()
        if self._path is not None:
            with contextlib.suppress(OSError):
                if self._path.stat().st_ino == self._inode:
                    self._path.unlink()
        self._held.close()


def connect(address: Address, timeout: float) -> socket.socket:
    """Return a connection to an address.

    `timeout` (seconds) limits connecting and every later operation. Raises `OSError`.
    """
    if address.path is None:
        return socket.create_connection((address.host, address.port), timeout)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(timeout)
        with _name(Path(address.path)) as name:
            connection.connect(name)
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def _name(path: Path) -> Iterator[str]:
    """Yield a name of the path that fits into a socket address."""
    if len(os.fsencode(path)) <= LONGEST:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _make_room(path: Path, name: str) -> None:
    """Remove the socket of a dead process. Raises `ConfigError` for a socket in use, and for any other file."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise _error(f"{path} exists and is not a socket; remove it, or choose another path")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        answer = probe.connect_ex(name)
    if answer == errno.ECONNREFUSED:
        path.unlink(missing_ok=True)
    elif answer != errno.ENOENT:
        raise _error(f"another process listens at {path}; stop it, or choose another path")


def _tcp(address: Address) -> socket.socket:
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, place = min(found, key=lambda entry: entry[0])  # IPv4 first: `localhost` is 127.0.0.1
    dual = address.host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server((str(place[0]), int(place[1])), family=family, backlog=BACKLOG, dualstack_ipv6=dual)


def _problem(address: Address, error: OSError) -> ConfigError:
    # `create_server` adds the address to `strerror`; the message below already names the address.
    by_number = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
    why = (by_number or str(error)).lower()
    cure = "; another program uses it: choose another port" if error.errno == errno.EADDRINUSE else ""
    return _error(f"can't listen at {address}: {why}{cure}")


def _error(message: str) -> ConfigError:
    return ConfigError([Problem(message, path="admin.listen")])
