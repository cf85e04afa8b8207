"""Rooms: processes that run and time commands, so that what is timed does not depend on who asks.

A room has a mount namespace of its own. In one that hides the hybrid hierarchy no cgroup2 is mounted beside version 1:
crun refuses that mixture, and neither podman nor a bare bundle can do anything about it.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Self

from attrs import frozen

from benchmarks.bench import run

_CLONE_NEWNS = 0x00020000
_MNT_DETACH = 2
_CGROUPS = Path("/sys/fs/cgroup")
_HYBRID = _CGROUPS / "unified"
_PARENTS = ("libpod_parent/conmon", "libpod_parent", "docker")


class Room:
    """One such process. It is forked, so it has the mounts that its maker has at that moment."""

    def __init__(self, *, hide_hybrid: bool) -> None:
        fork = multiprocessing.get_context("fork")
        self._pipe, theirs = fork.Pipe()
        self._process = fork.Process(target=_serve, args=(theirs,), kwargs={"hide_hybrid": hide_hybrid}, daemon=True)

    def timed(self, *command: str | Path) -> float:
        """Seconds until the command has ended; whoever fails ends the benchmark with its own words."""
        words = [os.fspath(word) for word in command]
        self._pipe.send(words)
        seconds, code, said = self._pipe.recv()
        if code != 0:
            sys.exit(f"{' '.join(words)}\nfailed with {code}: {said.strip()}")
        return float(seconds)

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipe.send(None)
        self._process.join()


def _serve(pipe: Connection, *, hide_hybrid: bool) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "no mount namespace")
    if hide_hybrid and os.path.ismount(_HYBRID):
        libc.umount2(os.fsencode(_HYBRID), _MNT_DETACH)
    while (words := pipe.recv()) is not None:
        # Into files: a pipe would be waited for until whoever inherited it, a monitor, has ended.
        with open(os.memfd_create("said"), "w+b") as said:
            start = time.perf_counter()
            done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=said, stderr=said, check=False)
            taken = time.perf_counter() - start
            said.seek(0)
            pipe.send((taken, done.returncode, said.read().decode(errors="replace")))


@frozen
class Rooms:
    """A room of each kind. `homes` are empty folders; `run` in each is on a tmpfs, as /run is on most machines."""

    homes: tuple[Path, ...]
    hidden: Room
    seen: Room

    def room(self, *, bears_hybrid: bool) -> Room:
        """What crun cannot bear is out of sight of those who cannot hide it: see docs/run.md."""
        return self.seen if bears_hybrid else self.hidden


@contextmanager
def open_rooms(place: Path, homes: int) -> Iterator[Rooms]:
    """While inside: the rooms, and so many homes below `place`."""
    made = tuple(place / str(number) for number in range(homes))
    for home in made:
        (home / "run").mkdir(parents=True)
        run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", home / "run")
    with Room(hide_hybrid=True) as hidden, Room(hide_hybrid=False) as seen:
        yield Rooms(made, hidden, seen)


@contextmanager
def cgroups_given_back() -> Iterator[None]:
    """Remove the folders that podman and docker leave among the control groups, if they were not there before."""
    places = [folder / name for folder in _CGROUPS.iterdir() for name in _PARENTS]
    before = {place for place in places if place.exists()}
    try:
        yield
    finally:
        for place in places:
            if place not in before:
                try:
                    place.rmdir()
                except OSError:
                    pass  # somebody else's, by now, or never made
