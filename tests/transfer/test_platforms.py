"""Platforms: what people write, and what runs where."""

from __future__ import annotations

import pytest

from layerstore.errors import ConfigError
from layerstore.transfer import platforms
from layerstore.transfer.platforms import Platform, make, parse, rank


@pytest.mark.parametrize(
    ("text", "system", "architecture", "variant"),
    [
        ("linux/amd64", "linux", "amd64", ""),
        ("linux/x86_64", "linux", "amd64", ""),
        ("linux/amd64/v1", "linux", "amd64", ""),
        ("linux/amd64/v3", "linux", "amd64", "v3"),
        ("linux/arm64", "linux", "arm64", ""),
        ("linux/aarch64/v8", "linux", "arm64", ""),
        ("LINUX/ARM64", "linux", "arm64", ""),
        ("linux/arm", "linux", "arm", ""),
        ("linux/arm/v7", "linux", "arm", ""),
        ("linux/arm/6", "linux", "arm", "v6"),
        ("linux/armhf", "linux", "arm", ""),
        ("linux/armel", "linux", "arm", "v6"),
        ("windows/amd64", "windows", "amd64", ""),
        ("linux/riscv64", "linux", "riscv64", ""),
    ],
)
def test_words(text: str, system: str, architecture: str, variant: str) -> None:
    assert parse(text) == Platform(system, architecture, variant)


def test_one_word_is_for_this_machine() -> None:
    assert parse("linux") == platforms.host()
    assert parse("s390x") == Platform("linux", "s390x")


@pytest.mark.parametrize("text", ["", "/", "linux/", "linux//v7", "linux/arm/v7/x", "linux/am d64", "../x"])
def test_what_is_no_platform(text: str) -> None:
    with pytest.raises(ConfigError, match="is no platform"):
        parse(text)


def test_arm_runs_what_is_older() -> None:
    v8, v7, v6, v5 = (make("linux", "arm", variant) for variant in ("v8", "v7", "v6", "v5"))
    assert [rank(v7, offered) for offered in (v8, v7, v6, v5)] == [None, 0, 1, 2]
    assert rank(v7, make("linux", "arm", "v4")) is None
    assert rank(v7, make("linux", "arm", "soft")) is None


def test_nothing_else_is_compatible() -> None:
    amd64 = make("linux", "amd64")
    assert rank(amd64, make("linux", "386")) is None
    assert rank(amd64, make("linux", "amd64", "v3")) is None
    assert rank(amd64, make("windows", "amd64")) is None
    assert rank(amd64, make("linux", "amd64", "v1")) == 0


def test_it_reads_as_docker_writes_it() -> None:
    assert str(make("linux", "arm")) == "linux/arm/v7"
    assert str(make("linux", "arm64", "v8")) == "linux/arm64"
    assert platforms.of({"os": 7, "architecture": None}).is_unknown
