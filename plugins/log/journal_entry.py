"""Entries of the systemd journal, in the format of journald's native protocol.

The protocol is described at https://systemd.io/JOURNAL_NATIVE_PROTOCOL/.

An entry is a datagram of fields. If an entry is too large for a datagram, it is written to a sealed memory file. Then
the datagram carries the descriptor of this file.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from router.api import Event, json_line

if TYPE_CHECKING:
    from .log_options import LogOptions

IDENTIFIER = "event-router"
INFORMATIONAL = "6"


def journal_entry(event: Event, options: LogOptions) -> bytes:
    """Return the entry of an event. Values may contain any character; nothing is escaped."""
    text = options.template
    message = json_line(event) if text is None else text.encode("utf-8", "backslashreplace")
    fields = {
        "PRIORITY": INFORMATIONAL,
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        "EVENT_ID": event.id,
        "SOURCE": event.source,
        "CHANNEL": event.channel,
        "ROUTE": event.route,
    }
    others = (_field(name, value.encode("utf-8", "backslashreplace")) for name, value in fields.items())
    return b"".join((_field("MESSAGE", message), *others))


def _field(name: str, value: bytes) -> bytes:
    """Return a field. A value with a line break is preceded by its length: 64 bits, little-endian."""
    key = name.encode()
    if b"\n" not in value:
        return key + b"=" + value + b"\n"
    return key + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"


def sealed_file(content: bytes) -> int:
    """Create a memory file with this content and seal it against changes. Return its descriptor. Raises `OSError`."""
    fd = os.memfd_create("event-router-log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(fd, left) :]
        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(fd)
        raise
    return fd
