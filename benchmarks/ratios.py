"""The statistics of a few noisy measurements: ratios of pairs, their median, and an interval for the median.

The functions are pure. On a busy machine, single figures vary by a third. But if two figures are measured directly one
after the other, they vary in the same direction. So figures are compared pair by pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from statistics import median


@dataclass(frozen=True)
class Interval:
    """A median, and the interval that contains the true median with the probability `coverage`."""

    median: float
    low: float
    high: float
    coverage: float

    def __str__(self) -> str:
        if self.coverage <= 0:  # the interval of a single value
            return f"{self.median:.2f}"
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def ratios(these: Sequence[float], others: Sequence[float]) -> list[float]:
    """Return the ratio of each pair. Pairs with a second figure of 0 are left out."""
    return [this / other for this, other in zip(these, others, strict=True) if other]


def median_interval(values: Sequence[float], wanted: float = 0.95) -> Interval:
    """Return the median of the values, with an interval that contains the true median with the probability `wanted`.

    The interval goes from one of the values to another, and is as narrow as possible. The method assumes nothing about
    the distribution of the values: a value is below the true median with the probability 1/2, like heads in a coin
    toss. With fewer than six values, no interval reaches the probability 0.95. Then the interval goes from the
    smallest to the largest value, and `coverage` is its probability (0.75 for three values). Raises `ValueError` if
    there are no values.
    """
    if not values:
        raise ValueError("no values to take the median of")
    ordered, count = sorted(values), len(values)
    cut = 0  # the number of values that are left out on each side
    while 2 * (cut + 1) < count and _coverage(count, cut + 1) >= wanted:
        cut += 1
    return Interval(median(ordered), ordered[cut], ordered[count - 1 - cut], _coverage(count, cut))


def _coverage(count: int, cut: int) -> float:
    """Return the probability that the interval contains the true median.

    The interval is that of `count` sorted values without the first `cut` and the last `cut` values.
    """
    return 1 - 2 * sum(comb(count, below) for below in range(cut + 1)) / float(2**count)
