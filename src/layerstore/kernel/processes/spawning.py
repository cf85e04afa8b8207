"""Programs started with a container's tree in a mount namespace of their own.

A start has two halves, so that no program runs of which nobody knows: `launch` makes the process, which makes its
surroundings and waits; `Child.go` lets it execute the program. If this process ends between the two, the child does.
"""

from __future__ import annotations

import errno
import os
import signal
import struct
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from layerstore.errors import CannotStart, KernelError, LayerstoreError
from layerstore.kernel._shim import ffi, lib
from layerstore.kernel.processes.identity import Identity, identity_of_child
from layerstore.values import define, frozen

if TYPE_CHECKING:
    from layerstore.kernel.processes.housing import House

__all__ = ["DEVNULL", "Child", "Program", "launch"]

_CALLS = {
    lib.LS_STEP_STREAMS: "dup2",
    lib.LS_STEP_PRIVATE: "mount",
    lib.LS_STEP_SESSION: "setsid",
    lib.LS_STEP_PIVOT: "pivot_root",
    lib.LS_STEP_TERMINAL: "open /dev/ptmx",
    lib.LS_STEP_HOSTNAME: "sethostname",
    lib.LS_STEP_LIMITS: "setrlimit",
    lib.LS_STEP_USER: "setresuid",
    lib.LS_STEP_INIT: "execveat",
}

_WORD = struct.Struct("iii")
"""`struct ls_word`."""

DEVNULL: int = lib.LS_STREAM_NULL
"""As a stream: what is read is empty, what is written is lost. It is `subprocess.DEVNULL`."""


@frozen
class Program:
    """A program of the host, and what it is given.

    `hidden`: mounts that it does not see, the latest first. `emptied`: a folder, by its real path, below which it sees
    none.
    """

    argv: tuple[str | bytes, ...]
    env: Mapping[str, str]
    folder: str | None = None
    streams: tuple[int | None, int | None, int | None] = (None, None, None)
    """Standard input, output and error; None: this process's."""
    kept: tuple[int, ...] = ()
    """Descriptors that it has under the same numbers."""
    new_session: bool = False
    hidden: tuple[bytes, ...] = ()
    emptied: bytes | None = None
    trees: tuple[tuple[str, int], ...] = ()
    """More detached mounts, and the folders at which it sees them."""
    house: House | None = None
    """None: it sees what the host has. Else its names and folder are the container's."""

    @property
    def names(self) -> list[bytes]:
        """The paths at which it may be, as execvp(3) tries them."""
        path = self.env.get("PATH")
        if path is None and self.house is not None:
            from layerstore.kernel.processes.housing import PATH

            path = PATH
        return candidates(self.argv[0], os.defpath if path is None else path)


