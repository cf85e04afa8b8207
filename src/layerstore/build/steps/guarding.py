"""A process of our own that ends what a build was doing when it was killed.

It is there for builds whose programs run for long, and is a shell that waits for the end of the build's process: only
if that comes without a word does it become a Python, which does what the next build would do.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import layerstore
from layerstore import LayerstoreError, Store
from layerstore.build.steps.tying import Tie

__all__ = ["LATER", "Guard", "main"]

LATER = 1.0
"""Seconds after the first program's start until there is one: what ends before that is not worth a process."""

_WAIT = 'read -r _ || exec "$@"'


class Guard:
    """Of one build of this store, by its name."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._tie: Tie | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def need(self) -> None:
        """A program is about to run. More than once is no error, and does nothing."""
        with self._lock:
            if self._timer is None:
                self._timer = threading.Timer(LATER, self._start)
                self._timer.daemon = True
                with suppress(RuntimeError):  # no thread is to be had: then the next build does it
                    self._timer.start()

    def _start(self) -> None:
        source = str(Path(layerstore.__file__).parents[1])
        path = os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH"))))
        config = self._store.config
        told = [sys.executable, "-m", __name__, str(config.data_root), str(config.exec_root), self._name]
        with suppress(OSError):  # no descriptor or process is to be had: then the next build does it
            self._tie = Tie()
            with self._tie.other() as end:
                self._process = subprocess.Popen(
                    ["sh", "-c", _WAIT, "sh", *told],
                    stdin=end,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env={**os.environ, "PYTHONPATH": path},
                    cwd="/",
                    start_new_session=True,
                )

    def close(self) -> None:
        """The build has come to its own end."""
        if self._timer is not None:
            self._timer.cancel()
            if self._timer.ident is not None:
                self._timer.join()
        if self._tie is not None:
            self._tie.close(b"\n")
        if self._process is not None:
            self._process.wait()


def main(data_root: str, exec_root: str, name: str) -> None:
    """Put in order what a build has left that was killed."""
    from layerstore.build.steps.session import put_in_order

    if not Path(data_root, "layerstore.db").exists():
        return  # the store has gone meanwhile, or its disk: it is not to be founded anew
    config = layerstore.Config(data_root=Path(data_root), exec_root=Path(exec_root))
    with suppress(LayerstoreError), layerstore.open(config=config) as store:
        put_in_order(store, name)


if __name__ == "__main__":
    main(*sys.argv[1:])
