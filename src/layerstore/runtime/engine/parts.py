"""A part of a container's cgroups, for one program that is executed in it: whatever that starts is found there.

By number, group or session it is not: a shell's children go on when the shell is killed, and may have sessions of their
own. Engines put a program into a cgroup below the container's (`exec --cgroup`), before it begins.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from layerstore.runtime.engine import cgroups
from layerstore.runtime.engine.verbs import Verbs
from layerstore.values import frozen

__all__ = ["Part", "part_for"]

_TRIES = 100
"""Rounds in which what is forked meanwhile is moved, too."""


@frozen
class Part:
    """Cgroups of one name, below those of a container. `words`: by which the engine is told of them."""

    words: tuple[str, ...] = ()
    _path: str = ""
    _within: str = ""

    def end(self) -> None:
        """Kill all that is in it."""
        if self._path:
            cgroups.remove(self._path, within=self._within)


@contextmanager
def part_for(verbs: Verbs, path: str, name: str, *, within: str) -> Iterator[Part]:
    """While inside, there is a part `name` of the cgroups at `path`; what is in it at the end goes back to the whole.

    `within`: a part that the path must have. Without cgroups of its own, or an engine that knows of parts, it is none.
    """
    wholes = cgroups.folders_of(path, within=within) if _is_known(verbs.engine.path, verbs.engine.args) else []
    if not wholes:
        yield Part()
        return
    version = cgroups.hierarchy().version
    is_crun = os.path.basename(verbs.engine.path) == "crun"
    if version == 1 and not is_crun:
        # runc takes one of a controller and leaves the others as they are; crun wants all of them.
        wholes = wholes[:1]
        words = f"{cgroups.hierarchy_of(wholes[0])}:{name}"
    else:
        words = name
    try:
        for whole in wholes:
            _make(whole, name)
        yield Part(("--cgroup", words), f"{path}/{name}", within)
    finally:
        for whole in wholes:
            _give_back(whole, name)


def _make(whole: Path, name: str) -> None:
    part = whole / name
    with suppress(FileNotFoundError):  # the container has ended
        part.mkdir(exist_ok=True)
        for setting in ("cpuset.mems", "cpuset.cpus"):  # of version 1, empty at first: nobody may be in it
            if (whole / setting).exists() and not (part / "cgroup.controllers").exists():
                (part / setting).write_text((whole / setting).read_text())


def _give_back(whole: Path, name: str) -> None:
    part = whole / name
    for _ in range(_TRIES):
        for pid in cgroups.processes_in(part):
            with suppress(OSError):  # it has ended, or the container has
                (whole / "cgroup.procs").write_text(str(pid))
        try:
            part.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            continue
        return


@cache
def _is_known(engine: str, args: tuple[str, ...]) -> bool:
    """Can an engine put a program into a part of a container's cgroups? (crun from 1.2, runc from 1.1.)"""
    from subprocess import DEVNULL, TimeoutExpired, run

    try:
        told = run([engine, *args, "exec", "--help"], stdin=DEVNULL, capture_output=True, timeout=10)
    except (OSError, TimeoutExpired):
        return False
    return b"--cgroup" in told.stdout + told.stderr
