"""Stacks to mount, and doing something as an ordinary user."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event

import pytest
from attrs import frozen

from layerstore.kernel.mounts import Mount

NOBODY = 65534


@frozen
class Stack:
    """The directories of one overlay, and recipes for it."""

    folder: Path
    lowers: tuple[Path, ...]

    @property
    def upper(self) -> Path:
        return self.folder / "upper"

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def merged(self) -> Path:
        return self.folder / "merged"

    def read_only(self, *options: tuple[str, str | None]) -> list[Mount]:
        lowers = (("lowerdir+", str(lower)) for lower in self.lowers)
        return [Mount("overlay", "overlay", (*lowers, *options), read_only=True)]

    def writable(self, *options: tuple[str, str | None]) -> list[Mount]:
        lowers = (("lowerdir+", str(lower)) for lower in self.lowers)
        own = (("upperdir", str(self.upper)), ("workdir", str(self.work)))
        return [Mount("overlay", "overlay", (*lowers, *own, *options))]


def make_stack(folder: Path, depth: int) -> Stack:
    """`depth` lower directories, each with a file of its number and, all of them, `same`: its content is the number."""
    lowers = tuple(folder / f"lower{number}" for number in range(depth))
    for number, lower in enumerate(lowers):
        lower.mkdir()
        (lower / str(number)).touch()
        (lower / "same").write_text(str(number))
    stack = Stack(folder, lowers)
    for made in (stack.upper, stack.work, stack.merged):
        made.mkdir()
    return stack


def servers() -> set[int]:
    """The fuse-overlayfs processes of this test session, which has a mount namespace of its own.

    One that only waits for its parent to hear of its end runs no more.
    """
    found = set()
    namespace = os.readlink("/proc/self/ns/mnt")
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            status = os.fsdecode(Path(f"/proc/{name}/stat").read_bytes())
            running = status.rpartition(")")[2].split()[0] != "Z"
            if "(fuse-overlayfs)" in status and running and os.readlink(f"/proc/{name}/ns/mnt") == namespace:
                found.add(int(name))
    return found


def wait_until(condition: Callable[[], bool]) -> None:
    """Fail if it does not come true in a few seconds."""
    tick = Event()
    for _ in range(1000):
        if condition():
            return
        tick.wait(0.01)
    pytest.fail("it never came true")


def in_child(action: Callable[[], object]) -> str:
    """What `action` answers, or the text of its exception, in a child process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = str(action())
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(writer, answer.encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as answers:
        text = answers.read().decode()
    os.waitpid(child, 0)
    return text


def as_nobody(action: Callable[[], object], *, within: Path = Path("/")) -> str:
    """The same, without any privilege.

    `within` is its current directory: what lies in a folder of root's can only be named from there.
    """

    def unprivileged() -> object:
        os.chdir(within)
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        return action()

    return in_child(unprivileged)
