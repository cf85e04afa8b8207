"""What is true of a container at one moment: its row, and what the kernel says of the processes that it names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from layerstore import read_own
from layerstore.runtime.engine import cgroups
from layerstore.runtime.life.places import Folder
from layerstore.runtime.life.rows import Row
from layerstore.values import frozen

__all__ = ["RunState", "has_ended", "state_of"]

UNKNOWN = 255
"""The exit code of which nobody knows the program's: whoever waited for it was killed, or the machine went down."""


@frozen
class RunState:
    """What a container does, in docker's words."""

    status: str
    """`created`, `running`, `paused`, `exited`, or `dead` (its removal was begun and not ended)."""
    pid: int = 0
    """Of its first process, while it runs."""
    exit_code: int = 0
    started: datetime | None = None
    finished: datetime | None = None
    oom_killed: bool = False
    error: str = ""
    """Why it could not be started."""
    health: Mapping[str, Any] | None = None
    """docker's `Health`: `Status`, `FailingStreak`, `Log`."""

    @property
    def is_running(self) -> bool:
        """Do its processes live, frozen or not?"""
        return self.status in ("running", "paused")


def state_of(row: Row, folder: Folder) -> RunState:
    """What a row means now."""
    status = row.status
    pid = 0
    if status == "running":
        init = row.init or folder.init()
        pid = 0 if init is None else init.pid
        if pid and (cgroup := cgroups.of_process(pid, "freezer", within=row.container)) and cgroups.is_frozen(cgroup):
            status = "paused"
    elif status == "starting":
        status = "created"
    return RunState(
        status=status,
        pid=pid,
        exit_code=row.exit_code,
        started=_moment(row.started),
        finished=_moment(row.finished),
        oom_killed=row.oom or (bool(pid) and folder.place.oom.exists()),
        error=row.error,
        health=json.loads(row.health) if row.health else None,
    )


def has_ended(row: Row, folder: Folder) -> bool:
    """Has what the row takes for running ended, with nobody left who will write that down?"""
    if row.status != "running":
        return False
    if not row.is_of_this_boot:
        return True
    if row.held and folder.place.exit.exists():
        return True
    if row.owner is not None and row.owner.lives:
        return False
    if row.keeper is not None and row.keeper.lives:
        return False
    init = row.init or folder.init()
    return init is None or not init.lives


def exit_of(row: Row, folder: Folder) -> tuple[int, int | None]:
    """The exit code, and when it ended (ns since the epoch; None: nobody knows), of what has ended."""
    if row.held and row.is_of_this_boot:
        try:
            text = read_own(folder.place.exit)
            return int(text), folder.place.exit.stat().st_mtime_ns
        except (FileNotFoundError, ValueError):
            pass
    return UNKNOWN, None


def _moment(ns: int) -> datetime | None:
    return datetime.fromtimestamp(ns // 1000 / 1e6, UTC) if ns else None
