"""Medians, quartiles and the test of ranks: properties first, and against counting everything out."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerstore.bench.figures import geometric_mean, quantile, rank_test, summary
from layerstore.bench.units import ratio_in_words, seconds_in_words, size_in_words

seconds = st.floats(1e-9, 1e6)
timings = st.lists(seconds, min_size=1, max_size=30)
few = st.lists(st.integers(0, 5).map(float), min_size=1, max_size=5)


@given(timings)
def test_a_summary_is_in_order_and_within_its_values(values: list[float]) -> None:
    found = summary(values)
    assert min(values) == found.least <= found.low <= found.median <= found.high <= found.most == max(values)
    assert found.count == len(values)
    assert found.overlaps(found)


@given(timings, st.randoms())
def test_a_summary_does_not_know_the_order_of_the_rounds(values: list[float], chance: object) -> None:
    mixed = values.copy()
    chance.shuffle(mixed)  # type: ignore[attr-defined]
    assert summary(mixed) == summary(values)


@given(timings)
def test_half_of_the_values_lie_on_each_side_of_the_median(values: list[float]) -> None:
    middle = quantile(values, 0.5)
    assert sum(value <= middle for value in values) * 2 >= len(values)
    assert sum(value >= middle for value in values) * 2 >= len(values)


@given(few, few)
def test_the_test_of_ranks_counts_what_could_have_been(first: list[float], second: list[float]) -> None:
    together = first + second

    def doubled_rank(value: float) -> int:
        return 2 * sum(other < value for other in together) + sum(other == value for other in together) + 1

    middle = len(first) * (len(together) + 1)
    distance = abs(sum(map(doubled_rank, first)) - middle)
    choices = list(combinations(together, len(first)))
    far = sum(abs(sum(map(doubled_rank, choice)) - middle) >= distance for choice in choices)
    assert rank_test(first, second) == pytest.approx(far / len(choices))


@given(timings, timings)
def test_the_test_of_ranks_is_fair_to_both_sides(first: list[float], second: list[float]) -> None:
    chance = rank_test(first, second)
    assert 0 < chance <= 1
    assert chance == pytest.approx(rank_test(second, first))


@given(timings)
def test_equal_sides_are_no_change(values: list[float]) -> None:
    assert rank_test(values, values) == pytest.approx(1)


@given(st.integers(1, 60), st.integers(1, 60))
def test_the_clearest_outcome_has_the_least_chance(first: int, second: int) -> None:
    clear = rank_test(range(first), range(first, first + second))
    mixed = rank_test([0, *range(2, first + 1)], [1, *range(first + 1, first + second)]) if first > 1 else 1
    assert clear <= mixed
    if first + second <= 40:
        assert clear == pytest.approx(min(2 / math.comb(first + second, first), 1))


def test_with_many_timings_the_bell_curve_agrees_with_counting() -> None:
    first, second = [float(value) for value in range(0, 42, 2)], [float(value) + 7 for value in range(0, 38, 2)]
    counted = rank_test(first, second)  # 40 together: the last that is counted
    curved = rank_test([*first, 21.5], second)
    assert counted == pytest.approx(curved, abs=0.05)


@given(st.lists(seconds, min_size=1, max_size=9), st.floats(0.01, 100))
def test_a_geometric_mean_scales_and_lies_within(values: list[float], factor: float) -> None:
    mean = geometric_mean(values)
    assert min(values) * 0.999999 <= mean <= max(values) * 1.000001
    assert geometric_mean([value * factor for value in values]) == pytest.approx(mean * factor)


@given(st.floats(1e-9, 1e5))
def test_words_keep_three_digits(value: float) -> None:
    number, unit = seconds_in_words(value).split(" ")
    assert float(number) * {"µs": 1e-6, "ms": 1e-3, "s": 1}[unit] == pytest.approx(value, rel=0.0051, abs=5.1e-9)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (seconds_in_words(0.0012345), "1.23 ms"),
        (seconds_in_words(59.96), "60.0 s"),
        (seconds_in_words(0.99996), "1.00 s"),
        (seconds_in_words(0), "0"),
        (size_in_words(67_108_864), "67.1 MB"),
        (size_in_words(-4096), "-4.10 kB"),
        (size_in_words(0), "0"),
        (ratio_in_words(0.0213), "0.02×"),
        (ratio_in_words(0.98), "1.0×"),
        (ratio_in_words(1.449), "1.4×"),
        (ratio_in_words(1052.7), "1,050×"),
    ],
)
def test_words(words: str, text: str) -> None:
    assert words == text
