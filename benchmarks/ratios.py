"""The statistics of a few noisy measurements: the ratio of each pair, their median, and an interval for it.

Pure. On a busy machine, single figures vary by a third. Two figures that are measured one right after the other vary
alike. So figures are compared pair by pair.
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
    """Return the ratio of each pair. Pairs whose second figure is 0 have none."""
    return [this / other for this, other in zip(these, others, strict=True) if other]


def median_interval(values: Sequence[float], wanted: float = 0.95) -> Interval:
    """Return the median of the values, with the narrowest interval between two values that contains the true median with the probability `wanted`.

    The method assumes nothing about the distribution of the values: the number of values below the true median is
    distributed like the number of heads in as many coin tosses. Fewer than six values can't reach 0.95. Then the
    interval is from the smallest to the largest value, and `coverage` is its probability (0.75 for three values).
    Raises `ValueError` if there are no values.
    """
    if not values:
        raise ValueError("no values to take the median of")
    ordered, count = sorted(values), len(values)
    cut = 0  # how many values are left out on each side
    while 2 * (cut + 1) < count and _coverage(count, cut + 1) >= wanted:
        cut += 1
    return Interval(median(ordered), ordered[cut], ordered[count - 1 - cut], _coverage(count, cut))


def _coverage(count: int, cut: int) -> float:
    """Return the probability that the true median lies within `count` sorted values without `cut` values on each side."""
    return 1 - 2 * sum(comb(count, below) for below in range(cut + 1)) / float(2**count)
