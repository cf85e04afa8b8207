"""Bytes as people read them."""

from __future__ import annotations

import pytest

from layerstore.looking.sizes import size_in_words


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1500, "1.5 kB"),
        (999_499, "999 kB"),
        (999_999, "1 MB"),
        (67_108_864, "67.1 MB"),
        (10**12, "1 TB"),
    ],
)
def test_three_digits_and_the_unit_that_suits(number: int, words: str) -> None:
    assert size_in_words(number) == words


def test_the_gap_is_the_callers() -> None:
    assert size_in_words(999_999, gap="") == "1MB"
