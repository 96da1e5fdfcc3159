"""A connection that sends commands and scripts one at a time, and reconnects after a failure; floor 4.

A link never sends a command twice, because only the caller knows whether a second sending is safe. All scripts of the
queues are idempotent, so they may be sent again. An answer is never mistaken for the answer to another command.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import deque
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, Self

import hiredis
from redis import exceptions as failures

from router.broker.server import answers, client
from router.broker.server.client import Server
from router.broker.server.exchange import UNASKED, Exchange

Word = str | bytes | int

COMMAND = "a command to Redis neither ends nor fails"
"""The description of a hanging command, for the watchdog (`contracts.Sign`)."""


_OF_ANOTHER_SERVER = (failures.AuthenticationError, failures.ReadOnlyError)
"""Errors after which the link closes the connection: after a failover, another server may answer at this address."""


class Script:
    """A Lua script, with its digest for EVALSHA."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class Turn:
    """A fair lock that records when it was acquired. It is used as an async context manager.

    `asyncio.Lock` needs five calls, and this lock needs two. The difference matters, because every command acquires the
    lock.
    """

    def __init__(self) -> None:
        self.since: float | None = None
        """The time (`time.monotonic`, seconds) at which the holder acquired the lock; None while the lock is free."""
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> None:
        """Acquire the lock. Tasks get the lock in the order in which they began to wait."""
        if self.since is not None:
            await self._wait()
        self.since = time.monotonic()

    async def _wait(self) -> None:
        granted = asyncio.get_running_loop().create_future()
        self._waiting.append(granted)
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self._release()  # this task has got the lock, but is cancelled
            raise

    async def __aexit__(self, *_error: object) -> None:
        """Release the lock."""
        self._release()

    def _release(self) -> None:
        while self._waiting:
            granted = self._waiting.popleft()
            if not granted.done():
                granted.set_result(None)  # `since` stays set, so that no other task acquires the lock first
                return
        self.since = None


