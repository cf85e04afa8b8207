"""A process of our own that stays with a container which goes on by itself, where somebody has to.

It checks the health of one that has a check, and waits for the end of one that is to be removed then. Killed, it is
missed by nobody but for the checks: the next that opens the store does the rest.
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
from layerstore.runtime.said import section

__all__ = ["has_check", "is_needed", "main", "spawn"]


def is_needed(container: Container, options: RunOptions) -> bool:
    """Does somebody have to stay with it: to remove it, to end what connects it, or to check its health?"""
    return options.remove or parse(options.network).kind is Kind.PASTA or has_check(container, options)


def has_check(container: Container, options: RunOptions) -> bool:
    """Is its health to be checked?"""
    config = container.image_config
    if options.health is None and not section(config).get("Healthcheck"):
        return False
    from layerstore.runtime.health import check_of  # few have a check

    return check_of(config, options) is not None


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
    from layerstore.runtime import health
    from layerstore.runtime.life import Runtime

    os.chdir("/")
    if not Path(data_root, "layerstore.db").exists():
        return  # the store has gone meanwhile, or its disk: it is not to be founded anew
    config = layerstore.Config(data_root=Path(data_root), exec_root=Path(exec_root))
    with layerstore.open(config=config) as store:
        try:
            runtime, found = Runtime(store), store.container(container)
            health.watch(runtime, found)
            runtime.wait(found)
        except LayerstoreError:
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
