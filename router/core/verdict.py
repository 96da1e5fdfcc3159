"""What becomes of one message, decided by its plan; pure.

`judge` is the definition. `publish`, `dlq replay` and whoever explains a decision call it; the pipeline, which has no
time for more than yes and no, asks it about the messages that it refuses, and a test holds that the two agree.
"""

from __future__ import annotations

from typing import Any

import msgspec

from router.core.decoding import Message, SourceFormat, read
from router.core.routing import Plan, Step, Target
from router.core.validation import Violation, as_detail
from router.errors import Reason, RejectedError


class Rejected(msgspec.Struct, frozen=True):
    """The message can't be taken: it makes a dead letter.

    `detail` is the letter's; `told` is what the log may have of it, which holds no part of the payload. `violations` are
    those of the schema, where `reason` is `schema`.
    """

    reason: Reason
    detail: str
    told: str
    violations: tuple[Violation, ...] = ()


class Unmatched(msgspec.Struct, frozen=True):
    """The verdict on a message that no route takes. `deliveries` are those of `unmatched: [sink, …]`.

    `violations` are those of a schema that only warns.
    """

    message: Message
    deliveries: tuple[Target, ...]
    violations: tuple[Violation, ...]


class Routed(msgspec.Struct, frozen=True):
    """The message makes these deliveries, because these steps of its plan take it.

    `violations` are those of a schema that only warns.
    """

    message: Message
    deliveries: tuple[Target, ...]
    because: tuple[Step, ...]
    violations: tuple[Violation, ...]


Verdict = Rejected | Unmatched | Routed


def judge(raw: bytes, source: SourceFormat, plan: Plan) -> Verdict:
    """Decide what becomes of a message of a source, given the plan of its channel."""
    try:
        message = read(raw, source)
    except RejectedError as error:
        return Rejected(error.reason, error.detail, error.told)
    violations = _violations(plan, message.payload)
    if violations is not None and plan.schema is not None and plan.schema.mode == "enforce":
        return Rejected(Reason.SCHEMA, as_detail(violations), places(violations), violations)
    taken = plan.taken_by(message.payload)
    deliveries = plan.deliveries(taken)
    if not taken:
        return Unmatched(message, deliveries, violations or ())
    return Routed(message, deliveries, taken, violations or ())


def _violations(plan: Plan, payload: Any) -> tuple[Violation, ...] | None:
    """Return in which ways a payload does not fit the plan's schema, None when it fits."""
    schema = plan.schema.schema if plan.schema else None
    return None if schema is None or schema.is_valid(payload) else tuple(schema.errors(payload))


def places(violations: tuple[Violation, ...] | list[Violation]) -> str:
    """Return what the log says of a payload that does not fit its schema: where, and by which keyword."""
    return ", ".join(f"{violation.place} {violation.keyword}" for violation in violations)
