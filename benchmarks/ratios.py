"""What can be said of a few noisy measurements: the ratio of each pair, their median, and an interval for it.

Pure. A machine that is busy with other things makes single figures vary by a third, but both of a pair that were
measured one right after the other alike. So figures are compared pair by pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from statistics import median


@dataclass(frozen=True)
class Interval:
    """A median, and the interval that holds the true one with the probability `coverage`."""

    median: float
    low: float
    high: float
    coverage: float

    def __str__(self) -> str:
        if self.coverage <= 0:  # of a single value
            return f"{self.median:.2f}"
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def ratios(these: Sequence[float], others: Sequence[float]) -> list[float]:
    """Return the ratio of each pair. Pairs whose second figure is 0 have none."""
    return [this / other for this, other in zip(these, others, strict=True) if other]


def median_interval(values: Sequence[float], wanted: float = 0.95) -> Interval:
    """Return the median of the values with the narrowest interval between two of them that covers it as `wanted`.

    It supposes nothing of how the values are distributed: of n values k are below the true median as often as k of n coins
    show heads. Fewer than six can't reach 0.95; then the interval is from the least to the greatest, and `coverage` is
    what that gives (0.75 for three). Raises `ValueError` when there is no value.
    """
    if not values:
        raise ValueError("no values to take the median of")
    ordered, count = sorted(values), len(values)
    cut = 0  # how many values are left out on each side
    while 2 * (cut + 1) < count and _coverage(count, cut + 1) >= wanted:
        cut += 1
    return Interval(median(ordered), ordered[cut], ordered[count - 1 - cut], _coverage(count, cut))


def _coverage(count: int, cut: int) -> float:
    """Return how often the true median lies within `count` values less `cut` of them on each side."""
    return 1 - 2 * sum(comb(count, below) for below in range(cut + 1)) / float(2**count)
