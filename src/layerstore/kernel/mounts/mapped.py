"""Mounts that show other owners than lie on the disk: a container's for another range of IDs, with nothing copied.

What overlay reads and writes is shown so, layer by layer, since an overlay mount itself cannot be (kernel:
filesystems/idmappings.rst). Overlay does what it does for itself as whoever mounted it, who has to be somebody that its
layers know.
"""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from layerstore.errors import DriverNotSupported, KernelError, named
from layerstore.kernel._shim import lib
from layerstore.kernel.files.descriptors import HANDLE
from layerstore.kernel.namespaces import IdMap, open_namespace

__all__ = ["Mapped", "clone"]


class Mapped:
    """Stands in the place of the calls that give overlay its layers, as long as it is entered."""

    def __init__(self, ids: IdMap) -> None:
        self._ids = ids
        self._undo = ExitStack()
        self._namespace = -1
        self._written: dict[bytes, int] = {}

    def __enter__(self) -> Self:
        self._namespace = open_namespace(self._ids)
        self._undo.callback(os.close, self._namespace)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def ls_fsconfig_folder(self, context: int, key: bytes, folder: bytes) -> int:
        """Upper and work have to be of one mount: of the folder that both are in. Clones go with their descriptors."""
        if key == b"lowerdir+":
            tree = _clone(folder, 0, self._namespace)
        else:
            above, name = os.path.split(folder)
            if above not in self._written:
                self._written[above] = _clone(above, 0, self._namespace)
                self._undo.callback(os.close, self._written[above])
            with named("open", os.fsdecode(folder)):
                tree = os.open(name, HANDLE | os.O_CLOEXEC, dir_fd=self._written[above])
        self._undo.callback(os.close, tree)
        answer: int = lib.ls_fsconfig_descriptor(context, key, tree)
        return answer

    def ls_fsconfig_create(self, context: int) -> int:
        answer: int = lib.ls_fsconfig_create_as(context, *self._ids.root)
        return answer


def clone(source: str, attributes: int, ids: IdMap) -> int:
    """A folder as a detached mount with these IDs: its descriptor. Raises `DriverNotSupported`, `KernelError`."""
    namespace = open_namespace(ids)
    try:
        return _clone(os.fsencode(source), attributes, namespace)
    finally:
        os.close(namespace)


def _clone(folder: bytes, attributes: int, namespace: int) -> int:
    tree: int = lib.ls_clone_tree(folder, attributes)
    if tree < 0:
        raise KernelError("open_tree", -tree, path=folder)
    answer = lib.ls_map_ids(tree, namespace)
    if answer >= 0:
        return tree
    os.close(tree)
    if answer == -errno.EINVAL:
        raise DriverNotSupported(
            f"{os.fsdecode(folder)} is on a filesystem that cannot show other owners (idmapped mounts)",
            remedy="Put the data-root on ext4, xfs, btrfs or tmpfs, with Linux 6.3 or later.",
            errno=errno.EINVAL,
        )
    raise KernelError("mount_setattr", -answer, path=folder)
