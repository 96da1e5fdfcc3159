"""A local socket for datagrams that stands in for journald or syslog, and parsers of what these services receive.

The parsers follow the documents, and share no code with the sink.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import socket
import struct
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Self

from router.testing import Failure

FILLER = b"filler"
RESTARTS = 5


class Datagram(NamedTuple):
    """One datagram: its payload, or the content of the file that came instead, and the seals of that file."""

    content: bytes
    seals: int | None = None


class DatagramService:
    """The socket of a service; `with` opens it. It implements `Service` of `router.testing`.

    The event loop of the test reads what arrives. A service that is `silent` reads nothing, and the room for datagrams is
    used up. The sockets for all restarts are opened at the beginning, because a check of a sink looks for new sockets.
    """

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.taken: list[Datagram] = []
        self._spare: list[socket.socket] = []
        self._socket: socket.socket | None = None
        self._reads = False

    def __enter__(self) -> Self:
        for number in range(RESTARTS + 1):
            opened = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            opened.bind(f"{self.path}.{number}")
            self._spare.append(opened)
        self.listen()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()
        for each in self._spare:
            each.close()

    @property
    def received(self) -> int:
        """The number of datagrams that have arrived, those included that wait in the socket."""
        self._read()
        return len(self.taken)

    def listen(self, *, reads: bool = True) -> None:
        """Listen, and read what arrives unless `reads` is false."""
        if self._socket is None:
            self._socket = self._spare.pop()
            Path(self._socket.getsockname()).rename(self.path)
        if reads and not self._reads:
            with contextlib.suppress(RuntimeError):  # without an event loop the test reads by `received`
                asyncio.get_running_loop().add_reader(self._socket, self._read)
                self._reads = True

    def stop(self) -> None:
        """End as a service does: what has arrived is read, and the path is removed."""
        if self._socket is not None:
            self._read()
            self.hold()
            self._socket.close()
            self._socket = None
            Path(self.path).unlink()

    def hold(self) -> None:
        """Read no more."""
        if self._reads and self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
        self._reads = False

    def fill(self) -> None:
        """Use up the room for datagrams. A sender may have less room than the receiver, so several send."""
        full = False
        while not full:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as filler:
                filler.connect(self.path)
                full = True
                with contextlib.suppress(BlockingIOError):
                    while filler.send(FILLER):
                        full = False

    def fail(self, failure: Failure, times: int | None = None) -> None:
        """Go away, or fall silent. A service can't refuse a datagram, ask for time, or count attempts while it is away."""
        if failure == "unavailable" and times is None:
            self.stop()
        elif failure == "silent":
            self.hold()
            self.fill()
        else:
            raise NotImplementedError

    def recover(self) -> None:
        """Read again."""
        self.listen()
        self._read()

    def _read(self) -> None:
        while self._socket is not None:
            try:
                content, descriptors, _flags, _address = socket.recv_fds(self._socket, 1 << 20, 4)
            except BlockingIOError:
                return
            if content == FILLER:
                continue
            if not descriptors:
                self.taken.append(Datagram(content))
                continue
            (number,) = descriptors
            assert content == b"", "a datagram with a descriptor has no payload"
            with os.fdopen(number, "rb") as file:
                file.seek(0)
                self.taken.append(Datagram(file.read(), fcntl.fcntl(number, fcntl.F_GET_SEALS)))


def parse_entry(entry: bytes) -> list[tuple[str, bytes]]:
    """Parse an entry of the journal (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/)."""
    return list(_fields(entry))


def _fields(rest: bytes) -> Iterator[tuple[str, bytes]]:
    while rest:
        line, newline, after = rest.partition(b"\n")
        assert newline, "the last field is not ended"
        name, equals, value = line.partition(b"=")
        assert re.fullmatch(rb"[A-Z][A-Z0-9_]{0,63}", name), name
        if not equals:
            (size,) = struct.unpack("<Q", after[:8])
            value, after = after[8 : 8 + size], after[8 + size :]
            assert len(value) == size
            assert after[:1] == b"\n"
            after = after[1:]
        yield name.decode(), value
        rest = after


class Message(NamedTuple):
    """A message of syslog."""

    priority: int
    at: datetime
    host: str | None
    app: str | None
    process: str | None
    kind: str | None
    data: dict[str, dict[str, str]]
    text: str


_NAME = r"[!#-<>-\\^-~]{1,32}"  # SD-NAME: printable ASCII except `=`, `]`, `"` and space
_VALUE = r'(?:[^"\\\]]|\\["\\\]])*'
_PARAMETER = rf' (?P<name>{_NAME})="(?P<value>{_VALUE})"'
_ELEMENT = rf'\[(?P<id>{_NAME})(?P<parameters>(?: {_NAME}="{_VALUE}")*)\]'
_HEADER = re.compile(
    r"<(?P<priority>0|[1-9][0-9]{0,2})>1 "
    r"(?P<at>[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:Z|[+-][0-9]{2}:[0-9]{2})) "
    r"(?P<host>[!-~]{1,255}) (?P<app>[!-~]{1,48}) (?P<process>[!-~]{1,128}) (?P<kind>[!-~]{1,32}) "
)


def parse_message(message: bytes) -> Message:
    """Parse a message of syslog by the grammar of RFC 5424, section 6."""
    text = message.decode()  # UTF-8 alone is sent
    header = _HEADER.match(text)
    assert header, text
    rest, data = text[header.end() :], {}
    rest = rest.removeprefix("-")
    while element := re.match(_ELEMENT, rest, re.DOTALL):
        assert element["id"] not in data
        values = re.finditer(_PARAMETER, element["parameters"], re.DOTALL)
        data[element["id"]] = {each["name"]: re.sub(r'\\(["\\\]])', r"\1", each["value"]) for each in values}
        rest = rest[element.end() :]
    content = rest.removeprefix(" ")
    assert content != rest or not rest, rest
    if content.isascii():
        assert not content.startswith("\ufeff")
    else:
        assert content.startswith("\ufeff"), "a text that is not ASCII begins with a byte order mark (section 6.4)"
    nil = {name: None if header[name] == "-" else header[name] for name in ("host", "app", "process", "kind")}
    at = datetime.fromisoformat(header["at"])
    return Message(priority=int(header["priority"]), at=at, data=data, text=content.removeprefix("\ufeff"), **nil)


def descriptors() -> int:
    """The number of open descriptors of this process."""
    return len([*Path("/proc/self/fd").iterdir()])
