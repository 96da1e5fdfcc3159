"""The environment of a scenario: a server, routers, producers, a recorder, and the checks at the end."""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from router.admin.admin_client import Client
from router.admin.sockets import connect, default_address
from router.errors import RouterError, UnavailableError
from tests.faults.flows import Flow, numbers
from tests.faults.judging import Found, judge_books, judge_counts, judge_lines, judge_log
from tests.faults.recorder import LIST, PUBSUB, STREAM, Outside, Recorder
from tests.support.lists import left
from tests.support.process import Finished, Process, run
from tests.support.proxy import Proxy
from tests.support.redis import RedisServer, binary
from tests.support.waiting import looks

SINKS = ("first", "second", "third")
KEYS = {STREAM: "billing", LIST: "jobs", PUBSUB: "notification"}
DEAD = "{event-router}:dead"
PLUGIN = Path(__file__).with_name("recording_sink.py")
PATIENCE = 300.0
"""The maximum number of seconds that each step may take. It is long, because the machine may be busy."""
MOST_SLOW_ANSWERS = 24
"""The maximum number of requests for the status of a router that may end without a response in time."""

Step = Callable[[str], None]


class Stuck(Exception):  # noqa: N818  # the name describes the scenario
    """A scenario waited too long for a condition. The text describes the state of all components."""


def sink(queue: str | Mapping[str, Any] = "redis", **keys: Any) -> dict[str, Any]:
    """Return the configuration of a recording sink with short delays between attempts."""
    quick = {"retry": {"initial": "50ms", "max_delay": "1s"}, "timeout": "30s", "breaker": {"reset": "500ms"}}
    return {"type": "record", **quick, "queue": queue, **keys}


def stream(**keys: Any) -> dict[str, Any]:
    """Return the configuration of a source of the kind `STREAM`."""
    return {"type": "stream", "streams": [KEYS[STREAM]], "start": "oldest", "claim": {"idle": "15s"}, **keys}


def items(**keys: Any) -> dict[str, Any]:
    """Return the configuration of a source of the kind `LIST`."""
    return {"type": "list", "keys": [KEYS[LIST]], **keys}


def channels(*names: str, **keys: Any) -> dict[str, Any]:
    """Return the configuration of a source of the kind `PUBSUB`."""
    return {"type": "pubsub", "channels": list(names or (KEYS[PUBSUB],)), **keys}


