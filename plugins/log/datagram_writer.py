"""The writer of datagrams to the local socket of journald or syslog. It never blocks the event loop."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from collections.abc import Sequence
from pathlib import Path

from router.api import Event, PermanentError, Recent, Result, SinkContext, SinkError, TransientError, escape

from .journal_entry import journal_entry, sealed_file
from .log_options import LogOptions
from .syslog_message import syslog_message

# Errors that a retry does not solve: the configured path can't be the socket.
_NOT_A_SERVICE = frozenset({errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EPROTOTYPE})

# Errors of a connection to a service that has ended. The service may be restarted at the same path.
_ENDED = frozenset({errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOTCONN, errno.EPIPE, errno.EDESTADDRREQ})

_TOO_LARGE = frozenset({errno.EMSGSIZE, errno.ENOBUFS})

REMEMBERED = 10_000
"""The largest number of remembered deliveries: those that an interrupted batch has sent. The retry of such a delivery
succeeds without sending the event again."""

PAUSE_AFTER = 256 * 1024
"""The number of bytes after which other tasks of the event loop get a turn."""


class DatagramWriter:
    """Sends events to one socket: to journald if `is_journal`, else to syslog."""

    def __init__(self, path: str, *, is_journal: bool) -> None:
        self._is_journal = is_journal
        self._encode = journal_entry if is_journal else syslog_message
        self._path = path
        self._answer = f"written to {escape(path)}"
        self._socket: socket.socket | None = None
        self._turn = asyncio.Lock()
        self._known = Recent(REMEMBERED)

    async def open(self, context: SinkContext) -> None:  # noqa: ARG002  # `LineWriter.open` needs the context
        """Connect to the socket.

        Raises `TransientError` if no service listens or this user lacks the right. Raises `SinkError` if the path can't
        be the socket of a service.
        """
        if self._socket is None:
            try:
                self._connect()
            except OSError as error:
                raise self._failure(error) from None

    async def deliver_batch(self, batch: Sequence[tuple[Event, LogOptions]]) -> Sequence[Result]:
        """Send one datagram for each event, in order; return one result for each event."""
        results: list[Result] = []
        try:
            async with self._turn:
                await self._send_all(batch, results)
        except asyncio.CancelledError:
            for (event, _), result in zip(batch, results, strict=False):
                if not isinstance(result, TransientError | SinkError):
                    self._known[event.key] = result
            raise
        return results

    async def close(self) -> None:
        """Close the socket."""
        self._disconnect()

    async def _send_all(self, batch: Sequence[tuple[Event, LogOptions]], results: list[Result]) -> None:
        """Send a batch, and append the result of each event.

        After a failure of the service, the remaining events are not tried and get the same error.
        """
        sent = 0
        for event, options in batch:
            if event.key in self._known:
                results.append(self._known.pop(event.key))
                continue
            data = self._encode(event, options)
            try:
                await self._send(data)
            except OSError as error:
                failure = self._refused(data) if error.errno == errno.EMSGSIZE else self._failure(error)
                if not isinstance(failure, PermanentError):
                    results += [failure] * (len(batch) - len(results))
                    return
                results.append(failure)
                continue
            results.append(self._answer)
            sent += len(data)
            if sent >= PAUSE_AFTER:
                sent = 0
                await asyncio.sleep(0)

    async def _send(self, data: bytes) -> None:
        """Send one event. If it is too large for a datagram, the journal gets it in a memory file. Raises `OSError`."""
        try:
            await self._send_datagram(data)
        except OSError as error:
            if not self._is_journal or error.errno not in _TOO_LARGE:
                raise
        else:
            return
        fd = sealed_file(data)
        try:
            await self._send_datagram(b"", fd)
        finally:
            os.close(fd)

    async def _send_datagram(self, data: bytes, fd: int = -1) -> None:
        """Send a datagram, with the file descriptor `fd` if it is given.

        If the service was restarted, connect again.
        """
        fresh = self._socket is None
        while True:
            connected = self._socket or self._connect()
            try:
                if fd < 0:
                    connected.send(data)
                else:
                    socket.send_fds(connected, [data], [fd])
            except BlockingIOError:
                await _writable(connected)
            except OSError as error:
                if error.errno in _ENDED:
                    self._disconnect()
                if error.errno not in _ENDED or fresh:
                    raise
                fresh = True
            else:
                return

    def _connect(self) -> socket.socket:
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            connected.setblocking(False)
            connected.connect(self._path)
        except BaseException:
            connected.close()
            raise
        self._socket = connected
        return connected

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _refused(self, data: bytes) -> PermanentError:
        return PermanentError(
            f"the message has {len(data)} bytes, more than a datagram to {self._path} can hold: "
            "shorten the message with `template`"
        )

    def _failure(self, error: OSError) -> TransientError | SinkError:
        reason = os.strerror(error.errno) if error.errno else str(error)
        if error.errno == errno.ENOENT:
            reason = "there is no such socket"
        elif error.errno == errno.ECONNREFUSED and _is_another_file(self._path):
            return SinkError(f"can't write {self._path}: it is not a socket")  # a retry does not make it a socket
        elif error.errno == errno.ECONNREFUSED:
            reason = "nothing listens to it"
        elif error.errno == errno.EPROTOTYPE:
            reason = "it is not a socket for datagrams"
        message = f"can't write {self._path}: {reason}"
        return SinkError(message) if error.errno in _NOT_A_SERVICE else TransientError(message)


def _is_another_file(path: str) -> bool:
    """Return whether a path exists but is not a socket.

    The kernel reports the same error for a socket without a service.
    """
    try:
        return not stat.S_ISSOCK(Path(path).stat().st_mode)
    except OSError:
        return False


async def _writable(connected: socket.socket) -> None:
    """Wait until the receiver has room for another datagram, or has ended."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    number = connected.fileno()
    loop.add_writer(number, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(number)
