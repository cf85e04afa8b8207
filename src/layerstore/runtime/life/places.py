"""Where the files of running containers lie, and the locks that order what happens to each.

`<exec-root>/<store>/<boot>/<container>/` is a bundle, and all that conmon and an engine put beside it. Beside that,
`engines/<name>/` is the state of an engine, `filters/` what engines have made of seccomp profiles. None of it means
anything in another boot. What outlives a boot is in `<data-root>/containers/<container>/`: the log.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from layerstore import KernelError, Store, read_own
from layerstore.runtime.engine import Engine, Verbs, cgroups
from layerstore.runtime.engine.conmon import Place
from layerstore.runtime.life.processes import ProcessId, boot, process_of
from layerstore.values import frozen

__all__ = ["Folder", "Places"]


@frozen
class Folder:
    """The files of one container. `name` is by what an engine knows it."""

    path: Path
    kept: Path
    name: str

    @property
    def place(self) -> Place:
        """What conmon is told, and tells."""
        return Place(self.path, self.log)

    @property
    def log(self) -> Path:
        """What its program has written, in the form `k8s-file`."""
        return self.kept / "container.log"

    @property
    def root(self) -> Path:
        """Where its tree is, in the mount namespace of those who run it."""
        return self.path / "rootfs"

    @property
    def config(self) -> Path:
        """The bundle's config.json; without variables, if the whole one is in `memory`."""
        return self.path / "config.json"

    @property
    def memory(self) -> Path:
        """Where its engine sees what must be on no disk, if there is such: a whole bundle, and the engine's state."""
        return self.path / "memory"

    @property
    def engine(self) -> Path:
        """Which engine the bundle was made for, as JSON: name, path, arguments."""
        return self.path / "engine.json"

    @property
    def network(self) -> Path:
        """What connects it, if a program does, as JSON: see `connecting`."""
        return self.path / "network.json"

    @property
    def pasta(self) -> Path:
        """The number of the process that connects it, as pasta writes it."""
        return self.path / "pasta.pid"

    @property
    def files(self) -> Path:
        """The folder of what is mounted at its /etc/hosts, /etc/hostname and /etc/resolv.conf."""
        return self.path / "etc"

    def cgroup(self) -> str:
        """The path of its cgroup, as its bundle says; "" if it says none."""
        try:
            config = json.loads(read_own(self.config))
            return str(config["linux"].get("cgroupsPath", ""))
        except (FileNotFoundError, ValueError, KeyError):
            return ""

    def init(self) -> ProcessId | None:
        """Its first process, as the engine wrote it down, if that lives.

        Numbers are used again; but no other process is in a cgroup of that name.
        """
        try:
            text = read_own(self.place.pid).decode().strip()
        except FileNotFoundError:
            return None
        found = process_of(int(text)) if text.isdecimal() else None
        return found if found is not None and cgroups.is_within(found.pid, self.name) else None

    def make(self) -> None:
        """Make the folder, empty, for its owner alone."""
        with _named("mkdir", self.path):
            remove_folder(self.path)
            self.path.mkdir(mode=0o700, parents=True)
            self.root.mkdir(mode=0o755)

    def remove(self) -> None:
        """Remove it, but for what outlives a boot."""
        remove_folder(self.path)

    def remove_kept(self) -> None:
        """Remove what outlives a boot."""
        remove_folder(self.kept)

    def make_kept(self) -> None:
        """Make the folder of what outlives a reboot."""
        with _named("mkdir", self.kept):
            self.kept.mkdir(mode=0o700, parents=True, exist_ok=True)


class Places:
    """The folders and locks of one store's running containers."""

    def __init__(self, store: Store) -> None:
        self.above = store.config.exec_root / store.id[:12]
        """Has a folder for each boot."""
        self.root = self.above / boot()[:8]
        self.kept = store.data_root / "containers"

    def folder(self, container: str, part: str = "") -> Folder:
        """The files of a container; `part` tells apart the programs that run in one at the same time."""
        name = f"{container}-{part}" if part else container
        return Folder(self.root / name, self.kept / container, name)

    def verbs(self, folder: Folder) -> Verbs | None:
        """The commands of the engine that a container's folder was made for; None if there is no such folder."""
        try:
            name, path, args = json.loads(read_own(folder.engine))
        except (FileNotFoundError, ValueError):
            return None
        return Verbs(Engine(name, path, tuple(args)), self.engine_root(name))

    def engine_root(self, engine: str) -> Path:
        """Where an engine keeps its state."""
        return self.root / "engines" / engine

    @property
    def filters(self) -> Path:
        """Where seccomp filters are kept that an engine has made."""
        return self.root / "filters"

    def all(self) -> list[str]:
        """The names of the folders that there are."""
        return [name for name in _names(self.root) if name not in ("engines", "filters", "locks")]

    def all_kept(self) -> list[str]:
        """The same, of what outlives a reboot."""
        return _names(self.kept)

    @contextmanager
    def lock(self, container: str) -> Iterator[None]:
        """While inside, nobody else starts, settles or removes this container. Waits for it; dies with its holder."""
        with self._locked(container, fcntl.F_OFD_SETLKW) as _:
            yield

    @contextmanager
    def lock_at_once(self, container: str) -> Iterator[bool]:
        """The same without waiting: False if somebody has it."""
        with self._locked(container, fcntl.F_OFD_SETLK) as is_free:
            yield is_free

    @contextmanager
    def _locked(self, container: str, command: int) -> Iterator[bool]:
        with _named("open", self.root / "locks"):
            try:
                fd = self._lock_file()
            except FileNotFoundError:
                self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
                fd = self._lock_file()
        try:
            yield _take(fd, int(container[:15], 16), command)
        finally:
            os.close(fd)

    def _lock_file(self) -> int:
        return os.open(self.root / "locks", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def remove_folder(path: Path) -> None:
    """Remove a folder with all in it. No error if it is not there, or is made anew meanwhile."""
    with suppress(OSError):
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    remove_folder(Path(entry.path))
                else:
                    with suppress(OSError):
                        os.unlink(entry.path)
        os.rmdir(path)


def _names(folder: Path) -> list[str]:
    with _named("open", folder):
        try:
            return os.listdir(folder)
        except FileNotFoundError:
            return []


def _take(fd: int, slot: int, command: int) -> bool:
    from struct import pack

    try:
        fcntl.fcntl(fd, command, pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, slot, 1, 0))
    except (BlockingIOError, PermissionError):
        return False
    return True


@contextmanager
def _named(call: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise KernelError(call, error.errno or 0, path=error.filename or path) from error
