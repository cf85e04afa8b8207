"""The images, containers and checkpoints of a store."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import layerstore
from layerstore import InvalidReference, NotFound, Store, Tree
from layerstore.fs.trees import TreeFileSystem

__all__ = ["ImageFileSystem"]


class ImageFileSystem(TreeFileSystem):
    """`layerstore://debian:12/etc/os-release`: read only, and without a mount.

    A path begins with the name of a container, a checkpoint of one (`web@before`) or an image, and what it means is
    looked up each time; of names that begin with each other the shortest is meant. With `of`, all paths are within that
    one: `ImageFileSystem("debian:12").cat("etc/os-release")`. `root` and `config` are as for `layerstore.open`, and it
    is opened with the first path that is asked for, never made; or `store` is an open one, which stays the caller's.
    """

    protocol = "layerstore"

    def __init__(
        self,
        of: str | None = None,
        *,
        root: str | Path | None = None,
        config: Any = None,
        store: Store | None = None,
        **more: Any,
    ) -> None:
        super().__init__(of, **more)
        self._root = root
        self._config = config
        self._given = store
        self._opening = threading.Lock()
        self._own: Store | None = None
        self._process = 0

    @property
    def store(self) -> Store:
        """The store. It is opened if it is not."""
        if self._given is not None:
            return self._given
        with self._opening:
            if self._own is None or self._process != os.getpid():  # a child of fork opens its own
                self._own = layerstore.open(self._root, config=self._config, make=False)
                self._process = os.getpid()
                weakref.finalize(self, self._own.close)
            return self._own

    def close(self) -> None:
        """Close the store that was opened for this. It is opened again when it is needed."""
        with self._opening:
            if self._own is not None and self._process == os.getpid():
                self._own.close()
            self._own = None

    def modified(self, path: str) -> datetime:
        """When it was last modified."""
        return datetime.fromtimestamp(self.info(path)["mtime"], UTC)

    def _browse(self, of: str) -> AbstractContextManager[Tree]:
        return self.store.browse(of)

    def _split(self, path: str) -> tuple[str, str]:
        store = self.store
        for name, rest in _beginnings(path):
            with suppress(NotFound, InvalidReference):
                store.subject(name)
                return name, rest
        raise NotFound(f"{path} does not begin with the name of an image or container")

    def _images(self) -> list[str]:
        names = [tag for image in self.store.images() for tag in image.tags or (image.short_id,)]
        return sorted({*names, *(container.name for container in self.store.containers())})


def _beginnings(path: str) -> Iterator[tuple[str, str]]:
    """All that a path may begin with, the shortest first, and the rest of it."""
    names = path.split("/")
    for count in range(1, len(names) + 1):
        yield "/".join(names[:count]), "/".join(names[count:])
