"""A server that runs commands of event-router, each in a fork of an interpreter that has imported everything.

Starting Python and importing the router takes half a second of CPU, and the suite starts the command a thousand times. A fork
is a process of its own, with its own descriptors, environment, folder, signals and exit code, and takes a fifth of that.
`tests/support/forked.py` is the client.

The server reads requests from the socket on its standard input: one byte each, which comes with the descriptors of a connection
and of the command's streams. The child reads its arguments from the connection; the server writes the child's process id to
it, and at the end the exit code.
"""

from __future__ import annotations

import gc
import importlib
import io
import json
import os
import pkgutil
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import router
from router.broker.groups.heartbeat import Heartbeat
from router.cli import main as command
from router.plugin_loading.plugin_manager import load_plugins

LEFT_OUT = ("router.pytest_plugin", "router.testing")
"""Modules that no command imports."""


@dataclass
class Server:
    """The loop that forks; `connections` are those of the children that run, by process id."""

    requests: socket.socket
    wake: int
    connections: dict[int, socket.socket] = field(default_factory=dict)

    def serve(self) -> socket.socket | None:
        """Fork a child for every request. Return its connection in the child, None in the server when the tests end."""
        requests = self.requests.fileno()
        while True:
            ready, _, _ = select.select([requests, self.wake], [], [])
            if self.wake in ready:
                os.read(self.wake, 4096)
                self._reap()
            if requests in ready:
                data, descriptors, _, _ = socket.recv_fds(self.requests, 1, 4)
                if not data:
                    return None
                connection = self._fork(descriptors)
                if connection:
                    return connection

    def _fork(self, descriptors: list[int]) -> socket.socket | None:
        connection = socket.socket(fileno=descriptors[0])
        pid = os.fork()
        if not pid:
            for number, descriptor in enumerate(descriptors[1:]):
                os.dup2(descriptor, number)
                os.close(descriptor)
            for other in self.connections.values():
                other.close()
            return connection
        for descriptor in descriptors[1:]:
            os.close(descriptor)
        self.connections[pid] = connection
        _tell(connection, pid)
        return None

    def _reap(self) -> None:
        """Report every child that has ended."""
        while self.connections:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            with self.connections.pop(pid) as connection:
                _tell(connection, os.waitstatus_to_exitcode(status))


def _tell(connection: socket.socket, number: int) -> None:
    try:
        connection.sendall(b"%d\n" % number)
    except OSError:
        return  # the test has ended and asks no more


def become(connection: socket.socket) -> list[str]:
    """Make this process what a fresh one would be, and return the arguments of its command."""
    with connection, connection.makefile("rb") as told:
        asked: dict[str, Any] = json.loads(told.readline())
    if asked["session"]:
        os.setsid()
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    time.tzset()
    sys.path[0] = asked["cwd"]
    importlib.invalidate_caches()
    sys.modules["__main__"] = command
    sys.argv = [str(command.__file__), *asked["arguments"]]
    defaults: Any = Heartbeat.__init__.__kwdefaults__
    defaults["process"] = os.urandom(8).hex()  # a word that is unique to each process, drawn at the module's import
    _reopen()
    return list(asked["arguments"])


def _reopen() -> None:
    """Open the standard streams as Python does at its start: lines at once to a terminal, blocks to anything else."""
    for number, name, mode in ((0, "stdin", "rb"), (1, "stdout", "wb"), (2, "stderr", "wb")):
        before: io.TextIOWrapper = getattr(sys, f"__{name}__")
        binary: Any = open(number, mode, closefd=False)  # noqa: SIM115  # a descriptor, open to the end
        lines = name == "stderr" or binary.isatty()
        stream = io.TextIOWrapper(binary, before.encoding, before.errors, line_buffering=lines)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def prepare() -> None:
    """Import every module of the router and the built-in plugins."""
    for module in pkgutil.walk_packages(router.__path__, "router."):
        if not module.name.startswith(LEFT_OUT):
            importlib.import_module(module.name)
    load_plugins(entry_points=False)
    gc.collect()
    gc.freeze()


def main() -> None:
    """Serve until the tests end; in a child, run its command."""
    prepare()
    requests = socket.socket(fileno=os.dup(0))
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal of the tests is for them; they end the server
    connection = Server(requests, wake).serve()
    if connection is None:
        return
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.set_wakeup_fd(-1)
    for descriptor in (wake, woken):
        os.close(descriptor)
    requests.close()
    command.main(become(connection))


if __name__ == "__main__":
    main()