class Stage:
    """One run of one scenario. `full` selects the full size. `step` is called with a text at each step."""

    def __init__(self, name: str, folder: Path, *, full: bool, step: Step, outside: Outside, kind: str) -> None:
        self.full = full
        self.folder = folder
        self.found = Found(name)
        self.step = step
        self.recorder = Recorder()
        self.server: RedisServer = None  # type: ignore[assignment]  # `serve` comes first
        self.flows: list[Flow] = []
        self.routers: list[Process] = []
        self.env: dict[str, dict[str, str]] = {"server": {}, "router": {}}
        """Additional environment variables of the processes `server` and `router`."""
        self.killed: set[Process] = set()
        self._outside = outside
        self._kind = kind
        self._proxies: list[Proxy] = []
        self._stores: list[RedisServer] = []
        outside.run(self.recorder.start())

    def of(self, small: Any, full: Any) -> Any:
        """Return `full` in a full run, and `small` in a small run."""
        return full if self.full else small

    # Servers, proxies and the configuration.

    def serve(self, persistence: str = "everysec", **options: str) -> RedisServer:
        """Start the server. `persistence` is its `appendfsync`; with `no`, the server has no append-only file."""
        given = {"appendonly": "no"} if persistence == "no" else {"appendonly": "yes", "appendfsync": persistence}
        wanted = {**given, **options}
        self.server = RedisServer(self._kind, self.folder / "redis", options=wanted, env=self.env["server"]).start()
        return self.server

    def store(self) -> RedisServer:
        """Start another server, for the records of lookups. The records survive a restart of this server."""
        options = {"appendonly": "yes"}
        self._stores.append(RedisServer(self._kind, self.folder / "store", options=options).start())
        return self._stores[-1]

    def proxy(self) -> Proxy:
        """Return a new proxy for the port of the server."""
        self._proxies.append(self._outside.proxy(self.server.port))
        return self._proxies[-1]

    def on_proxy(self, act: Callable[..., object], *arguments: object) -> None:
        """Call a function of a proxy on the event loop of the proxy."""
        self._outside.call(act, *arguments)

    def configure(self, sources: Mapping[str, Any], sinks: Mapping[str, Any] | None = None, **keys: Any) -> None:
        """Write the configuration. Every event goes to every sink, unless `keys` replaces the section `routes`."""
        sinks = {name: sink() for name in SINKS} if sinks is None else sinks
        told = {
            name: {**one, "port": self.recorder.port, "name": name} if one["type"] == "record" else dict(one)
            for name, one in sinks.items()
        }
        routes = [{"id": "all", "sinks": list(sinks)}]
        whole = {"version": 1, "redis": {"url": self.server.url}, "sources": sources, "sinks": told, "routes": routes}
        home = self.folder / "router"
        plugins = home / "plugins"
        plugins.mkdir(mode=0o755, parents=True, exist_ok=True)
        (plugins / "record.py").write_text(PLUGIN.read_text())
        (plugins / "record.py").chmod(0o644)
        self.config.write_text(json.dumps({**whole, **keys}))  # JSON is YAML

    @property
    def config(self) -> Path:
        """The path of the configuration file."""
        return self.folder / "router" / "config.yaml"

    # Routers.

    def start(self, instance: str = "one", *, wait: bool = True) -> Process:
        """Start a router. If `wait` is true, return when the router is ready."""
        arguments = ("run", "-c", self.config, "--instance", instance)
        router = Process(*arguments, cwd=self.config.parent, env=self.env["router"], notify=True).__enter__()
        self.routers.append(router)
        if wait:
            self.ready(router)
        return router

    def ready(self, router: Process) -> None:
        """Wait until a router is ready."""
        assert router.notify
        notify = router.notify
        self.until(lambda: notify.seen("READY=1") or not router.running, "a router to be ready")
        if not router.running:
            raise Stuck(f"the router ended before it was ready\n{router.err}")

    def kill(self, router: Process) -> None:
        """Kill a router with SIGKILL (kill -9)."""
        router.signal(9)
        router.wait()
        self.killed.add(router)

    def stop(self, router: Process, code: int = 0) -> float:
        """Send SIGTERM to a router, check its exit code, and return the seconds until its end."""
        began = time.monotonic()
        found = router.stop(PATIENCE)
        seconds = time.monotonic() - began
        self.check(found == code, f"SIGTERM ended with {found}: {router.err[-2000:]}")
        return seconds

    def client(self, instance: str = "one") -> Client:
        """Return a client for the admin socket of a running router."""
        return Client(default_address(self.config.parent / "state" / "event-router", instance))

    def status(self, instance: str = "one") -> dict[str, Any]:
        """Return the status of a running router.

        On a busy machine, the response may take longer than a client waits. So the request is repeated.
        """
        told: dict[str, Any]
        for _ in range(MOST_SLOW_ANSWERS):
            try:
                told = self.client(instance).get("/api/status")
            except UnavailableError as error:
                if "does not answer within" not in str(error):
                    raise
            else:
                return told
        told = self.client(instance).get("/api/status")
        return told

    def readyz(self, instance: str = "one") -> tuple[int, dict[str, Any]]:
        """Return the status code and the body of `/readyz`."""
        connection = http.client.HTTPConnection("localhost", timeout=10)
        connection.sock = connect(self.client(instance).address, 10)
        try:
            connection.request("GET", "/readyz")
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def command(self, *words: str) -> Finished:
        """Run a command of event-router with the configuration of this stage."""
        return run(*words, cwd=self.config.parent, timeout=PATIENCE)

    # Events.

    def flow(self, kind: int, events: int, *, rate: float | None = None, first: int = 0, key: str = "") -> Flow:
        """Publish `events` events of a kind in the background, beginning with the number `first`."""
        self.flows.append(Flow(kind, self.server, key or KEYS[kind], numbers(kind, events, first), rate).start())
        return self.flows[-1]

    def arrived(self, kind: int, sinks: Sequence[str] = SINKS) -> bool:
        """Return True if every sink has received all events of a kind."""
        wanted = sum(len(flow.events) for flow in self.flows if flow.kind == kind)
        return all(self.recorder.count(name, kind) >= wanted for name in sinks)

    def heard(self) -> set[int]:
        """Return the numbers of the pub/sub events that had a subscriber when they were published."""
        return {number for flow in self.flows for number in flow.heard}

    def everything(self, sinks: Sequence[str] = SINKS) -> None:
        """Wait until all events are sent, and every sink has received every event of streams and lists."""
        for flow in self.flows:
            flow.wait()
        kinds = {flow.kind for flow in self.flows} - {PUBSUB}
        self.until(lambda: all(self.arrived(kind, sinks) for kind in kinds), "every event at every sink")

    # Waiting and judging.

    def until(self, condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> float:
        """Wait until a condition holds, and return the seconds that this took. Raises `Stuck` after `seconds`."""
        began = time.monotonic()
        for pause in looks(seconds):
            if condition():
                return time.monotonic() - began
            time.sleep(pause)
        raise Stuck(f"waited {seconds:g} s for {what}\n{self.story()}")

    def check(self, good: object, problem: str) -> None:
        """Add `problem` to the problems of the scenario if `good` is false."""
        if not good:
            self.found.problems.append(problem)

    def figure(self, name: str, value: float, most: float | None = None, unit: str = "s") -> None:
        """Add a measured figure to the table.

        If the value exceeds `most`, this is a problem. For times and CPU use, it is a problem only in full runs.
        """
        shown = f"{value:,.1f}" if value < 10 and value != int(value) else f"{value:,.0f}"
        bound = "" if most is None else f" (at most {f'{most:g} {unit}'.strip()})"
        self.found.figures[name] = f"{shown} {unit}".strip() + bound
        if most is not None and value > most and (self.full or unit not in {"s", "%"}):
            self.check(False, f"{name}: {shown} {unit}, at most {most:g}")

    def finish(
        self,
        *routers: Process,
        faults: int,
        may_repeat: float = 0,
        sinks: Sequence[str] = SINKS,
        pubsub: bool = False,
        exact_books: bool = True,
        read_again: bool = False,
        dead: int = 0,
        trimmed: int = 0,
    ) -> Found:
        """Compare counts and books at the end, stop the routers, and check their logs.

        If `pubsub` is true, every pub/sub event with a subscriber must have arrived. If `exact_books` is true, the
        books of the sinks must have exactly the number of arrived events. If `read_again` is true, the router may have
        read some events twice. `trimmed` is the number of entries of the stream that were trimmed before they were
        read.
        """
        found = self.found
        self.step("comparing")
        self.until(self._idle, "queues to be empty, and all acknowledged")
        self.until(lambda: (self.told(self._instance(routers[-1])) or {}).get("ready"), "the router to be ready")
        done = self.command("status", "--json", "--instance", self._instance(routers[-1]))
        self.check(done.code == 0, f"status ended with {done.code}: {done.err}")
        told = json.loads(done.out)
        judge_books(found, told)
        expected = self._expected(pubsub=pubsub)
        found.published = sum(len(flow.events) for flow in self.flows)
        for kind, wanted in expected.items():
            got = {name: self.recorder.numbers(name, kind) for name in sinks}
            judge_counts(found, got, dict.fromkeys(sinks, wanted), may_repeat)
        if exact_books:
            self._exact(told, sinks)
        if len(self.routers) == 1:
            self._exact_sources(told, read_again=read_again, trimmed=trimmed)
        for router in routers:
            self.stop(router)
        found.dead = int(self.server.do("XLEN", DEAD))
        self.check(found.dead == dead, f"{found.dead} dead letters instead of {dead}")
        self.check(
            not self.recorder.spoiled, f"{self.recorder.spoiled} deliveries had other bytes than the published events"
        )
        self.read_logs(faults)
        return found

    def read_logs(self, faults: int) -> None:
        """Check the logs of all routers."""
        times: Counter[str] = Counter()
        for router in self.routers:
            times += judge_log(self.found, router.err, killed=router in self.killed)
        judge_lines(self.found, times, faults)

    def _expected(self, *, pubsub: bool) -> dict[int, set[int]]:
        expected: dict[int, set[int]] = {}
        for flow in self.flows:
            if flow.kind != PUBSUB:
                expected.setdefault(flow.kind, set()).update(flow.events)
            elif pubsub:
                expected.setdefault(PUBSUB, set()).update(flow.heard)
        return expected

    def _exact(self, told: Mapping[str, Any], sinks: Sequence[str]) -> None:
        """Check that the books of the sinks count each event once, however many attempts it had."""
        for name in sinks:
            book = told["books"]["sinks"][name]
            once = sum(self.recorder.count(name, kind) for kind in (STREAM, LIST, PUBSUB))
            self.check(book["accepted"] == once, f"the books of {name} accepted {book['accepted']}, {once} arrived")
            self.check(book["delivered"] == once, f"the books of {name} delivered {book['delivered']}, {once} arrived")

    def _exact_sources(self, told: Mapping[str, Any], *, read_again: bool, trimmed: int) -> None:
        """Check that the sources of a router that was never restarted received as many events as were published."""
        for name, book in told["books"]["sources"].items():
            kind = {"stream": STREAM, "list": LIST, "pubsub": PUBSUB}[told["sources"][name]["type"]]
            flows = [flow for flow in self.flows if flow.kind == kind]
            published = sum(len(flow.heard if kind == PUBSUB else flow.events) for flow in flows) - (
                trimmed if kind == STREAM else 0
            )
            text = f"the books of {name} received {book['received']} of {published}"
            if read_again:
                self.check(book["received"] >= published, text)
            elif kind == PUBSUB:  # events in a connection that broke had a subscriber, but never reached the router
                self.check(book["received"] <= published + sum(flow.unanswered for flow in flows), text)
            else:
                self.check(book["received"] == published, text)
            self.check(
                book["routed"] == book["received"], f"{name} received {book['received']}, routed {book['routed']}"
            )

    def _instance(self, router: Process) -> str:
        return router.arguments[list(router.arguments).index("--instance") + 1]

    def _idle(self) -> bool:
        running = [router for router in self.routers if router.running]
        told = [self.told(self._instance(router)) for router in running]
        over = all(
            one is not None
            and all(not book["pending"] for book in one["books"]["sinks"].values())
            and all(not sink["waiting"] and not sink["in_hand"] for sink in one["sinks"].values())
            for one in told
        )
        return over and not self.pending()

    def told(self, instance: str) -> dict[str, Any] | None:
        """Return the status of a router, or None if the router does not respond."""
        try:
            return self.status(instance)
        except RouterError:
            return None

    def pending(self) -> int:
        """Return the number of entries of the stream and items of the list that are not acknowledged."""
        with self.server.client() as client:
            try:
                entries = client.xpending(KEYS[STREAM], "event-router")["pending"]
            except redis.ResponseError:
                entries = 0
            return int(entries) + left(client, KEYS[LIST])

    def story(self) -> str:
        """Return a description of all components, for a scenario that does not end."""
        lines = [f"sent {[(flow.kind, flow.sent, len(flow.events)) for flow in self.flows]}"]
        counts = {f"{sink}/{kind}": len(got) for (sink, kind), got in self.recorder.got.items()}
        lines.append(f"delivered, by sink and kind: {counts}")
        for kind, wanted in self._expected(pubsub=False).items():
            for name in sorted({name for name, _ in self.recorder.got}):
                missing = sorted(wanted - self.recorder.numbers(name, kind).keys())
                if missing:
                    lines.append(f"{name} lacks {len(missing)} events of kind {kind}, the first are {missing[:10]}")
        lines += self._server_story()
        for router in self.routers:
            state = "runs" if router.running else "ended"
            lines.append(f"router {self._instance(router)}, {state}:\n{router.err[-6000:]}")
        return "\n".join(lines)

    def _server_story(self) -> Iterator[str]:
        try:
            with self.server.client(socket_timeout=5) as client:
                for key in sorted(client.scan_iter("*")):
                    kind = client.type(key)
                    size = {b"stream": "XLEN", b"list": "LLEN", b"zset": "ZCARD", b"hash": "HLEN"}.get(kind)
                    yield f"{key.decode()}: {client.execute_command(size, key) if size else kind.decode()}"
                    if kind == b"stream" and key != DEAD.encode():
                        yield from self._pending_story(client, key)
                letters: Any = client.xrange(DEAD, count=5)
                yield from (f"letter {letter}" for letter in letters)
        except redis.RedisError as error:
            yield f"the server does not respond: {error}"

    def _pending_story(self, client: redis.Redis, key: bytes) -> Iterator[str]:
        rows: Any = client.xpending_range(key, "event-router", "-", "+", 20)
        yield from (f"  pending {row}" for row in rows)

    # The end.

    def close(self) -> None:
        """Stop all flows, routers, proxies and servers of this stage."""
        for flow in self.flows:
            flow.stop()
        for router in self.routers:
            router.__exit__(None, None, None)
        for proxy in self._proxies:
            self._outside.drop(proxy)
        for server in (self.server, *self._stores):
            if server is not None:
                server.kill()
        self._outside.run(self.recorder.stop())


def resident(router: Process, what: str = "VmRSS") -> float:
    """Return the memory of a process in MiB: now (`VmRSS`), or the maximum so far (`VmHWM`). Source: proc(5)."""
    for line in Path(f"/proc/{router.pid}/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) / 1024
    raise AssertionError(what)


def cpu(router: Process) -> float:
    """Return the seconds of CPU time that a process has used. Source: proc(5)."""
    fields = Path(f"/proc/{router.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def every(seconds: float, act: Callable[[], object]) -> Iterator[None]:
    """Call a function repeatedly in a thread, with pauses of `seconds`, while the block runs."""
    over = threading.Event()

    def again() -> None:
        while not over.wait(seconds):
            act()

    thread = threading.Thread(target=again, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(30)


def kinds_of_server() -> list[str]:
    """Return the kinds of servers that this machine has, with Redis first."""
    return [kind for kind in ("redis", "valkey") if binary(kind)]
