"""The system calls of a child process, seen one by one before they are made: noted, made to fail, or made its last.

A call can also be left out, as if it had been made, or be made by half: a short read, a short write.

So a driver's work can be broken off at each point, whether the call comes from Python, from C or from a thread of it.
The kernel asks (seccomp user notification, Linux 5.5): no tracer, no other program, no preloaded library. A child is
made for each run, since a filter cannot be taken off again; it shares the caller's files and mounts, and nothing else.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import pickle
import platform
import select
import signal
import socket
import stat
import struct
import sys
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from attrs import field

from layerstore.values import define, frozen

__all__ = ["SYNCING", "Call", "CannotWatch", "Death", "Failure", "Half", "Omission", "Run", "run_watched"]

_X86, _GENERIC = 0, 1

# By name: the number on x86-64, and on all that came later (asm-generic/unistd.h); None where it has no such call.
_ALTERING: dict[str, tuple[int | None, int | None]] = {
    "open": (2, None), "openat": (257, 56), "openat2": (437, 437), "creat": (85, None),
    "mkdir": (83, None), "mkdirat": (258, 34), "mknod": (133, None), "mknodat": (259, 33),
    "link": (86, None), "linkat": (265, 37), "symlink": (88, None), "symlinkat": (266, 36),
    "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276),
    "unlink": (87, None), "unlinkat": (263, 35), "rmdir": (84, None),
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, None), "lchown": (94, None), "fchown": (93, 55), "fchownat": (260, 54), "utimensat": (280, 88),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "truncate": (76, 45), "ftruncate": (77, 46), "fallocate": (285, 47),
    "write": (1, 64), "pwrite64": (18, 68), "copy_file_range": (326, 285), "sendfile": (40, 71),
    "fsync": (74, 82), "fdatasync": (75, 83), "syncfs": (306, 267), "sync": (162, 81),
    "ioctl": (16, 29), "mount": (165, 40), "umount2": (166, 39), "open_tree": (428, 428), "move_mount": (429, 429),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
}  # fmt: skip
_READING: dict[str, tuple[int | None, int | None]] = {
    "getdents64": (217, 61), "stat": (4, None), "lstat": (6, None), "fstat": (5, 80), "newfstatat": (262, 79),
    "statx": (332, 291), "read": (0, 63), "pread64": (17, 67), "readlink": (89, None), "readlinkat": (267, 78),
    "getxattr": (191, 8), "lgetxattr": (192, 9), "fgetxattr": (193, 10),
    "listxattr": (194, 11), "llistxattr": (195, 12), "flistxattr": (196, 13),
}  # fmt: skip

SYNCING = frozenset({"fsync", "fdatasync", "syncfs", "sync"})
"""Calls that put something on the disk. One that fails must never be taken for one that did."""

_OPENING = {"open": 1, "openat": 2}
"""By name: which of the arguments are the flags."""

_WRITES = os.O_CREAT | os.O_TRUNC

_BY_DESCRIPTOR = frozenset(
    (
        *("fsync", "fdatasync", "syncfs", "fchmod", "fchown", "fsetxattr", "fremovexattr", "ftruncate", "fallocate"),
        *("write", "pwrite64", "read", "pread64", "ioctl", "getdents64", "fgetxattr", "flistxattr", "fstat"),
    )
)
_HALVES = frozenset({"read", "pread64", "write", "pwrite64"})
_PIDFD_GETFD = 438
_TWO_PATHS = frozenset({"rename", "link"})

_SECCOMP = (317, 277)
_ARCHITECTURES = {  # linux/audit.h
    "x86_64": (0xC000003E, _X86),
    "aarch64": (0xC00000B7, _GENERIC),
    "riscv64": (0xC00000F3, _GENERIC),
    "loongarch64": (0xC0000102, _GENERIC),
}

# linux/seccomp.h
_SET_MODE_FILTER, _NEW_LISTENER = 1, 8
_RECEIVE, _ANSWER = 0xC0502100, 0xC0182101
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_GO_ON = 1
_QUESTION, _REPLY = struct.Struct("=QIIiIQ6Q"), struct.Struct("=QqiI")

# linux/filter.h
_LOAD, _IS_EQUAL, _RETURN = 0x20, 0x15, 0x06

_TERMINAL = ord("T")
"""The type of ioctls that ask whether something is a terminal, as Python does of each file that it opens."""

_PATIENCE = 120.0
"""Seconds without a call, after which a child hangs."""


class CannotWatch(Exception):
    """This kernel, or what this process runs in, lets nobody see system calls; the reason is its text."""


@frozen
class Call:
    """One system call. `path` is what it names, or what its descriptor leads to, as far as that can be told."""

    name: str
    arguments: tuple[int, ...]
    path: str
    alters: bool

    def __str__(self) -> str:
        return f"{self.name}({self.path})"


class Death:
    """What to answer to a call that is to be the process's last: it is not made."""


