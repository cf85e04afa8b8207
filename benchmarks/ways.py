"""Ways to get a tree back as it was: files are changed, kept as they are, gone back to, and begun from once more.

All change the same files in the same way, by a shell in the tree itself. What is timed is until the call or the command
returns; what a sync afterwards still finds to do is timed apart, since not everybody syncs.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from benchmarks.bench import dockerd, run
from benchmarks.rooms import Room

SCRIPT = (
    "find /src /usr -type f -size -16k 2>/dev/null | head -n {files} >/tmp/list; xargs rm </tmp/list;"
    ' while read -r file; do echo changed >"$file"; done </tmp/list'
)
"""Replaces so many files of the image. (Appending would have overlay copy each of them up, and sync each by itself.)"""


def change(root: Path, files: int) -> None:
    """Change files of a tree that is mounted."""
    subprocess.run(["chroot", root, "/bin/sh", "-c", SCRIPT.format(files=files)], check=True)


def synced(place: Path) -> float:
    """Seconds of a syncfs of the filesystem, now."""
    start = time.perf_counter()
    run("sync", "-f", place)
    return time.perf_counter() - start


def clocked(start: float) -> float:
    """Seconds since."""
    return time.perf_counter() - start


class Way(ABC):
    """One way, with all it needs in `home`, and the image's layers as tars, bottom to top."""

    title: ClassVar[str]
    filesystem: ClassVar[str] = "ext4"
    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, home: Path, archive: Path, layers: list[Path]) -> None:
        self.home = home
        self.archive = archive
        self.layers = layers

    @contextmanager
    def ready(self) -> Iterator[None]:
        """While inside: the image is there. Untimed."""
        yield

    @abstractmethod
    def begin(self, files: int) -> None:
        """One container or tree with so many files changed. Untimed."""

    @abstractmethod
    def checkpoint(self) -> float:
        """Seconds to keep how it is."""

    @abstractmethod
    def rollback(self, files: int) -> float:
        """Change as many files again, untimed, and go back: the seconds of that."""

    @abstractmethod
    def fork(self) -> float:
        """Seconds to have one more that begins there."""

    @abstractmethod
    def end(self) -> None:
        """All away but the image. Untimed."""


class Tar(Way):
    """What one does without any store: the tree packed, removed and unpacked."""

    title = "tar, whole tree"

    def begin(self, files: int) -> None:
        self.tree, self.kept = self.home / "tree", self.home / "kept.tar"
        self.tree.mkdir()
        for layer in self.layers:
            run("tar", "-xf", layer, "-C", self.tree)
        change(self.tree, files)

    def checkpoint(self) -> float:
        start = time.perf_counter()
        run("tar", "-cf", self.kept, "-C", self.tree, ".")
        return clocked(start)

    def rollback(self, files: int) -> float:
        change(self.tree, files)
        start = time.perf_counter()
        run("rm", "-rf", self.tree)
        self._unpack(self.tree)
        return clocked(start)

    def fork(self) -> float:
        start = time.perf_counter()
        self._unpack(self.home / "fork")
        return clocked(start)

    def _unpack(self, tree: Path) -> None:
        tree.mkdir()
        run("tar", "-xf", self.kept, "-C", tree)

    def end(self) -> None:
        for tree in (self.tree, self.home / "fork"):
            shutil.rmtree(tree, ignore_errors=True)
        self.kept.unlink(missing_ok=True)


class Reflinks(Tar):
    """The same by copies that share their blocks."""

    title = "cp -a --reflink, xfs"
    filesystem = "xfs"

    def checkpoint(self) -> float:
        start = time.perf_counter()
        self._copy(self.tree, self.home / "kept")
        return clocked(start)

    def _unpack(self, tree: Path) -> None:
        self._copy(self.home / "kept", tree)

    def _copy(self, source: Path, target: Path) -> None:
        run("cp", "-a", "--reflink=always", source, target)

    def end(self) -> None:
        super().end()
        shutil.rmtree(self.home / "kept", ignore_errors=True)


class Engine(Way):
    """A container tool: commit for a checkpoint, a new container from that for going back and for a fork."""

    image: ClassVar[str] = "lab/manyfiles:latest"
    options: ClassVar[tuple[str, ...]] = ("--network", "host")

    @contextmanager
    def ready(self) -> Iterator[None]:
        with Room(hide_hybrid=True) as self.room:
            self.timed("load", "-q", "-i", self.archive)
            yield

    @abstractmethod
    def command(self, *words: str | Path) -> list[str]:
        """The command line."""

    def timed(self, *words: str | Path) -> float:
        return self.room.timed(*self.command(*words))

    def begin(self, files: int) -> None:
        script = SCRIPT.format(files=files)
        self.timed("run", "--name", "box", *self.options, self.image, "/bin/sh", "-c", script)

    def checkpoint(self) -> float:
        return self.timed("commit", "box", "kept:1")

    def rollback(self, files: int) -> float:
        # What was changed since has to be thrown away with its container.
        script = SCRIPT.format(files=files)
        self.timed("run", "--name", "later", *self.options, "kept:1", "/bin/sh", "-c", script)
        removed = self.timed("rm", "-f", "later")
        made = self.timed("create", "--name", "back", *self.options, "kept:1", "true")
        return removed + made

    def fork(self) -> float:
        return self.timed("create", "--name", "fork", *self.options, "kept:1", "true")

    def end(self) -> None:
        self.timed("rm", "-f", "box", "back", "fork")
        self.timed("rmi", "-f", "kept:1")


class Docker(Engine):
    title = "docker commit, create; overlay2"
    needs = ("docker", "dockerd", "runc")

    @contextmanager
    def ready(self) -> Iterator[None]:
        with dockerd(self.home), super().ready():
            yield

    def command(self, *words: str | Path) -> list[str]:
        return ["docker", "--host", f"unix://{self.home}/socket", *map(str, words)]


class Podman(Engine):
    title = "podman commit, create; overlay"
    needs = ("podman", "crun", "conmon")
    options = ("--network", "host", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")

    def command(self, *words: str | Path) -> list[str]:
        places = [f"--root={self.home}/root", f"--runroot={self.home}/run", "--storage-driver=overlay"]
        return ["podman", *places, "--cgroup-manager=cgroupfs", "--runtime=crun", *map(str, words)]

    def checkpoint(self) -> float:
        return self.timed("commit", "-q", "box", "kept:1")
