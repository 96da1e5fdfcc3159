"""A connection that sends commands and scripts one at a time, and reconnects after a failure; floor 4.

A link never sends a command twice: the caller decides whether that is safe. All scripts of the queues are idempotent
and may be sent again. An answer is never mistaken for the answer to another command.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, Literal, Self

import hiredis
from redis import exceptions as failures
from redis.asyncio.connection import AbstractConnection

from router.broker.server import answers, client
from router.broker.server.client import Server

Word = str | bytes | int

CHUNK = 65536
"""The largest number of bytes of answers that are read at once."""

_MORE = object()  # the parser's result if the answer is not complete yet

COMMAND = "a command to Redis neither ends nor fails"
"""The description of a component that hangs in a `Link`, for the watchdog (`contracts.Sign`)."""


class Script:
    """A Lua script and the digest for EVALSHA."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class _Turn(asyncio.Lock):
    """The lock of a connection, with the time at which it was acquired."""

    since: float | None = None
    """The time (`time.monotonic`, seconds) at which the holder acquired the lock; None while the lock is free."""

    async def acquire(self) -> Literal[True]:
        """Acquire the lock and note the time."""
        await super().acquire()
        self.since = time.monotonic()
        return True

    def release(self) -> None:
        """Release the lock and clear the time."""
        self.since = None
        super().release()


class Link:
    """A connection to a server, opened at the first command. `patience` is the seconds allowed for an answer."""

    def __init__(self, server: Server, patience: float = client.TIMEOUT) -> None:
        self._server = server
        self._patience = patience
        self._connection: AbstractConnection | None = None
        self._turn = _Turn()
        self._marks = 0
        self._marked = True  # whether the server of this connection knows ECHO

    @property
    def since(self) -> float | None:
        """The time (`time.monotonic`, seconds) at which the current command began; None between two commands."""
        return self._turn.since

    async def open(self) -> None:
        """Connect and log in, unless the connection is open. Raises redis-py's errors."""
        async with self._turn, asyncio.timeout(self._patience):
            await self._connected()

    async def call(self, *words: Word) -> Any:
        """Send one command and return its answer.

        Raises redis-py's errors. If the server answered with an error, the connection usually stays open. After a lost
        connection or a timeout, the next command opens a new connection.
        """
        async with self._turn:
            return await self._send(_pack(words))

    async def script(self, script: Script, keys: Sequence[str | bytes], words: Sequence[Word]) -> Any:
        """Run a script and return its answer; send its text if the server does not know the digest.

        Raises redis-py's errors. The error of a command inside the script is raised as if the command had been sent
        alone.
        """
        rest = (len(keys), *keys, *words)
        async with self._turn:
            try:
                try:
                    return await self._send(_pack(("EVALSHA", script.digest, *rest)))
                except failures.NoScriptError:
                    return await self._send(_pack(("EVAL", script.text, *rest)))
            except failures.ResponseError as error:
                raise answers.plain(error) from error

    async def pipeline(self, commands: Iterable[Sequence[Word]], *, texts: bool = False) -> list[Any]:
        """Send commands together; return the answer of each, in order. An error answer is returned, not raised.

        Strings in the answers are bytes. With `texts` they are text: UTF-8, with invalid bytes backslash-escaped. Raises
        redis-py's errors for a connection that fails.
        """
        packed = [_pack(words) for words in commands]
        async with self._turn:
            try:
                async with asyncio.timeout(self._patience):
                    connection = await self._connected()
                    with client.broken():
                        await connection.send_packed_command(b"".join((*packed, self._next_mark())))
                    found = await _answers(connection, len(packed) + self._marked, texts=texts)
                    if self._marked:
                        _check(str(self._marks) if texts else b"%d" % self._marks, found.pop())
                    return found
            except BaseException:
                await self.close()
                raise

    async def courtesy(self, *words: Word) -> Any:
        """Send a command that the router can do without; return its answer, or None if the server refuses it."""
        try:
            return await self.call(*words)
        except failures.ResponseError:
            return None

    async def _send(self, command: bytes) -> Any:
        try:
            async with asyncio.timeout(self._patience):  # redis-py's own `timeout=` gives None in place of an error
                return await self._answer(await self._connected(), command)
        except failures.ResponseError as error:
            if isinstance(error, failures.AuthenticationError | failures.ReadOnlyError):
                await self.close()  # after a failover another server may answer at this address
            raise
        except BaseException:
            await self.close()
            raise

    async def _connected(self) -> AbstractConnection:
        """Return the open connection; open a new one if there is none or if the server has closed it."""
        if self._connection is not None and client.hung_up(self._connection):
            await self.close()  # the server closed it between two commands, so no command is in doubt
        if self._connection is None:
            connection = await client.dial(self._server)
            connection.socket_timeout = None  # `patience` limits each command; redis-py's limit costs a task and timers
            try:
                self._marked = await self._knows_echo(connection)
            except BaseException:
                await client.close(connection)
                raise
            self._connection = connection
        return self._connection

    async def _answer(self, connection: AbstractConnection, command: bytes) -> Any:
        """Send a command and return the answer to exactly this command.

        Each command is followed by an ECHO of a new number. If the number does not follow the answer, the other side sent
        an answer too many or too few, as a broken proxy may do. All later answers would then be shifted by one.
        """
        with client.broken():
            await connection.send_packed_command(command + self._next_mark())
        try:
            answer = await self._read(connection)
        except failures.ResponseError:
            if self._marked:
                with contextlib.suppress(failures.ResponseError):  # a server may refuse the ECHO too
                    _check(b"%d" % self._marks, await self._read(connection))
            raise
        await self._check_mark(connection)
        return answer

    def _next_mark(self) -> bytes:
        """Return the ECHO of a new number; empty if the server does not know that command."""
        self._marks += 1
        return _pack(("ECHO", b"%d" % self._marks)) if self._marked else b""

    async def _check_mark(self, connection: AbstractConnection) -> None:
        if self._marked:
            try:
                _check(b"%d" % self._marks, await self._read(connection))
            except failures.ResponseError:
                _check(b"%d" % self._marks, None)

    async def _read(self, connection: AbstractConnection) -> Any:
        return await connection.read_response()

    async def _knows_echo(self, connection: AbstractConnection) -> bool:
        """Return whether the server answers ECHO. A user may lack the permission; a proxy may not know the command."""
        with client.broken():
            await connection.send_packed_command(_pack(("ECHO", b"0")))
        try:
            answer = await self._read(connection)
        except failures.ResponseError as error:
            return answers.passes(error)
        _check(b"0", answer)
        return True

    async def close(self) -> None:
        """Close the connection.

        A command that waits for its answer fails; the next command opens another connection.
        """
        connection, self._connection = self._connection, None
        if connection is not None:
            await client.close(connection)


