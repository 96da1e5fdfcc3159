"""The common times of a router's periodic work; pure.

A wake-up of the process costs more than most of the work that follows. So timers with the same period fire at the same
time. A timer with a period of five seconds fires together with the timers with a period of one second. As a result, an
idle router wakes up only once a second.
"""

from __future__ import annotations


def until_beat(now: float, every: float) -> float:
    """Return the seconds from `now` until the next common time of all timers with the period `every`, in seconds.

    `now` is the time of the clock that all timers share. The result is at least half of the period. Otherwise, a timer
    that fires a moment too early would fire twice.
    """
    wait = every - now % every
    return wait if wait >= every / 2 else wait + every
