"""What is tried: each driver on the filesystems that it works on, and one that nothing here knows."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layerstore import plugins
from layerstore.testing.torture import OPERATIONS, Operation, Subject, migration_to
from torture.lazily import LAZILY
from torture.more import MORE
from torture.programs import PROGRAMS

ROOT = Path(__file__).parents[2]
UNKNOWN = "copies"
"""The driver of the guide for driver authors."""

SUBJECTS = (
    Subject("overlay2", "ext4"),
    Subject("btrfs", "btrfs"),
    Subject("vfs", "ext4"),
    Subject("aufs", "ext4", ("aufs.mode=copy",)),
    Subject("erofs", "ext4"),
    Subject(UNKNOWN, "ext4"),
)
"""One of each driver: what a call of it leaves does not depend on the filesystem."""

POWER = (
    *SUBJECTS,
    Subject("overlay2", "xfs"),
    Subject("overlay2", "btrfs"),
    Subject("vfs", "xfs"),
    Subject("aufs", "btrfs", ("aufs.mode=copy",)),
)
"""Whose power fails: what is on the disk then does."""


@contextmanager
def unknown_installed() -> Iterator[None]:
    """The unknown driver is found as any third party's is."""
    entries = plugins._entries
    found = {**entries(), UNKNOWN: "layerstore_copies:Copies"}  # once, for each point would read it several times
    folder = str(ROOT / "docs/examples/layerstore-copies")
    sys.path.insert(0, folder)
    plugins._entries = lambda: found
    try:
        yield
    finally:
        plugins._entries = entries
        sys.path.remove(folder)


def operations(subject: Subject) -> list[Operation]:
    """All that a store with this driver is asked to do; last what others have not."""
    to = "vfs" if subject.driver != "vfs" else "overlay2"
    return [*OPERATIONS, migration_to(to), *MORE, *PROGRAMS, *(LAZILY if subject.driver == "erofs" else ())]
