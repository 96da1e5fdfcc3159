"""The common times of a router's periodic work; pure.

A wake-up of the process costs more than most of the work that follows. So timers of the same period fire at the same
time, and those of a longer period together with those of a shorter one. An idle router then wakes up once a second for
everything that it does each second, or each five seconds.
"""

from __future__ import annotations


def until_beat(now: float, every: float) -> float:
    """Return the seconds from `now` until the next common time of all timers with the period `every`, in seconds.

    `now` is the clock that all of them share. At least half of the period passes, so that a timer that fires a moment
    too early does not fire twice.
    """
    wait = every - now % every
    return wait if wait >= every / 2 else wait + every
