"""The list source: takes items out of lists without ever holding the only copy of one; floor 4.

An item is moved to this consumer's processing list, handed on, and removed when everything that came of it is over: by
us, or, where it goes to Redis queues alone and the list is in the same Redis, by the script that appends it there. The
processing list is short, so that a removal and a look through it are quick, and it is guarded by a lease: when that runs
out, any other router that reads the list puts the items back.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import structlog
from redis import exceptions as failures

from router.broker.groups.crash_isolation import CrashIsolation, before
from router.broker.lists.list_items import Item, List, Receipt
from router.broker.lists.list_store import BLOCK, ListStore, Suspects, Taken
from router.broker.server import answers, client
from router.broker.server.health import Health, reach
from router.broker.server.link import COMMAND, cancelled
from router.broker.server.outage import Outage
from router.contracts import Clock, Receiver, Sign, Source
from router.errors import ConfigError, Problem, Reason
from router.events import RawBatch
from router.wording import counted

log = structlog.stdlib.get_logger(__name__)

LOOK_EVERY = 3.0
"""Seconds between two looks at the leases of peers, at most."""

SUSPECT_FOR = 5.0
"""Seconds that a peer's lease must be gone before its items are put back: after an outage it may only be late."""

SURVIVED = 30.0
"""Seconds after which an item in hand is not what ended the process before."""

LEAVE_WITHIN = 3.0
"""Seconds that the last removals, and putting the rest back, may take."""

_ours: set[str] = set()
"""The names under which sources of this process take items, each with its server."""

CONFUSED = "another router runs under this name and takes the same items: give each its own --instance"


