"""A tree that processes have in a mount namespace of theirs, brought out of it.

The kernel clones mounts of the caller's own namespace only, so a thread goes there for that. The clone is attached
nowhere and belongs to nobody's namespace: it can be attached in the host's.
"""

from __future__ import annotations

import os

from layerstore.errors import KernelError
from layerstore.kernel._shim import lib
from layerstore.kernel.files.descriptors import HANDLE, opened
from layerstore.kernel.mounts.apart import in_thread
from layerstore.kernel.processes.identity import places_of

__all__ = ["tree_of"]


def tree_of(process: int, key: str, root: bytes) -> int:
    """The tree of the layer `key` as `process` has it, without what is mounted in it: a detached mount.

    `root`: where it is if no mount there tells the key, as those of fuse-overlayfs do not. Raises `KernelError`.
    """
    try:
        places = places_of(process, key)
    except OSError as error:
        raise KernelError("open", error.errno or 0, path=f"/proc/{process}/mountinfo") from None
    place = f"/proc/{process}/root".encode() + (places[-1] if places else root)
    with opened(f"/proc/{process}/ns/mnt", os.O_RDONLY) as namespace, opened(place, HANDLE) as folder:

        def clone() -> int:
            _checked("setns", lib.ls_join_namespace(namespace), place)
            return _checked("open_tree", lib.ls_clone_mount(folder), place)

        return in_thread(clone)


def _checked(call: str, answer: int, place: bytes) -> int:
    if answer < 0:
        raise KernelError(call, -answer, path=place)
    return answer
