"""The cost of a mail: pub/sub → schema → route → Redis queue → one mail for each event, over SMTP without TLS.

The mail server accepts everything and offers PIPELINING, unless `--no-pipelining` is given. The base is a simple
program without a queue. It subscribes, builds each mail with `email.mime`, and sends the mail with smtplib on one
connection. Every mail must arrive once, with its recipient, its subject and its texts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from email import message_from_string
from email.message import EmailMessage
from email.policy import SMTP
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import (
    CHANNEL,
    HERE,
    NEVER_FULL,
    Lines,
    Server,
    configuration,
    cpu_seconds,
    free_port,
    listens,
    publishes,
    router,
    running,
    send,
    server,
    split,
    wait_for,
)
from benchmarks.mail_parts import FROM, HTML, SUBJECT, TEXT, TO, UNSUBSCRIBE
from benchmarks.results import Benchmark, Case, Figure, Reading, Turns

KINDS = {"text": 0.6, "html": 0.7}
"""The kinds of mail, with the goal for the CPU of each as a multiple of the base's."""
NAMES = {"text": "text", "html": "text and HTML"}
WARM_UP = 200
TURNS = 5
PARTS = str(HERE / "mail_parts.py")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--events", type=int, default=1_000, help="events of one measurement")
    parser.add_argument("--no-pipelining", action="store_true", help="let the mail server not offer PIPELINING")


def cases(options: argparse.Namespace) -> list[Case]:
    """Return the simple program and the router, each with text mails and with mails of text and HTML."""
    chosen = []
    for kind, goal in KINDS.items():
        base, ours = f"smtplib, {NAMES[kind]}", f"router, {NAMES[kind]}"
        for figure, begin in ((Figure(base, "µs CPU/mail"), _bare), (Figure(ours, "µs CPU/mail", base, goal), _router)):
            measured = partial(measure, figure.name, kind, options, begin)
            chosen.append(Case(figure.name, [figure], measured))
    return chosen


Begin = Callable[[Path, Server, int, str, Path], "contextlib.AbstractContextManager[int]"]
"""A function that starts a sender and yields its process id.

The arguments are the command, the Redis server, the port of the mail server, the kind of mails and a folder.
"""


@contextlib.contextmanager
def _bare(_command: Path, at: Server, port: int, kind: str, _folder: Path) -> Iterator[int]:
    with running([sys.executable, PARTS, "bare", str(at.port), str(port), kind]) as process:
        wait_for(lambda: at.client.pubsub_numsub(CHANNEL)[0][1])
        yield process.pid


@contextlib.contextmanager
def _router(command: Path, at: Server, port: int, kind: str, folder: Path) -> Iterator[int]:
    sink = {"type": "email", "host": "127.0.0.1", "port": port, "tls": "none", "helo": "bench.example.org"}
    sink |= {"from": FROM, "to": _template(TO), "subject": _template(SUBJECT), "text": _template(TEXT)}
    sink |= {"headers": {"List-Unsubscribe": UNSUBSCRIBE}, "queue": {"type": "redis", **NEVER_FULL}}
    if kind == "html":
        sink["html"] = _template(HTML)
    routes = [{"id": "everything", "sinks": ["mail"]}]
    with router(command, configuration(at, folder, sinks={"mail": sink}, routes=routes), folder) as pid:
        yield pid


def _template(text: str) -> str:
    """Return a text with fields, such as `{user_id}`, as a template of the router."""
    return re.sub(r"\{(\w+)\}", r"{{ payload.\1 }}", text)


def measure(figure: str, kind: str, options: argparse.Namespace, begin: Begin, command: Path) -> Turns:
    """Measure the CPU time of a number of mails."""
    with ExitStack() as stack:
        at = stack.enter_context(server())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = free_port()
        out = folder / "mails"
        extensions = ["SIZE 33554432", "8BITMIME"] + ["PIPELINING"] * (not options.no_pipelining)
        stack.enter_context(running([sys.executable, PARTS, "server", str(port), str(out), *extensions]))
        wait_for(lambda: listens(port), what="the mail server")
        pid = stack.enter_context(begin(command, at, port, kind, folder))
        reading = yield from _measure(options.events, at, Lines(out, pid))
        _check(out, options.events + WARM_UP, kind)
        return {figure: reading}


def _measure(events: int, at: Server, lines: Lines) -> Generator[None, None, Reading]:
    messages = publishes([CHANNEL], WARM_UP + events)
    send(at, messages[:WARM_UP])
    lines.need(WARM_UP)
    used, sent = 0.0, WARM_UP
    for part in split(messages[WARM_UP:], TURNS):
        yield
        before = cpu_seconds(lines.pid)
        send(at, part)
        sent += len(part)
        lines.need(sent, every=0.01)
        used += cpu_seconds(lines.pid) - before
    return Reading(used / events * 1e6)


def _check(out: Path, total: int, kind: str) -> None:
    """Raise `SystemExit` unless every mail has arrived once, with the right content."""
    found = [_content(*json.loads(line)) for line in out.read_text().splitlines()]
    right = [_expected(number, kind) for number in range(total)]
    if sorted(found) != sorted(right):
        wrong = next((mail for mail in found if mail not in right), "none is wrong, but one came twice")
        raise SystemExit(f"{len(found)} of {total} mails came, or some are wrong: {wrong}")


def _content(recipients: list[str], content: str) -> list[Any]:
    """Return the parts of a received mail that are checked."""
    mail = message_from_string(content, _class=EmailMessage, policy=SMTP)
    headers = [str(mail[name]).replace('"', "") for name in ("To", "From", "Subject", "List-Unsubscribe")]
    texts = [part.get_content().replace("\r\n", "\n").rstrip("\n") for part in mail.walk() if not part.is_multipart()]
    return [recipients, headers, texts]


def _expected(number: int, kind: str) -> list[Any]:
    event = {"message": f"user {number} signed up", "user_id": number + 1}
    to = TO.format_map(event)
    texts = [TEXT, HTML] if kind == "html" else [TEXT]
    headers = [to, FROM, SUBJECT.format_map(event), UNSUBSCRIBE]
    return [[to], headers, [text.format_map(event).rstrip("\n") for text in texts]]


BENCHMARK = Benchmark(
    str(__doc__), "pub/sub → schema → route → Redis queue → mail", 5, arguments, cases, base="smtplib"
)
