"""What a `Tree` asks of each part of its stack."""

from __future__ import annotations

import stat
from collections.abc import Hashable, Iterator, Mapping
from io import BufferedReader
from typing import Any, Protocol

from layerstore.values import frozen

__all__ = ["NOTHING", "Facts", "Found", "Name", "SliceReader"]


@frozen
class Facts:
    """What is said of one file."""

    mode: int
    """With its type, as stat(2) has it."""
    uid: int
    gid: int
    size: int
    """Bytes of a file, or of a symlink's target."""
    mtime_ns: int
    """Since 1970."""
    device: tuple[int, int] = (0, 0)
    """Major and minor number of a device."""
    inode: Hashable = None
    """The same for all names of one file in one slice."""


@frozen
class Found:
    """What a slice has under a name. `handle` is its own; `facts` None: the name is removed from the slices below.

    `opaque`: a folder that hides what these have in it. `implied`: a folder that has here no attributes of its own, but
    those of the slices below, if it is there, even where it is opaque; `hollow`: and it is none where these have none.
    `redirect`: by which name these have it, one without a slash in the same folder. `bare`: a file whose bytes are in
    the slices below.
    """

    facts: Facts | None
    handle: Any = None
    opaque: bool = False
    implied: bool = False
    hollow: bool = False
    redirect: str | None = None
    bare: bool = False

    @property
    def is_folder(self) -> bool:
        """Is it a folder?"""
        return self.facts is not None and stat.S_ISDIR(self.facts.mode)


NOTHING = Found(None)
"""A name that is removed."""


@frozen
class Name:
    """A name in a folder of a slice. `removed`: from the slices below."""

    text: str
    removed: bool = False


class SliceReader(Protocol):
    """A part of a stack that is read by itself. Names are what `os.fsdecode` makes of them."""

    def top(self) -> Any:
        """The handle of the root directory; nothing is read for it."""
        ...

    def root(self) -> Found:
        """The root directory, and what is said of it."""
        ...

    def find(self, folder: Any, name: str) -> Found | None:
        """What is under a name in a folder, which is the handle of one; None: nothing is said of it."""
        ...

    def names(self, folder: Any) -> Iterator[Name]:
        """The names in a folder, each once, and those that are removed there."""
        ...

    def target(self, handle: Any) -> str:
        """Where a symbolic link leads."""
        ...

    def xattrs(self, handle: Any) -> Mapping[str, bytes]:
        """The extended attributes."""
        ...

    def open(self, handle: Any) -> BufferedReader:
        """The bytes of a file, to be closed by who asks."""
        ...

    def close(self) -> None:
        """Give back what is open. Files that were opened stay open."""
        ...