class Omission:
    """What to answer to a call that is not made, and is said to have succeeded."""


class Half:
    """What to answer to a read or write of a file, of which half is then done. Others are made as they are."""


Verdict = int | Death | Omission | Half | None


@frozen
class Failure:
    """An exception of the child. `kinds` are the names of its classes, the nearest first."""

    kinds: tuple[str, ...]
    errno: int | None
    text: str
    trace: str


@define
class Run:
    """What came of a run: the calls that were asked about, how the deed ended, and what `then` had to say."""

    calls: list[Call] = field(factory=list)
    died: bool = False
    failure: Failure | None = None
    result: Any = None
    """What `then` returned."""


Then = Callable[["Failure | None"], Any]

Answer = Callable[[int, Call], Verdict]
"""Asked with the number of a call, from 0, and the call: an errno makes it fail, None lets it be made."""


def run_watched(
    deed: Callable[[], object],
    answer: Answer,
    then: Then | None = None,
    *,
    names: Collection[str] | None = None,
    before: Callable[[], object] | None = None,
) -> Run:
    """Do `deed` in a child, whose system calls go by `answer`; afterwards, if it lives, `then`, freely.

    `before` it the child does this, unwatched. `names` are the calls that are asked about: the fewer, the faster;
    None: all that this knows. `then` is told how the deed ended; what it raises is an AssertionError here.
    Raises `CannotWatch`.
    """
    parent, child = socket.socketpair()
    with parent, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads and fork: this child runs on this thread only
        process = os.fork()
        if process == 0:
            _be_watched(child, deed, then, names, before)
        child.close()
        try:
            return _watch(process, parent, answer)
        finally:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)


# --- the child -------------------------------------------------------------------------------------------------------


def _be_watched(
    channel: socket.socket,
    deed: Callable[[], object],
    then: Then | None,
    names: Collection[str] | None,
    before: Callable[[], object] | None,
) -> Any:
    try:
        try:
            if before is not None:
                before()
        except BaseException as error:
            channel.sendall(pickle.dumps(("wrong", "".join(traceback.format_exception(error)))))
            os._exit(1)
        try:
            listener = _install(names)
        except OSError as error:
            channel.sendall(pickle.dumps(("refused", f"no filter for system calls: {error.strerror}")))
            os._exit(1)
        socket.send_fds(channel, [b"."], [listener])
        os.close(listener)
        channel.recv(1)
        failure = None
        try:
            deed()
        except BaseException as error:
            failure = _told(error)
        _report(channel, ("done", failure))
        try:
            _report(channel, ("then", None if then is None else then(failure)))
        except BaseException as error:
            _report(channel, ("wrong", _told(error)))
    finally:
        os._exit(0)


def _told(error: BaseException) -> Failure:
    kinds = tuple(kind.__name__ for kind in type(error).__mro__)
    return Failure(kinds, getattr(error, "errno", None), str(error), "".join(traceback.format_exception(error)))


def _report(channel: socket.socket, message: object) -> None:
    data = pickle.dumps(message)
    channel.sendall(struct.pack("=I", len(data)) + data)
    channel.recv(1)


