"""The control groups of a process: where the kernel counts what its container takes, on version 1, 2 and both at once.

Which hierarchy has a controller is asked of /proc/PID/cgroup and of what is mounted (cgroups(7)). A group that our own
process is in, or below, is nobody's container: what is counted there is not the container's alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from layerstore.values import frozen

__all__ = ["Groups", "counts_in", "figure", "figures", "groups_of"]


@frozen
class Groups:
    """Folders of the groups that a process alone is in. `by_controller`: of version 1."""

    by_controller: Mapping[str, Path]
    unified: Path | None

    def any(self) -> Path | None:
        """One that all processes of the container are in."""
        return self.unified or next(iter(self.by_controller.values()), None)

    def processes(self) -> set[int]:
        """The processes that are in it, and in the groups below."""
        top = self.any()
        if top is None:
            return set()
        found: set[int] = set()
        for folder, _, _ in os.walk(top):
            text = _read(Path(folder) / "cgroup.procs")
            found.update(int(word) for word in (text or "").split())
        return found


def groups_of(pid: int) -> Groups:
    """The groups of a process. One that has ended has none."""
    theirs, ours = _paths(pid), _paths(os.getpid())
    places = dict(_mounted())
    by_controller: dict[str, Path] = {}
    unified = None
    for name, path in theirs.items():
        if _is_within(ours.get(name, "/"), path) or name not in places:
            continue
        root, mountpoint = places[name]
        if not _is_within(path, root):
            continue
        folder = mountpoint / os.path.relpath(path, root)
        if not folder.is_dir():
            continue
        if name:
            by_controller[name] = folder
        else:
            unified = folder
    return Groups(by_controller, unified)


def figure(folder: Path | None, name: str) -> int | None:
    """The number in a file of a group; None if there is none, or `max`."""
    text = None if folder is None else _read(folder / name)
    return int(text) if text is not None and text.strip().isdigit() else None


def figures(folder: Path | None, name: str) -> dict[str, int]:
    """The lines of a file of a group, each a name and a number."""
    text = None if folder is None else _read(folder / name)
    return {words[0]: int(words[1]) for line in (text or "").splitlines() if len(words := line.split()) == 2}


def counts_in(folder: Path | None, name: str) -> Iterator[list[str]]:
    """The words of each line of a file of a group."""
    text = None if folder is None else _read(folder / name)
    for line in (text or "").splitlines():
        yield line.split()


def _paths(pid: int) -> dict[str, str]:
    """The path of its group in each hierarchy, by controller; "" is version 2's."""
    found = {}
    for line in (_read(Path(f"/proc/{pid}/cgroup")) or "").splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            found[name] = path
    return found


def _mounted() -> Iterator[tuple[str, tuple[str, Path]]]:
    """For each controller, what part of its hierarchy is mounted where."""
    for line in (_read(Path("/proc/self/mountinfo")) or "").splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind not in ("cgroup", "cgroup2"):
            continue
        root, mountpoint = before.split(" ")[3:5]
        names = [""] if kind == "cgroup2" else options.split(",")
        for name in names:
            yield name, (root, Path(mountpoint))


def _is_within(path: str, folder: str) -> bool:
    return folder == "/" or path == folder or path.startswith(f"{folder}/")


def _read(path: Path) -> str | None:
    """Its text; None if it is not there, or its process or group has ended while it was read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None
