"""Real faults on the real daemon: numbered events in, a recorder outside the daemon, and a count of what came of them."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.process import Process
from tests.support.redis import RedisServer

PLUGIN = '''
import asyncio, json, os
from router.api import Sink, SinkError, SinkOptions, TransientError, hookimpl

class RecordOptions(SinkOptions):
    port: int
    name: str

class Record(Sink):
    """Tells a recorder outside of the daemon what was delivered, and does what that answers."""

    def __init__(self, options):
        self.options = options
        self.free = []

    async def deliver(self, event, options):
        payload = event.payload
        number = payload["n"] if isinstance(payload, dict) else payload
        if number == "poison":
            os._exit(3)
        connection = self.free.pop() if self.free else await asyncio.open_connection("127.0.0.1", options.port)
        reader, writer = connection
        try:
            writer.write(json.dumps([options.name, number]).encode() + b"\\n")
            answer = (await reader.readline()).strip()
        except BaseException:
            writer.close()
            raise
        if not answer:
            writer.close()
            raise TransientError("the recorder is gone")
        self.free.append(connection)
        if answer == b"later":
            raise TransientError("not now")
        if answer == b"refused":
            raise SinkError("the token is refused")

    async def close(self):
        for _, writer in self.free:
            writer.close()

@hookimpl
def register_sinks(register):
    register("record", Record, options=RecordOptions, concurrency=8)
'''


class Recorder:
    """A server that counts what each sink delivered. `answer(sink, number)` may say `later` or `refused` instead of `ok`."""

    def __init__(self) -> None:
        self.got: dict[str, Counter[Any]] = {}
        self.order: dict[str, list[Any]] = {}
        self.answer: Callable[[str, Any], str] = lambda _sink, _number: "ok"
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def start(self) -> Recorder:
        self._thread.start()
        self._ready.wait(10)
        return self

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._talk, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                sink, number = json.loads(line)
                answer = self.answer(sink, number)
                if answer == "ok":
                    self.got.setdefault(sink, Counter())[number] += 1
                    self.order.setdefault(sink, []).append(number)
                writer.write(answer.encode() + b"\n")
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    def count(self, sink: str) -> int:
        """How many different events a sink delivered."""
        return len(self.got.get(sink, ()))


@dataclass
class Verdict:
    """What came of one scenario, by sink."""

    published: int
    delivered: dict[str, int] = field(default_factory=dict)
    duplicated: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)


def verdict(recorder: Recorder, published: int, sinks: list[str], expected: Iterator[Any] | None = None) -> Verdict:
    """Compare what was published with what the recorder got."""
    wanted = set(expected if expected is not None else range(published))
    found = Verdict(published)
    for sink in sinks:
        got = recorder.got.get(sink, Counter())
        found.delivered[sink] = len(wanted & got.keys())
        found.duplicated[sink] = sum(number - 1 for number in got.values())
        found.lost[sink] = len(wanted - got.keys())
    return found


class Routers:
    """Daemons of one configuration, started and killed as the scenario wants."""

    def __init__(self, folder: Path, server: RedisServer, recorder: Recorder, config: dict[str, Any]) -> None:
        self.folder = folder
        self.server = server
        folder.mkdir(exist_ok=True)
        plugins = folder / "plugins"
        plugins.mkdir(mode=0o755, exist_ok=True)
        (plugins / "record.py").write_text(PLUGIN)
        (plugins / "record.py").chmod(0o644)
        self.recorder = recorder
        self.write(config)
        self.running: list[Process] = []

    def write(self, config: dict[str, Any]) -> None:
        """Write the configuration; each sink of type `record` is told its name and the recorder's port."""
        whole = {"version": 1, "redis": {"url": self.server.url}, **config}
        for name, sink in whole["sinks"].items():
            if sink["type"] == "record":
                sink |= {"port": self.recorder.port, "name": name}
        (self.folder / "config.yaml").write_text(json.dumps(whole))  # JSON is YAML

    def start(self, instance: str = "one", *, wait: bool = True) -> Process:
        """Start one; ready unless told not to wait."""
        arguments = ("run", "-c", self.folder / "config.yaml", "--instance", instance)
        process = Process(*arguments, cwd=self.folder, notify=True)
        process.__enter__()
        self.running.append(process)
        if wait:
            process.wait_ready(60)
        return process

    def stop_all(self) -> None:
        for process in self.running:
            process.__exit__(None, None, None)
        self.running.clear()


@contextmanager
def recording() -> Iterator[Recorder]:
    recorder = Recorder().start()
    try:
        yield recorder
    finally:
        recorder.stop()


def until(
    condition: Callable[[], object], what: str, seconds: float = 60, told: Callable[[], str] = lambda: "nothing more"
) -> None:
    """Wait for a condition of the outside world; `told` says what there is to see when it does not come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}: {told()}"
        time.sleep(0.02)
