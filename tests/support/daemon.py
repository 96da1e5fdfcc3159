"""The real daemon as a process on a server of the test's, and what it wrote."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.process import Process
from tests.support.redis import RedisServer
from tests.support.waiting import Told, until

DEAD = "{event-router}:dead"

NOTIFICATION = {
    "type": "object",
    "required": ["user_id", "message"],
    "properties": {"user_id": {"type": "integer", "minimum": 1}, "message": {"type": "string"}},
}


class Daemon:
    """A running router; `folder` is where its configuration and what it writes are."""

    def __init__(self, process: Process, server: RedisServer, folder: Path) -> None:
        self.process = process
        self.server = server
        self.folder = folder

    def publish(self, channel: str, *payloads: Any) -> None:
        """Publish, pipelined; bytes as they are, anything else as JSON."""
        with self.server.client() as client:
            pipeline = client.pipeline(transaction=False)
            for payload in payloads:
                pipeline.publish(channel, payload if isinstance(payload, bytes) else json.dumps(payload))
            pipeline.execute()

    def lines(self, name: str = "audit.jsonl") -> list[dict[str, Any]]:
        """The lines that a log sink wrote; one that is being written does not count yet."""
        file = self.folder / name
        written = file.read_bytes() if file.exists() else b""
        return [json.loads(line) for line in written[: written.rfind(b"\n") + 1].splitlines()]

    def count(self, name: str = "audit.jsonl") -> int:
        """How many whole lines a log sink wrote."""
        file = self.folder / name
        return file.read_bytes().count(b"\n") if file.exists() else 0

    def letters(self) -> list[dict[str, str]]:
        """The dead letters."""
        with self.server.client() as client:
            entries: Any = client.xrange(DEAD)
        return [{key.decode(): value.decode() for key, value in fields.items()} for _, fields in entries]

    async def until(self, condition: Callable[[], object], what: str = "") -> None:
        """Wait for a condition of the outside world, while the daemon runs."""

        def so() -> object:
            held = condition()
            assert held or self.process.running, f"the daemon ended\n{self.process.err}"
            return held

        await until(so, Told(lambda: f"{what or condition}\n{self.process.err}"))

    async def stop(self) -> int:
        """SIGTERM and wait for the end; returns the exit code."""
        return await asyncio.to_thread(self.process.stop)

    def closing(self) -> dict[str, Any]:
        """The closing line."""
        found = re.search(r'^\{.*"stopped".*\}$', self.process.err, re.MULTILINE)
        assert found, self.process.err
        line: dict[str, Any] = json.loads(found[0])
        return line


@asynccontextmanager
async def daemon(
    server: RedisServer, folder: Path, config: Mapping[str, Any], *, arguments: tuple[str, ...] = (), **env: str
) -> AsyncIterator[Daemon]:
    """A router with this configuration, ready; `redis.url` is the server's unless the configuration says otherwise."""
    folder.mkdir(exist_ok=True)
    whole = {"version": 1, "redis": {"url": server.url}, **config}
    (folder / "config.yaml").write_text(json.dumps(whole))  # JSON is YAML
    (folder / "notification.json").write_text(json.dumps(NOTIFICATION))
    with Process("run", "-c", folder / "config.yaml", *arguments, cwd=folder, env=env, notify=True) as process:
        await asyncio.to_thread(process.wait_ready)
        yield Daemon(process, server, folder)
