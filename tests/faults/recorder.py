"""The helpers outside of the daemon: a recorder of deliveries, and proxies. They run on one event loop in a thread."""

from __future__ import annotations

import asyncio
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Self

from tests.support.proxy import Proxy

MILLION = 1_000_000
STREAM, LIST, PUBSUB = range(3)
"""The kinds of events. The numbers of the events of a kind begin at kind * `MILLION`, so a number shows the kind."""

OK, LATER, REFUSED, NEVER = "ok", "later", "refused", "never"
"""The responses of the recorder to a sink. With `NEVER`, the recorder sends no response, so that the sink hangs."""


def asks_for(seconds: float) -> str:
    """Return the response of a service that asks the router to wait this number of seconds."""
    return f"asked {seconds}"


def payload(number: int) -> bytes:
    """Return the payload of the event with this number."""
    return b'{"n": %d, "text": "event %d, gr\xc3\xbc\xc3\x9fe"}' % (number, number)


class Outside:
    """An event loop in a separate thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="outside", daemon=True)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the event loop and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Call a function on the event loop, and return when the call has ended."""

        async def called() -> None:
            function(*arguments)

        self.run(called())

    def proxy(self, port: int) -> Proxy:
        """Return a new proxy for the port of a server. The caller closes the proxy with `drop`."""
        return self.run(Proxy(port).__aenter__())

    def drop(self, proxy: Proxy) -> None:
        """Close a proxy."""
        self.run(proxy.__aexit__())


class Recorder:
    """A server that counts the deliveries of each sink.

    `answer(sink, number)` returns the response to a delivery. `delay` maps sinks to the seconds before each response.
    """

    def __init__(self) -> None:
        self.answer: Callable[[str, int], str] = lambda _sink, _number: OK
        self.delay: dict[str, float] = {}
        self.got: dict[tuple[str, int], Counter[int]] = {}
        """The number of deliveries of each event, by sink and kind."""
        self.spoiled = 0
        """The number of deliveries with other bytes than the published event."""
        self.port = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Start to listen."""
        self._server = await asyncio.get_running_loop().create_server(lambda: _Talk(self), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    def take(self, line: bytes) -> tuple[str, float]:
        """Record a delivery. Return the response, and the seconds before the response is sent."""
        name, number, checksum = line.split()
        sink, of = name.decode(), int(number)
        answer = self.answer(sink, of)
        if answer == OK:
            self.got.setdefault((sink, of // MILLION), Counter())[of] += 1
            self.spoiled += zlib.crc32(payload(of)) != int(checksum)
        return answer, self.delay.get(sink, 0.0)

    def count(self, sink: str, kind: int = STREAM) -> int:
        """Return the number of different events of a kind that a sink delivered."""
        return len(self.got.get((sink, kind), ()))

    def numbers(self, sink: str, kind: int = STREAM) -> Counter[int]:
        """Return the number of deliveries of each event of a kind."""
        return self.got.get((sink, kind), Counter())

    def total(self, sink: str) -> int:
        """Return the number of deliveries of a sink, including repeated deliveries."""
        return sum(counts.total() for (name, _), counts in list(self.got.items()) if name == sink)


class _Talk(asyncio.Protocol):
    """One connection of a sink. Each delivery and each response is one line."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._rest = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            answer, delay = self._recorder.take(line)
            if answer == NEVER:
                continue
            if delay:
                asyncio.get_running_loop().call_later(delay, self._say, answer)
            else:
                self._say(answer)

    def _say(self, answer: str) -> None:
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.write(answer.encode() + b"\n")
