"""The tasks that call one sink, and the end of calls that take too long; floor 5.

A call is awaited in the task that makes it: a timer and a task for each would double what a small batch costs. Somebody
looks at the deadlines several times a second; a call that is late is cancelled, and a task whose plugin swallows that is
left behind and replaced. A task that a fault of ours has ended is replaced too, a little later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, TypeVar

import structlog

from router.contracts import Clock, Sign
from router.core.delivery.breaker import Ticket
from router.errors import TransientError, text_of
from router.events import Event

log = structlog.stdlib.get_logger(__name__)

TICK = 0.1
"""Seconds between two looks at tasks that are to end."""

GRACE = 1.0
"""Seconds that a cancelled call has to come back before its task is left behind."""

OVERDUE = 10.0
"""Seconds after which a call that is over its time should have ended long ago, or been replaced."""

REPLACED_AFTER = 1.0
"""Seconds after which a task is replaced that ended by a fault of ours: a fault that repeats must not become a loop."""

STOOD = 0.5
"""Seconds between two looks at deadlines from which on the event loop stood still meanwhile."""

R = TypeVar("R")


class Slot:
    """A task that calls the sink: what it has in hand, its ticket for that, and when its call must be back (monotonic).

    `waiting` says that what is in hand waits for its turn: no attempt is made of it, or prepared.
    """

    __slots__ = ("abandoned", "deadline", "ended_at", "expired", "hand", "spared", "task", "ticket", "waiting")

    def __init__(self, ticket: Ticket) -> None:
        self.task: asyncio.Task[None] | None = None
        self.hand: list[Event] = []
        self.ticket = ticket
        self.deadline: float | None = None
        self.expired = False
        self.spared = False
        self.abandoned = False
        self.ended_at: float | None = None
        """Since when it is at an end by a fault of ours (monotonic)."""
        self.waiting = False

    async def wait(self, turn: Awaitable[R]) -> R:
        """Wait for the turn of what is in hand."""
        self.waiting = True
        try:
            return await turn
        finally:
            self.waiting = False


class AbandonedError(BaseException):
    """Ends a task that has been replaced: its results are of no interest any more."""


async def contained(call: Awaitable[R]) -> R:
    """Await a call of a plugin. What would end the process (`SystemExit`) is raised as a `RuntimeError`."""
    try:
        return await call
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception):
            raise RuntimeError(f"{type(error).__name__}: {text_of(error)}") from error  # noqa: TRY004  # as said
        raise


class Slots:
    """The slots of one sink. `work` is what each does for ever.

    `left_behind` is told of one that ended otherwise, with the fault that ended it, or None where its call never came back.
    """

    def __init__(
        self,
        name: str,
        number: int,
        *,
        timeout: float,
        clock: Clock,
        work: Callable[[Slot], Coroutine[Any, Any, None]],
        left_behind: Callable[[Slot, Exception | None], None],
    ) -> None:
        self._name = name
        self._number = number
        self.timeout = timeout
        """Seconds that a call may take."""
        self._clock = clock
        self._work = work
        self._left_behind = left_behind
        self._slots: list[Slot] = []
        self._lost: set[asyncio.Task[None]] = set()
        self._stuck: list[Event] = []  # in hand of a slot that is gone, and a fault of ours keeps us from failing them
        self.replaced = 0
        """Slots that ended by a fault of ours."""
        self._closing = False
        self._looked: float | None = None
        self.retiring = False
        """Whether the calls under way are the last ones."""

    def start(self) -> None:
        """Start the tasks."""
        self._slots = [self._start_one() for _ in range(self._number)]

    def _start_one(self) -> Slot:
        slot = Slot(Ticket(0, probe=False))
        slot.task = asyncio.create_task(self._run(slot), name=f"sink {self._name}")
        return slot

    async def _run(self, slot: Slot) -> None:
        try:
            await self._work(slot)
        except AbandonedError:
            pass
        except Exception as error:  # whatever it is, the other deliveries of the sink must go on
            message = "a worker ended by itself, which is a fault of the router; it is replaced"
            log.critical(message, sink=self._name, exc_info=True)
            slot.abandoned, slot.deadline = True, None
            hand = slot.hand
            try:
                self._left_behind(slot, error)
            except Exception:
                log.critical("what it had in hand stays there", sink=self._name, number=len(hand), exc_info=True)
                self._stuck += hand
            self.replaced += 1
            slot.ended_at = self._clock.monotonic()

    @property
    def hand(self) -> list[Event]:
        """All that is in hand."""
        return [*self._stuck, *(event for slot in self._slots for event in slot.hand)]

    @property
    def attempting(self) -> bool:
        """True while an attempt is under way, or about to be made."""
        return any(slot.hand and not slot.waiting for slot in self._slots)

    def signs(self) -> Iterator[Sign]:
        """Return what is wrong with the slots, for the watchdog: a slot that waits, and a call within its time, are well."""
        part = f"sink {self._name}"
        for slot in self._slots:
            if slot.task is not None and slot.task.done() and slot.ended_at is None and not self._closing:
                yield Sign(part, "a worker has ended by itself", None, ended=True)
            elif slot.deadline is not None:
                yield Sign(part, "a call is over its time and can't be ended", slot.deadline, OVERDUE)

    def check(self) -> None:
        """Look after calls that are over their time.

        When the loop stood still (a plugin blocked it), what came back meanwhile has not been heard: each call that seems
        late is spared once.
        """
        now = self._clock.monotonic()
        stood = self._looked is not None and now - self._looked > STOOD
        self._looked = now
        for slot in list(self._slots):
            if slot.ended_at is not None and now - slot.ended_at >= REPLACED_AFTER and not self.retiring:
                self._slots[self._slots.index(slot)] = self._start_one()
            if slot.deadline is None or now < slot.deadline or slot.task is None:
                continue
            if stood and not slot.spared and not slot.expired:
                slot.spared = True
                slot.deadline = now + GRACE
            elif not slot.expired:
                slot.expired = True
                slot.deadline = now + GRACE
                slot.task.cancel()
            else:
                self._replace(slot)

    def _replace(self, slot: Slot) -> None:
        """Leave a task behind whose plugin does not come back, and start another unless the sink retires."""
        slot.abandoned = True
        slot.deadline = None
        if slot.task:
            self._lost.add(slot.task)
            slot.task.add_done_callback(self._lost.discard)
        self._left_behind(slot, None)
        self._slots[self._slots.index(slot)] = slot if self.retiring else self._start_one()

    async def call(self, slot: Slot, call: Awaitable[R]) -> R:
        """Await a call of the plugin for at most `timeout`. Raises what it raises, `TransientError` when it is late."""
        slot.expired = slot.spared = False
        slot.deadline = self._clock.monotonic() + self.timeout
        try:
            result = await contained(call)
        except asyncio.CancelledError:
            if slot.abandoned:
                raise AbandonedError from None
            if self._closing:
                raise
            if slot.expired and slot.task:
                slot.task.uncancel()
                raise self.late() from None
            raise TransientError("the plugin cancelled itself") from None
        except Exception:
            if slot.abandoned:
                raise AbandonedError from None
            raise
        else:
            if slot.abandoned:
                raise AbandonedError
            if slot.expired and slot.task:
                slot.task.uncancel()
            return result
        finally:
            slot.deadline = None

    def late(self) -> TransientError:
        """Return the error that a call fails with when it took too long."""
        return TransientError(f"timed out after {self.timeout:g} s")

    async def retire(self) -> list[Event]:
        """Start no call any more; returns, when those under way are over, what is in hand and was not attempted.

        `check` has to be called on until then: it ends calls that take too long.
        """
        self.retiring = True
        while True:
            tasks = [slot.task for slot in self._slots if slot.task and not slot.abandoned and not slot.task.done()]
            if not tasks:
                break
            for slot in self._slots:
                if slot.task in tasks and slot.deadline is None:
                    slot.task.cancel()  # it waits for something that is not a call
            await asyncio.wait(tasks, timeout=TICK)
        hand = self.hand
        self._slots = []
        return hand

    async def close(self) -> None:
        """End the tasks."""
        self._closing = True
        tasks = [slot.task for slot in self._slots if slot.task]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=GRACE)
