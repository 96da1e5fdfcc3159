"""The decision on one message, by the plan of its channel; pure.

`judge` defines the decision. The commands `publish`, `dlq`, `explain` and `test` use it. The pipeline has a faster
implementation that gives no reasons. It calls `judge` only for the messages that it rejects. A test verifies that the
pipeline and `judge` agree.
"""

from __future__ import annotations

from typing import Any

import msgspec

from router.core.conditions.condition import Failure, Subject
from router.core.decoding import Message, SourceFormat, read
from router.core.routing import Plan, Step, Target
from router.core.validation import Violation, as_detail
from router.errors import Reason, RejectedError
from router.events import Event


class Rejected(msgspec.Struct, frozen=True):
    """The verdict on an invalid message, which becomes a dead letter.

    `detail` is the detail of the dead letter. `told` is the text for the log, which holds no part of the payload. If
    `reason` is `schema`, `violations` are the violations of the schema.
    """

    reason: Reason
    detail: str
    told: str
    violations: tuple[Violation, ...] = ()


class Unmatched(msgspec.Struct, frozen=True):
    """The verdict on a message that no route takes.

    `deliveries` are the deliveries to the sinks of `unmatched: [sink, …]`. `violations` are the violations of a schema
    of mode `warn`. `failures` are the conditions `when` that could not be evaluated.
    """

    message: Message
    deliveries: tuple[Target, ...]
    violations: tuple[Violation, ...]
    failures: tuple[Failure, ...] = ()


class Routed(msgspec.Struct, frozen=True):
    """The verdict on a message that at least one route takes.

    `deliveries` are its deliveries. `because` are the steps of the plan that take the message. `violations` are the
    violations of a schema of mode `warn`. `failures` are the conditions `when` that could not be evaluated.
    """

    message: Message
    deliveries: tuple[Target, ...]
    because: tuple[Step, ...]
    violations: tuple[Violation, ...]
    failures: tuple[Failure, ...] = ()


Verdict = Rejected | Unmatched | Routed


def judge(event: Event, source: SourceFormat, plan: Plan, now: float) -> Verdict:
    """Decide on a message of a source, given the plan of its channel.

    `event` is the message as received, before decoding. `now` is in seconds since the epoch.
    """
    try:
        message = read(event.raw, source)
    except RejectedError as error:
        return Rejected(error.reason, error.detail, error.told)
    violations = _violations(plan, message.payload)
    if violations is not None and plan.schema is not None and plan.schema.mode == "enforce":
        return Rejected(Reason.SCHEMA, as_detail(violations), places(violations), violations)
    subject = Subject(opened(event, message), now)
    taken = plan.taken_by(message.payload, subject)
    deliveries, failures = plan.deliveries(taken), tuple(subject.failures)
    if not taken:
        return Unmatched(message, deliveries, violations or (), failures)
    return Routed(message, deliveries, taken, violations or (), failures)


def opened(event: Event, message: Message) -> Event:
    """Return an event with the decoded parts of its message: payload, id and headers."""
    return msgspec.structs.replace(
        event,
        id=message.id or event.id,
        raw=message.data,
        format=message.format,
        headers={**(event.headers or {}), **(message.headers or {})} or None,
        _payload=message.payload,
    )


def _violations(plan: Plan, payload: Any) -> tuple[Violation, ...] | None:
    """Return the violations of the plan's schema by a payload; None if the payload is valid or there is no schema."""
    schema = plan.schema.schema if plan.schema else None
    return None if schema is None or schema.is_valid(payload) else tuple(schema.errors(payload))


def places(violations: tuple[Violation, ...] | list[Violation]) -> str:
    """Return the places and keywords of violations, for the log."""
    return ", ".join(f"{violation.place} {violation.keyword}" for violation in violations)
