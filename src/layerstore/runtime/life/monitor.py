"""A process of our own that stays with a container which goes on by itself, where somebody has to.

It waits for the end of one that is to be removed then. Killed, nothing is lost: the next that opens the store does it.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from pathlib import Path

import layerstore
from layerstore import Container, LayerstoreError, Store
from layerstore.runtime.network import Kind, parse
from layerstore.runtime.options import RunOptions

__all__ = ["is_needed", "main", "spawn"]


def is_needed(container: Container, options: RunOptions) -> bool:
    """Does somebody have to stay with it: to remove it, or to end what connects it?"""
    return options.remove or parse(options.network).kind is Kind.PASTA


def spawn(store: Store, container: Container) -> None:
    """Start the process, which outlives this one."""
    source = str(Path(layerstore.__file__).parents[1])
    path = os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH"))))
    config = store.config
    nothing = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", __name__, str(config.data_root), str(config.exec_root), container.id],
        {**os.environ, "PYTHONPATH": path},
        file_actions=nothing,
        setsid=True,
    )
    # While this process lives, it is the one that has to ask how its child has ended.
    threading.Thread(target=_reap, args=(pid,), daemon=True, name="layerstore-monitor").start()


def _reap(pid: int) -> None:
    with suppress(ChildProcessError):  # somebody has waited for all children
        os.waitpid(pid, 0)


def main(data_root: str, exec_root: str, container: str) -> None:
    """Stay with a container until it has ended, and is settled."""
    from layerstore.runtime.life import Runtime

    os.chdir("/")
    config = layerstore.Config(data_root=Path(data_root), exec_root=Path(exec_root))
    with layerstore.open(config=config) as store:
        try:
            Runtime(store).wait(store.container(container))
        except LayerstoreError:
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
