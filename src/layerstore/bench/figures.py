"""What a handful of timings says: medians, quartiles, and whether two handfuls differ by more than noise. Pure.

Nothing here assumes that timings are spread as a bell: they have a hard lower end and a long tail. So quartiles stand
in the place of standard deviations, and a test of ranks in the place of one of means.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from layerstore.values import frozen

__all__ = ["Summary", "geometric_mean", "quantile", "rank_test", "summary"]

_EXACT = 40
"""Up to so many timings the ranks are counted out; with more, the bell curve stands in for them."""


@frozen
class Summary:
    """The five figures of a box plot, and how many timings they are of."""

    count: int
    least: float
    low: float
    median: float
    high: float
    most: float

    def overlaps(self, other: Summary) -> bool:
        """Do the middle halves of both share a value? Then neither is surely the faster."""
        return self.low <= other.high and other.low <= self.high


def quantile(values: Sequence[float], part: float) -> float:
    """The value below which `part` of the values lie, on the straight line between the two nearest."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    place = part * (len(ordered) - 1)
    below = math.floor(place)
    above = math.ceil(place)
    # Written so that it never leaves the two, whatever the rounding.
    low, high = ordered[below], ordered[above]
    return min(max(low + (high - low) * (place - below), low), high)


def summary(values: Sequence[float]) -> Summary:
    """Least, quartiles, median, most."""
    return Summary(
        count=len(values),
        least=min(values),
        low=quantile(values, 0.25),
        median=quantile(values, 0.5),
        high=quantile(values, 0.75),
        most=max(values),
    )


def geometric_mean(values: Iterable[float]) -> float:
    """The mean that suits ratios: twice as fast and half as fast make one."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))


def rank_test(first: Sequence[float], second: Sequence[float]) -> float:
    """The Mann-Whitney test, two-sided: how likely chance alone would part the two at least as far as they are.

    All timings are put in one order, and the places of the first are added up. If both came from one source, every
    choice of places would be as likely as any other: the answer is the share of choices whose sum lies at least as far
    from the middle. Equal timings share the mean of their places. The share is exact for up to 40 timings.
    """
    if not first or not second:
        raise ValueError("no values")
    doubled = _doubled_ranks([*first, *second])
    count, total = len(first), len(doubled)
    observed = sum(doubled[:count])
    middle = count * (total + 1)
    if total <= _EXACT:
        ways = _ways(doubled, count)
        far = sum(number for place, number in ways.items() if abs(place - middle) >= abs(observed - middle))
        return far / math.comb(total, count)
    return _by_bell_curve(doubled, count, observed)


def _doubled_ranks(values: Sequence[float]) -> list[int]:
    """Twice the place of each value, which is a whole number even where equals share theirs."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for index in order[start:end]:
            ranks[index] = start + end + 1
        start = end
    return ranks


def _ways(ranks: Sequence[int], count: int) -> dict[int, int]:
    """In how many ways `count` of the ranks have a given sum."""
    found: list[dict[int, int]] = [{0: 1}, *({} for _ in range(count))]
    for rank in ranks:
        for size in range(count, 0, -1):
            for place, number in found[size - 1].items():
                found[size][place + rank] = found[size].get(place + rank, 0) + number
    return found[count]


def _by_bell_curve(doubled: Sequence[int], count: int, observed: int) -> float:
    total = len(doubled)
    mean = sum(doubled) / total
    spread = sum((rank - mean) ** 2 for rank in doubled) / (total - 1)
    variance = spread * count * (total - count) / total
    if variance == 0:
        return 1.0
    # One half step in ranks, a whole one in their doubles, for the corners of what is counted.
    distance = max(abs(observed - count * mean) - 1, 0) / math.sqrt(variance)
    return math.erfc(distance / math.sqrt(2))
