"""The decision after a failed attempt: retry, wait, hold, give up or suppress; pure.

The age and the random number are arguments. Delays are exponential with full jitter: a random share of a bound that
doubles with each attempt. Because of the jitter, deliveries that failed at the same time are not retried at the same
time.
"""

from __future__ import annotations

import msgspec

from router.errors import DeliveryError, GoneError, PermanentError, PluginError, Reason, SinkError, TransientError
from router.events import History

SHORTEST_ASKED = 1.0
"""The lower bound of a Retry-After in seconds, for a service that asks for 0 seconds or sends a past date."""

LONGEST_ASKED = 3600.0
"""The upper bound of a Retry-After in seconds: longer times are mistakes (some services have sent milliseconds)."""

SLACK = 60.0
"""The tolerance, in seconds, for a late attempt. The time since the last failure counts towards the age of a delivery
up to twice the planned delay plus this tolerance.
"""


class RetryPolicy(msgspec.Struct, frozen=True):
    """The delays and limits of retries; times in seconds. If `attempts` is None, only `max_age` ends the retries."""

    initial: float = 1.0
    max_delay: float = 300.0
    max_age: float = 86400.0
    attempts: int | None = None


class Retry(msgspec.Struct, frozen=True):
    """The decision to retry after `delay` seconds."""

    delay: float


class Wait(msgspec.Struct, frozen=True):
    """The decision to retry after the `delay` in seconds that the service asked for. The attempt is not counted."""

    delay: float


class Hold(msgspec.Struct, frozen=True):
    """The decision to keep the delivery in flight until the sink's breaker closes. The attempt is not counted."""


class GiveUp(msgspec.Struct, frozen=True):
    """The decision to give up the delivery: it goes to the fallback sink, or becomes a dead letter with this reason."""

    reason: Reason


class Suppress(msgspec.Struct, frozen=True):
    """The decision to suppress the delivery for this reason, because its recipient no longer exists."""

    reason: Reason


def requested_delay(error: Exception | None) -> float | None:
    """Return the delay in seconds that the service asked for, limited to the range from `SHORTEST_ASKED` to
    `LONGEST_ASKED`.

    Return None if the service asked for no delay.
    """
    after: object = error.retry_after if isinstance(error, TransientError | SinkError) else None
    if isinstance(after, bool) or not isinstance(after, int | float):
        return None
    return min(float(after), LONGEST_ASKED) if after > SHORTEST_ASKED else SHORTEST_ASKED  # also true for NaN


def age(history: History | None, now: float) -> float:
    """Return the seconds for which a delivery has been failing when it fails at `now` (seconds since the epoch).

    The age must survive a restart, so it is measured by the wall clock. But an administrator may set this clock.
    Therefore the time since the last failure counts only up to twice the planned delay plus `SLACK`. So a clock that is
    set forward, or a long stop of the router, does not exhaust the retries of a delivery.
    """
    if history is None:
        return 0.0
    passed = min(max(now - history.failed_at, 0.0), 2 * history.planned + SLACK)
    return history.failed_at - history.first_failed_at + passed


def decide(
    policy: RetryPolicy, *, attempt: int, age: float, error: Exception, chance: float
) -> Retry | Wait | Hold | GiveUp | Suppress:
    """Decide what to do after attempt number `attempt` (from 1) failed with `error`.

    `age` is the number of seconds for which the delivery has been failing. `chance` is a random number in [0, 1). An
    exception outside the plugin contract counts as transient. If the retries after such an exception are exhausted, the
    reason is `plugin`.
    """
    if isinstance(error, GoneError):
        return Suppress(Reason.GONE)
    if isinstance(error, PermanentError):
        return GiveUp(Reason.PERMANENT)
    if isinstance(error, PluginError):
        return GiveUp(Reason.PLUGIN)
    wait = requested_delay(error)
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


def put_off(policy: RetryPolicy, *, age: float, error: Exception, chance: float) -> Wait | GiveUp:
    """Decide what to do with a delivery whose sink was not called, because a lookup failed.

    A failed lookup is not an attempt, so only `max_age` ends the retries, and not `attempts`. Because no attempts are
    counted, the bound of the delay grows with `age`. `age` is the number of seconds for which the delivery has been
    failing.
    """
    left = policy.max_age - age
    if left <= 0:
        return GiveUp(Reason.EXHAUSTED)
    wait = requested_delay(error)
    if wait is None:
        wait = min(policy.max_delay, max(policy.initial, age)) * chance
    return Wait(min(wait, left))


def delay(policy: RetryPolicy, attempt: int, chance: float) -> float:
    """Return the seconds until the next attempt: a random share of a bound that doubles with each attempt."""
    # The exponent is capped, because `2.0 ** 1024` raises OverflowError.
    return float(min(policy.max_delay, policy.initial * 2.0 ** min(attempt - 1, 60))) * chance
