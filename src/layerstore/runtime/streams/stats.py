"""What a container takes: processor, memory, processes, bytes read, written, received and sent.

By its control groups. Where it has none of its own, its processes are added up, which leaves out those that have ended
and their bytes. Two samples make the share of the processor; one makes all else.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

from layerstore.runtime.streams.cgroups import Groups, counts_in, figure, figures, groups_of
from layerstore.runtime.streams.top import process, processes_of
from layerstore.values import frozen

__all__ = ["Sample", "Stats", "between", "sample", "stats"]


@frozen
class Sample:
    """What was counted until one moment. Bytes and processes, but for the times, which are in seconds."""

    moment: float
    """By a clock that is never set."""
    cpu: float
    """Seconds of processor."""
    memory: int
    """What docker counts: without the files that are cached and have not been used lately."""
    memory_limit: int
    received: int
    sent: int
    read: int
    written: int
    pids: int


@frozen
class Stats:
    """What one container takes. `cpu`: percent of one processor; `memory_share`: percent of the limit."""

    cpu: float
    memory: int
    memory_limit: int
    memory_share: float
    received: int
    sent: int
    read: int
    written: int
    pids: int


def stats(pids: Iterable[int], *, interval: float = 1.0) -> dict[int, Stats]:
    """What containers take, by the first process of each, looked at for `interval` seconds. The ended are left out."""
    first = {pid: found for pid in pids if (found := sample(pid)) is not None}
    if first:
        time.sleep(interval)
    taken = {}
    for pid, before in first.items():
        now = sample(pid)
        if now is not None:
            taken[pid] = between(before, now)
    return taken


def between(before: Sample, now: Sample) -> Stats:
    """What there is at the second moment, with the share of the processor since the first."""
    passed = now.moment - before.moment
    return Stats(
        cpu=100 * max(now.cpu - before.cpu, 0.0) / passed if passed > 0 else 0.0,
        memory=now.memory,
        memory_limit=now.memory_limit,
        memory_share=100 * now.memory / now.memory_limit if now.memory_limit else 0.0,
        received=now.received,
        sent=now.sent,
        read=now.read,
        written=now.written,
        pids=now.pids,
    )


def sample(pid: int) -> Sample | None:
    """Of the container whose first process is `pid`; None if that has ended."""
    groups = groups_of(pid)
    everybody = processes_of(pid)
    if not everybody:
        return None
    members = [known for number in everybody if (known := process(number)) is not None]
    cpu, memory = _cpu(groups), _memory(groups)
    read, written = _transferred(groups)
    received, sent = _network(pid)
    room = _room()
    limit = _limit(groups)
    count = figure(groups.by_controller.get("pids", groups.unified), "pids.current")
    return Sample(
        moment=time.monotonic(),
        cpu=sum(known.cpu for known in members) if cpu is None else cpu,
        memory=sum(known.resident for known in members) if memory is None else memory,
        memory_limit=room if limit is None else min(limit, room),
        received=received,
        sent=sent,
        read=read,
        written=written,
        pids=len(members) if count is None else count,
    )


def _cpu(groups: Groups) -> float | None:
    """Seconds: cpuacct.usage of version 1 (nanoseconds), usage_usec of version 2."""
    used = figure(groups.by_controller.get("cpuacct"), "cpuacct.usage")
    if used is not None:
        return used / 1e9
    used = figures(groups.unified, "cpu.stat").get("usage_usec")
    return None if used is None else used / 1e6


def _memory(groups: Groups) -> int | None:
    """Bytes, without the inactive part of the page cache: so docker's client reckons, by both versions' names."""
    folder = groups.by_controller.get("memory")
    if folder is not None:
        used, name = figure(folder, "memory.usage_in_bytes"), "total_inactive_file"
    else:
        folder = groups.unified
        used, name = figure(folder, "memory.current"), "inactive_file"
    if used is None:
        return None
    idle = figures(folder, "memory.stat").get(name, 0)
    return used - idle if idle < used else used


def _limit(groups: Groups) -> int | None:
    limit = figure(groups.by_controller.get("memory"), "memory.limit_in_bytes")
    return figure(groups.unified, "memory.max") if limit is None else limit


def _room() -> int:
    """All memory of the machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _transferred(groups: Groups) -> tuple[int, int]:
    """Bytes read from and written to devices."""
    folder = groups.by_controller.get("blkio")
    read = written = 0
    for words in counts_in(folder, "blkio.throttle.io_service_bytes_recursive"):
        if len(words) == 3:
            read += int(words[2]) if words[1] == "Read" else 0
            written += int(words[2]) if words[1] == "Write" else 0
    for words in counts_in(None if folder else groups.unified, "io.stat"):
        figures_of = dict(word.split("=", 1) for word in words[1:] if "=" in word)
        read += int(figures_of.get("rbytes", 0))
        written += int(figures_of.get("wbytes", 0))
    return read, written


def _network(pid: int) -> tuple[int, int]:
    """Bytes received and sent, without loopback; none where the network is the host's, as docker shows it."""
    try:
        if os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            return 0, 0
        text = Path(f"/proc/{pid}/net/dev").read_text()
    except OSError:
        return 0, 0
    received = sent = 0
    for line in text.splitlines()[2:]:
        name, _, counts = line.partition(":")
        if name.strip() != "lo":
            words = counts.split()
            received += int(words[0])
            sent += int(words[8])
    return received, sent
