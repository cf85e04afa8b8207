"""Platforms: what people write, and what runs where."""

from __future__ import annotations

import os

import pytest

from layerstore import platforms
from layerstore.errors import ConfigError
from layerstore.platforms import Platform, make, parse, rank


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", ("linux", "amd64")),
        ("linux/x86_64", ("linux", "amd64")),
        ("linux/x86-64", ("linux", "amd64")),
        ("linux/amd64/v1", ("linux", "amd64")),
        ("linux/amd64/v3", ("linux", "amd64", "v3")),
        ("linux/x86_64/v3", ("linux", "amd64", "v3")),
        ("linux/i386", ("linux", "386")),
        ("linux/i686/v2", ("linux", "386")),
        ("linux/arm64", ("linux", "arm64")),
        ("linux/aarch64", ("linux", "arm64")),
        ("LINUX/ARM64", ("linux", "arm64")),
        ("linux/aarch64/v8", ("linux", "arm64", "v8")),
        ("linux/arm64/8", ("linux", "arm64", "v8")),
        ("linux/arm64/v8.0", ("linux", "arm64", "v8")),
        ("linux/arm64/v8.2", ("linux", "arm64", "v8.2")),
        ("linux/arm64/9.0", ("linux", "arm64", "v9")),
        ("linux/arm", ("linux", "arm")),
        ("linux/arm/v7", ("linux", "arm", "v7")),
        ("linux/arm/7", ("linux", "arm", "v7")),
        ("linux/arm/6", ("linux", "arm", "v6")),
        ("linux/armhf", ("linux", "arm")),
        ("linux/armhf/v6", ("linux", "arm", "v7")),
        ("linux/armel", ("linux", "arm", "v6")),
        ("linux/armv7l", ("linux", "arm")),
        ("macos/arm64", ("darwin", "arm64")),
        ("windows/amd64", ("windows", "amd64")),
        ("linux/riscv64", ("linux", "riscv64")),
        ("linux/new", ("linux", "new")),
        # A word alone: the rest is this machine's.
        ("linux", ("linux", "arm64")),
        ("windows", ("windows", "arm64")),
        ("macOS", ("darwin", "arm64")),
        ("s390x", ("linux", "s390x")),
        ("x86_64", ("linux", "amd64")),
        ("aarch64", ("linux", "arm64")),
        ("arm", ("linux", "arm")),
        ("armhf", ("linux", "arm")),
        ("armel", ("linux", "arm", "v6")),
        ("i386", ("linux", "386")),
    ],
)
def test_words_are_taken_as_containerd_takes_them(
    text: str, expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platforms, "host", lambda: Platform("linux", "arm64", "v8"))
    assert parse(text) == Platform(*expected)


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        ("x86_64", ("linux", "amd64")),
        ("aarch64", ("linux", "arm64", "v8")),
        ("armv7l", ("linux", "arm", "v7")),
        ("armv6l", ("linux", "arm", "v6")),
        ("i686", ("linux", "386")),
        ("loongarch64", ("linux", "loong64")),
        ("riscv64", ("linux", "riscv64")),
    ],
)
def test_what_this_machine_runs(machine: str, expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = os.uname_result(("Linux", "node", "6.18", "#1", machine))
    monkeypatch.setattr(os, "uname", lambda: kernel)
    assert platforms.host() == Platform(*expected)


@pytest.mark.parametrize("text", ["", "/", "linux/", "/amd64", "linux//v7", "linux/arm/v7/x", "linux/am d64", "../x"])
def test_what_is_no_platform(text: str) -> None:
    with pytest.raises(ConfigError, match="is no platform"):
        parse(text)


@pytest.mark.parametrize("text", ["linus", "amd46", "unknown", "v8"])
def test_a_word_alone_has_to_be_known(text: str) -> None:
    with pytest.raises(ConfigError, match="is no operating system or architecture that is known"):
        parse(text)


def test_what_means_one_platform_ranks_as_one() -> None:
    for one, other in [("linux/arm64", "linux/arm64/v8"), ("linux/arm", "linux/arm/v7"), ("x86_64", "linux/amd64/v1")]:
        assert rank(parse(one), parse(other)) == rank(parse(other), parse(one)) == 0
        assert platforms.of(parse(one).fields) == platforms.of(parse(other).fields)


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
