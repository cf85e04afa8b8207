"""conmon: what stays with a container that outlives the command that started it.

It has the container made (`create`), keeps its streams, writes its log, waits for its end and writes the exit code to a
file. Its parent is told of the container's first process, or of why there is none, through a pipe whose number is in
_OCI_SYNCPIPE: a line of JSON, {"data": PID, "message": WORDS}, with a number below 0 for a failure. See conmon's
src/conmon.c and src/utils.c; podman and CRI-O use it in the same way.
"""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Mapping
from pathlib import Path

from layerstore import CannotRun
from layerstore.runtime.engine.engines import executable
from layerstore.runtime.engine.verbs import Verbs
from layerstore.runtime.engine.words import failure, words_in, words_of
from layerstore.runtime.errors import EngineNotFound
from layerstore.values import frozen

__all__ = ["Place", "argv", "environment", "find", "first_process"]

_SEARCH = f"{os.environ.get('PATH', os.defpath)}:/usr/libexec/podman:/usr/lib/podman:/usr/libexec/crio"
_PATIENCE = 240.0
"""Seconds that an engine may take to make a container."""


@frozen
class Place:
    """Where a container that is held by conmon has its files. conmon makes `attach` and `ctl` in `bundle` itself."""

    bundle: Path
    log: Path

    @property
    def pid(self) -> Path:
        """The number of the container's first process."""
        return self.bundle / "pid"

    @property
    def exit(self) -> Path:
        """Its exit code, once it has ended; whole as soon as it is there."""
        return self.bundle / "exit"

    @property
    def oom(self) -> Path:
        """Is there if the kernel killed something in it for want of memory."""
        return self.bundle / "oom"

    @property
    def engine_log(self) -> Path:
        """What the engine says."""
        return self.bundle / "engine.log"


def find() -> str:
    """conmon's path. Raises `EngineNotFound`."""
    found = executable("conmon", _SEARCH)
    if found is None:
        raise EngineNotFound(
            "conmon is not installed, which keeps containers that outlive the command that starts them",
            remedy="Install it: `apt-get install conmon`; `run --rm` in the foreground does without it.",
        )
    return found


def argv(
    conmon: str,
    verbs: Verbs,
    container: str,
    place: Place,
    *,
    logs: bool,
    tty: bool,
    stdin: bool,
    leave_open: bool = False,
    no_pivot: bool = False,
) -> list[str]:
    """conmon's command line. `leave_open`: standard input outlives those who are attached to it.

    It does not fork (`--sync`), so that the process that is started is the one that stays.
    """
    engine = verbs.argv(log=place.engine_log)
    return [
        *(conmon, "--sync", "--api-version", "1", "--full-attach", "--log-level", "error"),
        *("--cid", container, "--cuuid", container, "--name", container, "--bundle", str(place.bundle)),
        *("--runtime", engine[0], *(word for arg in engine[1:] for word in ("--runtime-arg", arg))),
        *("--log-path", f"k8s-file:{place.log}" if logs else "none"),
        *("--container-pidfile", str(place.pid), "--persist-dir", str(place.bundle)),
        *(("--terminal",) if tty else ()),
        *(("--stdin",) if stdin else ()),
        *(("--leave-stdin-open",) if leave_open else ()),
        *(("--no-pivot",) if no_pivot else ()),
    ]


def environment(sync: int, inherited: Mapping[str, str]) -> dict[str, str]:
    """conmon's environment, with the end of the pipe that it answers through."""
    kept = {name: value for name, value in inherited.items() if not name.startswith("_OCI_")}
    return {**kept, "_OCI_SYNCPIPE": str(sync)}


def first_process(sync: int, place: Place, what: str) -> int:
    """The container's first process, as conmon tells it through its pipe; waits for that.

    `what` begins the error if there is none. Raises `CannotRun`.
    """
    said = _read(sync, what)
    for line in reversed(said.splitlines()):
        try:
            told = json.loads(line)
        except ValueError:
            continue
        number = told.get("data", told.get("pid", -1))
        if number > 0:
            return int(number)
        raise failure(what, words_in(place.engine_log) or words_of(str(told.get("message", "")).encode()))
    raise failure(what, words_in(place.engine_log))


def _read(sync: int, what: str) -> bytes:
    """What comes until there is a whole line, or the end of the pipe."""
    found = b""
    deadline = time.monotonic() + _PATIENCE
    while b"\n" not in found:
        ready, _, _ = select.select([sync], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise CannotRun(f"{what}: the engine has not made it in {_PATIENCE:.0f} seconds")
        piece = os.read(sync, 1 << 16)
        if not piece:
            break
        found += piece
    return found