def _install(names: Collection[str] | None) -> int:
    audit, column = _ARCHITECTURES.get(platform.machine(), (0, 0))
    if not audit or sys.maxsize < 2**32:
        raise OSError(errno.ENOSYS, f"the numbers of system calls on {platform.machine()} are not known")
    known = {**_ALTERING, **_READING}
    numbers = [known[name][column] for name in (known if names is None else names)]
    wanted = [number for number in numbers if number is not None]
    steps = [(_LOAD, 0, 0, 4), (_IS_EQUAL, 1, 0, audit), (_RETURN, 0, 0, _ALLOW), (_LOAD, 0, 0, 0)]
    steps += [(_IS_EQUAL, len(wanted) - at, 0, number) for at, number in enumerate(wanted)]
    steps += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _NOTIFY)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    where = struct.pack("@HP", len(steps), ctypes.addressof(program))
    libc = ctypes.CDLL(None, use_errno=True)
    listener: int = libc.syscall(_SECCOMP[column], _SET_MODE_FILTER, _NEW_LISTENER, where)
    if listener < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return listener


# --- the parent ------------------------------------------------------------------------------------------------------


def _watch(process: int, channel: socket.socket, answer: Answer) -> Run:
    channel.settimeout(_PATIENCE)
    first, fds, _, _ = socket.recv_fds(channel, 65536, 1)
    if not fds:
        kind, reason = pickle.loads(first) if first else ("", "the process that was to be watched died")
        assert kind != "wrong", reason
        raise CannotWatch(reason)
    [listener] = fds
    run, deed_goes_on = Run(), True
    names = _names()
    with _closing(listener):
        channel.sendall(b".")
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        poll.register(channel, select.POLLIN)
        while True:
            ready = dict(poll.poll(_PATIENCE * 1000))
            assert ready, f"it hangs after {run.calls[-1:]}"
            if ready.get(listener, 0) & select.POLLIN:
                question = _received(listener)
                if question is not None and _serve(
                    listener, process, question, names, run, answer, deed_goes_on=deed_goes_on
                ):
                    run.died = True
                    return run
            elif channel.fileno() in ready:
                message = _message(channel)
                if message is None:
                    raise AssertionError(f"it died by itself after {run.calls[-1:]}")
                kind, value = message
                if kind == "wrong":
                    raise AssertionError(f"{value.text}\n{value.trace}")
                if kind == "then":
                    run.result = value
                    return run
                run.failure, deed_goes_on = value, False
                channel.sendall(b".")
            else:
                poll.unregister(listener)  # nobody is watched any more


def _names() -> dict[int, tuple[str, bool]]:
    _, column = _ARCHITECTURES[platform.machine()]
    known: dict[int, tuple[str, bool]] = {}
    for table, alters in ((_ALTERING, True), (_READING, False)):
        for name, numbers in table.items():
            number = numbers[column]
            if number is not None:
                known[number] = (name, alters)
    return known


def _message(channel: socket.socket) -> Any:
    head = channel.recv(4, socket.MSG_WAITALL)
    if len(head) < 4:
        return None
    (length,) = struct.unpack("=I", head)
    return pickle.loads(channel.recv(length, socket.MSG_WAITALL))


def _received(listener: int) -> tuple[int, ...] | None:
    data = bytearray(_QUESTION.size)
    try:
        fcntl.ioctl(listener, _RECEIVE, data)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINTR):  # it is gone, or was woken by a signal
            return None
        raise
    return _QUESTION.unpack(data)


def _serve(
    listener: int,
    process: int,
    question: tuple[int, ...],
    names: dict[int, tuple[str, bool]],
    run: Run,
    answer: Answer,
    *,
    deed_goes_on: bool,
) -> bool:
    """Answer one question. True: by death."""
    ticket, thread, _, number, _, _, *arguments = question
    verdict: Verdict = None
    # Programs that the driver starts inherit the filter, and are none of our business.
    if deed_goes_on and os.path.exists(f"/proc/{process}/task/{thread}"):
        call = _call(thread, names[number], tuple(arguments))
        if not call.path.startswith("socket:"):  # our own channel
            verdict = answer(len(run.calls), call)
            run.calls.append(call)
    if isinstance(verdict, Death):
        os.kill(process, signal.SIGKILL)  # while the call still waits: a listener that is closed lets it go on
        return True
    done = None
    if isinstance(verdict, Half):
        done = _do_half(process, thread, names[number][0], tuple(arguments))
    elif isinstance(verdict, Omission):
        done = 0
    failure = verdict if isinstance(verdict, int) else 0
    reply = _REPLY.pack(ticket, done or 0, -failure, 0 if failure or done is not None else _GO_ON)
    try:
        fcntl.ioctl(listener, _ANSWER, bytearray(reply))
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
    return False


