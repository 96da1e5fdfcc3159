"""`event-router demo`: the real daemon on a Redis of its own, with sample events; floor 7."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click
import msgspec

from router.errors import Exit, RouterError

if TYPE_CHECKING:
    from rich.console import Console

PATIENCE = 12.0
"""The largest number of seconds that the tour waits in total."""

CONFIG = """\
version: 1
redis: {url: "${REDIS_URL}"}       # the demo's own Redis
sources:
  web-app: {type: pubsub, channels: [notification, "orders.*", heartbeat]}
schemas:
  - {channels: [notification], file: schemas/notification.schema.json}
sinks:
  user-chat:                       # reaches the user that the event names
    type: chat
    service: telegram
    token: none
    to: "{{ payload.user_id }}"
    text: "{{ payload.message }}"
  audit: {type: log, path: audit.jsonl}
routes:
  - {id: notify, channels: [notification], sinks: [user-chat, audit]}
  - {id: orders, channels: ["orders.*"], sinks: [audit]}
deliver: print                     # shows who would get what, sends nothing
"""
"""The configuration of the tour. No line is longer than 80 columns, the width of a small terminal."""


class Sample(msgspec.Struct, frozen=True):
    """An event to publish, and patterns of the daemon's output for it: on stdout, in the log, or in the audit file."""

    title: str
    channel: str
    payload: str
    expected: tuple[str, ...]


SAMPLES = (
    Sample(
        "An event that fits its schema: it reaches user 42, and the audit log",
        "notification",
        '{"user_id": 42, "message": "Your order is on its way!"}',
        (r"user-chat.*Your order", r'"route":"notify"'),
    ),
    Sample(
        "Another channel, matched by a glob: its route sends it only to the audit log",
        "orders.new",
        '{"order": 7, "total": 99.5}',
        (r'"route":"orders"',),
    ),
    Sample(
        "A payload with two faults: the dead letter names both (without `deliver: print`, it would be stored)",
        "notification",
        '{"user_id": "42"}',
        (r"dead letter \(schema\)",),
    ),
    Sample("A payload that is not JSON", "notification", "{'user_id': 42}", (r"dead letter \(decode\)",)),
    Sample(
        "A channel that no route takes: its events are counted, and the channel is logged once",
        "heartbeat",
        '{"alive": true}',
        (r"no route takes",),
    ),
)


class DemoError(RouterError):
    """Raised when the tour can't go on."""


@click.command()
def demo() -> int:
    """Show the router at work with sample events, for a few seconds.

    The command starts a Redis server and the daemon in a temporary folder, publishes sample events, and shows where
    each event goes and why. It sends nothing and does not use port 6379. It uses your state directory only if no
    temporary folder is writable.
    """
    from router.broker.embedded_server.embedded import Embedded
    from router.cli.common import console

    screen = console(width=110)
    with tempfile.TemporaryDirectory(prefix="event-router-demo-", dir=_room()) as name:
        folder = Path(name)
        server = Embedded(folder / "state", port=0)
        try:
            url = server.ensure().url
            _tour(screen, folder, url)
        finally:
            server.stop()
    return Exit.OK


def _room() -> Path | None:
    """Return the folder in which the demo creates its own folder. None means the usual place for temporary files.

    If no temporary folder is writable, return the state directory.
    """
    from router.ops.state import state_directory

    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        return state_directory(os.environ)
    return None


def _tour(console: Console, folder: Path, url: str) -> None:
    """Show the configuration, publish each sample, and show the daemon's output for it. Then show its closing line."""
    _heading(console, "The configuration")
    _prepare(folder)
    _show_yaml(console)
    daemon = Daemon(folder, url)
    try:
        daemon.wait(r'"event":"ready"')
        for number, sample in enumerate(SAMPLES, 1):
            _heading(console, f"{number}. {sample.title}")
            _publish(console, url, sample)
            for line in daemon.output(sample):
                # Text is wrapped between words on a terminal; a line of JSON stays one line.
                console.print(_painted(line), soft_wrap=line.startswith("{") or not console.is_terminal)
        closing = daemon.stop()
    finally:
        daemon.kill()
    _heading(console, "The daemon ends; its last line counts every event and delivery")
    _books(console, closing)
    _next_steps(console)


def _prepare(folder: Path) -> None:
    from router.plugin_loading.plugin_manager import builtins_folder

    shutil.copytree(builtins_folder().parent / "schemas", folder / "schemas")
    (folder / "config.yaml").write_text(CONFIG)


