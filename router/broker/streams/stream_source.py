"""The stream source: acknowledges an entry when all deliveries of the entry are settled or stored; floor 4."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from router.broker.groups.entry_batches import EntryBatches
from router.broker.groups.group_reader import GroupReader, NewEntries
from router.broker.groups.group_source import GroupSource, SourceHost, Work, logger
from router.broker.groups.group_stream import START, Membership, Stream
from router.broker.groups.in_flight import Names
from router.broker.server.client import Server
from router.broker.server.link import Link


class StreamOptions(Membership, frozen=True, kw_only=True):
    """The options of a stream source."""

    streams: Sequence[str]
    payload_field: str = "payload"
    """The field of an entry that becomes the payload. The other fields become headers."""
    observe: bool = False
    """True with `deliver: print`: the source then reads new entries without a consumer group."""


class StreamObserver:
    """The reader of a stream source with `deliver: print`: uses no group and acknowledges nothing.

    One read returns at most `most` entries of each stream, and waits up to `block` seconds for entries.
    """

    fault = None

    def __init__(
        self, link: Link, streams: Sequence[Stream], batches: EntryBatches, *, most: int, block: float
    ) -> None:
        self.stop = asyncio.Event()
        self._link = link
        self._streams = streams
        self._batches = batches
        self._words = ("XREAD", "COUNT", most, "BLOCK", max(1, int(block * 1000)), "STREAMS")

    async def prepare(self, stream: Stream) -> None:
        """Set the position in the stream to its newest entry, so that only later entries are read."""
        newest = await self._link.call("XREVRANGE", stream.key, "+", "-", "COUNT", 1)
        stream.progress.last = newest[0][0] if newest else START

    async def run(self, answered: Callable[[], None]) -> None:
        """Read entries and pass them to the receiver until `stop` is set; call `answered` after each answer of Redis."""
        keys = [stream.key for stream in self._streams]
        by_key = {stream.key: stream for stream in self._streams}
        while not self.stop.is_set():
            reply = await self._link.call(*self._words, *keys, *[each.progress.last for each in self._streams])
            answered()
            for key, entries in reply or ():
                by_key[key].progress.last = entries[-1][0]
                self._batches.pass_on(by_key[key], entries, None)

    async def end(self) -> None:
        """Stop reading; the read under way ends by itself."""
        self.stop.set()


class StreamSource(GroupSource):
    """A source that reads streams of one server by a consumer group."""

    def __init__(self, name: str, server: Server, options: StreamOptions, host: SourceHost) -> None:
        timing, log = host.timing, logger(name, server)
        link = Link(server, timing.dead_after)
        streams = [
            Stream(Names(key.encode(), options.group, options.consumer, options.marks)) for key in options.streams
        ]
        batches = EntryBatches(name, host.receiver, payload_field=options.payload_field, log=log)
        reader = GroupReader(
            server,
            link,
            streams,
            NewEntries(link, streams, timing.block, hang_up=timing.hang_up),
            options,
            batches=batches,
            isolation=host.isolation,
            book=host.book,
            clock=host.clock,
            log=log,
        )
        work: Work = reader
        if options.observe:
            work = StreamObserver(link, streams, batches, most=options.max_in_flight, block=timing.block)
        super().__init__(name, server, host, reader, work)
