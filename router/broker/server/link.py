"""One connection that sends commands and scripts, one at a time, and knows when it is broken; floor 4.

Nothing is sent twice here: who sends decides whether that is safe. All scripts of the queues may be sent again, for
each guards what it does. No answer is taken for that to another command.
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

COMMAND = "a command to Redis neither ends nor fails"
"""What a part that hangs in a `Link` is at (`contracts.Sign`)."""


class Script:
    """A Lua script and the digest that the server knows it by."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class _Turn(asyncio.Lock):
    """The lock of a connection; knows since when somebody holds it."""

    since: float | None = None

    async def acquire(self) -> Literal[True]:
        """As the lock's."""
        await super().acquire()
        self.since = time.monotonic()
        return True

    def release(self) -> None:
        """As the lock's."""
        self.since = None
        super().release()


class Link:
    """A connection to a server that opens when it is needed. `patience` is how long an answer may take, in seconds."""

    def __init__(self, server: Server, patience: float = client.TIMEOUT) -> None:
        self._server = server
        self._patience = patience
        self._connection: AbstractConnection | None = None
        self._turn = _Turn()
        self._marks = 0
        self._marked = True  # whether the server of this connection knows ECHO

    @property
    def since(self) -> float | None:
        """Since when a command is under way (`time.monotonic`); None when none is."""
        return self._turn.since

    async def open(self) -> None:
        """Connect and log in, unless that is done. Raises redis-py's errors."""
        async with self._turn, asyncio.timeout(self._patience):
            await self._connected()

    async def call(self, *words: Word) -> Any:
        """Send one command and return its answer.

        Raises redis-py's errors; after any but an error answer of the server the connection is a new one next time.
        """
        async with self._turn:
            return await self._send(_pack(words))

    async def script(self, script: Script, keys: Sequence[str | bytes], words: Sequence[Word]) -> Any:
        """Run a script; sends its text where the server has forgotten it, before anything else is sent.

        An error of a command in it is told as the command itself would have told it.
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

    async def courtesy(self, *words: Word) -> Any:
        """Send a command that the router can do without; returns None where the server refuses it, in whatever words."""
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
                await self.close()  # another server may answer at this address by now
            raise
        except BaseException:
            await self.close()
            raise

    async def _connected(self) -> AbstractConnection:
        """Return the connection; a new one where there is none, or where the other side hung up on it."""
        if self._connection is not None and client.hung_up(self._connection):
            await self.close()  # while nobody used it: no command of ours is in doubt
        if self._connection is None:
            connection = await client.dial(self._server)
            try:
                self._marked = await self._knows_echo(connection)
            except BaseException:
                await client.close(connection)
                raise
            self._connection = connection
        return self._connection

    async def _answer(self, connection: AbstractConnection, command: bytes) -> Any:
        """Return the answer to a command, and to no other.

        An ECHO goes with each command. If its mark does not come back right behind the answer, an answer too many or too
        few was sent, by a broken proxy for example, and every one that follows would be taken for another command's.
        """
        self._marks += 1
        mark = b"%d" % self._marks
        with client.broken():
            await connection.send_packed_command(command + _pack(("ECHO", mark)) if self._marked else command)
        try:
            answer = await self._read(connection)
        except failures.ResponseError:
            if self._marked:
                with contextlib.suppress(failures.ResponseError):  # what refuses the command may refuse the ECHO
                    _check(mark, await self._read(connection))
            raise
        if self._marked:
            try:
                _check(mark, await self._read(connection))
            except failures.ResponseError:
                _check(mark, None)
        return answer

    async def _read(self, connection: AbstractConnection) -> Any:
        return await connection.read_response(timeout=2 * self._patience)

    async def _knows_echo(self, connection: AbstractConnection) -> bool:
        """Ask once whether commands can be marked: a user may not be allowed to, or a proxy may not know the command."""
        with client.broken():
            await connection.send_packed_command(_pack(("ECHO", b"0")))
        try:
            return bool(await self._read(connection) == b"0")
        except failures.ResponseError as error:
            return answers.passes(error)

    async def close(self) -> None:
        """Hang up; what waits for an answer gets none. The next command opens another connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await client.close(connection)


class PlainLink(Link):
    """A link whose errors are the router's own, in plain words; a context manager.

    Its methods raise `UnavailableError` when Redis can't be reached and `ConfigError` when it refuses.
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
        except Exception as error:  # noqa: BLE001  # whatever it is, it is told in plain words
            raise client.explain(error, self._server.shown) from None


def _check(mark: bytes, found: Any) -> None:
    if found != mark:
        raise failures.ConnectionError("an answer came that nobody asked for; the connection is given up")


def _pack(words: Sequence[Word]) -> bytes:
    return bytes(hiredis.pack_command(tuple(words)))  # type: ignore[arg-type]  # its stub knows one word only


async def cancelled(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks that send commands, and wait for their end.

    Once may not be enough: `asyncio.wait_for`, which redis-py sends with, eats a cancellation that comes together with
    what it waits for (https://github.com/python/cpython/issues/86296).
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=0.1)
