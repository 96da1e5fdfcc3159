"""The list source: moves items of a list into a stream of its own, and reads this stream by a consumer group; floor 4.

An item in flight is a pending entry of the stream, so the router treats it like an entry of a stream source. The router
renews its entries, and claims the entries of dead routers. It isolates an entry that may crash the process. When all
deliveries of an entry are settled or stored, the router acknowledges and deletes the entry. So the stream contains only
items in flight.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence

import msgspec
from structlog.stdlib import BoundLogger

from router.broker.groups.group_reader import GroupReader
from router.broker.groups.group_source import GroupSource, SourceHost, Work, logger
from router.broker.groups.group_stream import Membership, Stream
from router.broker.lists.item_mover import ItemMover
from router.broker.lists.list_stream import GROUP, PAYLOAD, ItemBatches, ListStream
from router.broker.lists.pushback import pushing_back
from router.broker.server import keys
from router.broker.server.client import Server
from router.broker.server.link import Link

COMMANDS = (
    "+ping +echo +client +eval +evalsha +blmove +lmove +lindex +rpop +rpush +xadd +xdel +xgroup +xreadgroup +xack +xpending "
    "+xclaim +xrange +xinfo +set +del +exists +smembers"
)
"""The Redis commands that a list source sends, as permissions for its user."""


class ListOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a list source."""

    keys: Sequence[str]
    consumer: str
    """The name of this router. It stays the same after a restart."""
    max_in_flight: int = 100
    max_deliveries: int = 5
    lease: float = 60.0
    """Idle seconds after which the items of another router are claimed."""
    prefix: str = "event-router"
    """The prefix in the names of the keys beside the lists."""
    marks: str | None = None
    """The key of the hash with a mark for each partly enqueued entry; None if the lists are not in the router's own
    Redis."""
    observe: bool = False
    """True with `deliver: print`: the source then removes no items from its lists."""


class ListObserver:
    """The reader of a list source with `deliver: print`.

    It reads nothing, because reading an item would remove the item.
    """

    fault = None

    def __init__(self, log: BoundLogger) -> None:
        self.stop = asyncio.Event()
        self._log = log

    async def prepare(self, stream: Stream) -> None:
        """Do nothing, so that the list keeps its items."""
        message = "a list is not read with `deliver: print`, because reading would remove its items"
        self._log.info(message, key=stream.channel.decode())

    async def run(self, answered: Callable[[], None]) -> None:
        """Wait until `end` is called."""
        answered()
        await self.stop.wait()

    async def end(self) -> None:
        """Make `run` return."""
        self.stop.set()


class ListSource(GroupSource):
    """A source that takes items from the right end of the lists of one server. `LPUSH` adds items at the left end."""

    def __init__(self, name: str, server: Server, options: ListOptions, host: SourceHost) -> None:
        timing, log = host.timing, logger(name, server)
        consumer = f"{name}:{options.consumer}"
        streams = [ListStream(options.prefix, key, consumer, options.marks) for key in options.keys]
        link = Link(server, timing.dead_after)
        mover = ItemMover(server, link, streams, again=timing.longest_delay, now=host.clock.monotonic, log=log)
        reader = GroupReader(
            server,
            link,
            streams,
            mover,
            Membership(
                group=GROUP,
                consumer=consumer,
                start="oldest",
                claim_idle=options.lease,
                max_deliveries=options.max_deliveries,
                max_in_flight=options.max_in_flight,
                give_back=pushing_back(streams),
            ),
            batches=ItemBatches(name, host.receiver, payload_field=PAYLOAD, log=log),
            isolation=host.isolation,
            book=host.book,
            clock=host.clock,
            log=log,
        )
        work: Work = reader
        if options.observe:
            work = ListObserver(log)
        super().__init__(name, server, host, reader, work)
        self.rights = f"; a restricted user needs: {_rights(options)}"


def _rights(options: ListOptions) -> str:
    """Return the ACL command that gives a user the permissions for a source of these lists."""
    names = [name for key in options.keys for name in (key, keys.beside(options.prefix, key, ""))]
    globs = [re.sub(r"([*?\[\]\\^])", r"\\\1", name) for name in names]
    patterns = [f"~{glob}{'*' if number % 2 else ''}" for number, glob in enumerate(globs)]
    return f"ACL SETUSER … {' '.join(patterns)} {COMMANDS}"
