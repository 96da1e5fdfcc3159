"""Deliveries of the same events to several sinks, created only when a delivery is accessed; floor 2, pure.

A route with ten log sinks makes ten deliveries of each event. These deliveries differ only in the name of the sink.
Creating ten objects and encoding the same line ten times would cost more than everything else. So the sinks share the
events and their lines.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain, groupby
from operator import attrgetter
from threading import Lock
from typing import Any, NamedTuple, final, overload

from router.events import Event, json_lines, size_of

Pair = tuple[Event, Any]
"""A delivery with its rendered options."""

FEWEST = 8
"""The smallest number of events for which sharing is cheaper than a copy of each event for every sink."""

MOST_BYTES = 4 * 1024**2
"""The largest size of the cached lines in bytes. Lines are cached for sinks that have not requested them yet."""

_received_at = attrgetter("received_at")


class LineCache:
    """The lines of shared events: encoded for the first sink, and kept until the last sink has requested them.

    The cache holds at most `most` bytes, because a slow sink must not fill the memory. Beyond that, the oldest lines
    are removed, and encoded again for a sink that requests them later. Plugins may call the cache from threads.
    """

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._most = most
        self._lock = Lock()
        self._kept: OrderedDict[Part, tuple[bytes, int]] = OrderedDict()
        """The lines, and the number of sinks that have not requested them."""
        self.size = 0
        """The size of all lines, in bytes."""

    def find(self, part: Part) -> bytes | None:
        """Return the lines of a part; None if they are not in the cache.

        When the last sink has requested the lines, they are removed.
        """
        with self._lock:
            found = self._kept.get(part)
            if found is None:
                return None
            lines, sinks = found
            if sinks > 1:
                self._kept[part] = lines, sinks - 1
            else:
                del self._kept[part]
                self.size -= len(lines)
            return lines

    def keep(self, part: Part, lines: bytes, sinks: int) -> None:
        """Store the lines of a part for this number of other sinks."""
        with self._lock:
            if sinks < 1 or part in self._kept:
                return
            self._kept[part] = lines, sinks
            self.size += len(lines)
            while self.size > self._most:
                _, (forgotten, _) = self._kept.popitem(last=False)
                self.size -= len(forgotten)


class SharedEvents:
    """Consecutive events that the same routes send to the same sinks.

    `events` has the first delivery of each event; the list must not change.
    """

    __slots__ = ("_sizes", "cache", "events", "received_at", "sinks")

    def __init__(self, events: list[Event], sinks: Mapping[str, int], cache: LineCache) -> None:
        self.events = events
        self.sinks = sinks
        """The number of sinks of each route. The lines name the route, so only sinks of the same route share lines."""
        self.cache = cache
        times = list(map(_received_at, events))
        self.received_at: datetime | None = times[0] if times.count(times[0]) == len(times) else None
        """The time at which all events were received; None if the times differ."""
        self._sizes: dict[tuple[int, int], int] = {}

    def size(self, start: int, stop: int) -> int:
        """Return the size of the payloads between two positions, in bytes; computed once for all sinks."""
        size = self._sizes.get((start, stop))
        if size is None:
            size = self._sizes[start, stop] = size_of(self.events[start:stop])
        return size


class Part(NamedTuple):
    """A range of shared events, and the route that takes them."""

    shared: SharedEvents
    route: str
    start: int
    stop: int

    @property
    def events(self) -> list[Event]:
        """The first deliveries of the events."""
        events = self.shared.events
        return events if self.stop - self.start == len(events) else events[self.start : self.stop]

    def deliveries(self, sink: str) -> list[Event]:
        """Return the deliveries to a sink."""
        events = self.events
        first = events[0]
        return events if (first.route, first.sink) == (self.route, sink) else copies(events, self.route, sink)

    def times(self) -> Iterator[tuple[datetime, int]]:
        """Return the times at which the events were received, each with the number of events."""
        at = self.shared.received_at
        return _times(self.events) if at is None else iter([(at, self.stop - self.start)])

    def json_lines(self) -> bytes:
        """Return the JSON lines of the deliveries. The lines do not name the sink."""
        shared = self.shared
        lines = shared.cache.find(self)
        if lines is None:
            first = shared.events[0]
            lines = json_lines(self.events if first.route == self.route else self.deliveries(first.sink))
            shared.cache.keep(self, lines, shared.sinks[self.route] - 1)
        return lines


@final
class Deliveries(Sequence[Event]):
    """The deliveries of shared events to one sink. All of them are created when the first one is accessed."""

    __slots__ = ("_made", "_number", "parts", "sink")

    def __init__(self, sink: str, parts: Sequence[Part]) -> None:
        self.sink = sink
        self.parts = parts
        self._number = sum([part.stop - part.start for part in parts])
        self._made: list[Event] | None = None

    def __len__(self) -> int:
        return self._number

    def __iter__(self) -> Iterator[Event]:
        return iter(self._events())

    @property
    def size(self) -> int:
        """The size of the payloads in bytes."""
        return sum([part.shared.size(part.start, part.stop) for part in self.parts])

    @overload
    def __getitem__(self, place: int) -> Event: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Event]: ...
    def __getitem__(self, place: int | slice) -> Event | Sequence[Event]:
        if self._made is None and isinstance(place, slice) and len(self.parts) == 1:
            (part,) = self.parts
            start, stop, step = place.indices(self._number)
            if step == 1 and start < stop:
                return Deliveries(self.sink, [part._replace(start=part.start + start, stop=part.start + stop)])
        return self._events()[place]

    @property
    def originals(self) -> list[Event]:
        """The first delivery of each event. It differs from the delivery to this sink only in `route` and `sink`."""
        return self.parts[0].events if len(self.parts) == 1 else [e for part in self.parts for e in part.events]

    def json_lines(self) -> bytes:
        """Return the JSON lines of the deliveries."""
        return b"".join([part.json_lines() for part in self.parts])

    def _events(self) -> list[Event]:
        if self._made is None:
            self._made = [event for part in self.parts for event in part.deliveries(self.sink)]
        return self._made

    @classmethod
    def of(cls, bundles: Sequence[Sequence[Event]]) -> Sequence[Event]:
        """Return the deliveries of several bundles for one sink, in order.

        If an event is not shared, the result is a list.
        """
        shared = [bundle for bundle in bundles if type(bundle) is Deliveries]
        if len(shared) == len(bundles):
            return cls(shared[0].sink, [part for bundle in shared for part in bundle.parts])
        return [event for bundle in bundles for event in bundle]


@final
class UniformBatch(Sequence[Pair]):
    """The batch of a call whose deliveries all have the same options. A pair is created when it is accessed."""

    __slots__ = ("events", "options")

    def __init__(self, events: Sequence[Event], options: Any) -> None:
        self.events = events
        self.options = options

    def __len__(self) -> int:
        return len(self.events)

    def __iter__(self) -> Iterator[Pair]:
        options = self.options
        return ((event, options) for event in self.events)

    @overload
    def __getitem__(self, place: int) -> Pair: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Pair]: ...
    def __getitem__(self, place: int | slice) -> Pair | Sequence[Pair]:
        if isinstance(place, slice):
            return UniformBatch(self.events[place], self.options)
        return self.events[place], self.options


def copies(events: Iterable[Event], route: str, sink: str) -> list[Event]:
    """Return copies of first deliveries for another route or sink."""
    return [
        Event(
            e.id,
            e.source,
            e.channel,
            e.pattern,
            e.received_at,
            e.raw,
            route,
            sink,
            e.format,
            e.headers,
            _receipt=e._receipt,  # noqa: SLF001  # fields that only the router may use
            _position=e._position,  # noqa: SLF001  # as above
        )
        for e in events
    ]


def originals(events: Sequence[Event]) -> Sequence[Event]:
    """Return the deliveries without creating new objects.

    The `route` and `sink` of a returned object may be those of another delivery of the event.
    """
    return events.originals if type(events) is Deliveries else events


def bytes_of(events: Sequence[Event]) -> int:
    """Return the size of these deliveries' payloads together, in bytes. Creates no deliveries."""
    return events.size if type(events) is Deliveries else size_of(events)


def receipt_times(events: Sequence[Event]) -> Iterable[tuple[datetime, int]]:
    """Return the times at which events were received, each with the number of consecutive events that were received
    then.
    """
    if len(events) == 1:
        return ((originals(events)[0].received_at, 1),)
    if type(events) is Deliveries:
        return chain.from_iterable(part.times() for part in events.parts)
    return _times(events)


def _times(events: Sequence[Event]) -> Iterator[tuple[datetime, int]]:
    return ((at, len(list(group))) for at, group in groupby(map(_received_at, events)))


def batch_options(batch: Sequence[Pair]) -> Iterable[Any]:
    """Return the options of a batch: one object if all deliveries have the same options, else those of each delivery."""
    return (batch.options,) if type(batch) is UniformBatch else (options for _, options in batch)


def batch_json_lines(batch: Sequence[Pair]) -> bytes:
    """Return the JSON lines of a batch as `json_lines` does. Sinks that get the same events share the encoded lines."""
    events = batch.events if type(batch) is UniformBatch else [event for event, _ in batch]
    return events.json_lines() if type(events) is Deliveries else json_lines(events)
