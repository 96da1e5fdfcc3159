"""The programs around the mail benchmark: `python mail_parts.py server PORT OUT EXTENSIONS`, `… bare REDIS_PORT PORT KIND`.

`server` accepts every mail, and writes a line with the recipients and the content of the mail. `bare` is a simple
program. It subscribes with redis-py, builds each mail with `email.mime`, and sends the mail with smtplib on one
connection. The policy of `email.mime` uses less CPU time than all other policies of the standard library.
"""

from __future__ import annotations

import asyncio
import json
import smtplib
import sys
from datetime import UTC, datetime
from email.mime.base import MIMEBase
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.utils import format_datetime
from pathlib import Path
from typing import Any, BinaryIO

import redis

END = b"\r\n.\r\n"
TEXT = "Hello,\n\n{message}.\n\nYour account has the number {user_id}.\n\nThe shop\n"
HTML = '<p>Hello,</p>\n<p>{message}.</p>\n<p>Your <a href="https://example.org/users/{user_id}">account</a></p>\n'
SUBJECT = "News for user {user_id}"
TO = "user{user_id}@example.org"
FROM = "Shop <shop@example.org>"
UNSUBSCRIBE = "<mailto:unsubscribe@example.org>"


class SmtpServer(asyncio.Protocol):
    """One connection of a server that accepts everything."""

    def __init__(self, out: BinaryIO, extensions: list[str]) -> None:
        self._out = out
        self._hello = "\r\n".join([*(f"250-{name}" for name in ("mail.test", *extensions)), "250 HELP\r\n"]).encode()
        self._read = b""
        self._recipients: list[str] = []
        self._in_data = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the client."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        transport.write(b"220 mail.test\r\n")

    def data_received(self, data: bytes) -> None:
        """Answer all commands and mails that are complete, in one write."""
        self._read += data
        answers = []
        while answer := self._mail() if self._in_data else self._command():
            answers.append(answer)
        self._transport.write(b"".join(answers))

    def _mail(self) -> bytes:
        content, end, rest = self._read.partition(END)
        if not end:
            return b""
        self._read, self._in_data = rest, False
        plain = (content + b"\r\n").replace(b"\r\n..", b"\r\n.")
        self._out.write(json.dumps([self._recipients, plain.decode("ascii")]).encode() + b"\n")
        return b"250 2.0.0 Ok: queued\r\n"

    def _command(self) -> bytes:
        line, end, rest = self._read.partition(b"\r\n")
        if not end:
            return b""
        self._read = rest
        verb = line[:4].upper()
        if verb == b"EHLO":
            return self._hello
        if verb == b"MAIL":
            self._recipients = []
        elif verb == b"RCPT":
            self._recipients.append(line.partition(b"<")[2].partition(b">")[0].decode())
        elif verb == b"DATA":
            self._in_data = True
            return b"354 Go ahead\r\n"
        return b"250 2.1.0 Ok\r\n"


async def server(port: int, out: Path, extensions: list[str]) -> None:
    """Accept mails until the process is killed."""
    with out.open("wb", buffering=0) as file:
        loop = asyncio.get_running_loop()
        async with await loop.create_server(lambda: SmtpServer(file, extensions), "127.0.0.1", port) as listening:
            await listening.serve_forever()


def bare(redis_port: int, port: int, kind: str) -> None:
    """Send a mail for each event that is published, until the process is killed."""
    subscription: Any = redis.Redis(port=redis_port).pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
    with smtplib.SMTP("127.0.0.1", port, local_hostname="bench.example.org") as smtp:
        subscription.subscribe("bench")
        for number, message in enumerate(subscription.listen()):
            event = json.loads(message["data"])
            mail: MIMEBase = MIMEText(TEXT.format_map(event), "plain", "utf-8")
            if kind == "html":
                parts = [mail, MIMEText(HTML.format_map(event), "html", "utf-8")]
                mail = MIMEMultipart("alternative", _subparts=parts)
            to = TO.format_map(event)
            mail["To"] = to
            mail["From"] = FROM
            mail["Subject"] = SUBJECT.format_map(event)
            mail["Date"] = format_datetime(datetime.now(UTC))
            mail["Message-ID"] = f"<{number}@example.org>"
            mail["Auto-Submitted"] = "auto-generated"
            mail["List-Unsubscribe"] = UNSUBSCRIBE
            smtp.sendmail("shop@example.org", [to], mail.as_bytes())


if __name__ == "__main__":
    which, *words = sys.argv[1:]
    if which == "server":
        asyncio.run(server(int(words[0]), Path(words[1]), words[2:]))
    else:
        bare(int(words[0]), int(words[1]), words[2])
