"""A place where what is mounted is seen by nobody, and gone by itself: a thread with a mount namespace of its own.

For the mounts that another one of the same recipe stands on. The kernel keeps them for that one for as long as it is
there, and no longer, so there is nothing to remember and nothing to undo, however this process ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from layerstore.kernel._shim import lib
from layerstore.kernel.mounts.recipe import OldKernel

__all__ = ["apart", "in_thread"]


def apart(make: Callable[[], int]) -> int:
    """What `make` returns when it is called there: the descriptor of a detached mount.

    Raises what it raises, and `OldKernel` where there can be no such namespace.
    """

    def make_there() -> int:
        if lib.ls_leave_namespace() < 0:
            raise OldKernel
        return make()

    return in_thread(make_there)


def in_thread(make: Callable[[], int]) -> int:
    """What `make` returns when a thread that ends with it calls it: its namespaces are that thread's alone.

    Raises what it raises.
    """
    made: list[int] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            made.append(make())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="layerstore-mounts", daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]
