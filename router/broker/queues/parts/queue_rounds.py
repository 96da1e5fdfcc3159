"""The rounds of a router through its Redis queues. In each round, one script call reads the books of all queues; floor 4."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from redis import exceptions as failures

from router.broker.queues.queue_scripts import TICK
from router.broker.server.answers import unwrapped
from router.broker.server.client import Server
from router.broker.server.link import Link, Word, cancelled
from router.core.accounts.beats import until_beat

TOGETHER = 100
"""The largest number of queues in one script call. The server executes no other command during the script."""

Row = tuple[int, list[Any]]
"""The server's time in milliseconds, and the script's answer for one queue."""


class Question(NamedTuple):
    """The request of one queue: its keys, the largest number of retries to move, and further script arguments."""

    keys: Sequence[str]
    moves: int
    words: list[Word]


class Member(Protocol):
    """A queue that takes part in the rounds."""

    @property
    def resting(self) -> bool:
        """True if the next round must include the queue. While False, the queue calls `QueueRounds.ask` itself."""

    def question(self) -> Question:
        """Return the request to send now."""

    def read(self, row: Row) -> None:
        """Process the answer. This method is called before the next request of the queue is sent."""

    def failed(self, error: Exception) -> None:
        """Record that the request of a round failed."""


Asked = dict[Member, list[asyncio.Future[None]]]
"""The queues with a request to send. For each queue: the futures of the callers of `ask` that wait for the answer. A
request of a round has no such caller."""


class QueueRounds:
    """Sends the requests of all resting queues of a router together, in one script call.

    The connection is opened when the first queue joins, and closed when the last queue leaves.
    """

    def __init__(self, server: Server, group: str) -> None:
        self._link = Link(server)
        self._group = group
        self._members: dict[Member, float] = {}
        self._asked: Asked = {}
        self._beat: asyncio.Task[None] | None = None
        self._asking: asyncio.Task[None] | None = None

    @property
    def since(self) -> float | None:
        """The time (`time.monotonic`, seconds) at which the command under way began; None if no command is under way."""
        return self._link.since

    def join(self, member: Member, every: float) -> None:
        """Send a request of `member` every `every` seconds from now on.

        The shortest time of all members applies to all.
        """
        self._members[member] = every
        if self._beat is None:
            self._beat = asyncio.create_task(self._go_round(), name="queues: rounds")

    async def leave(self, member: Member) -> None:
        """Stop sending requests of `member`."""
        self._members.pop(member, None)
        if not self._members:
            tasks = [task for task in (self._beat, self._asking) if task is not None]
            self._beat = self._asking = None
            await cancelled(tasks)
            await self._link.close()

    async def _go_round(self) -> None:
        while True:
            await asyncio.sleep(until_beat(asyncio.get_running_loop().time(), min(self._members.values())))
            for member in self._members:
                if member.resting:
                    self._asked.setdefault(member, [])
            self._send()

    async def ask(self, member: Member) -> None:
        """Send a request of one queue, together with all requests that are waiting. Raises redis-py's errors."""
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked.setdefault(member, []).append(answer)
        self._send()
        await answer

    def _send(self) -> None:
        if self._asked and (self._asking is None or self._asking.done()):
            self._asking = asyncio.create_task(self._ask_all(), name="queues: books")

    async def _ask_all(self) -> None:
        while self._asked:
            asked = {member: self._asked.pop(member) for member in list(self._asked)[:TOGETHER]}
            try:
                await self._ask(asked)
            except Exception as error:  # noqa: BLE001  # `ask` raises the error
                _fail(asked, error)
            except BaseException:
                _fail(asked | self._asked, failures.ConnectionError("the connection was closed"))
                self._asked = {}
                raise

    async def _ask(self, asked: Asked) -> None:
        share = len(asked)
        questions = [member.question() for member in asked]
        keys = [key for question in questions for key in question.keys]
        words: list[Word] = [self._group]
        for question in questions:
            words += (-(-question.moves // share), *question.words)
        try:
            milliseconds, *rows = await self._link.script(TICK, keys, words)
        except failures.NoPermissionError:
            if share == 1:
                raise
            # Redis refuses the whole call if the user has no permission for one key, so send a separate request for
            # each queue.
            for member, answers in asked.items():
                try:
                    await self._ask({member: answers})
                except failures.ResponseError as error:
                    _fail({member: answers}, error)
            return
        for (member, answers), row in zip(asked.items(), rows, strict=True):
            if isinstance(row, failures.ResponseError):
                _fail({member: answers}, unwrapped(row))
                continue
            member.read((milliseconds, row))
            for answer in answers:
                if not answer.done():
                    answer.set_result(None)


def _fail(asked: Asked, error: Exception) -> None:
    """Report an error to each queue: raise the error in the callers of `ask`.

    If a queue has no caller, call its `failed`.
    """
    for member, answers in asked.items():
        if not answers:
            member.failed(error)
        for answer in answers:
            if not answer.done():
                answer.set_exception(error)
