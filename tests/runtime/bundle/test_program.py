"""That a program is not there is said where it is certain, by the tree alone, and never where something is mounted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from layerstore.runtime.bundle import unfit_program
from layerstore.runtime.engine.words import code_of


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[int]:
    for folder in ("bin", "usr/local/bin", "empty", "data", "srv", "proc"):
        (tmp_path / folder).mkdir(parents=True)
    for name, mode in (("bin/tool", 0o755), ("bin/plain", 0o644), ("srv/own", 0o700), ("proc/plain", 0o644)):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    for name, target in (
        ("sbin", "/usr/../bin"),
        ("bin/link", "tool"),
        ("bin/far", "../../../../srv/own"),
        ("bin/dangling", "/empty/no"),
        ("bin/round", "round"),
        ("bin/host", "/etc/passwd"),
        ("opt", "data/opt"),
        ("of-proc", "proc"),
    ):
        (tmp_path / name).symlink_to(target)
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def said(
    tree: int, name: str, *, path: str = "PATH=/usr/local/bin:/bin", cwd: str = "/", at: str = "/proc"
) -> str | None:
    config: dict[str, Any] = {
        "process": {"args": [name, "x"], "cwd": cwd, "env": ["A=b", path]},
        "mounts": [{"destination": "/proc"}, {"destination": "/etc/hosts"}, {"destination": at}],
    }
    return unfit_program(tree, config)


@pytest.mark.parametrize(
    "name",
    [
        "tool",
        "link",
        "far",
        "round",
        "dangling",
        "host",
        "/bin/tool",
        "/sbin/tool",
        "sbin/../bin/./tool",
        "/bin/link",
        "/bin/far",
        "/bin/round",
        "/bin/dangling",
        "/opt/no",
        "/proc/self/exe",
        "/of-proc/self/exe",
        "/of-proc/plain",
        "/" + "a/" * 20,
    ],
)
def test_what_is_there_or_may_be_is_the_engine_s(tree: int, name: str) -> None:
    assert said(tree, name) is None


@pytest.mark.parametrize("name", ["no", "/no", "tool/no", "no/no", "/sbin/no", "/data/no"])
def test_what_the_tree_does_not_have_is_missing(tree: int, name: str) -> None:
    words = said(tree, name)
    assert words is not None
    assert words.startswith(f'exec: "{name}": ')
    assert ("executable file not found in $PATH" in words) == ("/" not in name)
    assert code_of([words]) == 127


@pytest.mark.parametrize("at", ["/data", "/new/deep", "/sbin", "/etc/app"])
@pytest.mark.parametrize("name", ["no", "/no", "/bin/plain", "/new/deep/no", "./no"])
def test_what_somebody_mounts_may_have_it(tree: int, name: str, at: str) -> None:
    assert said(tree, name, at=at) is None


def test_it_depends_on_path_and_folder(tree: int) -> None:
    assert said(tree, "tool", path="PATH=/usr/local/bin:/empty") is not None
    assert said(tree, "tool", path="PATH=/sbin") is None
    assert said(tree, "tool", path="PATH=", cwd="/bin") is None
    assert said(tree, "tool", path="PATHS=/bin") is None
    assert said(tree, "./tool", cwd="/bin") is None
    assert said(tree, "./tool") is not None
    assert said(tree, "no", path=f"PATH={':'.join(f'/{number}' for number in range(10_000))}") is None


@pytest.mark.parametrize(
    ("name", "words"), [("/bin", "is a directory"), ("/", "is a directory"), ("/bin/plain", "permission denied")]
)
def test_what_nobody_may_execute_is_told(tree: int, name: str, words: str) -> None:
    assert said(tree, name) == f'exec: "{name}": {words}'
    assert code_of([str(said(tree, name))]) == 126