def _call(thread: int, known: tuple[str, bool], arguments: tuple[int, ...]) -> Call:
    name, alters = known
    if name in _OPENING:
        alters = bool(arguments[_OPENING[name]] & _WRITES)
    elif name == "openat2":
        alters = bool(struct.unpack("=Q", _memory(thread, arguments[2], 8))[0] & _WRITES)
    elif name == "ioctl":
        alters = arguments[1] >> 8 & 0xFF != _TERMINAL
    elif name in ("write", "pwrite64"):
        alters = stat.S_ISREG(_mode_of(thread, arguments[0]))
    return Call(name, arguments, _path(thread, name, arguments), alters)


def _do_half(process: int, thread: int, name: str, arguments: tuple[int, ...]) -> int | None:
    """Do half of a read or write of a regular file in its place; None if that cannot be done to it."""
    fd, buffer, length, offset = arguments[:4]
    if name not in _HALVES or length < 2 or not stat.S_ISREG(_mode_of(thread, fd)):
        return None
    pidfd = os.pidfd_open(process)
    own = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, pidfd, fd & 0xFFFFFFFF, 0)
    os.close(pidfd)
    if own < 0:
        return None
    try:
        if "write" in name:
            data = _memory(thread, buffer, length // 2)
            return os.pwrite(own, data, offset) if name == "pwrite64" else os.write(own, data)
        data = os.pread(own, length // 2, offset) if name == "pread64" else os.read(own, length // 2)
        with open(f"/proc/{thread}/mem", "r+b", buffering=0) as memory:
            memory.seek(buffer)
            memory.write(data)
        return len(data)
    finally:
        os.close(own)


def _mode_of(thread: int, fd: int) -> int:
    try:
        return os.stat(f"/proc/{thread}/fd/{fd}").st_mode
    except OSError:
        return 0


def _path(thread: int, name: str, arguments: tuple[int, ...]) -> str:
    if name in _BY_DESCRIPTOR:
        return _target(thread, arguments[0])
    if name in _TWO_PATHS:
        return f"{_text(thread, arguments[0])} -> {_text(thread, arguments[1])}"
    if name.startswith(("renameat", "linkat")):
        return f"{_beneath(thread, *arguments[:2])} -> {_beneath(thread, *arguments[2:4])}"
    if name == "symlinkat":
        return _beneath(thread, *arguments[1:3])
    if name.endswith("at") or name in ("openat2", "fchmodat2", "statx"):
        return _beneath(thread, *arguments[:2])
    if name in ("fsopen", "fsconfig", "fsmount", "move_mount", "open_tree", "sync", "copy_file_range", "sendfile"):
        return ""
    return _text(thread, arguments[0])


def _beneath(thread: int, fd: int, pointer: int) -> str:
    name = _text(thread, pointer)
    if name.startswith("/") or fd & 0xFFFFFFFF == 0xFFFFFF9C:  # AT_FDCWD
        return name
    return f"{_target(thread, fd)}/{name}" if name else _target(thread, fd)


def _target(thread: int, fd: int) -> str:
    try:
        return os.readlink(f"/proc/{thread}/fd/{fd & 0xFFFFFFFF}")
    except OSError:
        return ""


def _text(thread: int, pointer: int) -> str:
    return os.fsdecode(_memory(thread, pointer, 4096).split(b"\0")[0])


def _memory(thread: int, pointer: int, length: int) -> bytes:
    """As much as can be read: what is asked for may reach beyond the last page."""
    if not pointer:
        return b""
    try:
        with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:
            memory.seek(pointer)
            return memory.read(length)
    except (OSError, ValueError, OverflowError):
        return bytes(8)


@contextmanager
def _closing(fd: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(fd)
