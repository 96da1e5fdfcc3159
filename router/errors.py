"""The exceptions of event-router and the closed sets of reasons; floor 0, imports no other module of the router.

A `ConfigError` tells the operator the problems of a configuration, each with its place in a file. Sinks raise delivery errors
(`TransientError`, `PermanentError`, `GoneError`, `SinkError`, `PartialError`), from which the router decides whether to retry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Literal, get_args

import msgspec

Scope = Literal["sink", "address"]
"""The target of a pause for which a service has asked: the whole sink, or the addresses of the delivery."""


class Reason(StrEnum):
    """The reason why an event or a delivery was not delivered. Dead letters, logs and metrics use the same reasons."""

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
"""The reasons of dead letters."""

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
"""The reasons of suppressed deliveries."""

DROPPED = frozenset({Reason.FULL, Reason.SHUTDOWN, Reason.OUTAGE, Reason.LOST})
"""The reasons of dropped deliveries."""


class Exit:
    """The exit codes of the command `event-router`. The values are those of sysexits.h, where it has a fitting code."""

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

    `file`, `line` and `column` (1-based) are the place, and `path` is the key (`sinks.audit.path`). `message` describes the
    fault and the permitted values. `brief` is the message without a long list of values; it is None if there is no such
    list. `excerpt` is printed below the message: the faulty line with a caret below the fault, or the corrected line.
    `severity` is `error`, `warning` (an error for `check --strict`) or `note`.

    A problem may stand for several problems that are not shown. Then `left_out` has the number of these problems for
    each severity. Otherwise it is empty.
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
        """Return the number of problems with this severity for which this problem stands."""
        return dict(self.left_out).get(severity, 0) if self.left_out else int(self.severity == severity)

    @property
    def place(self) -> str:
        """The place as `file:line:column`, without the parts that are not known."""
        return ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)

    def headline(self, *, verbose: bool = False) -> str:
        """Return the place, the path and the message in one line.

        If `verbose` is True, the message includes long lists of permitted values.
        """
        message = self.message if verbose or self.brief is None else self.brief
        text = ": ".join(part for part in (self.place, self.path, message) if part)
        return text if self.severity == "error" else f"{text} [{self.severity}]"

    def frame(self) -> str:
        """Return the excerpt for printing: the faulty line with its line number, or the corrected line without a number."""
        lines = (self.excerpt or "").splitlines()
        if len(lines) == 2 and lines[1].strip() == "^":
            number = f"{self.line or ''}"
            return f"  {number} | {lines[0]}\n  {' ' * len(number)} | {lines[1]}"
        return "\n".join(f"    {line}" for line in lines)

    def __str__(self) -> str:
        return f"{self.headline()}\n{self.frame()}" if self.excerpt else self.headline()


class ConfigError(RouterError):
    """A configuration can't be used. `problems` are all faults that were found. The exit code is 78.

    `files` are the files that were read before the error. A change of one of them may remove the error.
    """

    def __init__(self, problems: Sequence[Problem] = (), files: frozenset[Path] = frozenset()) -> None:
        super().__init__(problems, files)
        self.problems = problems
        self.files = files

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class UnavailableError(RouterError):
    """A Redis server could not be reached within the time allowed. The exit code is 69."""


class EventError(RouterError):
    """A fault of one event. Its text may quote the event; `told` is a text without such quotations, for the log."""

    def __init__(self, detail: str, told: str | None = None) -> None:
        super().__init__(detail)
        self.told = detail if told is None else told


class RejectedError(EventError):
    """An event is rejected because of its payload. `reason` is one of `DEAD`."""

    def __init__(self, reason: Reason, detail: str, told: str | None = None) -> None:
        super().__init__(detail, told)
        self.reason = reason
        self.detail = detail


class DeliveryError(RouterError):
    """A delivery failed. This is the base class of the errors that a sink may raise."""


class TransientError(DeliveryError):
    """A temporary failure: the router retries the delivery later.

    `retry_after` is the time in seconds for which the service asked the router to wait. The router waits at least 1 second and at
    most 1 hour, and does not count this attempt. `scope` is the target of the
    pause: `sink` for all deliveries of the sink, `address` for deliveries to the same addresses. None means `address`
    if the address comes from a template, else `sink`. A failure of scope `address` never counts for the sink's breaker.
    Use this scope if each recipient has a server of its own, because a failing server then affects only its recipient.
    """

    retry_after: float | None = None  # a default, because a subclass of a plugin may not call `__init__`
    scope: Scope | None = None

    def __init__(self, message: str = "", *, retry_after: float | None = None, scope: Scope | None = None) -> None:
        super().__init__(message)
        if scope is not None and scope not in get_args(Scope):
            raise ValueError(f"`scope` must be 'sink' or 'address', but it is {scope!r}")
        self.retry_after = retry_after
        self.scope = scope


class PermanentError(DeliveryError):
    """A failure that would not go away by a retry. The delivery becomes a dead letter with the reason `permanent`."""


class GoneError(DeliveryError):
    """The service no longer knows the address, such as a push subscription that the browser has ended.

    This does not count as a failure: the delivery is suppressed with the reason `gone`. Raise this error only if the address
    will never be valid again.
    """


class SinkError(DeliveryError):
    """A failure that is the sink's, not the message's, such as a refused credential or a wrong URL.

    Every message would fail in this way. The sink's circuit breaker opens, and the attempt is not counted. `retry_after`
    is the time in seconds for which the service asked the router to wait, or None.
    """

    retry_after: float | None = None

    def __init__(self, message: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class PartialError(DeliveryError):
    """A delivery failed for some of its addresses. The other addresses were reached.

    `failures` maps an address, as written in the options, to its `TransientError`, `PermanentError` or `GoneError`. The
    router makes a separate delivery for each of these addresses.
    """

    def __init__(self, failures: Mapping[str, TransientError | PermanentError | GoneError]) -> None:
        super().__init__("; ".join(f"{address}: {error}" for address, error in failures.items()))
        self.failures = dict(failures)


class PluginError(DeliveryError):
    """A plugin broke its contract, for example by a wrong result. The delivery becomes a dead letter with the reason `plugin`."""


class TemplateError(EventError):
    """A template could not be rendered for this event, for example because of a missing field.

    The text names the template and the cause.
    """


class AddressError(EventError, ValueError):
    """A rendered address is invalid: it contains CR, LF or NUL, is a group, or is not a mailbox."""


def class_and_text(error: BaseException) -> str:
    """Return the class and the text of an error, such as `ValueError: not a number`; only the class if it has no text."""
    text = text_of(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def text_of(error: BaseException) -> str:
    """Return the text of an error. The text is empty if the `__str__` of the error, which may be a plugin's, raises an exception.

    A lone surrogate is backslash-escaped, because it can't be encoded. It may come from a file name that is not UTF-8.
    """
    try:
        return str(error).encode("utf-8", "backslashreplace").decode()
    except Exception:  # noqa: BLE001  # a plugin's `__str__` may raise anything
        return ""
