"""Messages to the service manager; floor 4.

The protocol is one datagram to `$NOTIFY_SOCKET` (sd_notify(3)). Without that variable, and when the manager can't be
reached, nothing happens: these functions never raise, for being heard is not worth dying for.
"""

from __future__ import annotations

import os
import socket
import time

SOCKET = "NOTIFY_SOCKET"
_PATIENCE = 1.0  # seconds that a manager too busy to read may hold us up


def managed() -> bool:
    """Return whether a service manager started us and waits to hear from us."""
    return bool(os.environ.get(SOCKET))


def notify(*assignments: str) -> bool:
    """Send assignments (`READY=1`, `STATUS=…`) together in one datagram; returns whether it was sent."""
    address = os.environ.get(SOCKET, "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):  # the abstract namespace, unix(7)
        address = f"\0{address[1:]}"
    message = "\n".join(" ".join(each.splitlines()) for each in assignments)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
            connection.settimeout(_PATIENCE)
            connection.sendto(message.encode("utf-8", "backslashreplace"), address)
    except (OSError, ValueError):
        return False
    return True


def ready(status: str) -> bool:
    """Say that the service is up; `status` is one line for `systemctl status`."""
    return notify("READY=1", f"STATUS={status}")


def reloading(status: str) -> bool:
    """Say that the configuration is being loaded again; `ready` has to follow, whatever comes of it.

    The time stands in the same datagram, or the manager takes no notice (sd_notify(3), MONOTONIC_USEC).
    """
    microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    return notify("RELOADING=1", f"MONOTONIC_USEC={microseconds}", f"STATUS={status}")


def stopping(status: str) -> bool:
    """Say that the service is ending."""
    return notify("STOPPING=1", f"STATUS={status}")


def status(text: str) -> bool:
    """Set the line that `systemctl status` shows."""
    return notify(f"STATUS={text}")


def watchdog() -> float | None:
    """Seconds within which the manager wants to hear `alive`, again and again; None where it does not (sd_watchdog_enabled(3))."""
    asked = os.environ.get("WATCHDOG_USEC", "")
    of = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    if not managed() or not asked.isdecimal() or int(asked) == 0 or of != str(os.getpid()):
        return None
    return int(asked) / 1_000_000


def alive() -> bool:
    """Say that every part of the service gets on."""
    return notify("WATCHDOG=1")


def extend_timeout(seconds: float, text: str | None = None) -> bool:
    """Ask for this much more time to start or to stop, counted from now, with a new status line if `text` is given."""
    assignments = [f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}"]
    if text is not None:
        assignments.append(f"STATUS={text}")
    return notify(*assignments)
