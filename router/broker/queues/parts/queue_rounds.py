"""The rounds of a router through its Redis queues: one script call reads the books of all queues; floor 4."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from redis import exceptions as failures

from router.broker.queues.queue_scripts import TICK
from router.broker.server import answers
from router.broker.server.client import Server
from router.broker.server.link import Link, Word, cancelled

TOGETHER = 100
"""Queues in one script call at most: the server executes nothing else meanwhile."""

Row = tuple[int, list[Any]]
"""The server's time in milliseconds, and the script's answer for one queue."""


class _Question(NamedTuple):
    """A request about one queue: its keys, the number of retries it may move, other arguments, the awaited answer."""

    keys: Sequence[str]
    moves: int
    words: list[Word]
    answer: asyncio.Future[Row]


class QueueRounds:
    """Wakes the queues of a router at the same time, and sends their simultaneous requests in one script call.

    The first queue that joins opens the connection; the last one that leaves closes it.
    """

    def __init__(self, server: Server, group: str) -> None:
        self._link = Link(server)
        self._group = group
        self._members: dict[Callable[[], None], float] = {}
        self._questions: list[_Question] = []
        self._beat: asyncio.Task[None] | None = None
        self._asking: asyncio.Task[None] | None = None

    @property
    def since(self) -> float | None:
        """The time (`time.monotonic`, seconds) at which the current command began; None between two commands."""
        return self._link.since

    def join(self, wake: Callable[[], None], every: float) -> None:
        """Call `wake` every `every` seconds from now on, or more often if another member asks for that."""
        self._members[wake] = every
        if self._beat is None:
            self._beat = asyncio.create_task(self._wake_all(), name="queues: rounds")

    async def leave(self, wake: Callable[[], None]) -> None:
        """Stop calling `wake`."""
        self._members.pop(wake, None)
        if not self._members:
            tasks = [task for task in (self._beat, self._asking) if task is not None]
            self._beat = self._asking = None
            await cancelled(tasks)
            await self._link.close()

    async def _wake_all(self) -> None:
        while True:
            await asyncio.sleep(min(self._members.values()))
            for wake in list(self._members):
                wake()

    async def ask(self, keys: Sequence[str], moves: int, words: list[Word]) -> Row:
        """Run `TICK` for one queue, in one call with all queues that ask now. Raises redis-py's errors."""
        answer: asyncio.Future[Row] = asyncio.get_running_loop().create_future()
        self._questions.append(_Question(keys, moves, words, answer))
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_all(), name="queues: books")
        return await answer

    async def _ask_all(self) -> None:
        while self._questions:
            asked = [question for question in self._questions[:TOGETHER] if not question.answer.done()]
            del self._questions[:TOGETHER]
            try:
                await self._ask(asked)
            except Exception as error:  # noqa: BLE001  # `ask` raises the error
                _fail(asked, error)
            except BaseException:
                _fail([*asked, *self._questions], failures.ConnectionError("the connection was closed"))
                raise

    async def _ask(self, asked: Sequence[_Question]) -> None:
        if not asked:
            return
        share = len(asked)
        keys = [key for question in asked for key in question.keys]
        words: list[Word] = [self._group]
        for question in asked:
            words += (-(-question.moves // share), *question.words)
        try:
            milliseconds, *rows = await self._link.script(TICK, keys, words)
        except failures.NoPermissionError:
            if share == 1:
                raise
            for question in asked:  # Redis refuses the call if the keys of a single queue are forbidden
                try:
                    await self._ask([question])
                except failures.ResponseError as error:
                    _fail([question], error)
            return
        for question, row in zip(asked, rows, strict=True):
            if isinstance(row, failures.ResponseError):
                _fail([question], answers.plain(row))
            elif not question.answer.done():
                question.answer.set_result((milliseconds, row))


def _fail(questions: Sequence[_Question], error: Exception) -> None:
    for question in questions:
        if not question.answer.done():
            question.answer.set_exception(error)