@define
class Child:
    """A process that waits to be told to go on. It is a child of this one; `pidfd` is the caller's to close."""

    pid: int
    pidfd: int
    _made: Any
    """`struct ls_child`."""
    _held: list[object]
    """What C reads until the program is executed."""
    _program: Program
    _root: str
    _gate: int
    _status: int
    terminal: int = -1
    """The terminal that it has been made, if it was to have one: the caller's to close once it was let go."""

    def identity(self) -> Identity:
        """What it is known by."""
        return identity_of_child(self.pid)

    def go(self) -> None:
        """Let it execute its program, which it does when this returns.

        Raises `CannotStart`, `KernelError`: then it is gone.
        """
        try:
            if self._program.house is not None and self._program.house.terminal:
                self._take_terminal()
            with suppress(BrokenPipeError):  # it gave up before
                os.write(self._gate, b"g")
            word = _read(self._status, _WORD.size)
        except BaseException:
            self.give_up()
            raise
        if word:
            self.give_up()
            raise _failure(self._program, self._root, *_WORD.unpack(word))
        self._finish()

    def _take_terminal(self) -> None:
        word = _read(self._status, _WORD.size)
        step, number, position = _WORD.unpack(word) if word else (0, errno.EPIPE, 0)
        if step != lib.LS_STEP_READY:
            raise _failure(self._program, self._root, step, number, position)
        self.terminal = lib.ls_descriptor_of(self.pidfd, number)
        if self.terminal < 0:
            raise KernelError("pidfd_getfd", -self.terminal)

    def give_up(self) -> None:
        """End it, before or after it was let go. A second time is no error."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        self._finish()
        with suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        terminal, self.terminal = self.terminal, -1
        if terminal >= 0:
            os.close(terminal)

    def _finish(self) -> None:
        if self._held:
            lib.ls_launched(self._made)
            self._held = []
        for fd in (self._gate, self._status):
            if fd >= 0:
                os.close(fd)
        self._gate = self._status = -1


def launch(program: Program, tree: int, root: str) -> Child:
    """A process that will be `program`, and sees the detached mount `tree` at `root`, a folder.

    Raises `KernelError` if there can be none; what fails in it is told by `Child.go`.
    """
    for place in (root, *(place for place, _ in program.trees)):
        if "\0" in place:
            raise KernelError("move_mount", errno.EINVAL, path=place)
    keep: list[object] = []
    made = ffi.new("struct ls_program *")
    made.names = _strings(program.names, keep)
    made.env = _strings([os.fsencode(f"{name}={value}") for name, value in program.env.items()], keep)
    made.hidden = _strings(program.hidden, keep)
    made.emptied = ffi.NULL if program.emptied is None else _kept(ffi.new("char[]", program.emptied), keep)
    made.folder = ffi.NULL if program.folder is None else _kept(ffi.new("char[]", os.fsencode(program.folder)), keep)
    made.streams = [lib.LS_STREAM_SAME if fd is None else fd for fd in program.streams]
    made.kept = _kept(ffi.new("int[]", list(program.kept)), keep)
    made.kept_count = len(program.kept)
    made.new_session = program.new_session
    made.tree = tree
    made.root = _kept(ffi.new("char[]", os.fsencode(root)), keep)
    made.more = _kept(ffi.new("int[]", [fd for _, fd in program.trees]), keep)
    made.places = _strings([os.fsencode(place) for place, _ in program.trees], keep)
    made.more_count = len(program.trees)
    child = ffi.new("struct ls_child *")
    with ExitStack() as ours, ExitStack() as its, ExitStack() as opened:
        made.gate = gate = _pipe(its, ours)
        made.status = status = _pipe(ours, its)
        argv = [os.fsencode(word) for word in program.argv]
        if program.house is not None:
            argv = program.house.words(program.names, argv, status[1])
            made.house = program.house.made(keep, opened)
        made.argv = _strings(argv, keep)
        answer = lib.ls_launch(made, child)
        if answer < 0:
            raise KernelError("clone", -answer)
        its.close()
        pidfd = int(child.pidfd)
        started = Child(_number(pidfd), pidfd, child, [made, keep], program, root, gate[1], status[0])
        ours.pop_all()
    return started


def candidates(name: str | bytes, path: str) -> list[bytes]:
    """The paths at which a program of this name may be, as execvp(3) tries them."""
    name = os.fsencode(name)
    if b"/" in name or not name:
        return [name]
    return [os.path.join(os.fsencode(folder) or b".", name) for folder in path.split(":")]


def _number(pidfd: int) -> int:
    """The number of a process, in this pid namespace."""
    with open(f"/proc/self/fdinfo/{pidfd}", "rb") as facts:
        return next(int(line[4:]) for line in facts if line.startswith(b"Pid:"))


def _pipe(reader: ExitStack, writer: ExitStack) -> tuple[int, int]:
    ends = os.pipe2(os.O_CLOEXEC)
    reader.callback(os.close, ends[0])
    writer.callback(os.close, ends[1])
    return ends


def _strings(texts: Sequence[bytes], keep: list[object]) -> object:
    """A list of strings for C. Raises `ValueError` for one with a NUL in it."""
    if any(b"\0" in text for text in texts):
        raise ValueError("embedded null byte")
    held = [ffi.new("char[]", text) for text in texts]
    keep.append(held)
    return _kept(ffi.new("char *[]", [*held, ffi.NULL]), keep)


def _kept(made: object, keep: list[object]) -> object:
    keep.append(made)
    return made


def _read(fd: int, size: int) -> bytes:
    """All of `size` bytes, or nothing where they end before."""
    read = b""
    while len(read) < size and (more := os.read(fd, size - len(read))):
        read += more
    return read if len(read) == size else b""


def _failure(program: Program, root: str, step: int, number: int, position: int) -> LayerstoreError:
    """Why a child gave up."""
    if step == lib.LS_STEP_PROGRAM or (step == lib.LS_STEP_INIT and number == errno.E2BIG):
        return CannotStart(os.fsdecode(program.argv[0]), number)
    if step == lib.LS_STEP_FOLDER:
        return KernelError("chdir", number, path=program.folder)
    if step == lib.LS_STEP_ATTACH:
        return KernelError("move_mount", number, path=program.trees[position - 1][0] if position else root)
    if step == lib.LS_STEP_HIDE:
        return KernelError("umount2", number, path=program.emptied if position < 0 else program.hidden[position])
    if step == lib.LS_STEP_PLACE and program.house is not None:
        return KernelError("mount", number, path=program.house.target(position), detail="in the container")
    if step == lib.LS_STEP_USER and number == errno.EPERM and not _has_groups():
        words = (
            "This user has one ID here, and cannot give up groups: have more allotted (/etc/subuid, package uidmap)."
        )
        return KernelError(_CALLS[step], number, remedy=words)
    return KernelError(_CALLS.get(step, "clone"), number)


def _has_groups() -> bool:
    """May setgroups(2) be called in this user namespace? Not where a user has made it without anybody's leave."""
    try:
        with open("/proc/self/setgroups", "rb") as file:
            return file.read().strip() != b"deny"
    except OSError:
        return True
