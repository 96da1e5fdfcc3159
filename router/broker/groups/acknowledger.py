"""Acknowledging and renewing entries in flight, and resetting their delivery counts; floor 4.

All commands are idempotent, so a command without an answer is sent again. The commands use a connection of their own,
because a blocking read occupies the connection of the reader.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial

from redis import exceptions as failures
from structlog.stdlib import BoundLogger

from router.broker.groups.group_scripts import NOT_PENDING, OF_ANOTHER
from router.broker.groups.group_stream import Membership
from router.broker.groups.in_flight import InFlight
from router.broker.groups.pending import CHUNK, PendingEntries
from router.broker.server.client import Server
from router.broker.server.health import Health
from router.broker.server.link import Link, Script
from router.broker.server.outage import Outage
from router.contracts import Clock
from router.core.delivery import claims

LAST_PATIENCE = 1.0
"""Seconds allowed for a command under way to fail after its connection was closed."""

SLOW_DOWN = 0.002
"""Seconds between two rounds of acknowledgements. Entries completed in between are acknowledged together."""

# Acknowledges entries and removes their marks. A mark is a field that names the deliveries of an entry which are in
# Redis queues already (see `queue_scripts.APPEND_ENTRIES`).
# KEYS: the stream; the hash of marks. ARGV: the group; 1 to delete the entries too, else 0; the id and the mark of each
# entry. A mark is removed even if the stream is gone or its key has another type.
UNMARK = Script("""
for i = 3, #ARGV, 2 do
  redis.pcall('XACK', KEYS[1], ARGV[1], ARGV[i])
  if ARGV[2] == '1' then redis.pcall('XDEL', KEYS[1], ARGV[i]) end
  redis.call('HDEL', KEYS[2], ARGV[i + 1])