class Daemon:
    """The child process `event-router run`, with everything that it prints and writes."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self._deadline = time.monotonic() + PATIENCE
        self._lines: list[str] = []
        self._seen = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "router.cli.main", "run", "-c", "config.yaml", "--log-format", "json"],
            cwd=folder,
            env=_environment(folder, url),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        streams = (self._process.stdout, self._process.stderr)
        self._readers = [threading.Thread(target=self._collect, args=(each,), daemon=True) for each in streams]
        for reader in self._readers:
            reader.start()

    def _collect(self, stream: IO[str]) -> None:
        for line in stream:
            self._lines.append(line.rstrip("\n"))

    def wait(self, *patterns: str) -> list[str]:
        """Wait for a line that matches each pattern; return these lines.

        The daemon's output since the last sample and the audit file are searched. Raises `DemoError` if a line does not
        appear in time.
        """
        found: list[str] = []
        for pattern in patterns:
            ended = self._ended()
            while (line := self._find(pattern)) is None:
                if ended or time.monotonic() > self._deadline:
                    raise DemoError(
                        "the daemon of the demo did not print the expected line in time. Its last lines:\n"
                        + "\n".join(self._lines[-10:])
                    )
                time.sleep(0.01)
                ended = self._ended()
            found.append(line)
        return found

    def _ended(self) -> bool:
        """Return whether the daemon has ended. After its end, all its output is in `_lines`."""
        if self._process.poll() is None:
            return False
        for reader in self._readers:
            reader.join(PATIENCE)
        return True

    def _find(self, pattern: str) -> str | None:
        audit = self._folder / "audit.jsonl"
        written = audit.read_text().splitlines() if audit.exists() else []
        return next((line for line in self._lines[self._seen :] + written if re.search(pattern, line)), None)

    def output(self, sample: Sample) -> list[str]:
        """Return the lines that the daemon printed for a sample."""
        found = self.wait(*sample.expected)
        self._seen = len(self._lines)
        return found

    def stop(self) -> dict[str, Any]:
        """Stop the daemon gracefully and return its closing line."""
        self._process.send_signal(signal.SIGTERM)
        (line,) = self.wait(r'"event":"stopped"')
        self._process.wait(PATIENCE)
        closing: dict[str, Any] = json.loads(line)
        return closing

    def kill(self) -> None:
        """Kill the daemon if it is still running."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def _environment(folder: Path, url: str) -> dict[str, str]:
    """Return the caller's environment without variables that would change the demo's daemon."""
    left_out = ("EVENT_ROUTER_", "NOTIFY_SOCKET", "LOGS_DIRECTORY", "STATE_DIRECTORY", "JOURNAL_STREAM")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    return kept | {"STATE_DIRECTORY": str(folder / "state"), "REDIS_URL": url}


def _publish(console: Console, url: str, sample: Sample) -> None:
    import redis

    console.print(f"  [dim]publish[/] [bold]{sample.channel}[/] [cyan]", end="")
    console.print(sample.payload, markup=False, style="cyan", soft_wrap=True)
    with redis.Redis.from_url(url) as client:
        client.publish(sample.channel, sample.payload)


def _heading(console: Console, text: str) -> None:
    console.print(f"\n[bold]{text}[/]")


def _show_yaml(console: Console) -> None:
    from rich.syntax import Syntax

    if console.is_terminal:
        console.print(Syntax(CONFIG, "yaml", theme="ansi_dark", background_color="default", word_wrap=True))
    else:
        console.print(CONFIG, markup=False, soft_wrap=True)


def _painted(line: str) -> Any:
    """Return a line of the daemon, coloured by its meaning, with the faults of a dead letter below it."""
    from rich.text import Text

    if line.startswith("{"):
        document = json.loads(line)
        if "route" in document:
            return Text(
                f"  → {document['route']} → audit (log), which wrote this line to audit.jsonl:\n    {line}", "green"
            )
        return Text(f"  → unmatched: {document['event']}", "yellow")
    if "dead letter" not in line:
        return Text(f"  → {line.partition(' → ')[2]}", "green")
    head, _, detail = line.partition(": ")
    return Text(f"  → {head.partition(' → ')[2]}" + "".join(f"\n    {fault}" for fault in detail.split("; ")), "red")


def _books(console: Console, closing: dict[str, Any]) -> None:
    columns = ("received", "rejected", "unmatched", "delivered", "printed", "dead_lettered", "dropped", "suppressed")
    for name in columns:
        value = closing.get(name)
        if value:
            shown = (
                ", ".join(f"{reason} {number}" for reason, number in value.items())
                if isinstance(value, dict)
                else value
            )
            console.print(f"  {name.replace('_', '-'):<14}{shown}")


def _next_steps(console: Console) -> None:
    """Print commands that the user can try next. They name a configuration only if this folder has one."""
    import shlex

    from router.cli.first_steps.samples import ourselves

    us = shlex.join(ourselves())
    file = next((name for name in ("config.yaml", "config.example.yaml") if Path(name).is_file()), None)
    steps = [
        (f"{us} plugins", "the available sinks and lookups"),
        (f"{us} config schema", "completion and checks for your editor"),
    ]
    if file is not None:
        steps = [
            (f"{us} check {file}", "a summary of a configuration, and all its faults"),
            (f"{us} run -c {file}", "the daemon; it prints how to publish an event to it from another terminal"),
            *steps,
        ]
    _heading(console, "Next")
    for command, meaning in steps:
        console.print(f"  [bold]{command}[/]", soft_wrap=True)
        console.print(f"      {meaning}", soft_wrap=True)
