"""This process's own folder in `staging/`, where everything is made before it is whole and deleted after it is gone.

The folder is locked with flock for as long as the process lives. The kernel drops the lock with the process, however it
dies, so a folder that can be locked belongs to the dead: no process number and no clock is asked. Every key of a layer
begins with the name of the session that made it, so that what lies in a home without a row is known to be garbage, or
still in the hands of somebody alive.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue

from layerstore.driver import LayerKey
from layerstore.errors import FULL, KernelError, LayerstoreError, StoreClosed, named
from layerstore.kernel.files import remove_tree
from layerstore.kernel.files.reserve import Reserve

NAME_LENGTH = 8
"""Hex digits of a session's name, and of the part of a layer key that says who made it."""

_SPARE = ".spare"
"""In `staging/`: the empty folder of a session that is over, for one that finds no room to make its own."""

_swept: set[Path] = set()
"""Folders of the dead whose locks are ours, for the time being."""

_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


class Session:
    """The staging folder of one open store. Made when it is first needed; thread-safe."""

    def __init__(self, staging: Path, reserve: Reserve | None = None) -> None:
        """`reserve` is given up when there is no room for the folder."""
        self.staging = staging
        self._reserve = reserve
        self._lock = threading.Lock()
        self._name: str | None = None
        self._fd = -1
        self._closed = False
        self._stays = False
        self._doomed: SimpleQueue[Path | None] = SimpleQueue()
        self._idle = threading.Condition()
        self._waiting = 0
        """What was discarded and is not deleted yet."""
        self._remover: threading.Thread | None = None
        _sessions.add(self)

    @property
    def name(self) -> str:
        """The session's name: its folder's, and the beginning of the keys it makes."""
        if self._closed or self._name is None:
            with self._lock:
                if self._closed:
                    raise StoreClosed("the store is closed, or was opened before a fork")
                if self._name is None:
                    name, self._fd = _begin(self.staging, self._reserve)
                    self._folder = self.staging / name
                    self._name = name  # last: whoever sees it uses the folder, without the lock
        return self._name

    @property
    def closed(self) -> bool:
        """Is it over, or that of the process that this one was forked from?"""
        return self._closed

    @property
    def begun(self) -> bool:
        """Was the folder ever needed?"""
        return self._name is not None

    @property
    def folder(self) -> Path:
        """The folder itself. Exists."""
        if self._closed or self._name is None:
            return self.staging / self.name
        return self._folder

    def begin(self) -> None:
        """Have the folder: if this process dies, the next `open` puts the store in order."""
        _ = self.name

    def stay(self) -> None:
        """Leave the folder behind when the store is closed, as a dead process does: for the next `open` to find."""
        self._stays = True
        with suppress(LayerstoreError, MemoryError):
            self.begin()

    def new_key(self) -> LayerKey:
        """A fresh name for a layer."""
        return LayerKey(self.name + os.urandom(16 - NAME_LENGTH // 2).hex())

    def discard(self, path: Path) -> None:
        """Delete `path`, which lies in this session's folder, later and in the background."""
        with self._idle:
            self._waiting += 1
        self._doomed.put(path)
        if self._remover is None:
            with self._lock:
                if self._remover is None:
                    self._remover = threading.Thread(target=self._remove, name="layerstore-remover", daemon=True)
                    self._remover.start()

    def discard_all(self, key: str) -> None:
        """The same of all that is called `key` there, or begins with it and a dot or dash, as drivers name parts."""
        folder = self.folder
        with named("open", folder):
            names = os.listdir(folder)
        for name in names:
            if name.startswith(key) and name[len(key) : len(key) + 1] in ("", ".", "-"):
                self.discard(folder / name)

    def wait(self) -> None:
        """Wait until what was discarded is deleted, as far as it can be."""
        with self._idle:
            self._idle.wait_for(lambda: not self._waiting or self._closed)

    def _remove(self) -> None:
        while (path := self._doomed.get()) is not None:
            try:
                remove_tree(path)
            except (KernelError, MemoryError):
                pass  # `close` tries again, and says so; else the next `open` does
            finally:
                with self._idle:
                    self._waiting -= 1
                    self._idle.notify_all()

    def close(self) -> None:
        """Wait for what is being deleted, and leave no folder behind."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        with self._idle:
            self._idle.notify_all()
        if self._remover is not None:
            self._doomed.put(None)
            self._remover.join()
        if self._name is not None:
            try:
                if not self._stays:
                    _leave_spare(self.staging, self._name)
            finally:
                self._let_go()

    def _let_go(self) -> None:
        """Close the folder's descriptor, once: its number may soon be another file's."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _forget(self) -> None:
        """After a fork, in the child: the folder is the parent's, and its lock must end with the parent."""
        self._closed = True
        self._let_go()


def is_alive(staging: Path, name: str) -> bool:
    """Is there a process whose session this is?"""
    if staging / name in _swept:
        return False
    fd = _lock(staging / name)
    if fd is not None and fd >= 0:
        os.close(fd)
    return fd is None


@contextmanager
def dead(staging: Path) -> Iterator[list[str]]:
    """The sessions whose process is gone. Nobody else sweeps them meanwhile."""
    taken: dict[str, int] = {}
    try:
        for name in os.listdir(staging):
            if name == _SPARE:
                continue
            fd = _lock(staging / name)
            if fd is not None and fd >= 0:
                taken[name] = fd
                _swept.add(staging / name)
        yield list(taken)
    finally:
        for name, fd in taken.items():
            _swept.discard(staging / name)
            os.close(fd)


def remove(staging: Path, names: Iterable[str]) -> None:
    """Remove the folders of sessions that the caller found dead, and whose locks it holds."""
    for name in names:
        remove_tree(staging / name)


def _begin(staging: Path, reserve: Reserve | None) -> tuple[str, int]:
    while True:
        name = os.urandom(NAME_LENGTH // 2).hex()
        folder = staging / name
        with named("mkdir", folder):
            try:
                folder.mkdir(mode=0o700)
            except FileExistsError:
                continue
            except OSError as error:
                if reserve is not None and reserve.gives_way(error):
                    continue
                fd = _take_spare(staging, folder) if error.errno in FULL else None
                if fd is not None:
                    return name, fd
                raise
        # Between the two calls another process may take the folder for a dead one's and remove it: then another name.
        fd = _lock(folder)
        if fd is not None and fd >= 0 and _is_at(fd, folder):
            return name, fd


def _take_spare(staging: Path, folder: Path) -> int | None:
    """Make the spare folder a session's own; its locked descriptor, or None if there is none to be had."""
    fd = _lock(staging / _SPARE)
    if fd is None or fd < 0:
        return None
    try:
        os.rename(staging / _SPARE, folder)
    except OSError as error:
        os.close(fd)
        if not isinstance(error, FileNotFoundError):
            raise
        return None  # another process was faster
    return fd if _is_at(fd, folder) else None


def _is_at(fd: int, folder: Path) -> bool:
    """Is it this folder that is open? If not, or if nobody can say, it is closed."""
    try:
        with named("stat", folder):
            try:
                if os.stat(folder).st_ino == os.fstat(fd).st_ino:
                    return True
            except FileNotFoundError:
                pass
    except KernelError:
        os.close(fd)
        raise
    os.close(fd)
    return False


def _leave_spare(staging: Path, name: str) -> None:
    """Empty a session's folder, and make it the spare one, which takes no room; one that is there goes."""
    folder = staging / name
    with named("open", folder):
        names = os.listdir(folder)
    for inner in names:
        remove_tree(folder / inner)
    try:
        os.rename(folder, staging / _SPARE)
    except OSError:
        remove_tree(folder)


def _lock(folder: Path) -> int | None:
    """A locked descriptor of `folder`; None if another process has it, -1 if there is no such folder."""
    with named("open", folder):
        try:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return -1
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except OSError as error:
        os.close(fd)
        raise KernelError("flock", error.errno or errno.EIO, path=folder) from error
    return fd


def _forget_all() -> None:
    for session in list(_sessions):
        session._forget()


os.register_at_fork(after_in_child=_forget_all)
