"""What the fixtures `rootfs`, `session_rootfs` and `container` hand out: containers of one store, made of anything.

A test suite that keeps its roots for longer than a test takes a checkpoint when they are as every test wants them, and
rolls back after each: that costs milliseconds, whatever lies in them.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path

from layerstore import Container, Image, Store
from layerstore.testing import tars

__all__ = ["Containers", "Files", "Roots", "Source"]

Files = Mapping[str, str | bytes | None]
"""Content by path; None is a folder."""

Source = Image | Files | bytes | str | Path
"""An image, files, or a tar: its bytes or its path."""


class Containers:
    """`container(...)`: a container of an image, of files or of a tar, that is not mounted."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __call__(self, source: Source) -> Container:
        """Make one. It is removed with the store."""
        return self._store.create_container(source if isinstance(source, Image) else self._imported(source))

    def _imported(self, source: Files | bytes | str | Path) -> Image:
        if isinstance(source, str | Path):
            return self._store.import_tar(source)
        return self._store.import_tar(io.BytesIO(source if isinstance(source, bytes) else _tar(source)))


class Roots:
    """`rootfs(...)`: root filesystems, each of them a mounted container; all go back to a checkpoint at once."""

    def __init__(self, containers: Containers) -> None:
        self._containers = containers
        self._made: dict[Path, Container] = {}
        self._kept: dict[Path, str] = {}

    def __call__(self, source: Source) -> Path:
        """Make one, and return where it is mounted."""
        box = self._containers(source)
        root = box.mount().path
        self._made[root] = box
        return root

    def container(self, root: Path) -> Container:
        """The container that is mounted at `root`."""
        return self._made[root]

    def checkpoint(self) -> None:
        """Keep how all roots are now, instead of how they were at the checkpoint before."""
        for root, box in self._made.items():
            before = self._kept.get(root)
            self._kept[root] = box.checkpoint().label
            if before is not None:
                box.checkpoint_named(before).remove()

    def rollback(self) -> None:
        """Make all roots what they were at the checkpoint, at the same paths. It stays, to be gone back to again.

        Whoever has a file open in one of them, or works there, has to end before. Roots that were made since stay.
        """
        for root, label in self._kept.items():
            self._made[root].rollback(label)


def _tar(files: Files) -> bytes:
    entries = []
    for path, content in files.items():
        name = os.fsencode(path.strip("/"))
        data = content.encode() if isinstance(content, str) else content
        entries.append(tars.folder(name) if data is None else tars.file(name, data))
    return tars.archive(*entries)
