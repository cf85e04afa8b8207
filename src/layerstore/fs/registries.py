"""Images in registries: nothing is pulled, no store is needed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from layerstore import NotFound, Tree, registry
from layerstore.fs.trees import TreeFileSystem
from layerstore.values import define

__all__ = ["RegistryFileSystem"]

_MOST = 8
"""Images that are kept open: of those that nobody reads, that which was longest ago is closed for another."""


@define(eq=False)
class _Kept:
    tree: registry.RemoteTree
    undo: ExitStack
    readers: int = 0


class RegistryFileSystem(TreeFileSystem):
    """`docker://debian:12/etc/os-release`: read in the registry, and no more of it than is asked for.

    A path begins with the name of an image with its tag or digest; a host before it has a dot, or is `localhost`. With
    `of`, all paths are within that image, whatever it is called. What a tag means is looked up once. `platform`
    (`linux/arm64`), `config` (a daemon.json) and `indexes` are as for `layerstore.registry.browse`, which says what is
    proved.
    """

    protocol = ("layerstore+docker", "docker")

    def __init__(
        self,
        of: str | None = None,
        *,
        platform: str | None = None,
        config: str | Path | None = None,
        indexes: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(of, **more)
        self._platform = platform
        self._config = config
        self._indexes = indexes
        self._lock = threading.RLock()
        self._trees: dict[str, _Kept] = {}
        self._before = 0

    @property
    def fetched(self) -> int:
        """Bytes of layers that came, for all that was asked so far."""
        with self._lock:
            return self._before + sum(kept.tree.fetched for kept in self._trees.values())

    def close(self) -> None:
        """Close all images, with their connections. They are opened again when they are needed."""
        with self._lock:
            for of in list(self._trees):
                self._forget(of)

    def _forget(self, of: str) -> None:
        kept = self._trees.pop(of)
        self._before += kept.tree.fetched
        kept.undo.close()

    @contextmanager
    def _browse(self, of: str) -> Iterator[Tree]:
        with self._lock:
            kept = self._trees.pop(of, None) or self._opened_anew(of)
            self._trees[of] = kept
            idle = [name for name, one in self._trees.items() if not one.readers and one is not kept]
            for name in idle[: max(len(self._trees) - _MOST, 0)]:
                self._forget(name)
            kept.readers += 1
        try:
            yield kept.tree
        finally:
            with self._lock:
                kept.readers -= 1

    def _opened_anew(self, of: str) -> _Kept:
        undo = ExitStack()
        opened = registry.browse(of, platform=self._platform, config=self._config, indexes=self._indexes)
        return _Kept(undo.enter_context(opened), undo)

    def _split(self, path: str) -> tuple[str, str]:
        names = path.split("/")
        for count in range(2 if _is_host(names[0]) else 1, len(names) + 1):
            if ":" in names[count - 1] or "@" in names[count - 1]:
                return "/".join(names[:count]), "/".join(names[count:])
        raise NotFound(
            f"{path} does not say which image is meant", remedy="Write its tag: docker://debian:12/etc/os-release."
        )


def _is_host(name: str) -> bool:
    """Is this a registry, and no image with its tag?"""
    host = name.partition(":")[0]
    return "." in host or host == "localhost"
