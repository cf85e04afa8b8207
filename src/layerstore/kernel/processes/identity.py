"""Which process is meant, and is it alive? The kernel is asked each time.

Numbers of processes are used again. A number with the time at which its process began and the boot in which that was
names one process for ever; the time is that of the kernel's clock since the boot, which nobody sets.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection
from contextlib import suppress
from functools import cache
from pathlib import Path

from layerstore.errors import KernelError
from layerstore.kernel._shim import ffi, lib
from layerstore.kernel.mounts import boot_id
from layerstore.kernel.mounts.table import processes, unescape
from layerstore.values import frozen

__all__ = ["Identity", "identity_of", "identity_of_child", "places_of", "strays"]


@frozen
class Identity:
    """One process: its number, as the pid namespace `pid_namespace` has it, when it began, and the boot.

    `mount_namespace`: the number of the mount namespace that it was in when it was written down. Like every number of a
    namespace it is used again: it tells where to look, and proves nothing. `namespace_id`, where the kernel tells one
    (Linux 6.10, else 0), is not.
    """

    pid: int
    started: int
    """In the kernel's ticks since the boot (proc_pid_stat(5), field 22)."""
    boot: str
    pid_namespace: int
    mount_namespace: int
    namespace_id: int

    @property
    def is_seen(self) -> bool:
        """Does its number mean anything to this process?"""
        return self.pid_namespace == _pid_namespace()

    @property
    def is_of_this_boot(self) -> bool:
        """Could it live at all?"""
        return self.boot == boot_id()

    @property
    def may_have_left(self) -> bool:
        """May there be others in its mount namespace, of which nobody knows, when it has ended?"""
        if not self.is_of_this_boot:
            return False
        return self.namespace_id == 0 or lib.ls_namespace_lives(self.namespace_id) != 0

    @property
    def is_alive(self) -> bool:
        """Has it not ended? One whose parent has not asked for its end (a zombie) has.

        One in a pid namespace that cannot be looked into is taken for alive until the next boot.
        """
        if not self.is_of_this_boot:
            return False
        if not self.is_seen:
            return True
        facts = _facts(self.pid)
        return facts is not None and facts == (True, self.started)


def identity_of(pid: int) -> Identity | None:
    """The process that has this number now; None if there is none, or it has ended."""
    facts = _facts(pid)
    if facts is None or not facts[0]:
        return None
    try:
        namespace, number = _namespace(pid)
    except OSError:
        return None
    return Identity(pid, facts[1], boot_id(), _pid_namespace(), namespace, number)


def identity_of_child(pid: int) -> Identity:
    """The same of a child of this process, whose number is its own until it is waited for, even if it has ended."""
    facts = _facts(pid)
    if facts is None:
        raise KernelError("waitid", errno.ECHILD)
    namespace = number = 0
    with suppress(OSError):
        namespace, number = _namespace(pid)
    return Identity(pid, facts[1], boot_id(), _pid_namespace(), namespace, number)


def strays(namespaces: Collection[int], key: str) -> list[int]:
    """The processes in one of these mount namespaces that see a mount of the layer `key`: nobody wrote them down."""
    found = []
    for process in processes():
        with suppress(OSError):
            if os.stat(f"/proc/{process}/ns/mnt").st_ino in namespaces and places_of(process, key):
                found.append(process)
    return found


def places_of(process: int, key: str) -> list[bytes]:
    """Where a process sees the whole tree of the layer `key`, as it writes names; the latest mount last.

    A layer is known by its key, which is in the source or in the options of each mount of its (proc_pid_mountinfo(5)).
    """
    mark = key.encode()
    found = []
    with open(f"/proc/{process}/mountinfo", "rb") as lines:
        for line in lines:
            if mark not in line:
                continue
            fields = line.split(b" ", 5)
            root, place = fields[3], fields[4]
            if root == b"/" or root.endswith(mark):  # not of a folder of it that is seen elsewhere, too
                found.append(unescape(place))
    return found


def _namespace(pid: int) -> tuple[int, int]:
    """The number of a process's mount namespace, and its ID, or 0."""
    fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = ffi.new("uint64_t *")
        known = lib.ls_namespace_id(fd, found) >= 0
        return os.fstat(fd).st_ino, int(found[0]) if known else 0
    finally:
        os.close(fd)


@cache
def _pid_namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


def _facts(pid: int) -> tuple[bool, int] | None:
    """Is the process with this number alive, and when did it begin?"""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    state, threads, started = fields[0], int(fields[17]), int(fields[19])
    # A process whose first thread has ended looks as one that has ended, but for its other threads.
    return state not in (b"Z", b"X") or threads > 1, started
