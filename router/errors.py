"""The error tree and the closed sets of reasons; floor 0, imports nothing of ours.

Two families live here. Configuration problems, each with its place in a file, are for the operator. Failures of a
delivery (`TransientError`, `PermanentError`, `SinkError`, `PartialError`) are what a sink raises; the host decides what
follows from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal, get_args

Scope = Literal["sink", "address"]
"""What is left alone where the other side asks for time: the whole sink, or the address of the delivery."""


class Reason(StrEnum):
    """Why an event or a delivery ended other than delivered: one closed set for dead letters, logs and metrics."""

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
    }
)
"""Reasons of suppressed deliveries."""

DROPPED = frozenset({Reason.FULL, Reason.SHUTDOWN, Reason.OUTAGE, Reason.LOST})
"""Reasons of dropped deliveries."""


class Exit:
    """Exit codes of the command (sysexits.h where it has one)."""

    OK = 0
    FINDINGS = 1
    USAGE = 2
    UNAVAILABLE = 69
    CONFIG = 78
    INTERRUPTED = 130


class RouterError(Exception):
    """The root of every error that event-router raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault of the configuration, and where it stands.

    `file`, `line` and `column` (1-based) name the place, `path` the key (`sinks.audit.path`), `message` what is wrong
    and what is allowed. `excerpt` is the faulty line or its corrected form, printed below. `severity` is `error`,
    `warning` (`check --strict` objects) or `note`.
    """

    message: str
    file: str | None = None
    line: int | None = None
    column: int | None = None
    path: str = ""
    excerpt: str | None = None
    severity: str = "error"

    @property
    def place(self) -> str:
        """`file:line:column`, as far as they are known."""
        return ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)

    def __str__(self) -> str:
        head = ": ".join(part for part in (self.place, self.path) if part)
        text = f"{head}: {self.message}" if head else self.message
        if self.severity != "error":
            text = f"{text} [{self.severity}]"
        return f"{text}\n    {self.excerpt}" if self.excerpt else text


@dataclass
class ConfigError(RouterError):
    """The configuration can't work; `problems` holds every fault found, not the first alone. Exit code 78.

    `files` are those that were read before it was found out: changing one of them may mend it.
    """

    problems: Sequence[Problem] = field(default_factory=list)
    files: frozenset[Path] = frozenset()

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class UnavailableError(RouterError):
    """Redis could not be reached within `redis.connect_timeout`. Exit code 69."""


class EventError(RouterError):
    """A fault of one event. Its text may quote the event; `told` is the same without that, for the log."""

    def __init__(self, detail: str, told: str | None = None) -> None:
        super().__init__(detail)
        self.told = detail if told is None else told


class RejectedError(EventError):
    """An event that can't be taken: what is wrong with its payload (`reason` is of `DEAD`)."""

    def __init__(self, reason: Reason, detail: str, told: str | None = None) -> None:
        super().__init__(detail, told)
        self.reason = reason
        self.detail = detail


class DeliveryError(RouterError):
    """A delivery that did not succeed: the base of what a sink may raise."""


class TransientError(DeliveryError):
    """A failure that may pass: the host tries again later.

    `retry_after` says that the other side asked for time, so many seconds, which the host takes for 1 second at least and
    an hour at most; then no attempt is counted, and none begins until they are over. `scope` says where: `sink` for all
    deliveries of the sink, `address` for those to the addresses of this one. None leaves it to the host: the address where
    it comes from a template, else the sink.
    """

    retry_after: float | None = None  # a subclass of a plugin's may forget to call `__init__`
    scope: Scope | None = None

    def __init__(self, message: str = "", *, retry_after: float | None = None, scope: Scope | None = None) -> None:
        super().__init__(message)
        if scope is not None and scope not in get_args(Scope):
            raise ValueError(f"scope is {scope!r}, it may be 'sink' or 'address'")
        self.retry_after = retry_after
        self.scope = scope


class PermanentError(DeliveryError):
    """A failure that never passes for this message: it becomes a dead letter, reason `permanent`."""


class SinkError(DeliveryError):
    """The sink is at fault and not the message (a refused credential, a gone URL): its breaker opens, no attempt counts.

    `retry_after` is the least delay in seconds that the other side asked for, or None.
    """

    retry_after: float | None = None

    def __init__(self, message: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class PartialError(DeliveryError):
    """A failure of some addresses of one delivery; the addresses not named have got it.

    `failures` maps an address, as it stood in the options, to its `TransientError` or `PermanentError`. The host makes
    of each one a delivery of its own.
    """

    def __init__(self, failures: Mapping[str, TransientError | PermanentError]) -> None:
        super().__init__("; ".join(f"{address}: {error}" for address, error in failures.items()))
        self.failures = dict(failures)


class PluginError(DeliveryError):
    """A plugin broke its contract (a wrong result, an async sink without `async`): a dead letter, reason `plugin`."""


class TemplateError(EventError):
    """A template failed for this event (a missing field, a filter that can't); the text says which and why."""


class AddressError(EventError, ValueError):
    """A rendered address is not one (CR, LF, NUL, group syntax, no mailbox)."""


def text_of(error: BaseException) -> str:
    """Return the text of an error; nothing where the error, which may be a plugin's own class, fails at that."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001  # whatever `__str__` runs into
        return ""
