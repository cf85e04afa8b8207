"""Files whose data come when they are read: whoever reads a watched file waits until that is answered (fanotify).

A `Watch` is a descriptor that several processes may have. While one of them does, reads wait; when none does any more,
the kernel lets them pass, and holes are zeros. Needs Linux 6.14 with `FANOTIFY_ACCESS_PERMISSIONS`, and root.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Self

from layerstore.errors import DriverNotSupported, KernelError
from layerstore.kernel._shim import ffi, lib
from layerstore.values import frozen

__all__ = ["Waiting", "Watch", "require"]

_MOST = 64
_NEWER = "It needs Linux 6.14 or later with CONFIG_FANOTIFY_ACCESS_PERMISSIONS, and root: pull without --lazy."


@frozen
class Waiting:
    """A read of a watched file, that waits. `length` 0: of all that comes after `offset`.

    `file` is a descriptor of the file, which is closed by `Watch.answer`; reads by it never wait. `pid` is who reads, 0
    if that is in another pid namespace.
    """

    file: int
    offset: int
    length: int
    pid: int


class Watch:
    """A group of watched files. Raises `KernelError`. `group`: its descriptor, where another process has made it."""

    def __init__(self, group: int | None = None) -> None:
        self.group = _checked("fanotify_init", lib.ls_watch_new()) if group is None else group

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """The descriptor, which can be polled."""
        return self.group

    def close(self) -> None:
        """Watch no more, unless another process does."""
        group, self.group = self.group, -1
        if group >= 0:
            os.close(group)

    def mark(self, file: int) -> None:
        """Let whoever opens this file from here on, and reads it, wait. By descriptors of before it is read at once."""
        _checked("fanotify_mark", lib.ls_watch_mark(self.group, file))

    def unmark(self, file: int) -> None:
        """Let nobody wait for it any more."""
        _checked("fanotify_mark", lib.ls_watch_unmark(self.group, file))

    def waiting(self) -> list[Waiting]:
        """Reads that have begun to wait. Each has to be answered."""
        room = ffi.new("struct ls_waiting[]", _MOST)
        count = _checked("read", lib.ls_watch_read(self.group, room, _MOST))
        return [Waiting(one.file, one.offset, one.length, one.pid) for one in room[0:count]]

    def answer(self, waiting: Waiting, error: int = 0) -> None:
        """Let a read go on, or fail with that number (`errno.EIO`); its descriptor is closed. It may be gone by now."""
        try:
            self.answer_number(waiting.file, error)
        finally:
            os.close(waiting.file)

    def answer_number(self, number: int, error: int = 0) -> bool:
        """Answer what another process was given as this number, and has died with. False: there is nothing of it."""
        answer = lib.ls_watch_answer(self.group, number, error)
        if answer not in (0, -errno.ENOENT):
            raise KernelError("write", -answer, detail="an answer to fanotify")
        return not answer


def require(folder: Path) -> None:
    """See that files in this folder can be watched, by doing it. Raises `DriverNotSupported`, which says why not."""
    try:
        with Watch() as watch:
            file = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                watch.mark(file)
            finally:
                os.close(file)
    except OSError as error:
        raise _refused(error.errno) from None
    except KernelError as error:
        raise _refused(error.errno) from None


def _refused(number: int | None) -> DriverNotSupported:
    what = os.strerror(number or errno.EIO)
    return DriverNotSupported(
        f"this kernel tells nobody before a file is read (fanotify, FAN_PRE_ACCESS): {what}",
        remedy=_NEWER,
        errno=number,
    )


def _checked(call: str, answer: int) -> int:
    if answer < 0:
        raise KernelError(call, -answer, remedy=_NEWER if call != "read" else None)
    return answer
