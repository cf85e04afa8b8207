"""What a program may read while it runs, and no disk ever has: secrets, ways to ssh agents, scripts of heredocs.

All of one program lies in one folder in memory that is attached nowhere: nobody else can reach it, and it is gone with
the program and this object, whatever ends first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Self

from layerstore import open_memory
from layerstore.build.language import Modes
from layerstore.gathering import Piece
from layerstore.runtime.life.sources import Shown, Tree

__all__ = ["Memory", "written_in_memory"]


class Memory:
    """See the module's text. A context manager."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._root = -1
        self._shown: list[Shown] = []

    def add_file(self, target: str, content: bytes, *, mode: int, uid: int = 0, gid: int = 0) -> None:
        """A file that the program sees at `target`."""
        with self._new(target) as name, open(name, "xb", opener=partial(_within, self._folder)) as file:
            file.write(content)
            os.fchown(file.fileno(), uid, gid)
            os.fchmod(file.fileno(), mode)

    def add_socket(self, target: str, listen: Callable[[str], AbstractContextManager[object]]) -> None:
        """A socket that the program sees at `target`; `listen` makes it at the path that it is given, for a while."""
        with self._new(target) as name:
            self._stack.enter_context(listen(f"/proc/self/fd/{self._folder}/{name}"))

    @contextmanager
    def _new(self, target: str) -> Iterator[str]:
        name = str(len(self._shown))
        yield name
        self._shown.append(Shown(target, f"/{name}", is_file=True))

    @property
    def _folder(self) -> int:
        if self._root < 0:
            self._root = self._stack.enter_context(open_memory())
        return self._root

    @property
    def trees(self) -> tuple[Tree, ...]:
        """What the program is to be given."""
        if not self._shown:
            return ()
        return (Tree(lambda: nullcontext(self._folder), tuple(self._shown)),)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()


@contextmanager
def written_in_memory(
    files: Sequence[tuple[bytes, bytes]], owner: tuple[int, int], modes: Modes | None, mtime_ns: int
) -> Iterator[Piece]:
    """While inside: files with this content, by the names that they have in a layer, as a piece of it."""
    with open_memory() as folder:
        entries = []
        for number, (name, content) in enumerate(files):
            with open(str(number), "xb", opener=partial(_within, folder)) as file:
                file.write(content)
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.utime(file.fileno(), ns=(mtime_ns, mtime_ns))
            entries.append((b"%d" % number, name))
        yield Piece(folder, entries, owner, modes)


def _within(folder: int, name: str, flags: int) -> int:
    return os.open(name, flags, 0o600, dir_fd=folder)
