"""One mount of a container, as its users hold it."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from layerstore.wording import in_words

if TYPE_CHECKING:
    from layerstore.containers.container import Container

__all__ = ["Mounted"]


@in_words("container {0._container.name}")
class Mounted:
    """A container's mount, as one user of it holds it. The last to let go unmounts."""

    path: Path
    """Where it is."""
    persistent: bool
    """Does it outlive this process?"""

    def __init__(self, container: Container, path: Path, hold: int, *, persistent: bool) -> None:
        self.path = path
        self.persistent = persistent
        self._container = container
        self._hold: int | None = hold

    def unmount(self) -> None:
        """Let go. A second time is no error. Busy: `KernelError`, and the hold is kept."""
        if self._hold is not None:
            self._container._release(self, self._hold)
            self._hold = None

    def __enter__(self) -> Path:
        return self.path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unmount()

    def __fspath__(self) -> str:
        return os.fspath(self.path)
