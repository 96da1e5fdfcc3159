"""What stands outside of the daemon: a recorder of deliveries, and proxies, all on one event loop in a thread."""

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
"""Kinds of events. The numbers of a kind begin at so many millions, so that a number says of which kind it is."""

OK, LATER, REFUSED, NEVER = "ok", "later", "refused", "never"
"""What the recorder may answer a sink; `NEVER`: nothing, the sink hangs."""


def asks_for(seconds: float) -> str:
    """The answer of a service that asks for time."""
    return f"asked {seconds}"


def payload(number: int) -> bytes:
    """The event of this number, byte for byte."""
    return b'{"n": %d, "text": "event %d, gr\xc3\xbc\xc3\x9fe"}' % (number, number)


class Outside:
    """An event loop in a thread of its own."""

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
        """Run a coroutine there and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Call a function there, and return when it has run."""

        async def called() -> None:
            function(*arguments)

        self.run(called())

    def proxy(self, port: int) -> Proxy:
        """A proxy before a server's port; whoever asked for it closes it with `drop`."""
        return self.run(Proxy(port).__aenter__())

    def drop(self, proxy: Proxy) -> None:
        """Close a proxy."""
        self.run(proxy.__aexit__())


class Recorder:
    """A server that counts what each sink delivered.

    `answer(sink, number)` decides what a sink is told; `delay` is how many seconds that takes, by sink.
    """

    def __init__(self) -> None:
        self.answer: Callable[[str, int], str] = lambda _sink, _number: OK
        self.delay: dict[str, float] = {}
        self.got: dict[tuple[str, int], Counter[int]] = {}
        """How often each number came, by sink and kind."""
        self.spoiled = 0
        """Deliveries whose bytes were not those that were published."""
        self.port = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.get_running_loop().create_server(lambda: _Talk(self), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()

    def take(self, line: bytes) -> tuple[str, float]:
        """Note a delivery; returns the answer, and after how many seconds it is given."""
        name, number, checksum = line.split()
        sink, of = name.decode(), int(number)
        answer = self.answer(sink, of)
        if answer == OK:
            self.got.setdefault((sink, of // MILLION), Counter())[of] += 1
            self.spoiled += zlib.crc32(payload(of)) != int(checksum)
        return answer, self.delay.get(sink, 0.0)

    def count(self, sink: str, kind: int = STREAM) -> int:
        """How many different events of a kind a sink delivered."""
        return len(self.got.get((sink, kind), ()))

    def numbers(self, sink: str, kind: int = STREAM) -> Counter[int]:
        """How often each number of a kind came."""
        return self.got.get((sink, kind), Counter())

    def total(self, sink: str) -> int:
        """How many deliveries a sink made, repeated ones too."""
        return sum(counts.total() for (name, _), counts in list(self.got.items()) if name == sink)


class _Talk(asyncio.Protocol):
    """One connection of a sink: a line for each delivery, a line for each answer."""

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