class Link:
    """A connection to a server, which is opened at the first command.

    `patience` is the time limit for an answer in seconds.
    """

    def __init__(self, server: Server, patience: float = client.TIMEOUT) -> None:
        self._server = server
        self._patience = patience
        self._exchange: Exchange | None = None
        self._turn = Turn()
        self._marks = 0
        self._marked = True  # True if the server answers ECHO on this connection

    @property
    def since(self) -> float | None:
        """The time (`time.monotonic`, seconds) at which the current command began; None between two commands."""
        return self._turn.since

    @property
    def ended(self) -> bool:
        """True if there is no open connection: none was opened yet, or the server has closed the connection."""
        return self._exchange is None or self._exchange.ended

    async def open(self) -> None:
        """Connect and log in if the connection is not open yet. Raises redis-py's errors."""
        async with self._turn:
            await self._connected()

    async def call(self, *words: Word) -> Any:
        """Send one command and return its answer.

        Raises redis-py's errors. If the answer is an error, the connection usually stays open. After a lost connection or a
        timeout, the next command opens a new connection.
        """
        async with self._turn:
            return await self._send(_pack(words))

    async def script(self, script: Script, keys: Sequence[str | bytes], words: Sequence[Word]) -> Any:
        """Run a script and return its answer. The text of the script is sent only if the server does not know the
        digest.

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
                raise answers.unwrapped(error) from error

    async def pipeline(self, commands: Iterable[Sequence[Word]], *, texts: bool = False) -> list[Any]:
        """Send commands together; return their answers in order. An error answer is returned, not raised.

        Strings in the answers are bytes. If `texts` is True, strings are decoded as UTF-8, with invalid bytes
        backslash-escaped. Raises redis-py's errors if the connection fails.
        """
        packed = [_pack(words) for words in commands]
        async with self._turn:
            found, mark = await self._ask(b"".join(packed), len(packed), texts=texts)
            if self._marked:
                await self._check_mark(mark.encode() if isinstance(mark, str) else mark)
            return found

    def hurry(self, seconds: float, late: Exception) -> None:
        """Make the current command raise the error `late` if the answer does not come within `seconds` from now."""
        if self._exchange is not None:
            self._exchange.hurry(seconds, late)

    async def courtesy(self, *words: Word) -> Any:
        """Send an optional command; return the answer, or None if the server refuses the command."""
        try:
            return await self.call(*words)
        except failures.ResponseError:
            return None

    async def _send(self, command: bytes) -> Any:
        """Send a command; return the answer that belongs to this command."""
        (answer,), mark = await self._ask(command, 1)
        if not isinstance(answer, Exception):
            if self._marked and mark != b"%d" % self._marks:
                await self._check_mark(mark)
            return answer
        if self._marked and not isinstance(mark, failures.ResponseError):  # a server may refuse the ECHO too
            await self._check_mark(mark)
        lasting = isinstance(answer, failures.ResponseError) and not isinstance(answer, _OF_ANOTHER_SERVER)
        if not lasting:
            await self.close()
        raise answer

    async def _ask(self, commands: bytes, number: int, *, texts: bool = False) -> tuple[list[Any], Any]:
        """Send packed commands; return their answers, and the answer to the mark (None if no mark was sent).

        The mark is an ECHO of a new number, which is sent after the commands. If the number does not follow the
        answers, the other side has sent one answer too many or too few. A broken proxy may do this. All later answers
        would be shifted by one.
        """
        patience = self._patience
        try:
            exchange = self._exchange
            if exchange is None or exchange.ended:
                began = time.monotonic()
                exchange = await self._connected()
                patience -= time.monotonic() - began
            if not self._marked:
                return await exchange.ask(commands, number, patience, texts=texts), None
            self._marks += 1
            mark = b"%d" % self._marks
            echo = b"*2\r\n$4\r\nECHO\r\n$%d\r\n%b\r\n" % (len(mark), mark)
            found = await exchange.ask(commands + echo, number + 1, patience, texts=texts)
            mark = found.pop()
        except BaseException:
            await self.close()
            raise
        else:
            return found, mark

    async def _check_mark(self, found: Any) -> None:
        """Check that `found` is the answer to the last ECHO.

        If not, close the connection and raise a `ConnectionError`.
        """
        if found != b"%d" % self._marks:
            await self.close()
            raise failures.ConnectionError(UNASKED)

    async def _connected(self) -> Exchange:
        """Return the open connection. Open a new connection if none is open, or if the server has closed it."""
        if self._exchange is not None and self._exchange.ended:
            await self.close()  # the server closed the connection between two commands, so no command is lost
        if self._exchange is None:
            async with asyncio.timeout(self._patience):
                self._exchange = await self._dialled()
        return self._exchange

    async def _dialled(self) -> Exchange:
        connection = await client.dial(self._server)
        try:
            exchange = Exchange(connection)
            (answer,) = await exchange.ask(_pack(("ECHO", b"0")), 1, self._patience)
            self._marked = _knows_echo(answer)
        except BaseException:
            await client.close(connection)
            raise
        return exchange

    async def close(self) -> None:
        """Close the connection.

        A command that waits for its answer fails. The next command opens a new connection.
        """
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            await exchange.close()


class PlainLink(Link):
    """A link that raises the router's errors instead of redis-py's. It can be used as an async context manager.

    `call` and `script` raise `UnavailableError` if Redis can't be reached, and `ConfigError` if Redis refuses the command.
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


def _knows_echo(answer: Any) -> bool:
    """Return whether the server answers ECHO. `answer` is its answer to the first ECHO of a connection.

    The user may lack the permission for ECHO, or a proxy may not know the command. If `answer` is the error of a failed
    connection, this error is raised.
    """
    if isinstance(answer, failures.ResponseError):
        return answers.is_temporary(answer)
    if isinstance(answer, Exception):
        raise answer
    if answer != b"0":
        raise failures.ConnectionError(UNASKED)
    return True


def _pack(words: Sequence[Word]) -> bytes:
    return bytes(hiredis.pack_command(tuple(words)))  # type: ignore[arg-type]  # the stub knows only one word


async def cancelled(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks that send commands, and wait until they have ended.

    One cancellation may not be enough. redis-py uses `asyncio.wait_for`, which swallows a cancellation if the awaited
    result arrives at the same time (https://github.com/python/cpython/issues/86296).
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=0.1)
