"""What follows from a failed attempt; pure: time and chance come in as arguments.

Exponential backoff with full jitter: the delay is a random part of a bound that doubles with each attempt, so that many
deliveries that failed together do not come back together.
"""

from __future__ import annotations

import msgspec

from router.errors import DeliveryError, PermanentError, PluginError, Reason, SinkError, TransientError

LONGEST_ASKED = 3600.0
"""Seconds: a longer Retry-After is not believed (some services have sent milliseconds)."""


class RetryPolicy(msgspec.Struct, frozen=True):
    """How long and how often to try: all in seconds. `attempts` None means that age alone ends it."""

    initial: float = 1.0
    max_delay: float = 300.0
    max_age: float = 86400.0
    attempts: int | None = None


class RetryAt(msgspec.Struct, frozen=True):
    """Try again at `due` (seconds since the epoch)."""

    due: float


class Hold(msgspec.Struct, frozen=True):
    """The sink is at fault: keep it in hand until the breaker lets it through again. No attempt is counted."""


class GiveUp(msgspec.Struct, frozen=True):
    """It is over: a dead letter with this reason."""

    reason: Reason


def decide(
    policy: RetryPolicy, *, attempt: int, first_failed_at: float, error: Exception, now: float, chance: float
) -> RetryAt | Hold | GiveUp:
    """What to do after attempt number `attempt` (from 1) failed with `error`.

    `first_failed_at` and `now` are seconds since the epoch, `chance` is a random number in [0, 1). An exception that no
    sink should raise is taken for a passing fault; one that never passes ends as `plugin`.
    """
    if isinstance(error, PermanentError):
        return GiveUp(Reason.PERMANENT)
    if isinstance(error, PluginError):
        return GiveUp(Reason.PLUGIN)
    counted = not isinstance(error, SinkError)
    gives_up = GiveUp(Reason.EXHAUSTED if isinstance(error, DeliveryError) else Reason.PLUGIN)
    if counted and policy.attempts is not None and attempt >= policy.attempts:
        return gives_up
    last = first_failed_at + policy.max_age
    if now >= last:
        return gives_up
    if not counted:
        return Hold()
    wait = delay(policy, attempt, chance)
    asked = error.retry_after if isinstance(error, TransientError) else None
    if asked is not None:
        wait = max(wait, min(asked, LONGEST_ASKED))
    return RetryAt(min(now + wait, last))


def delay(policy: RetryPolicy, attempt: int, chance: float) -> float:
    """Seconds until the next attempt after this one failed: a random part of a bound that doubles each time."""
    # The exponent is capped, for `2.0 ** 1024` is an error.
    return float(min(policy.max_delay, policy.initial * 2.0 ** min(attempt - 1, 60))) * chance
