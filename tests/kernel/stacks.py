"""Stacks to mount, and doing something as an ordinary user."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from attrs import frozen

from layerstore.kernel.mount import Mount

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


def as_nobody(action: Callable[[], object], *, within: Path = Path("/")) -> str:
    """What `action` answers, or the text of its exception, in a child process without any privilege.

    `within` is its current directory: what lies in a folder of root's can only be named from there.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.chdir(within)
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
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
