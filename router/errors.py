"""The exceptions of event-router and the closed sets of reasons; floor 0, imports no other module of the router.

Problems of the configuration, each with its place in a file, are for the operator. Sinks raise delivery errors
(`TransientError`, `PermanentError`, `GoneError`, `SinkError`, `PartialError`); the router decides whether to retry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Literal, get_args

import msgspec

Scope = Literal["sink", "address"]
"""The target of a pause that a service asked for: the whole sink, or the addresses of the delivery."""


class Reason(StrEnum):
    """The reason why an event or a delivery was not delivered: one closed set for dead letters, logs and metrics."""

    TOO_LARGE = "too_large"
    DECODE = "decode"
    FIELD = "field"
    SCHEMA = "schema"
    TEMPLATE = "template"
    ADDRESS = "address"
    LOOKUP = "lookup"
    PERMANENT = "permanent"
    EXHAUSTED = "exhausted"
    EXPIRED = "expired"
    POISON = "poison"
    ORPHANED = "orphaned"
    PLUGIN = "plugin"
    UNMATCHED = "unmatched"
    NO_ADDRESS = "no_address"
    ONLY_IF = "only_if"
    DEDUPE = "dedupe"
    THROTTLE = "throttle"
    DIGEST = "digest"
    SILENCE = "silence"
    INACTIVE = "inactive"
    CANCELLED = "cancelled"
    GONE = "gone"
    FULL = "full"
    SHUTDOWN = "shutdown"
    OUTAGE = "outage"
    LOST = "lost"


DEAD = frozenset(
    {
        Reason.TOO_LARGE,
        Reason.DECODE,
        Reason.FIELD,
        Reason.SCHEMA,
        Reason.TEMPLATE,
        Reason.ADDRESS,
        Reason.LOOKUP,
        Reason.PERMANENT,
        Reason.EXHAUSTED,
        Reason.EXPIRED,
        Reason.POISON,
        Reason.ORPHANED,
        Reason.PLUGIN,
        Reason.UNMATCHED,
    }
)
"""Reasons of dead letters."""

SUPPRESSED = frozenset(
    {
        Reason.NO_ADDRESS,
        Reason.ONLY_IF,
        Reason.DEDUPE,
        Reason.THROTTLE,
        Reason.DIGEST,
        Reason.SILENCE,
        Reason.INACTIVE,
        Reason.CANCELLED,
        Reason.LOOKUP,
        Reason.GONE,
    }
)
"""Reasons of suppressed deliveries."""

DROPPED = frozenset({Reason.FULL, Reason.SHUTDOWN, Reason.OUTAGE, Reason.LOST})
"""Reasons of dropped deliveries."""


class Exit:
    """The exit codes of the command, from sysexits.h where it defines a fitting one."""

    OK = 0
    FINDINGS = 1
    USAGE = 2
    UNAVAILABLE = 69
    CONFIG = 78
    INTERRUPTED = 130


class RouterError(Exception):
    """The base of every error that event-router raises on purpose."""


class Problem(msgspec.Struct, frozen=True):
    """A fault of the configuration and its place.

    `file`, `line` and `column` (1-based) name the place and `path` the key (`sinks.audit.path`). `message` names the
    fault and the permitted values; `brief` is the message without a long list of values, or None if there is no such
    list. `excerpt` is printed below the message: the faulty line and a caret below the fault, or the corrected line.
    `severity` is `error`, `warning` (an error for `check --strict`) or `note`. `left_out` has the severities and
    numbers of the problems that are not shown and that this line stands for; it is empty for other lines.
    """

    message: str
    file: str | None = None
    line: int | None = None
    column: int | None = None
    path: str = ""
    excerpt: str | None = None
    severity: str = "error"
    brief: str | None = None
    left_out: tuple[tuple[str, int], ...] = ()

    def number(self, severity: str) -> int:
        """Return the number of problems of a severity that this line stands for."""
        return dict(self.left_out).get(severity, 0) if self.left_out else int(self.severity == severity)

    @property
    def place(self) -> str:
        """The place as `file:line:column`, as far as known."""
        return ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)

    def headline(self, *, verbose: bool = False) -> str:
        """Return the place, the path and the message on one line; `verbose` includes long lists of permitted values."""
        message = self.message if verbose or self.brief is None else self.brief
        text = ": ".join(part for part in (self.place, self.path, message) if part)
        return text if self.severity == "error" else f"{text} [{self.severity}]"

    def frame(self) -> str:
        """Return the excerpt for printing: a faulty line with its number, or a corrected line without one."""
        lines = (self.excerpt or "").splitlines()
        if len(lines) == 2 and lines[1].strip() == "^":
            number = f"{self.line or ''}"
            return f"  {number} | {lines[0]}\n  {' ' * len(number)} | {lines[1]}"
        return "\n".join(f"    {line}" for line in lines)

    def __str__(self) -> str:
        return f"{self.headline()}\n{self.frame()}" if self.excerpt else self.headline()


class ConfigError(RouterError):
    """A configuration that can't be used. `problems` are all faults found. Exit code 78.

    `files` are the files read before the error. A change of one of them may remove the error.
    """

    def __init__(self, problems: Sequence[Problem] = (), files: frozenset[Path] = frozenset()) -> None:
        super().__init__(problems, files)
        self.problems = problems
        self.files = files

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class UnavailableError(RouterError):
    """A Redis server that could not be reached within `redis.connect_timeout`. Exit code 69."""


class EventError(RouterError):
    """A fault of one event. Its text may quote the event; `told` is a text for the log, without quotes."""

    def __init__(self, detail: str, told: str | None = None) -> None:
        super().__init__(detail)
        self.told = detail if told is None else told


class RejectedError(EventError):
    """An event that is rejected because of its payload; `reason` is one of `DEAD`."""

    def __init__(self, reason: Reason, detail: str, told: str | None = None) -> None:
        super().__init__(detail, told)
        self.reason = reason
        self.detail = detail


class DeliveryError(RouterError):
    """A failed delivery: the base of the errors that a sink may raise."""


class TransientError(DeliveryError):
    """A temporary failure: the router retries the delivery later.

    `retry_after` is the time in seconds that the service asked for. The router uses at least 1 second and at most 1
    hour. It makes no attempt before that time is over, and does not count this attempt. `scope` is the target of the
    pause: `sink` for all deliveries of the sink, `address` for deliveries to the same addresses. None means `address`
    if the address comes from a template, else `sink`. A failure of scope `address` does not count for the sink's breaker,
    with or without a pause: raise it if each recipient has a server of its own.
    """

    retry_after: float | None = None  # a plugin's subclass may forget to call `__init__`
    scope: Scope | None = None

    def __init__(self, message: str = "", *, retry_after: float | None = None, scope: Scope | None = None) -> None:
        super().__init__(message)
        if scope is not None and scope not in get_args(Scope):
            raise ValueError(f"`scope` must be 'sink' or 'address', but it is {scope!r}")
        self.retry_after = retry_after
        self.scope = scope


class PermanentError(DeliveryError):
    """A failure that no retry of this message can repair: the delivery becomes a dead letter, reason `permanent`."""


class GoneError(DeliveryError):
    """An address that the service no longer knows, such as a push subscription that the browser has ended.

    This is no failure: the delivery is suppressed, reason `gone`. Raise it only if the address will never be valid
    again.
    """


class SinkError(DeliveryError):
    """A fault of the sink and not of the message, such as a refused credential or a wrong URL.

    The sink's circuit breaker opens, and the attempt is not counted. `retry_after` is the smallest delay in seconds
    that the service asked for, or None.
    """

    retry_after: float | None = None

    def __init__(self, message: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class PartialError(DeliveryError):
    """A failure for some addresses of one delivery; the other addresses were reached.

    `failures` maps an address, as written in the options, to its `TransientError`, `PermanentError` or `GoneError`. The
    router makes a separate delivery for each of these addresses.
    """

    def __init__(self, failures: Mapping[str, TransientError | PermanentError | GoneError]) -> None:
        super().__init__("; ".join(f"{address}: {error}" for address, error in failures.items()))
        self.failures = dict(failures)


class PluginError(DeliveryError):
    """A plugin that broke its contract, for example by a wrong result: the delivery becomes a dead letter with the reason `plugin`."""


class TemplateError(EventError):
    """A template that failed for this event, for example for a missing field; the text names template and cause."""


class AddressError(EventError, ValueError):
    """A rendered address that is invalid (CR, LF, NUL, group syntax, no mailbox)."""


def class_and_text(error: BaseException) -> str:
    """Return the class of an error and its text: `ValueError: not a number`; only the class if it has no text."""
    text = text_of(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def text_of(error: BaseException) -> str:
    """Return the text of an error; empty if its `__str__`, which may be a plugin's, raises.

    A lone surrogate, as in a file name that is not UTF-8, is backslash-escaped, because it can't be encoded.
    """
    try:
        return str(error).encode("utf-8", "backslashreplace").decode()
    except Exception:  # noqa: BLE001  # a plugin's `__str__` may raise anything
        return ""