end
return 1
""")


class Acknowledger:
    """Acknowledges complete entries. Renews the entries that are not complete, so that no other router may claim them.

    `acknowledged` is called after entries were acknowledged or their delivery counts were reset.
    """

    def __init__(
        self,
        server: Server,
        all_in_flight: Sequence[InFlight],
        membership: Membership,
        *,
        acknowledged: Callable[[], None],
        clock: Clock,
        log: BoundLogger,
    ) -> None:
        self._link = Link(server)
        self._all_in_flight = all_in_flight
        self._renew_every = claims.renew_every(membership.claim_idle)
        self._give_back = membership.give_back
        self._acknowledged = acknowledged
        self._clock = clock
        self._work = asyncio.Event()
        self._ending = False
        self._over = asyncio.Event()
        self._renew_at = clock.monotonic() + self._renew_every
        self._task: asyncio.Task[None] | None = None
        self._log = log
        self._health = Health(
            server.shown,
            Outage(clock),
            begins=partial(log.warning, "entries can't be acknowledged; the router keeps trying"),
            ends=partial(log.warning, "entries are acknowledged again"),
        )

    @property
    def since(self) -> float | None:
        """The time at which the command under way began (`time.monotonic`); None if no command is under way."""
        return self._link.since

    def start(self) -> None:
        """Start the task that acknowledges and renews. `wake` has an effect only after this call."""
        self._task = asyncio.create_task(self._run(), name="acknowledger")

    def wake(self) -> None:
        """Record that an entry is complete."""
        self._work.set()

    async def close(self, wait_for: float) -> None:
        """Acknowledge complete entries, release the remaining entries, and disconnect.

        The acknowledging and releasing take at most `wait_for` seconds. If `wait_for` is 0, disconnect at once. The
        task is not cancelled, because a command under way could swallow the cancellation. Instead, the task ends when a
        flag is set.
        """
        task, self._task = self._task, None
        if task is None:
            return
        if wait_for > 0:
            self._ending = True
            self.wake()
            await asyncio.wait([task], timeout=wait_for)
        self._over.set()
        self.wake()
        await self._link.close()
        await asyncio.wait([task], timeout=LAST_PATIENCE)
        number = sum(in_flight.unacknowledged for in_flight in self._all_in_flight)
        if number and wait_for > 0:
            message = "entries could not be acknowledged: they will be delivered again"
            self._log.error(message, number=number, reason=self._health.reason)

    async def _run(self) -> None:
        """Acknowledge and renew entries until `close`; after an error, wait and send the commands again."""
        while not self._over.is_set():
            ending = self._ending  # entries that complete during this round need another round
            try:
                await self._acknowledge()
                await self._reset_counts()
                if self._clock.monotonic() >= self._renew_at:
                    await self._renew()
                    self._renew_at = self._clock.monotonic() + self._renew_every
                if ending:
                    await self._release_rest()
                    return
            except Exception as error:  # noqa: BLE001  # after any error all commands are sent again
                await self._pause(self._health.failed(error))
                continue
            self._health.succeeded()
            if any(in_flight.unacknowledged or in_flight.returned for in_flight in self._all_in_flight):
                await self._pause(SLOW_DOWN)
            else:
                await self._wait()

    async def _pause(self, seconds: float) -> None:
        """Wait for this number of seconds, or until the end is requested."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._over.wait()

    async def _wait(self) -> None:
        """Wait until an entry is complete, or until it is time to renew."""
        self._work.clear()
        if self._ending or self._over.is_set():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, self._renew_at - self._clock.monotonic())):
                await self._work.wait()

    async def _acknowledge(self) -> None:
        for in_flight in self._all_in_flight:
            in_flight.sent += in_flight.done
            in_flight.done = []
            while in_flight.sent:
                ids = in_flight.sent[:CHUNK]
                rest = await self._acknowledge_marked(in_flight, ids)
                try:
                    await PendingEntries(self._link, in_flight.names).acknowledge(rest)
                except failures.ResponseError as error:
                    if not _is_of_a_lost_group(error):
                        raise
                del in_flight.sent[: len(ids)]
                self._acknowledged()
            if in_flight.stale and in_flight.names.marks is not None:
                stale = in_flight.stale[:CHUNK]
                await self._link.call("HDEL", in_flight.names.marks, *stale)
                del in_flight.stale[: len(stale)]

    async def _acknowledge_marked(self, in_flight: InFlight, ids: list[bytes]) -> list[bytes]:
        """Acknowledge the entries that have marks, and remove their marks in the same step. Returns the entries without
        marks.
        """
        marked = {one: in_flight.marks[one] for one in ids if one in in_flight.marks} if in_flight.marks else {}
        key, group, _, marks, own = in_flight.names
        if not marked or marks is None:
            return ids
        words = [word for pair in marked.items() for word in pair]
        await self._link.script(UNMARK, [key, marks], [group, int(own), *words])
        for one in marked:
            in_flight.marks.pop(one, None)
        # If all entries had marks, return the first entry again, because XACK needs at least one id.
        return [one for one in ids if one not in marked] or ids[:1]

    async def _reset_counts(self) -> None:
        """Reset the delivery counts of entries whose attempts have returned, because they did not crash the process."""
        for in_flight in self._all_in_flight:
            returned = in_flight.returned  # keep this list, because `InFlight.forget` may set a new one meanwhile
            ids = list(returned)
            await self._claim(in_flight, ids, count=0)
            del returned[: len(ids)]
            if ids:
                self._acknowledged()

    async def _renew(self) -> None:
        """Renew the entries in flight.

        This router goes on delivering entries that Redis has lost, and entries that another router has claimed.
        """
        for in_flight in self._all_in_flight:
            now = self._clock.monotonic()
            due = [batch for batch in in_flight.batches if batch.since <= now - self._renew_every / 2]
            held = [(batch, position, entry) for batch in due for position, entry in enumerate(batch.ids) if entry]
            states = await self._claim(in_flight, [entry for _, _, entry in held])
            for (batch, position, entry), state in zip(held, states, strict=False):
                if batch.ids[position] != entry:
                    continue  # the entry completed before the answer came
                if state == NOT_PENDING:
                    batch.gone(position)
                elif state == OF_ANOTHER:
                    batch.doubt(position)
            if states:
                for batch in due:
                    batch.since = now

    async def _release_rest(self) -> None:
        """Release the remaining entries at a graceful shutdown."""
        for in_flight in self._all_in_flight:
            try:
                await self._give_back(self._link, in_flight)
            except failures.ResponseError as error:
                if not _is_of_a_lost_group(error):
                    raise

    async def _claim(self, in_flight: InFlight, ids: Sequence[bytes], count: int = -1) -> bytes:
        """Renew those entries that Redis lists as pending for this router, and set their delivery count.

        `count` is the delivery count to set; -1 leaves the delivery counts unchanged.

        Returns the answer of the script `CLAIM`, which has one byte for each entry. `1` means pending for this router,
        `0` not pending, and `2` pending for another consumer. Returns no bytes if the group is lost.
        """
        try:
            return await PendingEntries(self._link, in_flight.names).claim(ids, count=count)
        except failures.ResponseError as error:
            if _is_of_a_lost_group(error):
                return b""
            raise


def _is_of_a_lost_group(error: failures.ResponseError) -> bool:
    """Return whether the error means that the group or stream is lost. The reader notices and handles such a loss."""
    return str(error).startswith(("NOGROUP", "WRONGTYPE"))
