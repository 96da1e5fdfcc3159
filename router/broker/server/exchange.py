"""An open connection that sends commands and returns their answers, without a task or a timer for each command; floor 4.

redis-py opens the connection (address, TLS, login). Then its transport calls this protocol directly from the event loop.
redis-py's own machinery for waiting takes several times as long as sending a command and parsing its answer.
"""

from __future__ import annotations

import asyncio
from typing import Any

import hiredis
from redis import exceptions as failures
from redis.asyncio.connection import AbstractConnection

from router.broker.server import client

EARLY = 0.002
"""Seconds by which a timer of uvloop may fire too early, because uvloop counts in milliseconds."""

UNASKED = "the server sent an answer that belongs to no command; the router closes this connection and opens a new one"

_MORE = object()  # the parser's result if the answer is not complete yet


class Exchange(asyncio.Protocol):
    """An open connection. Call `ask` again only after all answers to the last call have arrived.

    The caller must close the connection after any error of `ask`. A late answer could otherwise be mistaken for the answer
    to the next command. The constructor raises redis-py's `ConnectionError` if the connection has ended already.
    """

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._parser = hiredis.Reader(
            protocolError=failures.InvalidResponse,
            replyError=connection._parser.parse_error,  # noqa: SLF001  # the exceptions that redis-py makes of error answers
            notEnoughData=_MORE,
        )
        self._failure: BaseException | None = None
        self._texts = False  # whether the parser decodes strings
        self._answer: asyncio.Future[list[Any]] | None = None  # set while a call of `ask` waits for its answers
        self._found: list[Any] = []
        self._number = 0  # the number of answers to wait for
        self._due = 0.0
        self._late: Exception | None = None  # the error to raise if the answer does not come in time
        self._timer: asyncio.TimerHandle | None = None
        self._transport = client.take_over(connection, self)

    @property
    def ended(self) -> bool:
        """True if the connection is known to have ended, so that no command can be sent."""
        return self._failure is not None or self._transport.is_closing()

    def ask(self, commands: bytes, number: int, patience: float, *, texts: bool = False) -> asyncio.Future[list[Any]]:
        """Send packed commands together; return a future of their answers, in order. `number` is the number of commands.

        An error answer is returned as an instance of redis-py's exceptions. Strings in the answers are bytes. If
        `texts` is True, strings are decoded as UTF-8, with invalid bytes backslash-escaped. The future raises a
        `TimeoutError` after `patience` seconds, and redis-py's errors if the connection fails. If the connection has
        failed before this call, the call itself raises the error.
        """
        if self._failure is not None:
            raise self._failure
        answer = self._answer = self._loop.create_future()
        self._found, self._number, self._late = [], number, None
        if texts is not self._texts:
            self._texts = texts
            self._parser.set_encoding(*(("utf-8", "backslashreplace") if texts else (None, None)))
        self._due = self._loop.time() + patience
        if self._timer is None:
            self._timer = self._loop.call_at(self._due, self._check)
        self._write(commands)
        return answer

    def _write(self, data: bytes) -> None:
        try:
            self._transport.write(data)
        except RuntimeError:
            self._answer = None
            with client.broken():  # entered only after an error, because most writes raise no error
                raise

    def hurry(self, seconds: float, late: Exception) -> None:
        """Make the current call of `ask` fail with the error `late` after `seconds` seconds without an answer."""
        due = self._loop.time() + seconds
        if self._asking and due < self._due:
            self._due, self._late = due, late
            self._stop_timer()
            self._timer = self._loop.call_at(due, self._check)

    def _check(self) -> None:
        """Make the call of `ask` fail if its time is over.

        If the timer belonged to an earlier call, set the timer again.
        """
        self._timer = None
        if not self._asking:
            return
        if self._loop.time() >= self._due - EARLY:
            self._fail(self._late or TimeoutError())
        else:
            self._timer = self._loop.call_at(self._due, self._check)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fail(self, failure: BaseException) -> None:
        """Record the error that ended the connection, and make the current call of `ask` fail with this error."""
        if self._failure is None:
            self._failure = failure
        answer = self._answer
        if answer is not None and not answer.done():
            answer.set_exception(failure)

    @property
    def _asking(self) -> bool:
        """True while a call of `ask` waits for its answers."""
        return self._answer is not None and not self._answer.done()

    async def close(self) -> None:
        """Close the connection without waiting for the other side.

        The current call of `ask` fails. A second call of `close` does nothing.
        """
        self._stop_timer()
        self._fail(failures.ConnectionError("the connection was closed"))
        await client.close(self._connection)

    # Called by the event loop.

    def data_received(self, data: bytes) -> None:
        """Parse the bytes of one chunk; complete the future of `ask` when the last answer is complete."""
        answer, found, parser = self._answer, self._found, self._parser
        if answer is None or answer.done():
            self._fail(failures.ConnectionError(UNASKED))
            self._transport.abort()
            return
        try:
            parser.feed(data)
            while (one := parser.gets()) is not _MORE:
                found.append(one)
        except Exception as error:  # noqa: BLE001  # an error of the parser: the bytes do not follow the Redis protocol
            self._fail(error)
            return
        if len(found) < self._number:
            return
        if len(found) > self._number or parser.has_data():
            self._fail(failures.ConnectionError(UNASKED))
            return
        self._answer, self._found = None, []  # otherwise the answers would stay in memory until the next call
        answer.set_result(found)

    def eof_received(self) -> None:
        """Record that the server closed the connection."""
        self._fail(failures.ConnectionError("Connection closed by server."))

    def connection_lost(self, exc: Exception | None) -> None:
        """Record that the transport is closed, with or without an error."""
        self._stop_timer()
        failure = failures.ConnectionError("Connection closed by server.")
        failure.__cause__ = exc
        self._fail(failure)
