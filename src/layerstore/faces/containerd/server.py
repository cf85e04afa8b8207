"""Where the service listens: a socket of the filesystem, for root alone, since whoever speaks to it may do as root."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import grpc

from layerstore.errors import ConfigError, InUse, KernelError, named
from layerstore.faces.containerd.comparer import ADDRESS, Comparer
from layerstore.faces.containerd.differ import ROOT, Differ
from layerstore.faces.containerd.service import handlers

if TYPE_CHECKING:
    from layerstore import Store

__all__ = ["Server"]

_THREADS: Final = 16
_GRACE: Final = 10.0
"""Seconds for which calls may go on when the server is to end."""
_LONGEST: Final = 107
"""Bytes in the path of a socket (unix(7), sun_path)."""


class Server:
    """The snapshotter of one store, on one socket, from `with` on. Threads answer."""

    def __init__(self, store: Store, address: Path, root: Path = ROOT, containerd: Path = ADDRESS) -> None:
        """`address`: the socket's path; `root`: where containerd's content lies; `containerd`: its own socket.

        Raises `ConfigError`, `KernelError`; entering it, `InUse`.
        """
        self.address = address.absolute()
        if len(os.fsencode(self.address)) > _LONGEST:
            raise ConfigError(
                f"the path of a socket has {_LONGEST} bytes at most: {self.address}", remedy="Take a shorter one."
            )
        self._store = store
        self._root = root
        self._containerd = containerd
        self.owner = hashlib.sha256(f"{store.id} {self.address}".encode()).hexdigest()[:16]
        """Whose the half-written content is that a server of this store, on this socket, leaves: one at a time."""
        self._last = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            if not undo.enter_context(self._store.lock(f"containerd {self.address}", wait=False)):
                raise self._in_use("another snapshotter of this store")
            self._make_way()
            undo.callback(self.address.unlink, missing_ok=True)
            pool = undo.enter_context(ThreadPoolExecutor(_THREADS, thread_name_prefix="layerstore-containerd"))
            differ = Differ(self._store, self._root)
            differ.end_leases()
            comparer = Comparer(self._store, differ, self._containerd, self.owner)
            server = grpc.server(pool, handlers=handlers(self._store, differ, comparer))
            with _for_root_alone():
                self._bind(server)
            server.start()
            undo.callback(lambda: server.stop(_GRACE).wait())
            self._last = undo.pop_all()
        return self

    def _make_way(self) -> None:
        """Make the socket's folder, and take away what a dead process has left: a socket on which nobody listens."""
        with named("mkdir", self.address.parent):
            self.address.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        with named("connect", self.address), socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(os.fspath(self.address))
            except FileNotFoundError:
                return
            except ConnectionRefusedError:
                if not stat.S_ISSOCK(os.lstat(self.address).st_mode):
                    raise ConfigError(f"{self.address} is no socket", remedy="Take another --address.") from None
                self.address.unlink()
                return
        raise self._in_use("somebody")

    def _in_use(self, who: str) -> InUse:
        return InUse(
            f"{who} listens on {self.address}",
            holders=[str(self.address)],
            remedy="End that, or take another --address.",
        )

    def _bind(self, server: grpc.Server) -> None:
        try:
            port = server.add_insecure_port(f"unix:{self.address}")
        except RuntimeError as error:
            raise KernelError("bind", 0, path=self.address, detail=str(error)) from error
        if not port:
            raise KernelError("bind", 0, path=self.address)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._last.close()


@contextmanager
def _for_root_alone() -> Iterator[None]:
    """While inside, what is made can be used by its owner alone."""
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)
