"""The tasks that call one sink, with the timeout of each call; floor 5.

A slot is a task that calls the sink. The task awaits the call itself, because a timer and a task for each call would
double the cost of a small batch. Instead, one timer checks the deadlines of all calls ten times a second, while calls
are under way. A late call is cancelled. If the plugin swallows the cancellation, the task is abandoned and replaced. A
task that ended because of a fault of the router is also replaced, after `REPLACED_AFTER` seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any, TypeVar

import structlog

from router.contracts import Clock, Sign
from router.core.accounts.beats import until_beat
from router.core.delivery.breaker import Ticket
from router.errors import TransientError, class_and_text
from router.events import Event

log = structlog.stdlib.get_logger(__name__)

TICK = 0.1
"""Seconds between two checks of calls under way and of ending tasks."""

GRACE = 1.0
"""Seconds allowed for a cancelled call to return before its task is abandoned."""

OVERDUE = 10.0
"""The number of seconds by which a call must exceed its deadline to count as hanging. By then, its task should have
ended or have been replaced.
"""

REPLACED_AFTER = 1.0
"""Seconds until a task that ended because of a fault of the router is replaced. The pause prevents a busy loop if the
fault repeats.
"""

BLOCKED = 0.5
"""The limit for the seconds between two checks. If the interval is longer, the event loop was blocked in between."""

R = TypeVar("R")


class Slot:
    """A task that calls the sink: its deliveries (`events`), its ticket, and the deadline of its call (monotonic seconds).

    `waiting` is True while the deliveries wait for their turn. Then no attempt is made or prepared.
    """

    __slots__ = (
        "abandoned",
        "deadline",
        "ended_at",
        "events",
        "expired",
        "kept",
        "spared",
        "task",
        "ticket",
        "waiting",
    )

    def __init__(self, ticket: Ticket, kept: Sequence[Event] = ()) -> None:
        self.task: asyncio.Task[None] | None = None
        self.events: Sequence[Event] = []
        self.kept = kept
        """Other deliveries that the slot has taken from the queue. They are not part of the current attempt."""
        self.ticket = ticket
        self.deadline: float | None = None
        self.expired = False
        self.spared = False
        self.abandoned = False
        self.ended_at: float | None = None
        """The monotonic time at which the task ended because of a fault of the router; None if there was no such
        fault.
        """
        self.waiting = False

    def keep_all_but_one(self) -> Sequence[Event]:
        """Move all deliveries but the first from `events` to `kept`, for a later attempt; return `events`."""
        self.events, self.kept = self.events[:1], self.events[1:]
        return self.events

    def take_up(self) -> Sequence[Event]:
        """Move the kept deliveries back to `events`; return `events`."""
        if self.kept:
            self.events, self.kept = [*self.events, *self.kept], ()
        return self.events

    async def wait(self, turn: Awaitable[R]) -> R:
        """Await `turn`, which ends when the deliveries in `events` may be attempted. Return the result of `turn`."""
        self.waiting = True
        try:
            return await turn
        finally:
            self.waiting = False


class AbandonedError(BaseException):
    """The exception that ends a replaced task. The results of the task are ignored."""


async def contained(call: Awaitable[R]) -> R:
    """Await a call of a plugin, and return its result.

    An exception that would end the process, such as `SystemExit`, is replaced by `RuntimeError`.
    """
    try:
        return await call
    except asyncio.CancelledError:
        raise
    except Exception:
        raise
    except BaseException as error:
        raise _contained(error) from error


def _contained(error: BaseException) -> RuntimeError:
    return RuntimeError(class_and_text(error))


class Slots:
    """The slots of one sink. Each slot runs the coroutine `work` until it is cancelled or the sink retires.

    `left_behind` is called for a slot that is to be replaced. Its arguments are the slot, and the exception that ended
    the slot. The exception is None if the slot is replaced because its call does not return.
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
        """The seconds allowed for a call."""
        self._clock = clock
        self._work = work
        self._left_behind = left_behind
        self._slots: list[Slot] = []
        self._lost: set[asyncio.Task[None]] = set()
        self._stuck: list[Event] = []  # deliveries of ended slots for which `left_behind` failed
        self.replaced = 0
        """The number of slots that ended because of a fault of the router."""
        self._closing = False
        self._checked_at = 0.0
        self._timer: asyncio.TimerHandle | None = None  # set while there is a call or a task to check
        self.retiring = False
        """True if no new call may begin. The calls under way finish."""

    def start(self) -> None:
        """Start the tasks."""
        self._slots = [self._start_one() for _ in range(self._number)]

    def _start_one(self, kept: Sequence[Event] = ()) -> Slot:
        slot = Slot(Ticket(0, probe=False), kept)
        slot.task = asyncio.create_task(self._run(slot), name=f"sink {self._name}")
        return slot

    async def _run(self, slot: Slot) -> None:
        try:
            await self._work(slot)
        except AbandonedError:
            pass
        except Exception as error:  # no fault may stop the other deliveries of the sink
            message = "a worker ended because of a fault of the router; the router replaces it"
            log.critical(message, sink=self._name, exc_info=True)
            slot.abandoned, slot.deadline = True, None
            events = slot.events
            try:
                self._left_behind(slot, error)
            except Exception:
                message = "the deliveries of this worker stay in flight until the router restarts"
                log.critical(message, sink=self._name, number=len(events), exc_info=True)
                self._stuck += events
            self.replaced += 1
            slot.ended_at = self._clock.monotonic()
            self._check_soon(slot.ended_at)

    @property
    def in_flight(self) -> list[Event]:
        """All unsettled deliveries that the slots have taken from the queue."""
        return [*self._stuck, *(event for slot in self._slots for event in (*slot.events, *slot.kept))]

    @property
    def attempting(self) -> bool:
        """True while an attempt is under way, or about to be made."""
        return any(slot.events and not slot.waiting for slot in self._slots)

    def signs(self) -> Iterator[Sign]:
        """Yield, for the watchdog, a sign for each slot that has ended or has a call under way.

        A waiting slot is healthy.
        """
        part = f"sink {self._name}"
        for slot in self._slots:
            if slot.task is not None and slot.task.done() and slot.ended_at is None and not self._closing:
                yield Sign(part, "a worker ended unexpectedly", None, ended=True)
            elif slot.deadline is not None:
                yield Sign(part, "a call exceeds its timeout and can't be ended", slot.deadline, OVERDUE)

    def _check_soon(self, now: float) -> None:
        """Set the timer of the next check, unless it is already set. All sinks of the router check at the same times."""
        if self._timer is None:
            self._checked_at = now
            self._timer = asyncio.get_running_loop().call_later(until_beat(now, TICK), self._check)

    def _check(self) -> None:
        """Cancel calls that exceed their deadline, and replace slots that have ended.

        While a plugin blocks the event loop, the router can't process replies of services that have arrived. So if the
        event loop was blocked, each late call gets `GRACE` more seconds, once.
        """
        now = self._clock.monotonic()
        blocked = now - self._checked_at > BLOCKED
        self._timer = None
        if any(slot.deadline is not None or slot.ended_at is not None for slot in self._slots):
            self._check_soon(now)
        for slot in list(self._slots):
            if slot.ended_at is not None and now - slot.ended_at >= REPLACED_AFTER and not self.retiring:
                self._slots[self._slots.index(slot)] = self._start_one(slot.kept)
            if slot.deadline is None or now < slot.deadline or slot.task is None:
                continue
            if blocked and not slot.spared and not slot.expired:
                slot.spared = True
                slot.deadline = now + GRACE
            elif not slot.expired:
                slot.expired = True
                slot.deadline = now + GRACE
                slot.task.cancel()
            else:
                self._replace(slot)

    def _replace(self, slot: Slot) -> None:
        """Abandon a task in which the plugin does not return. Start another task, unless the sink retires."""
        slot.abandoned = True
        slot.deadline = None
        if slot.task:
            self._lost.add(slot.task)
            slot.task.add_done_callback(self._lost.discard)
        self._left_behind(slot, None)
        self._slots[self._slots.index(slot)] = slot if self.retiring else self._start_one(slot.kept)

    async def call(self, slot: Slot, call: Awaitable[R]) -> R:
        """Await a call of the plugin for at most `timeout` seconds, and return its result.

        Raises the errors of the call, and `TransientError` if the call is late.
        """
        slot.expired = slot.spared = False
        now = self._clock.monotonic()
        slot.deadline = now + self.timeout
        if self._timer is None:
            self._check_soon(now)
        try:
            result = await call
        except asyncio.CancelledError:
            if slot.abandoned:
                raise AbandonedError from None
            if self._closing:
                raise
            if slot.expired and slot.task:
                slot.task.uncancel()
                raise self.late() from None
            raise TransientError("the plugin cancelled itself") from None
        except BaseException as error:
            if slot.abandoned:
                raise AbandonedError from None
            if isinstance(error, Exception):
                raise
            raise _contained(error) from error  # as `contained` does, but without another coroutine for each call
        else:
            if slot.abandoned:
                raise AbandonedError
            if slot.expired and slot.task:
                slot.task.uncancel()
            return result
        finally:
            slot.deadline = None

    def late(self) -> TransientError:
        """Return the error of a call that exceeded its timeout."""
        return TransientError(f"timed out after {self.timeout:g} s")

    async def retire(self) -> list[Event]:
        """Start no further calls, and wait for the calls under way. Return the deliveries that were not attempted."""
        self.retiring = True
        while True:
            tasks = [slot.task for slot in self._slots if slot.task and not slot.abandoned and not slot.task.done()]
            if not tasks:
                break
            for slot in self._slots:
                if slot.task in tasks and slot.deadline is None:
                    slot.task.cancel()  # the slot does not wait for a call, so it may be cancelled
            await asyncio.wait(tasks, timeout=TICK)
        left = self.in_flight
        self._slots = []
        return left

    async def close(self) -> None:
        """Cancel all tasks, and wait for their end, for `GRACE` seconds at most."""
        self._closing = True
        tasks = [slot.task for slot in self._slots if slot.task]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=GRACE)
        if self._timer is not None:
            self._timer.cancel()
