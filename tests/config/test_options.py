"""The values of storage-opts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerstore import options


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("1k", 1024),
        ("10G", 10 << 30),
        ("10g", 10 << 30),
        ("10GB", 10 << 30),
        ("10GiB", 10 << 30),
        ("1.5T", 3 << 39),
        (" 32 MiB ", 32 << 20),
        ("2p", 2 << 50),
        ("7b", 7),
    ],
)
def test_sizes_are_read_as_docker_reads_them(text: str, size: int) -> None:
    assert options.size(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1", "1e3", "10 apples", "1.2.3k", "ten", "10GG", "0x10", "1_000", "١"])
def test_what_is_no_size_is_refused_with_what_is_one(text: str) -> None:
    with pytest.raises(ValueError, match="a size such as 10G"):
        options.size(text)


@given(st.integers(0, 1 << 62))
def test_any_number_of_bytes_is_exact(number: int) -> None:
    assert options.size(str(number)) == options.size(number) == number


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("On", True), ("1", True), ("false", False), ("OFF", False)]
)
def test_switches_are_read_as_docker_reads_them(text: str, value: bool) -> None:  # noqa: FBT001
    assert options.switch(text) is value
    assert options.switch(value) is value


@pytest.mark.parametrize("text", ["", "yes please", "2", "maybe"])
def test_what_is_no_switch_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="true or false"):
        options.switch(text)
