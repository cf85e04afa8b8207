"""Mount points that a container's tree lacks: made before a program is started in it, taken away after its end.

What is going to be made is written down first, where it outlives a boot, so that it goes whatever ends in between.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from layerstore import Checkpoint, Container, KernelError, Mounted, read_own
from layerstore.runtime.bundle import Trace, erase_traces, make_traces
from layerstore.runtime.life.places import Folder

__all__ = ["are_left", "erase", "erase_copied", "in_checkpoint", "known", "made", "remember"]

_NAME = "traces.json"

_IN_CHECKPOINTS = "traces-{}.json"
"""Of one checkpoint, by the moment in which it was made: a label may be used again."""

_PATIENCE = 5.0
"""Seconds for which a mount may be busy."""


@contextmanager
def made(container: Container, folder: Folder, traces: Sequence[Trace]) -> Iterator[None]:
    """While inside, the mount points are there and the container is mounted: what is launched then sees them."""
    if not traces:
        yield
        return
    folder.make_kept()
    all_of_them = dict.fromkeys((*known(folder), *traces))
    _write(folder.kept / _NAME, all_of_them)
    with _mounted(container) as tree:
        make_traces(tree, traces)
        yield


def are_left(folder: Folder) -> bool:
    """Is there something to be taken away?"""
    return (folder.kept / _NAME).exists()


def erase(container: Container, folder: Folder) -> None:
    """Take away what was made in a container. While a program runs in it, that would take its mounts from it: later."""
    if not are_left(folder) or container.processes():
        return
    with _mounted(container) as tree:
        erase_traces(tree, known(folder))
    (folder.kept / _NAME).unlink(missing_ok=True)
    with suppress(OSError):  # a log is in it, or what is remembered of a checkpoint
        folder.kept.rmdir()


def known(folder: Folder) -> tuple[Trace, ...]:
    """What was made in a container, and has not been taken away."""
    return _read(folder.kept / _NAME)


def remember(folder: Folder, point: Checkpoint, made_for_it: Sequence[Trace]) -> None:
    """Write down what of a checkpoint was made for programs that ran: whoever goes back to it has it again."""
    if made_for_it:
        folder.make_kept()
        _write(folder.kept / _IN_CHECKPOINTS.format(point.created), made_for_it)


def in_checkpoint(folder: Folder, point: Checkpoint) -> tuple[Trace, ...]:
    """What was remembered of a checkpoint."""
    return _read(folder.kept / _IN_CHECKPOINTS.format(point.created))


def erase_copied(container: Container, traces: Sequence[Trace]) -> None:
    """Take away from a container what was made in that which it began as: what `known` or `in_checkpoint` said."""
    if traces:
        with _mounted(container) as tree:
            erase_traces(tree, traces)


def _read(file: Path) -> tuple[Trace, ...]:
    try:
        return tuple(Trace(path, is_folder) for path, is_folder in json.loads(read_own(file)))
    except FileNotFoundError:
        return ()


def _write(path: Path, traces: Iterable[Trace]) -> None:
    """Write the file whole, or not at all, so that it is there after a power cut."""
    fresh = path.with_suffix(".new")
    with open(fresh, "w") as file:
        json.dump([[trace.path, trace.folder] for trace in traces], file)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)


@contextmanager
def _mounted(container: Container) -> Iterator[int]:
    """While inside: a container's tree, mounted, as a descriptor.

    A checkpoint or rollback by somebody else unmounts it for a moment: what is at the path then is the bare folder of
    the host, in which nothing may be made. From when the descriptor is there it cannot be unmounted.
    """
    while True:
        mounted = container.mount()
        try:
            fd = os.open(mounted.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                if _is_mounted(fd, mounted.path):
                    yield fd
                    return
            finally:
                os.close(fd)
        finally:
            _unmount(mounted)


def _is_mounted(tree: int, path: Path) -> bool:
    """Is this the root of a mount, and not a folder of the filesystem that its path leads through?"""
    above = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _mount_of(tree) != _mount_of(above)
    finally:
        os.close(above)


def _mount_of(fd: int) -> str:
    """The kernel's number of the mount that a descriptor is in (proc(5), fdinfo)."""
    for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines():
        name, _, number = line.partition(":")
        if name == "mnt_id":
            return number.strip()
    raise KernelError("fdinfo", errno.ENODATA)


def _unmount(mounted: Mounted) -> None:
    """Let go of it. An engine that is being started for another container may have it for a moment, too."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            mounted.unmount()
        except KernelError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
        else:
            return
