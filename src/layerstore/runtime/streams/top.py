"""Who runs in a container: its processes as the host sees them, in the columns of `ps -ef`, or whatever ps is told."""

from __future__ import annotations

import os
import pwd
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from layerstore import CannotRun
from layerstore.runtime.streams.cgroups import groups_of
from layerstore.values import frozen

__all__ = ["ProcessFacts", "Table", "process", "processes_of", "top"]

_TICKS = os.sysconf("SC_CLK_TCK")
_TITLES = ("UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD")


@frozen
class Table:
    """Titles, and a row for each process."""

    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@frozen
class ProcessFacts:
    """One process, as /proc has it (proc(5)). Times are in seconds."""

    pid: int
    parent: int
    user: int
    terminal: int
    """A device number; 0: none."""
    cpu: float
    """What it and its children that have ended have used."""
    started: float
    """Since the epoch."""
    resident: int
    """Bytes of memory."""
    command: str


def top(pid: int, arguments: Sequence[str] = ()) -> Table:
    """The processes of the container whose first process is `pid`. `arguments`: for ps, as `aux` or `-o pid,comm`.

    Raises `CannotRun` if ps fails, or shows no PID.
    """
    mine = processes_of(pid)
    if arguments:
        return _by_ps(mine, arguments)
    found = [known for number in sorted(mine) if (known := process(number)) is not None]
    return Table(_TITLES, tuple(_row(known) for known in found))


def processes_of(pid: int) -> set[int]:
    """The processes of a container, by its first: those in its group and in its pid namespace, if these are its own."""
    found = groups_of(pid).processes()
    space = _space(pid)
    if space is not None and space != _space(os.getpid()):
        found.update(number for name in os.listdir("/proc") if name.isdigit() and _space(number := int(name)) == space)
    if space is not None:
        found.add(pid)
    return found


def process(pid: int) -> ProcessFacts | None:
    """What is known of a process; None if it has ended."""
    folder = Path(f"/proc/{pid}")
    try:
        text = (folder / "stat").read_text(errors="replace")
        user = folder.stat().st_uid
        words = (folder / "cmdline").read_bytes()
    except OSError:
        return None
    name = text[text.index("(") + 1 : text.rindex(")")]
    facts = text[text.rindex(")") + 2 :].split()  # the third field is the first of these
    command = words.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    return ProcessFacts(
        pid=pid,
        parent=int(facts[1]),
        user=user,
        terminal=int(facts[4]),
        cpu=sum(map(int, facts[11:15])) / _TICKS,
        started=_booted() + int(facts[19]) / _TICKS,
        resident=int(facts[21]) * os.sysconf("SC_PAGE_SIZE"),
        command=command or f"[{name}]",
    )


def _space(pid: int) -> str | None:
    """Its pid namespace; None if it has ended (a zombie has none)."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return None


def _booted() -> float:
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def _row(known: ProcessFacts) -> tuple[str, ...]:
    try:
        user = pwd.getpwuid(known.user).pw_name
    except KeyError:
        user = str(known.user)
    lived = max(time.time() - known.started, 1.0)
    seconds = int(known.cpu)
    return (
        user,
        str(known.pid),
        str(known.parent),
        str(min(int(100 * known.cpu / lived), 99)),
        _began(known.started),
        _terminal(known.terminal),
        f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}",
        known.command,
    )


def _began(started: float) -> str:
    """When, as ps -ef has it: the time today, the day this year, else the year."""
    then, now = time.localtime(started), time.localtime()
    if (then.tm_year, then.tm_yday) == (now.tm_year, now.tm_yday):
        return time.strftime("%H:%M", then)
    return time.strftime("%b%d" if then.tm_year == now.tm_year else "%Y", then)


def _terminal(device: int) -> str:
    """The name of a terminal by its number (the kernel's admin-guide/devices.txt)."""
    major, minor = os.major(device), os.minor(device)
    if 136 <= major <= 143:
        return f"pts/{minor + 256 * (major - 136)}"
    if major == 4:
        return f"tty{minor}" if minor < 64 else f"ttyS{minor - 64}"
    return "?"


def _by_ps(mine: set[int], arguments: Sequence[str]) -> Table:
    """What the host's ps says of them. The last column may have spaces, as docker takes it, too."""
    try:
        done = subprocess.run(["ps", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise CannotRun("ps is not installed", remedy="Install procps, or give no options of ps.") from None
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise CannotRun(f"ps {' '.join(arguments)}: {said[0] if said else f'exit code {done.returncode}'}")
    lines = done.stdout.splitlines()
    titles = tuple(lines[0].split()) if lines else ()
    if "PID" not in titles:
        raise CannotRun("ps shows no column PID", remedy="Add it: -o pid,…")
    at = titles.index("PID")
    rows = [tuple(line.split(None, len(titles) - 1)) for line in lines[1:]]
    return Table(titles, tuple(row for row in rows if len(row) > at and row[at].isdigit() and int(row[at]) in mine))