class PlainLink(Link):
    """A link that raises the router's errors instead of redis-py's; an async context manager.

    Its methods raise `UnavailableError` if Redis can't be reached and `ConfigError` if Redis refuses the command.
    """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    @property
    def address(self) -> str:
        """The server's address, without credentials."""
        return self._server.shown

    async def call(self, *words: Word) -> Any:
        """Send one command and return its answer."""
        return await self._explained(super().call(*words))

    async def script(self, script: Script, keys: Sequence[str | bytes], words: Sequence[Word]) -> Any:
        """Run a script and return its answer."""
        return await self._explained(super().script(script, keys, words))

    async def _explained(self, answer: Awaitable[Any]) -> Any:
        try:
            return await answer
        except Exception as error:  # noqa: BLE001  # `explain` has a message for every error
            raise client.explain(error, self._server.shown) from None


async def _answers(connection: AbstractConnection, number: int, *, texts: bool) -> list[Any]:
    """Return the next answers of an open connection, as `Link.pipeline` does.

    redis-py awaits each answer with a timeout of its own, which costs more than to read the answer.
    """
    stream, parser = connection._reader, connection._parser  # noqa: SLF001  # redis-py has no public access to them
    if stream is None:
        raise failures.ConnectionError("the connection was closed")
    answers = hiredis.Reader(
        protocolError=failures.InvalidResponse,
        replyError=parser.parse_error,
        encoding="utf-8" if texts else None,
        errors="backslashreplace" if texts else None,
        notEnoughData=_MORE,
    )
    found: list[Any] = []
    while len(found) < number:
        answer = answers.gets()
        while answer is _MORE:
            data = await stream.read(CHUNK)
            if not data:
                raise failures.ConnectionError("the connection was closed by the server")
            answers.feed(data)
            answer = answers.gets()
        found.append(answer)
    if answers.has_data():
        _check("", None)
    return found


def _check(mark: str | bytes, found: Any) -> None:
    if found != mark:
        raise failures.ConnectionError("the server sent an answer to no command; the connection is closed")


def _pack(words: Sequence[Word]) -> bytes:
    return bytes(hiredis.pack_command(tuple(words)))  # type: ignore[arg-type]  # its stub knows one word only


async def cancelled(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks that send commands, and wait until they have ended.

    One cancellation may not be enough: redis-py uses `asyncio.wait_for`, which swallows a cancellation that arrives
    together with the awaited result (https://github.com/python/cpython/issues/86296).
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=0.1)
