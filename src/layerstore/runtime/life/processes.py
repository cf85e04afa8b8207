"""Which process is meant, and does it live: asked of the kernel, by number, time of its begin, and boot.

A number alone is given to another process sooner or later; with the time at which its process began (proc_pid_stat(5),
field 22: ticks since the boot) and the boot it means one process for ever.
"""

from __future__ import annotations

import os
import select
import time
from functools import cache
from pathlib import Path

from layerstore.patience import at_once
from layerstore.values import frozen

__all__ = ["ProcessId", "boot", "here", "process_of", "wait_for"]


@frozen
class ProcessId:
    """A process of this boot."""

    pid: int
    began: int

    @property
    def lives(self) -> bool:
        """Has it not ended? One that only waits to be asked for its exit code (a zombie) has."""
        return _began(self.pid) == self.began

    def __str__(self) -> str:
        return f"{self.pid} {self.began}"


@cache
def boot() -> str:
    """The name of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def here() -> ProcessId:
    """This process."""
    pid = os.getpid()
    return ProcessId(pid, _began(pid) or 0)


def process_of(pid: int) -> ProcessId | None:
    """The process that has this number now; None if there is none, or it has ended."""
    began = _began(pid)
    return None if began is None else ProcessId(pid, began)


def parsed(text: str | None) -> ProcessId | None:
    """A process as it was written down by `str`."""
    if not text:
        return None
    pid, _, began = text.partition(" ")
    return ProcessId(int(pid), int(began))


def wait_for(process: ProcessId, timeout: float | None = None) -> bool:
    """Wait until it has ended, `timeout` seconds at most; whether it has."""
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        if not process.lives:
            return True
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        deadline = None if timeout is None else time.monotonic() + timeout
        while not poll.poll(at_once(left := None if deadline is None else deadline - time.monotonic()) * 1000):
            if left is not None and left <= 0:
                return False
        return True
    finally:
        os.close(fd)


def _began(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    if fields[0] in (b"Z", b"X") and int(fields[17]) <= 1:  # with more threads, only its first has ended
        return None
    return int(fields[19])
