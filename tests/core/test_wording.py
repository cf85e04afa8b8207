"""What leaves a public method is told in words, what is the caller's own is left alone."""

from __future__ import annotations

import contextlib
import enum
import errno
import os
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs
import pytest

import layerstore
from layerstore.errors import KernelError
from layerstore.wording import in_words

IN_MEMORY = {"Changes", "Stream"}
"""Public classes that ask the system for nothing; what a stream reads from is the caller's."""

OWN_WORDS = {"Database", "Transaction"}
"""Public classes whose errors are SQLite's, which they tell themselves."""


@in_words("thing {0.name}")
class Thing:
    name = "web"

    def stat(self, path: Path) -> os.stat_result:
        return os.stat(path)

    @property
    def size(self) -> int:
        return os.stat("/not/there").st_size

    @cached_property
    def facts(self) -> os.stat_result:
        return os.stat("/not/there")

    def listed(self) -> Iterator[str]:
        yield "first"
        yield from os.listdir("/not/there")

    @contextlib.contextmanager
    def opened(self, path: str) -> Iterator[int]:
        fd = os.open(path, os.O_RDONLY)
        yield fd
        os.close(fd)

    def give(self, write: Callable[[bytes], object]) -> None:
        write(b"data")

    def give_elsewhere(self, write: Callable[[bytes], object]) -> None:
        Thing().give(lambda data: write(data))

    def wait(self) -> None:
        raise TimeoutError("not yet")


@in_words("ask")
def ask(path: str) -> None:
    os.stat(path)


@pytest.mark.parametrize(
    ("deed", "words"),
    [
        (lambda: Thing().stat(Path("/not/there")), "thing web: stat: /not/there: No such file or directory"),
        (lambda: Thing().size, "thing web: size: /not/there: No such file or directory"),
        (lambda: Thing().facts, "thing web: facts: /not/there: No such file or directory"),
        (lambda: list(Thing().listed()), "thing web: listed: /not/there: No such file or directory"),
        (lambda: Thing().opened("/not/there").__enter__(), "thing web: opened: /not/there: No such file or directory"),
        (lambda: ask("/not/there"), "ask: /not/there: No such file or directory"),
    ],
)
def test_what_the_system_refuses_is_told_with_what_was_asked(deed: Callable[[], object], words: str) -> None:
    with pytest.raises(KernelError) as caught:
        deed()
    error = caught.value
    assert (error.message, error.path, error.errno) == (words, "/not/there", errno.ENOENT)
    assert error.remedy
    assert isinstance(error.__cause__, FileNotFoundError)


def test_of_a_descriptor_there_is_no_path_to_tell() -> None:
    with pytest.raises(KernelError) as caught:
        Thing().stat(1 << 20)  # type: ignore[arg-type]
    assert caught.value.message == "thing web: stat: Bad file descriptor"


def test_what_is_raised_inside_a_context_is_the_callers(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), Thing().opened(os.fspath(tmp_path)):
        os.stat("/not/there")


def test_what_fails_when_a_context_is_left_is_told(tmp_path: Path) -> None:
    with pytest.raises(KernelError), Thing().opened(os.fspath(tmp_path)) as fd:
        os.close(fd)


@pytest.mark.parametrize("give", [Thing().give, Thing().give_elsewhere])
def test_what_the_callers_function_raises_is_the_callers(give: Callable[[Callable[[bytes], object]], None]) -> None:
    def full(_: bytes) -> None:
        raise BrokenPipeError(errno.EPIPE, "nobody reads")

    with pytest.raises(BrokenPipeError):
        give(full)


def test_what_a_function_of_ours_raises_that_another_method_was_given_is_told() -> None:
    @in_words("over")
    def over() -> None:
        Thing().give(lambda _: os.stat("/not/there"))

    with pytest.raises(KernelError, match=r"^over: /not/there"):
        over()


def test_that_time_is_over_is_said_as_it_is() -> None:
    with pytest.raises(TimeoutError):
        Thing().wait()


def test_all_that_is_public_is_behind_the_door() -> None:
    def is_one(thing: Any) -> bool:
        return (
            isinstance(thing, type)
            and not issubclass(thing, BaseException | enum.Enum)
            and not getattr(thing, "_is_protocol", False)
            and (not attrs.has(thing) or thing is layerstore.Image)
        )

    public = {name: getattr(layerstore, name) for name in layerstore.__all__}
    classes = [thing for name, thing in public.items() if is_one(thing) and name not in IN_MEMORY | OWN_WORDS]
    assert layerstore.Store in classes
    outside = [
        f"{kind.__name__}.{name}"
        for kind in classes
        for base in kind.__mro__[:-1]
        for name, value in vars(base).items()
        if not name.startswith("_") and base.__module__.startswith("layerstore") and is_outside(value)
    ]
    assert outside == []


def is_outside(value: object) -> bool:
    function = value.fget if isinstance(value, property) else getattr(value, "func", value)
    if not callable(function) or isinstance(value, type):
        return False
    is_asynchronous = bool(getattr(getattr(function, "__code__", None), "co_flags", 0) & 0x80)
    return not (hasattr(function, "__wrapped__") or is_asynchronous)
