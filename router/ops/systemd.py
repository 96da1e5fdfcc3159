"""Notifications to the service manager (systemd); floor 4.

Each notification is a datagram to `$NOTIFY_SOCKET` (sd_notify(3)). Without this variable, or if the manager can't be
reached, the functions do nothing. The functions never raise, because a lost notification must not end the router.
"""

from __future__ import annotations

import os
import socket
import time

SOCKET = "NOTIFY_SOCKET"
_PATIENCE = 1.0  # seconds to wait for a manager that is too busy to read: most notifications are not repeated


def managed() -> bool:
    """Return whether a service manager has started this process and expects notifications."""
    return bool(os.environ.get(SOCKET))


def notify(*assignments: str, patience: float | None = None) -> bool:
    """Send assignments (`READY=1`, `STATUS=…`) in one datagram; return whether the datagram was sent.

    If the manager does not read, the call blocks for up to `patience` seconds (None: one second).
    """
    address = os.environ.get(SOCKET, "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):  # the abstract namespace, unix(7)
        address = f"\0{address[1:]}"
    message = "\n".join(" ".join(each.splitlines()) for each in assignments)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
            connection.settimeout(_PATIENCE if patience is None else patience)
            connection.sendto(message.encode("utf-8", "backslashreplace"), address)
    except (OSError, ValueError):
        return False
    return True


def ready(status: str) -> bool:
    """Notify that the service is ready; `status` is one line for `systemctl status`."""
    return notify("READY=1", f"STATUS={status}")


def reloading(status: str) -> bool:
    """Notify that a reload begins. Call `ready` afterwards, also after a failure.

    The datagram must also contain the time, because otherwise systemd ignores it (sd_notify(3), MONOTONIC_USEC).
    """
    microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    return notify("RELOADING=1", f"MONOTONIC_USEC={microseconds}", f"STATUS={status}")


def stopping(status: str) -> bool:
    """Notify that the service is shutting down."""
    return notify("STOPPING=1", f"STATUS={status}")


def status(text: str) -> bool:
    """Set the status line of `systemctl status`. Never blocks: a lost status is soon replaced by the next status."""
    return notify(f"STATUS={text}", patience=0.0)


def watchdog() -> float | None:
    """Return the maximum number of seconds between two heartbeats (`alive`).

    None without a watchdog (sd_watchdog_enabled(3)).
    """
    asked = os.environ.get("WATCHDOG_USEC", "")
    of = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    if not managed() or not asked.isdecimal() or int(asked) == 0 or of != str(os.getpid()):
        return None
    return int(asked) / 1_000_000


def alive() -> bool:
    """Send a heartbeat to the watchdog of the service manager. Call this function only while every component makes
    progress.

    Never blocks, because blocking would delay all deliveries. If the manager has stopped reading, the heartbeat is not
    sent. Nothing is lost by this, because earlier heartbeats still wait to be read.
    """
    return notify("WATCHDOG=1", patience=0.0)


def extend_timeout(seconds: float, text: str | None = None) -> bool:
    """Ask the manager for `seconds` more to start or stop, counted from now. Set the status line if `text` is given."""
    assignments = [f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}"]
    if text is not None:
        assignments.append(f"STATUS={text}")
    return notify(*assignments)