class ListSource:
    """A source that takes items from the right end of lists on one server, where `LPUSH` leaves the oldest.

    `keys` are the lists' names. `consumer` is the same after every start and like no other router's. At most
    `max_in_flight` items are in hand, of all lists together. An item that was alone in hand when its process died, more
    than `max_deliveries` times, is refused as `poison`. The items of a router not heard of for `lease` seconds are put
    back by any other. `prefix` stands in the names of the keys that are the router's own. `removable` says whether the lists
    are in the router's own Redis, where an item leaves in the step that appends it to Redis queues. `connect_timeout` is how long
    `start` tries, None for ever; `waiting` is told why, each time a try fails. `observe` takes nothing at all. `solitude` is
    shared by everything in the process whose deliveries may end it. Raises `ConfigError` for a URL that isn't one.
    """

    trimmed = 0
    trimmed_exact = True
    possibly_repeated = 0

    def __init__(
        self,
        name: str,
        url: str,
        keys: Sequence[str],
        *,
        consumer: str,
        receiver: Receiver,
        clock: Clock,
        max_in_flight: int = 100,
        max_deliveries: int = 5,
        lease: float = 60.0,
        prefix: str = "event-router",
        removable: bool = False,
        client_name: str = "event-router",
        connect_timeout: float | None = 10.0,
        waiting: Callable[[str], None] | None = None,
        observe: bool = False,
        isolation: CrashIsolation | None = None,
        first_delay: float = 0.1,
        longest_delay: float = 2.0,
    ) -> None:
        self.name = name
        self.up = False
        """Whether every list can be read."""
        self.reason: str | None = "not started"
        """Why it is not up."""
        self.gaps = 0
        """Always 0: what is pushed while nobody reads waits in the list."""
        self.gap_seconds = 0.0
        self.duplicates = 0
        """Always 0: an item is pushed once."""
        self._server = client.server(url, client_name=client_name)
        self._process = os.urandom(8).hex()
        self._consumer = f"{name}:{consumer}"
        self._keys = list(keys)
        self._prefix = prefix
        self._removable = removable
        self._max_deliveries = max_deliveries
        self._store = self._store_of(self._consumer)
        self._lists: list[List] = []
        self._receiver = receiver
        self._clock = clock
        self._max_in_flight = max_in_flight
        self._lease = lease
        self._connect_timeout = connect_timeout
        self._waiting = waiting
        self._observe = observe
        self._longest_delay = longest_delay
        self._health = Health(
            self._server.shown,
            Outage(clock),
            begins=self._log_begin,
            ends=self._log_end,
            delays=(first_delay, longest_delay),
        )
        self._answered = False  # whether the server has answered anything in this round
        self._lock = asyncio.Lock()
        self._numbers = 0
        self._renewed = float("-inf")
        self._solitude = isolation or CrashIsolation()
        self._suspect: List | None = None  # a list whose next item is found guilty if the process dies with it in hand
        self._first: List | None = None  # a list whose next item waits until less is in hand: nobody overtakes it
        self._room = asyncio.Event()
        self._over = asyncio.Event()
        self._stopping = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._helpers: list[asyncio.Task[None]] = []
        self._confused = False
        self._log = log.bind(source=name, address=self._server.shown)

    @property
    def address(self) -> str:
        """The server's address, without credentials."""
        return self._server.shown

    @property
    def at_work(self) -> bool:
        """Implements `crash_isolation.Member`."""
        return any(item.most is not None for each in self._lists for item in each.items.values())

    def signs(self) -> list[Sign]:
        """Implements `contracts.Source`."""
        return [Sign(f"source {self.name}", COMMAND, self._store.since)]

    def _store_of(self, consumer: str) -> ListStore:
        return ListStore(
            self._server,
            consumer=consumer,
            process=self._process,
            prefix=self._prefix,
            max_deliveries=self._max_deliveries,
        )

    @property
    def in_flight(self) -> int:
        """Items in hand."""
        return sum(len(each.items) for each in self._lists)

    def succeed(self, other: Source) -> None:
        """Nothing has to be known: every source has a processing list of its own."""

    async def start(self) -> None:
        """Connect, put back what the last run left in hand, and begin to take.

        Raises `UnavailableError` when there is no server within `connect_timeout`, `ConfigError` for a refused login or
        command.
        """
        if self._observe:
            self._log.info("lists are left alone: nothing is delivered, so nothing is taken")
            self.up, self.reason = True, None
            return
        self.reason = f"{self._server.shown}: no answer yet"
        self._store = self._store_of(self._claim_name())
        self._lists = [self._list(key) for key in self._keys]
        who = f"source {self.name}"
        await reach(self._begin, self._health, who=who, within=self._connect_timeout, waiting=self._hear)
        self._well("take")
        self._helpers = [
            asyncio.create_task(self._tell(), name=f"source {self.name}: removals"),
            asyncio.create_task(self._keep_leases(), name=f"source {self.name}: leases"),
        ]
        self._solitude.join(self)
        self._reader = asyncio.create_task(self._read(), name=f"source {self.name}")

    def _list(self, key: str) -> List:
        names = self._store.names(key)
        return List(names, removable=self._removable, over=self._over.set, freed=self._freed)

    def _claim_name(self) -> str:
        """Our name, and while another source of this process has it (one that a reload replaces), another one."""
        consumer, number = self._consumer, 0
        while self._live(consumer) in _ours:
            number += 1
            consumer = f"{self._consumer}~{number}"
        _ours.add(self._live(consumer))
        return consumer

    def _live(self, consumer: str) -> str:
        return f"{self._server.shown} {self._prefix} {consumer}"

    async def run(self) -> None:
        """Return when `stop` has been called. Cancelling it stops the source."""
        reader = self._reader
        if reader is None:
            await self._stopping.wait()
            return
        try:
            await asyncio.wait([reader, *self._helpers], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self.stop()
            raise
        for task in (reader, *self._helpers):
            if task.done() and not task.cancelled():
                task.result()

    async def stop(self) -> None:
        """Take no more; returns when what was taken has been handed on."""
        self._stopping.set()
        self._room.set()
        reader, self._reader = self._reader, None
        if reader is not None:
            while not reader.done():
                await self._unblock(self._lists)
                await asyncio.wait([reader], timeout=BLOCK)
        self.up, self.reason = False, "stopped"

    async def close(self) -> None:
        """Remove what is settled, put the rest back at the end it was taken from, close the connections."""
        try:
            async with asyncio.timeout(LEAVE_WITHIN):
                while self._helpers and any(each.innocent or each.settled or each.removing for each in self._lists):
                    self._room.clear()
                    await self._room.wait()
                await self._end_helpers()
                await self._leave()
        except (TimeoutError, failures.RedisError, OSError) as error:
            why = client.explain(error, self._server.shown)
            self._log.warning("items in hand stay in the processing list until the next start", reason=str(why))
        finally:
            self._solitude.part(self)
            await self._end_helpers()
            await self._store.close()
            if self._lists:
                _ours.discard(self._live(self._store.consumer))

    async def _end_helpers(self) -> None:
        helpers, self._helpers = self._helpers, []
        await cancelled(helpers)

    async def _leave(self) -> None:
        for each in [each for each in self._lists if each.recovered]:
            number = await self._store.leave(each.names)
            if number:
                self._log.info("unfinished items were put back", key=each.names.source, number=number)

    # Taking.

    async def _begin(self) -> None:
        """Do everything once that the source does, so that what is not allowed shows at the start."""
        await self._renew()
        for each in self._lists:
            if not each.recovered:
                await self._recover(each)
                each.recovered = True
        if not await self._take():
            await self._wait(0.01)
        self._judge()

    def _hear(self, reason: str) -> None:
        """Keep why the server can't be reached yet, and tell who waits for it."""
        self.reason = reason
        if self._waiting is not None:
            self._waiting(reason)

    async def _recover(self, each: List) -> None:
        """Put back what the last run of this router left in hand, under whichever of its names."""
        number = 0
        for consumer in await self._store.consumers(each.names):
            if consumer.partition("~")[0] != self._consumer:
                continue
            mine = consumer == self._store.consumer
            if mine or self._live(consumer) not in _ours:
                number += await self._store.recover(self._store.names(each.names.source, consumer))
        if number:
            message = "items that the last run left in hand are taken again"
            self._log.warning(message, key=each.names.source, number=number)

    def _judge(self) -> None:
        """Raise `ConfigError` for a list that may not be read. One of another type may yet be put right."""
        problems = [
            Problem(f"{self._server.shown}: {each.fault}", path=f"sources.{self.name}")
            for each in self._lists
            if each.fault and not answers.passes(each.fault) and not each.fault.startswith("WRONGTYPE")
        ]
        if problems:
            raise ConfigError(problems)

    async def _read(self) -> None:
        """Take and hand on, until `stop`; come back after every loss."""
        while not self._stopping.is_set():
            self._answered = False
            try:
                if self._solitude.shuts_out(self):
                    await before(self._stopping, self._solitude.opened())
                taken = await self._take()
                if self._suspect is not None:
                    await self._try_alone(self._suspect)
                elif not taken and not self._stopping.is_set():
                    await self._wait()
            except Exception as error:  # noqa: BLE001  # one source must not end the others
                await self._pause(self._stopping, self._note(error, "take"))
            else:
                if self._answered:
                    self._well("take")

    async def _take(self) -> bool:
        """One round of all lists; returns whether anything was taken."""
        taken = False
        for each in [self._first] if self._first else list(self._lists):
            room = self._space()
            if room <= 0 or self._clock.monotonic() < each.again_at:
                continue
            taken |= await self._take_from(each, room)
            if self._first:
                break
        # Who came first this time comes last the next.
        self._lists.append(self._lists.pop(0))
        return taken

    async def _try_alone(self, each: List) -> None:
        """Take a suspect while nothing else in hand may end the process, and wait until it has not.

        Where another delivery might be to blame nobody is found guilty.
        """
        async with self._solitude.entered(self._stopping) as alone:
            if not alone:
                return
            shut = await before(self._stopping, self._solitude.shut(self, SURVIVED))
            if self._stopping.is_set():
                return
            await self._take_from(each, 1, Suspects.TAKE if shut else Suspects.LOWER)
            while self.at_work and not self._stopping.is_set():
                self._room.clear()
                await self._pause(self._room, BLOCK)

    async def _take_from(self, each: List, room: int, suspects: Suspects = Suspects.WAIT) -> bool:
        async with self._lock:
            held = len(each.items)
            answer = await self._store.take(each.names, room, self._suspicious(), suspects)
            self._answered = True
            self._compare(each, answer, held)
            each.listed = answer.listed + len(answer.items)
            self._first = each if answer.held_back else None
            self._suspect = each if answer.suspect else None
            passing = answers.passes(answers.inner(answer.fault))
            if not passing:
                self._judge_list(each, answer.fault)
            self._hand_on(each, answer.items)
            if each.strange:
                each.listed = await self._store.reconcile(each.names, *each.standing())
                each.strange = False
        if passing:  # the server's trouble, not this list's
            raise failures.ResponseError(answers.inner(answer.fault))
        return bool(answer.items)

    def _compare(self, each: List, answer: Taken, held: int) -> None:
        """See whether our lists are as they should be, and say what is missing."""
        missing = each.compare(answer, held)
        if each.strange:
            self._renewed = float("-inf")  # our lease may be gone as well
        if missing:
            message = "items in hand are gone from Redis: a peer took them over, or they were deleted"
            self._log.warning(message, key=each.names.source, number=missing)

    def _space(self) -> int:
        """How many items may be taken."""
        room = self._max_in_flight - self.in_flight
        bounds = [item.most for each in self._lists for item in each.items.values() if item.most is not None]
        return min(room, min(bounds) - self._suspicious()) if bounds else room

    def _freed(self) -> None:
        """Something has left the hand, or may have others beside it."""
        self._room.set()
        self._solitude.finished()

    def _suspicious(self) -> int:
        """How many items in hand may end this process, as far as is known."""
        return sum(not item.proven for each in self._lists for item in each.items.values())

    def _hold(self, each: List, items: Sequence[tuple[bytes, int, bool]]) -> list[int]:
        now = self._clock.monotonic()
        numbers = []
        for payload, deaths, handed in items:
            self._numbers += 1
            numbers.append(self._numbers)
            each.items[self._numbers] = Item(payload, self._store.most(deaths), now, handed=handed)
        return numbers

    def _hand_on(self, each: List, items: Sequence[tuple[bytes, int, bool]]) -> None:
        """Hand on what stands in our lists now."""
        good: tuple[list[bytes], list[int]] = ([], [])
        for number, (payload, deaths, _) in zip(self._hold(each, items), items, strict=True):
            if deaths > self._max_deliveries:
                detail = f"the router died {counted(deaths, 'time')} while it had this item in hand"
                batch = RawBatch(each.channel, None, [payload], receipt=Receipt(each, [number]))
                self._receiver.refuse(self.name, batch, Reason.POISON, detail)
            else:
                good[0].append(payload)
                good[1].append(number)
        if good[0]:
            batch = RawBatch(each.channel, None, good[0], receipt=Receipt(each, good[1]))
            self._receiver.receive(self.name, [batch])

    async def _wait(self, seconds: float = BLOCK) -> None:
        """Wait until something can be taken, or something has happened, for `seconds` at most."""
        now = self._clock.monotonic()
        lists = [each for each in self._lists if now >= each.again_at][: max(self._space(), 0)]
        if self._first or not lists:
            self._room.clear()
            await self._pause(self._room, seconds)
            return
        if len(lists) == 1:
            await self._wait_for(lists[0], seconds)
            return
        tasks = {asyncio.create_task(self._wait_for(each, seconds)): each for each in lists}
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        await self._unblock([each for task, each in tasks.items() if not task.done()])
        await asyncio.wait(tasks)
        for task in tasks:
            task.result()

    async def _wait_for(self, each: List, seconds: float) -> None:
        """Wait for an item of one list and hand it on."""
        try:
            payload = await self._store.wait(each.names, seconds)
            self._answered = True
        except failures.ResponseError as error:
            text = answers.said(error)
            if not text.startswith("WRONGTYPE"):
                raise
            self._judge_list(each, text)
            return
        if payload is not None:
            each.listed += 1
            self._hand_on(each, [(payload, 0, False)])

    async def _unblock(self, lists: Sequence[List]) -> None:
        try:
            async with asyncio.timeout(BLOCK), self._lock:
                await self._store.unblock([each.names.source for each in lists])
        except (failures.RedisError, OSError, TimeoutError):
            pass  # they end by themselves

    # Settling.

    async def _tell(self) -> None:
        """Tell Redis what is over, a batch at a time, each again and again until it has answered."""
        while True:
            await self._over.wait()
            self._over.clear()
            for each in list(self._lists):
                while each.innocent or each.removing or each.settled:
                    try:
                        if each.innocent:
                            await self._forgive(each, each.innocent[0])
                            del each.innocent[0]
                        else:
                            await self._remove(each)
                    except Exception as error:  # noqa: BLE001  # whatever it is, it is told again
                        await asyncio.sleep(self._note(error, "remove"))
                    else:
                        self._well("remove")
                        self._freed()

    async def _remove(self, each: List) -> None:
        async with self._lock:
            if not each.removing:
                each.removing, each.settled = each.settled, []
                each.batch += 1
            items = [each.items[number] for number in each.removing]
            handed = [item.payload for item in items if item.handed]
            others = [item.payload for item in items if not item.handed]
            removed = await self._store.remove(each.names, each.batch, others, handed)
            each.listed -= removed  # in a step of its own: while that was awaited, an item may have come
            for number in each.removing:
                del each.items[number]
            each.removing = []

    async def _forgive(self, each: List, number: int) -> None:
        """Let others come beside an item that did not end the process after all."""
        item = each.items.get(number)
        if item is None or item.most is None:
            return
        async with self._lock:
            await self._store.forgive(each.names, item.payload)
        item.most = None

    # Leases.

    async def _keep_leases(self) -> None:
        """Renew our leases, and put back the items of peers whose leases have run out."""
        while True:
            await asyncio.sleep(min(self._lease / 6, LOOK_EVERY))
            try:
                if self._clock.monotonic() - self._renewed >= self._lease / 3:
                    async with self._lock:
                        await self._renew()
                for each in list(self._lists):
                    await self._forgive_survivors(each)
                    await self._look_at_peers(each)
            except Exception as error:  # noqa: BLE001  # whatever it is, it is tried again
                # Who could not be watched all the time is not suspect.
                for each in self._lists:
                    each.suspects.clear()
                self._note(error, "renew")
            else:
                self._well("renew")

    async def _renew(self) -> None:
        now = self._clock.monotonic()
        for each in self._lists:
            before = await self._store.renew(each.names, self._lease)
            if before not in {None, self._process} and each.recovered and not self._confused:
                self._confused = True
                self._log.error(CONFUSED, key=each.names.source)
        self._renewed = now

    async def _look_at_peers(self, each: List) -> None:
        async with self._lock:
            dead = await self._store.dead_peers(each.names)
        now = self._clock.monotonic()
        each.suspects = {peer: each.suspects.get(peer, now) for peer in dead}
        for peer, since in list(each.suspects.items()):
            if now - since < min(SUSPECT_FOR, self._lease / 2):
                continue
            async with self._lock:
                number = await self._store.recover(self._store.names(each.names.source, peer), peer)
            del each.suspects[peer]
            if number > 0:
                message = "the items of a router that is gone were put back"
                self._log.warning(message, key=each.names.source, consumer=peer, number=number)

    async def _forgive_survivors(self, each: List) -> None:
        """What has been in hand for long did not end the process before."""
        now = self._clock.monotonic()
        for number, item in list(each.items.items()):
            if not item.proven and now - item.since >= SURVIVED:
                item.proven = True
                await self._forgive(each, number)
                self._freed()

    # How it is.

    def _judge_list(self, each: List, fault: str) -> None:
        """Keep what Redis has against a list; it is asked again in a while."""
        if fault:
            fault = f"{answers.inner(fault)} (the list {each.names.source!r})"
            each.again_at = self._clock.monotonic() + self._longest_delay
            if fault != each.fault:
                self._log.error("a list can't be read; the others are, and it is asked again", reason=fault)
        elif each.fault:
            self._log.warning("the list can be read again", key=each.names.source)
        each.fault = fault or None

    def _well(self, who: str) -> None:
        """The server has answered a task; up when it does so to all of them, unless something is wrong with a list."""
        self._health.succeeded(who)
        if self._health.reason is not None or self._stopping.is_set():
            return
        faults = [each.fault for each in self._lists if each.fault]
        self.up = not faults
        self.reason = f"{self._server.shown}: {'; '.join(faults)}" if faults else None

    def _note(self, error: Exception, who: str) -> float:
        """Keep why the server can't be used; return the seconds until the next attempt."""
        self.up, self.reason = False, str(client.explain(error, self._server.shown))
        return self._health.failed(error, who)

    def _log_begin(self, **fields: object) -> None:
        if not self._stopping.is_set():
            self._log.warning("the lists can't be read; the router keeps trying", **fields)

    def _log_end(self, **fields: object) -> None:
        self._log.warning("the lists are read again", after=self.reason, **fields)

    @staticmethod
    async def _pause(until: asyncio.Event, seconds: float) -> None:
        """Wait for the event, `seconds` at most."""
        waiting: Coroutine[Any, Any, Any] = until.wait()
        try:
            async with asyncio.timeout(seconds):
                await waiting
        except TimeoutError:
            pass
