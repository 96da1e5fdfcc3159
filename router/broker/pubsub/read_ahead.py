"""The read-ahead of a pub/sub source: bytes that were read from the socket and are not processed yet; floor 4.

By default, Redis disconnects a subscriber when more than 32 MiB of messages wait for this subscriber. Processing an
event takes many times as long as reading the event from the socket. So in a burst, the socket is read first. The bytes
are processed afterwards in slices. Between two slices, the event loop reads the socket again.
"""

from __future__ import annotations

import asyncio
import mmap
from collections import deque
from collections.abc import Callable
from typing import Protocol

from structlog.stdlib import BoundLogger

from router.events import RawBatch

BLOCK = 256 * 1024
"""The size of a block in bytes: the largest number of bytes that are read from the socket at once."""

SLICE = 64 * 1024
"""The largest number of bytes that are processed in one turn of the event loop."""

LEAST = 16 * 1024
"""The smallest free space of a block, in bytes, for another read. With less free space, the connection begins a new
block."""

SPARE = 4
"""The number of empty blocks that are kept while no bytes wait. The memory of other empty blocks is freed."""

SPARE_IN_BURST = 64
"""The number of empty blocks that are kept while bytes wait. Reuse is faster: the operating system must clear new
memory."""


class Owner(Protocol):
    """A connection with bytes that wait in the read-ahead."""

    def process(self, data: memoryview, start: int, size: int) -> None:
        """Parse `size` bytes of `data` from `start` on, and pass the messages to the receiver."""

    def deliver(self, batches: list[RawBatch]) -> None:
        """Pass messages that are already parsed to the receiver."""

    def count(self, data: memoryview, start: int, size: int) -> int:
        """Return the number of messages in these bytes. The messages are not passed to the receiver."""


class Block:
    """A buffer for the bytes of one connection. `data[taken:filled]` are the bytes that wait to be processed."""

    __slots__ = ("data", "filled", "open", "owner", "queued", "taken")

    def __init__(self, owner: Owner, data: memoryview) -> None:
        self.owner = owner
        self.data = data
        self.taken = self.filled = 0
        self.open = True
        """True while the connection reads into this block."""
        self.queued = False
        """True while the block is in the queue of the read-ahead."""


class Parsed:
    """Parsed messages that wait, because earlier bytes of another connection are not processed yet.

    `size` is in bytes.
    """

    __slots__ = ("batches", "owner", "size")

    def __init__(self, owner: Owner, batches: list[RawBatch], size: int) -> None:
        self.owner = owner
        self.batches = batches
        self.size = size


class ReadAhead:
    """The bytes that wait, in order of arrival. They come from one connection, or from several successive connections.

    All sizes are in bytes. A connection reads only while there is `room`. So `size` may exceed `limit` only by a
    little: by up to `LEAST` bytes, and by the bytes that a new connection receives before its subscriptions are
    confirmed.
    """

    def __init__(self, limit: int, log: BoundLogger) -> None:
        self.size = 0
        self.peak = 0
        """The largest `size` so far."""
        self.lost = 0
        """The number of messages that were discarded."""
        self.limit = limit
        self._log = log
        self._queue: deque[Block | Parsed] = deque()
        self._spare: list[memoryview] = []
        self._paused: Callable[[], None] | None = None
        self._ends: list[asyncio.Future[None]] = []
        self._over: asyncio.Future[None] | None = None

    @property
    def room(self) -> int:
        """The number of bytes that may be added; 0 or less if the read-ahead is full."""
        return self.limit - self.size

    def block(self, owner: Owner) -> Block:
        """Return an empty block for a connection to read into."""
        # Each block is a separate mapping. The allocator of the C library would not return its memory after a burst.
        data = self._spare.pop() if self._spare else memoryview(mmap.mmap(-1, BLOCK, flags=_PRIVATE))
        return Block(owner, data)

    def add(self, block: Block, size: int) -> None:
        """Add the next `size` bytes of a block. These bytes are processed in a later turn of the event loop."""
        block.filled += size
        if len(block.data) - block.filled < LEAST:
            block.open = False
        if block.queued:
            self._grow(size)
        else:
            block.queued = True
            self._append(block, size)

    def add_parsed(self, owner: Owner, batches: list[RawBatch], size: int) -> None:
        """Add parsed messages behind everything that waits.

        `size` is the number of bytes of the messages before they were parsed.
        """
        self._append(Parsed(owner, batches, size), size)

    def resume_with(self, resume: Callable[[], None]) -> None:
        """Call `resume` once, as soon as there is room. A later call of this method replaces the function."""
        self._paused = resume

    def configure(self, limit: int) -> None:
        """Change the limit. Bytes that wait already are not dropped, even if they exceed the new limit."""
        self.limit = limit
        self._resume()

    # The end.

    def finish_within(self, seconds: float) -> asyncio.Future[None]:
        """Limit the time for which `emptied` waits; return a future that is done when this time is over.

        A later call can only shorten the time.
        """
        loop = asyncio.get_running_loop()
        if self._over is None:
            self._over = loop.create_future()
        if seconds > 0:
            loop.call_later(seconds, _done, self._over)
        else:
            _done(self._over)
        return self._over

    async def emptied(self) -> None:
        """Wait until all bytes are processed or the time of `finish_within` is over."""
        if not self._queue:
            return
        end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ends.append(end)
        await asyncio.wait([end, *([self._over] if self._over else [])], return_when=asyncio.FIRST_COMPLETED)

    def discard(self) -> None:
        """Drop all bytes that wait. Their messages are counted as lost, and the number is logged."""
        messages, size = 0, self.size
        for item in self._queue:
            if isinstance(item, Parsed):
                messages += sum(len(batch.payloads) for batch in item.batches)
            else:
                messages += item.owner.count(item.data, item.taken, item.filled - item.taken)
        self._queue.clear()
        self.size = 0
        self.lost += messages
        if messages:
            message = "events are lost: they were read ahead, but could not be processed before the end of the drain"
            self._log.error(message, reason="shutdown", number=messages, bytes=size)

    # Processing.

    def _append(self, item: Block | Parsed, size: int) -> None:
        if not self._queue:
            asyncio.get_running_loop().call_soon(self._step)
        self._queue.append(item)
        self._grow(size)

    def _grow(self, size: int) -> None:
        self.size += size
        self.peak = max(self.peak, self.size)

    def _step(self) -> None:
        """Process one slice, and schedule the next slice for the next turn of the event loop."""
        if not self._queue:
            return
        try:
            self._process_slice(self._queue[0])
        finally:
            if self._queue:
                asyncio.get_running_loop().call_soon(self._step)
            else:
                self._note_empty()
            self._resume()

    def _process_slice(self, item: Block | Parsed) -> None:
        if isinstance(item, Parsed):
            self._queue.popleft()
            self.size -= item.size
            item.owner.deliver(item.batches)
            return
        start, size = item.taken, min(SLICE, item.filled - item.taken)
        item.taken += size
        self.size -= size
        try:
            item.owner.process(item.data, start, size)
        finally:
            if item.taken == item.filled:
                self._queue.popleft()
                self._reuse(item)

    def _reuse(self, block: Block) -> None:
        block.queued = False
        block.taken = block.filled = 0
        if not block.open and len(self._spare) < SPARE_IN_BURST:
            self._spare.append(block.data)

    def _note_empty(self) -> None:
        del self._spare[SPARE:]
        ends, self._ends = self._ends, []
        for end in ends:
            _done(end)

    def _resume(self) -> None:
        if self._paused is not None and self.room > 0:
            resume, self._paused = self._paused, None
            resume()


_PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
