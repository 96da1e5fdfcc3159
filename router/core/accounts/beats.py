"""The common times of a router's periodic work; pure.

A wake-up of the process costs more than most of the work that follows. So timers with the same period fire at the same
time, and a timer with a longer period fires together with those of shorter periods. An idle router then wakes up only
once a second, also for work that is due every five seconds.
"""

from __future__ import annotations


def until_beat(now: float, every: float) -> float:
    """Return the seconds from `now` until the next common time of all timers with the period `every`, in seconds.

    `now` is the time of the clock that all timers share. At least half of the period passes, so that a timer that fires
    a moment too early does not fire twice.
    """
    wait = every - now % every
    return wait if wait >= every / 2 else wait + every
