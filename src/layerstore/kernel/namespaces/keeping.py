"""Keepers: a process that does nothing but keep a user namespace, and the mounts in it, alive. Made, found, joined."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from layerstore.errors import KernelError
from layerstore.kernel._shim import lib
from layerstore.kernel.namespaces.maps import IdMap, IdRange, current, one_id
from layerstore.values import frozen

__all__ = ["Keeper", "enter", "find", "start"]

_KINDS = ("user", "mnt")


@frozen
class Keeper:
    """A process and its namespaces, by the numbers that the kernel gives them: no other has these in this boot."""

    pid: int
    user: str
    mounts: str


def find(pid: int, owner: int, ids: IdMap) -> Keeper | None:
    """The keeper with this number, if it is one of this user's with exactly these IDs: anything may have the number."""
    try:
        if os.stat(f"/proc/{pid}").st_uid != owner or current(pid) != ids:
            return None
        user, mounts = (os.readlink(f"/proc/{pid}/ns/{kind}") for kind in _KINDS)
    except OSError:
        return None
    return Keeper(pid, user, mounts)


def start(ids: IdMap, uid: int, gid: int) -> Keeper:
    """A new namespace that belongs to this user, and its keeper. Raises `KernelError`.

    This process is that user, or root; and has one thread, as whoever forks should.
    """
    asked, answered = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            for theirs in (asked[0], answered[1]):  # else it would wait for itself when nobody is left to answer
                os.close(theirs)
            _keep(asked[1], answered[0], uid, gid)
        finally:
            os._exit(1)
    os.close(asked[1])
    os.close(answered[0])
    try:
        told = os.read(asked[0], 4)
        if told != b"\0\0\0\0":
            raise _refused(int.from_bytes(told or b"\5", "little"))
        _write_maps(pid, ids, uid, gid)
        os.write(answered[1], b"y")
        # It is a keeper when it executes another program: then the pipe ends.
        os.read(asked[0], 1)
        made = find(pid, uid, ids)
        if made is None:
            raise KernelError("clone", errno.ESRCH, detail="the process that keeps the user namespace ended")
        return made
    except BaseException:
        with suppress(ProcessLookupError):
            os.kill(pid, 9)
        os.waitpid(pid, 0)
        raise
    finally:
        os.close(asked[0])
        os.close(answered[1])


def enter(keeper: Keeper) -> None:
    """Go into a keeper's namespaces, as their root. The current folder stays. Raises `KernelError`.

    The kernel lets no process of several threads do that (setns(2)).
    """
    folder = os.getcwd()
    is_root = os.geteuid() == 0
    if is_root:
        os.setgroups([])
    with _opened(keeper) as (user, mounts):
        answer = lib.ls_enter_namespaces(user, mounts)
    if answer < 0:
        remedy = (
            "Do it at the start of the program, before there are other threads." if answer == -errno.EINVAL else None
        )
        raise KernelError("setns", -answer, remedy=remedy)
    if is_root:  # who has no ID there yet
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    os.chdir(folder)


@contextmanager
def _opened(keeper: Keeper) -> Iterator[tuple[int, int]]:
    fds: list[int] = []
    try:
        for kind in _KINDS:
            fds.append(os.open(f"/proc/{keeper.pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC))
        yield fds[0], fds[1]
    except OSError as error:
        raise KernelError("open", error.errno or errno.EIO, path=f"/proc/{keeper.pid}/ns") from None
    finally:
        for fd in fds:
            os.close(fd)


def _keep(tell: int, wait: int, uid: int, gid: int) -> None:
    """In the child: make the namespace, wait for its map, and become a program that only waits."""
    os.setsid()
    os.chdir("/")
    if os.geteuid() != uid:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    os.write(tell, (-lib.ls_new_namespaces()).to_bytes(4, "little"))
    if os.read(wait, 1) != b"y":
        return
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    os.set_inheritable(tell, False)
    for fd in os.listdir("/proc/self/fd"):
        if int(fd) > 2 and int(fd) != tell:
            with suppress(OSError):  # the folder's own
                os.close(int(fd))
    os.execvp("sleep", ["sleep", "infinity"])


def _write_maps(pid: int, ids: IdMap, uid: int, gid: int) -> None:
    if os.geteuid() == 0:
        for file, ranges in (("uid_map", ids.uids), ("gid_map", ids.gids)):
            _write(pid, file, "".join(map(str, ranges)))
    elif ids == one_id(uid, gid):
        _write(pid, "setgroups", "deny")
        _write(pid, "uid_map", f"0 {uid} 1\n")
        _write(pid, "gid_map", f"0 {gid} 1\n")
    else:
        _allot("newuidmap", pid, ids.uids)
        _allot("newgidmap", pid, ids.gids)


def _write(pid: int, file: str, text: str) -> None:
    try:
        with open(f"/proc/{pid}/{file}", "w") as stream:
            stream.write(text)
    except OSError as error:
        raise KernelError("write", error.errno or errno.EIO, path=f"/proc/{pid}/{file}") from None


def _allot(program: str, pid: int, ranges: Sequence[IdRange]) -> None:
    import shutil
    import subprocess

    if shutil.which(program) is None:
        raise KernelError(program, errno.ENOENT, remedy="Install the package uidmap.")
    words = [str(number) for one in ranges for number in (one.inside, one.outside, one.count)]
    done = subprocess.run([program, str(pid), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise KernelError(program, errno.EPERM, detail=done.stderr.strip() or f"it ended with {done.returncode}")


def _refused(number: int) -> KernelError:
    remedy = None
    if number in (errno.EPERM, errno.EACCES, errno.ENOSPC, errno.EUSERS):
        remedy = (
            "Ordinary users may make no user namespaces here: see the sysctls user.max_user_namespaces, "
            "kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns; or use root."
        )
    return KernelError("unshare", number, remedy=remedy)
