"""What follows from a failed attempt; pure: ages and chance come in as arguments.

Exponential backoff with full jitter: the delay is a random part of a bound that doubles with each attempt, so that many
deliveries that failed together do not come back together.
"""

from __future__ import annotations

import msgspec

from router.errors import DeliveryError, PermanentError, PluginError, Reason, SinkError, TransientError
from router.events import History

SHORTEST_ASKED = 1.0
"""Seconds: a service that asks for less, for nothing or for a time that is over wants to be left alone all the same."""

LONGEST_ASKED = 3600.0
"""Seconds: a longer Retry-After is not believed (some services have sent milliseconds)."""

SLACK = 60.0
"""Seconds that an attempt may come late, beyond twice its planned delay, and still make the delivery older."""


class RetryPolicy(msgspec.Struct, frozen=True):
    """The bounds of retrying, in seconds. `attempts` None means that age alone ends it."""

    initial: float = 1.0
    max_delay: float = 300.0
    max_age: float = 86400.0
    attempts: int | None = None


class Retry(msgspec.Struct, frozen=True):
    """Try again after `delay` seconds."""

    delay: float


class Wait(msgspec.Struct, frozen=True):
    """The other side asked for time: try again after `delay` seconds. No attempt is counted."""

    delay: float


class Hold(msgspec.Struct, frozen=True):
    """The sink is at fault: keep it in hand until the breaker lets it through again. No attempt is counted."""


class GiveUp(msgspec.Struct, frozen=True):
    """Give the delivery up: it becomes a dead letter with this reason."""

    reason: Reason


def asked(error: Exception | None) -> float | None:
    """Return the seconds that the other side asked for, within what is believable; None where it did not ask."""
    after: object = error.retry_after if isinstance(error, TransientError | SinkError) else None
    if isinstance(after, bool) or not isinstance(after, int | float):
        return None
    return min(float(after), LONGEST_ASKED) if after > SHORTEST_ASKED else SHORTEST_ASKED  # NaN is not greater


def age(history: History | None, now: float) -> float:
    """Return for how many seconds a delivery that fails now has been failing; `now` is seconds since the epoch.

    Only the wall clock is known to all routers and lasts through a restart, and that clock may be set. So what passed since
    the last failure counts up to twice the delay that was planned then, and `SLACK`: neither a clock that jumps nor a
    router that was down makes a delivery old.
    """
    if history is None:
        return 0.0
    passed = min(max(now - history.failed_at, 0.0), 2 * history.planned + SLACK)
    return history.failed_at - history.first_failed_at + passed


def decide(
    policy: RetryPolicy, *, attempt: int, age: float, error: Exception, chance: float
) -> Retry | Wait | Hold | GiveUp:
    """Decide what to do after attempt number `attempt` (from 1) failed with `error`.

    `age` is for how many seconds the delivery has been failing, `chance` is a random number in [0, 1). An exception that
    no sink should raise is taken for a passing fault; one that never passes ends as `plugin`.
    """
    if isinstance(error, PermanentError):
        return GiveUp(Reason.PERMANENT)
    if isinstance(error, PluginError):
        return GiveUp(Reason.PLUGIN)
    wait = asked(error)
    counted = wait is None and not isinstance(error, SinkError)
    gives_up = GiveUp(Reason.EXHAUSTED if isinstance(error, DeliveryError) else Reason.PLUGIN)
    if counted and policy.attempts is not None and attempt >= policy.attempts:
        return gives_up
    left = policy.max_age - age
    if left <= 0:
        return gives_up
    if isinstance(error, SinkError):
        return Hold()
    if wait is not None:
        return Wait(wait)
    return Retry(min(delay(policy, attempt, chance), left))


def delay(policy: RetryPolicy, attempt: int, chance: float) -> float:
    """Seconds until the next attempt after this one failed: a random part of a bound that doubles each time."""
    # The exponent is capped, for `2.0 ** 1024` is an error.
    return float(min(policy.max_delay, policy.initial * 2.0 ** min(attempt - 1, 60))) * chance
