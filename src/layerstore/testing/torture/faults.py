"""What can go wrong at a point: a death, an error of a call, half of a read or write, a death between two statements
of the database, or two lines of Python.

Points are counted for each call by its name, so that only that call is watched in a run: that is quick, and the number
depends little on what other threads do.
"""

from __future__ import annotations

import errno
import mmap
import os
import signal
import sqlite3
import struct
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from types import FrameType
from typing import Any
from unittest.mock import patch

import layerstore
from layerstore.testing.calls import Answer, Call, Death, Half, Omission, Verdict
from layerstore.values import frozen

__all__ = ["KINDS", "Point", "Steps", "answer_at", "counted", "killed_at", "lines", "points_of", "statements"]

KINDS = ("killed", "statements", "lines", "errors", "power")
"""Of faults, as they are told apart in tables."""

_SPACE = (errno.ENOSPC, errno.EDQUOT)
_ERRORS: Mapping[tuple[str, ...], tuple[int, ...]] = {
    ("open", "openat", "openat2", "creat"): (errno.EMFILE, errno.EIO, errno.ENOMEM, errno.EINTR),
    ("mkdir", "mkdirat", "mknod", "mknodat", "link", "linkat", "symlink", "symlinkat"): (
        *_SPACE, errno.EIO, errno.ENOMEM, errno.EPERM,
    ),
    ("rename", "renameat", "renameat2"): (errno.EIO, *_SPACE, errno.ENOMEM, errno.EPERM),
    ("unlink", "unlinkat", "rmdir"): (errno.EIO, errno.EPERM, errno.EBUSY, errno.ENOMEM),
    ("write", "pwrite64", "truncate", "ftruncate", "fallocate", "copy_file_range", "sendfile"): (*_SPACE, errno.EIO),
    ("fsync", "fdatasync", "syncfs"): (errno.EIO, *_SPACE),
    ("chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "lchown", "fchown", "fchownat", "utimensat"): (
        errno.EIO, errno.EPERM, errno.EDQUOT,
    ),
    ("setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr"): (
        *_SPACE, errno.EIO, errno.ENOMEM, errno.EPERM,
    ),
    ("ioctl",): (errno.EIO, errno.ENOSPC, errno.ENOMEM, errno.EPERM, errno.EBUSY),
    ("mount", "move_mount", "fsconfig"): (errno.ENOMEM, errno.EBUSY, errno.EPERM),
    ("fsopen", "fsmount", "open_tree"): (errno.EMFILE, errno.ENOMEM, errno.EPERM),
    ("umount2",): (errno.EBUSY, errno.ENOMEM),
}  # fmt: skip
_BY_NAME = {name: errors for names, errors in _ERRORS.items() for name in names}
_READING = (errno.EIO, errno.ENOMEM)
"""Of calls that only look."""

_OURS = os.path.join(os.path.dirname(layerstore.__file__), "")
_CODE = (*(os.path.join(path, "") for path in (sys.prefix, sys.base_prefix)), _OURS)
"""Where programs are: what is read there is no part of an operation."""


@frozen
class Point:
    """The call `name`, for the time `number`, counted from 1, and what becomes of it."""

    name: str
    number: int
    fault: str

    def __str__(self) -> str:
        return f"{self.name} number {self.number}: {self.fault}"

    @property
    def verdict(self) -> Verdict:
        """What is answered to the call."""
        kinds: dict[str, Callable[[], Verdict]] = {"killed": Death, "half": Half, "left out": Omission}
        return kinds[self.fault]() if self.fault in kinds else int(getattr(errno, self.fault))


def concerns(call: Call) -> bool:
    """Is it a part of the operation, and not of the program's own?"""
    if call.name == "ioctl" and not call.alters:
        return False
    return not call.path.startswith((*_CODE, "pipe:", "anon_inode:"))


def points_of(calls: Iterable[Call], kind: str) -> list[Point]:
    """All points of a run that made these calls: of the kind "killed" or "errors"."""
    chosen = [call for call in calls if concerns(call) and (call.alters or kind == "errors")]
    found = []
    for name, count in Counter(call.name for call in chosen).items():
        errors = [errno.errorcode[number] for number in _BY_NAME.get(name, _READING)]
        halves = ["half"] if name in ("read", "pread64", "write", "pwrite64") else []
        for number in range(1, count + 1):
            found += [Point(name, number, fault) for fault in (["killed"] if kind == "killed" else errors + halves)]
    return found


def answer_at(point: Point) -> Answer:
    """Let that happen at the point, and nothing else."""
    seen = 0

    def answer(_: int, call: Call) -> Verdict:
        nonlocal seen
        if call.name != point.name or not concerns(call) or (point.fault == "killed" and not call.alters):
            return None
        seen += 1
        return point.verdict if seen == point.number else None

    return answer


# --- between two steps -----------------------------------------------------------------------------------------------

Steps = Callable[[Callable[[], object]], object]
"""What has a function called before each step of a process, from here on: `statements` or `lines`."""


def statements(step: Callable[[], object]) -> None:
    """Each statement that a database is given is a step."""
    connect = sqlite3.connect

    def connected(*arguments: Any, **more: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **more)
        connection.set_trace_callback(lambda _: step())
        return connection

    patch.object(sqlite3, "connect", connected).start()


def lines(step: Callable[[], object]) -> None:
    """Each line of this library's Python that is executed is a step, in this thread and those that it begins."""

    def called(frame: FrameType, event: str, _: Any) -> Any:
        return stepped if frame.f_code.co_filename.startswith(_OURS) else None

    def stepped(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            step()
        return stepped

    threading.settrace(called)
    sys.settrace(called)


def counted(steps: Steps, before: Callable[[], object], deed: Callable[[], object]) -> int:
    """How many steps `deed` takes. It is done in a child."""
    return _counted(steps, before, deed, 0)


def killed_at(steps: Steps, before: Callable[[], object], deed: Callable[[], object], number: int) -> bool:
    """Do `deed` in a child that is killed before that step. False: it took fewer."""
    return _counted(steps, before, deed, number) >= number


def _counted(steps: Steps, before: Callable[[], object], deed: Callable[[], object], last: int) -> int:
    count = mmap.mmap(-1, 16)

    def step() -> None:
        begun, seen = struct.unpack("=QQ", count[:])
        if begun:
            count[:] = struct.pack("=QQ", begun, seen + 1)
            if seen + 1 == last:
                os.kill(os.getpid(), signal.SIGKILL)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads and fork
        process = os.fork()
    if process == 0:
        try:
            steps(step)
            before()
            count[:] = struct.pack("=QQ", 1, 0)
            deed()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(process, 0)
    _, seen = struct.unpack("=QQ", count[:])
    count.close()
    assert status == 0 or os.WIFSIGNALED(status), "it failed, undisturbed"
    return int(seen)
