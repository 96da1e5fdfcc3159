"""A list, the stream of its items in flight, and the events made from the items; floor 4."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby

from router.broker.groups.entry_batches import EntryBatches
from router.broker.groups.group_stream import Loss, Stream
from router.broker.groups.in_flight import Names
from router.broker.server import keys
from router.contracts import Receipt
from router.events import RawBatch
from router.wording import counted

GROUP = "event-router"
"""The consumer group of every stream of items."""

PAYLOAD = "payload"
"""The field of an entry that holds the item."""


class ListStream(Stream):
    """The keys of one list of a source: the list, the stream of its items in flight, and the list `landing` between them.

    The names of the stream and of `landing` consist of the `prefix` and the key of the list. So all sources and routers
    that read a list use the same stream and the same `landing`. `marks` is the key of the hash with a mark for each
    partly enqueued entry; None if the list is not in the router's own Redis.
    """

    def __init__(self, prefix: str, key: str, consumer: str, marks: str | None = None) -> None:
        items = keys.beside(prefix, key, "items").encode()
        super().__init__(Names(items, GROUP, consumer, marks, own=True), key.encode())
        self.list = key
        self.prefix = prefix
        self.landing = keys.beside(prefix, key, "landing")

    def loss_message(self, lost: Loss, held: int) -> str:
        """Return the message about the loss of the stream or group, and its consequence for `held` items in flight."""
        if lost is Loss.STREAM:
            return f"the items in flight were deleted from Redis: the {counted(held, 'item')} of this router will be delivered, but items of other routers may be lost"
        return "the consumer group of the items in flight was deleted: items that other routers have in flight may be delivered twice"


class ItemBatches(EntryBatches):
    """Passes the items of a list source to its receiver.

    The id of an entry contains the time at which its item left the list.
    """

    def batches(  # the columns of a table
        self,
        stream: Stream,
        ids: list[bytes],
        payloads: list[bytes],
        others: list[dict[str, str]] | None,
        receipt: Receipt | None,
    ) -> Sequence[RawBatch]:
        """Return the items as batches of messages: items that left the list in the same millisecond are one batch."""
        event_ids = stream.event_ids([one.decode() for one in ids])
        made: list[RawBatch] = []
        first = 0
        for milliseconds, run in groupby(ids, key=_milliseconds):
            last = first + len([*run])
            headers = None if others is None else [other or None for other in others[first:last]]
            received_at = _time(milliseconds)
            made.append(
                RawBatch(
                    stream.channel,
                    None,
                    payloads[first:last],
                    event_ids[first:last],
                    headers,
                    receipt,
                    first,
                    received_at,
                )
            )
            first = last
        return made


def _milliseconds(entry_id: bytes) -> bytes:
    return entry_id.partition(b"-")[0]


def _time(milliseconds: bytes) -> datetime | None:
    """Return the time in an entry id; None if the time is impossible, because another program wrote the entry."""
    try:
        return datetime.fromtimestamp(int(milliseconds) / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None
