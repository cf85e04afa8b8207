"""The holder of a store's lazy layers, as everybody else sees it: asked to watch, and started where there is none.

It is a process of its own (`layerstore.holding`), and only one at a time: a file, `lock`, is locked as long as it or
its fetcher lives, and has a byte for as long as neither has ended in order. If it has one and nobody has the lock, both
were killed: whoever had a lazy layer mounted may have read zeros. All of it lies in the home's folder `.lazy`.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from layerstore.errors import LayerstoreError, named
from layerstore.layers.orphans import FOLDER, LOCK, free_lock, is_orphaned

if TYPE_CHECKING:
    from layerstore.config import Config

__all__ = ["SOCKET", "Holder", "at_socket"]

SOCKET, LOG = "socket", "log"
_START = "start"

_PATIENCE: Final = 30.0
"""Seconds for which a holder is waited for that is being started, or replaced by its fetcher."""
_AT_ONCE: Final = 32
"""Folders in one message."""
_LARGEST: Final = 64 << 10
_PROGRAM: Final = "layerstore.holding"


class Holder:
    """The holder of the store with this `home`. `end_poisoned` ends what may have read zeros.

    `still_lazy`: those of some folders whose layers may lack something; the others look so no more.
    """

    def __init__(
        self,
        home: Path,
        config: Config,
        patience: float,
        end_poisoned: Callable[[], object],
        still_lazy: Callable[[Sequence[Path]], Sequence[Path]],
    ) -> None:
        self._home = home
        self._config = config
        self._patience = patience
        self._end_poisoned = end_poisoned
        self._still_lazy = still_lazy

    def watch(self, folders: Sequence[Path]) -> None:
        """Have these folders' tars watched from here on. Raises `LayerstoreError`, `KernelError`."""
        lazy = self._still_lazy(folders)
        for at in range(0, len(lazy), _AT_ONCE):
            self._ask({"watch": [str(folder) for folder in lazy[at : at + _AT_ONCE]]})

    def begin(self) -> None:
        """Have one that waits for layers, if there is none: what is going to be watched is then watched sooner."""
        import socket

        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
                at_socket(self._home, asking.connect)
        except (FileNotFoundError, ConnectionError):
            self._start()

    @contextmanager
    def recorded(self, folders: Sequence[Path], file: int) -> Iterator[Callable[[], bool]]:
        """While inside, what is read of these folders' tars is written into `file`: see `holding.recording`.

        A line's first number is that of the folder. Nothing comes but what is read. What is yielded tells whether all
        was written so far: no, where the holder was killed. Raises `LayerstoreError`, `KernelError`.
        """
        import socket

        self.watch(folders)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
            at_socket(self._home, asking.connect)
            words = json.dumps({"record": [str(folder) for folder in folders]}).encode()
            socket.send_fds(asking, [words], [file])
            answer = json.loads(asking.recv(_LARGEST) or b'{"error": "who watches lazy layers has ended"}')
            if answer.get("error"):
                raise LayerstoreError(answer["error"], remedy=answer.get("remedy"))
            asking.setblocking(False)

            def is_whole() -> bool:
                try:
                    return bool(asking.recv(1))
                except BlockingIOError:
                    return True
                except OSError:
                    return False

            yield is_whole

    def make_whole(self, folder: Path) -> None:
        """Wait until all of a layer is there, or it is known that it does not come. Raises the same."""
        if self._still_lazy([folder]):
            self._ask({"whole": str(folder)})

    def recover(self) -> None:
        """Where a holder was killed together with its fetcher: end what may have read zeros."""
        if not is_orphaned(self._home):
            return
        with self._starting() as place:
            if is_orphaned(self._home):
                self._end_poisoned()
                with named("truncate", place / LOCK):
                    os.truncate(place / LOCK, 0)

    def _ask(self, wish: dict[str, Any]) -> None:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                answer = self._answer(wish)
            except (FileNotFoundError, ConnectionError):
                answer = None
            if answer is not None:
                if answer.get("error"):
                    raise LayerstoreError(answer["error"], remedy=answer.get("remedy"))
                return
            if time.monotonic() > deadline:
                raise LayerstoreError(
                    "who watches the lazy layers of this store does not answer",
                    remedy=f"See {self._home / FOLDER / LOG}.",
                )
            self._start()

    def _answer(self, wish: dict[str, Any]) -> dict[str, Any] | None:
        """What the holder says; None if it ended instead."""
        import socket

        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
            at_socket(self._home, asking.connect)
            asking.send(json.dumps(wish).encode())
            said = asking.recv(_LARGEST)
        return json.loads(said) if said else None

    # --- starting one

    @contextmanager
    def _starting(self) -> Iterator[Path]:
        """While inside, nobody else starts a holder. Yields the folder."""
        place = self._home / FOLDER
        with named("open", place):
            place.mkdir(mode=0o700, exist_ok=True)
            fd = os.open(place / _START, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield place
        finally:
            os.close(fd)

    def _start(self) -> None:
        with self._starting() as place:
            lock = free_lock(place)
            if lock is None:  # there is one, which begins or is about to end, or its fetcher takes its place
                time.sleep(0.02)
                return
            try:
                if os.fstat(lock).st_size:
                    self._end_poisoned()
                    os.ftruncate(lock, 0)
            finally:
                os.close(lock)
            self._spawn(place)

    def _spawn(self, place: Path) -> None:
        """It is ready when the program that was started has ended: it leaves another behind."""
        import pickle
        import subprocess

        given = pickle.dumps((str(self._home), self._config, self._patience))
        words = [sys.executable, "-P", "-m", _PROGRAM]
        done = subprocess.run(words, input=given, capture_output=True, cwd="/", check=False)
        if done.returncode:
            text = done.stderr.decode(errors="replace").strip().splitlines()
            raise LayerstoreError(
                f"who watches lazy layers could not be started: {text[-1] if text else done.returncode}",
                remedy=f"See {place / LOG}.",
            )


def at_socket(home: Path, deed: Callable[[str], object]) -> None:
    """Do something with the name of the holder's socket, which is short whatever the home is called."""
    folder = os.open(home / FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deed(f"/proc/self/fd/{folder}/{SOCKET}")
    finally:
        with suppress(OSError):
            os.close(folder)
