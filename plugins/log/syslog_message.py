"""Messages of syslog by RFC 5424 (https://www.rfc-editor.org/rfc/rfc5424)."""

from __future__ import annotations

import os
import re
import socket
from typing import TYPE_CHECKING

from router.api import Event, escape, json_line, timestamp

if TYPE_CHECKING:
    from .log_options import LogOptions

DAEMON, INFORMATIONAL = 3, 6
"""The facility and the severity of each message (section 6.2.1)."""

APP_NAME = "event-router"

STRUCTURE = "event@32473"
"""The SD-ID of the event's fields. The router has no enterprise number of its own. RFC 5612 reserves 32473 for
examples."""

NIL = "-"
_BOM = b"\xef\xbb\xbf"
_HOST_NAME = re.compile(r"[!-~]{1,255}")
_ESCAPED = str.maketrans({'"': '\\"', "\\": "\\\\", "]": "\\]"})


def syslog_message(event: Event, options: LogOptions) -> bytes:
    """Return the message of an event.

    Control characters are escaped, because a syslog service may split the message at a line break or end it at a NUL. A
    text that is not ASCII begins with a byte order mark, which marks the text as UTF-8 (section 6.4).
    """
    text = options.template
    content = json_line(event) if text is None else escape(text).encode("utf-8", "backslashreplace")
    head = f"<{DAEMON * 8 + INFORMATIONAL}>1 {timestamp(event.received_at)} {_host()} {APP_NAME} {os.getpid()} {NIL} "
    data = f"[{STRUCTURE}{_parameters(event)}] "
    return (head + data).encode("utf-8", "backslashreplace") + (b"" if content.isascii() else _BOM) + content


def _parameters(event: Event) -> str:
    values = {"event_id": event.id, "source": event.source, "channel": event.channel, "route": event.route}
    return "".join(f' {name}="{escape(value).translate(_ESCAPED)}"' for name, value in values.items())


def _host() -> str:
    """Return the name of this machine; the nil value if syslog does not allow the name."""
    name = socket.gethostname()
    return name if _HOST_NAME.fullmatch(name) else NIL
