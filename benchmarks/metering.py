"""What a command costs: seconds, CPU seconds of all that it starts, and the most memory that one of its processes had.

A command is started by a small process of its own: a process begins with the memory of the one that it was forked from
as its peak, and this one's has the libraries of a whole benchmark in it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from attrs import evolve, frozen

_START = """
import json, os, sys, time
told = int(sys.argv[1])
os.set_inheritable(told, False)
start = time.perf_counter()
child = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, used = os.wait4(child, 0)
took = time.perf_counter() - start
os.write(told, json.dumps([took, used.ru_utime + used.ru_stime, used.ru_maxrss << 10, status]).encode())
"""


@frozen
class Cost:
    """Seconds, CPU seconds, and bytes of memory."""

    wall: float
    cpu: float
    peak: int

    def plus(self, *, wall: float = 0.0, cpu: float = 0.0, peak: int = 0) -> Cost:
        """With what others did for it."""
        return evolve(self, wall=self.wall + wall, cpu=self.cpu + cpu, peak=max(self.peak, peak))


@frozen
class Ran:
    """A command that was run. `said`: the last line that it complained with."""

    cost: Cost
    is_done: bool
    said: str


def meter(*command: str | Path, timeout: float | None = None) -> Ran:
    """Run a command to its end, which need not be a good one, or for `timeout` seconds."""
    parts = [os.fspath(part) for part in command]
    reading, writing = os.pipe()
    start = time.perf_counter()
    with tempfile.TemporaryFile() as said, os.fdopen(reading, "rb") as told:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _START, str(writing), *parts],
            pass_fds=[writing],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,
        )
        os.close(writing)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            return Ran(Cost(time.perf_counter() - start, 0.0, 0), is_done=False, said=f"not done after {timeout:.0f} s")
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        wall, cpu, peak, status = json.loads(told.read())
        said.seek(0)
        lines = [line.strip() for line in said.read().decode(errors="replace").splitlines() if line.strip()]
        return Ran(Cost(wall, cpu, peak), is_done=status == 0, said=lines[-1] if lines else f"status {status}")


def tree_cpu(root: int) -> float:
    """The CPU seconds of a process, of those that it has started, and of those of them that have ended."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended since
            continue
        pid = int(stat.parent.name)
        parents[pid] = int(fields[1])
        ticks[pid] = sum(map(int, fields[11:15]))
    below = {root}
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
    return sum(ticks.get(pid, 0) for pid in below) / os.sysconf("SC_CLK_TCK")


def forget_peak(pid: int) -> None:
    """Let the most memory that a process had be what it has now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak(pid: int) -> int:
    """The most memory that a process had."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) << 10
