"""Mount points that a tree lacks: made before a run, and taken away after it, so that no layer ever has them.

A runtime makes what it mounts on, and the folder that a program begins in; docker leaves these in the container's
layer. Here they are planned first (`plan`, which writes nothing), so that who keeps the plan can take them away
(`erase`) whatever happens to the processes in between. Folders that are written to keep their times.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from layerstore import CannotRun, KernelError, open_beneath
from layerstore.values import frozen

__all__ = ["Trace", "erase", "make", "plan", "plan_folder", "resolve"]

_ELSEWHERE = "Mount, or begin, somewhere else."

_LINKS = 40
"""As many as the kernel follows."""


@frozen
class Trace:
    """A file or folder that is missing, by its path in the tree, in which no symbolic link is."""

    path: str
    folder: bool


def plan(tree: int, config: Mapping[str, Any]) -> tuple[Trace, ...]:
    """What a tree lacks for a config.json, each after what it lies in.

    Raises `CannotRun` if a file is in the way, or a symbolic link instead of /dev.
    """
    _require_no_link(tree, "dev")
    wanted = [(mount["destination"], _is_folder(mount)) for mount in config.get("mounts", ())]
    return _missing(tree, wanted, config["process"]["cwd"])


def plan_folder(tree: int, path: str, targets: Iterable[str] = ()) -> tuple[Trace, ...]:
    """What a tree lacks of the folder that a program begins in, where only `targets` are mounted, which are there.

    Raises `CannotRun` if a file is in the way.
    """
    return _missing(tree, [(target, True) for target in targets], path)


def _missing(tree: int, wanted: Sequence[tuple[str, bool]], cwd: str) -> tuple[Trace, ...]:
    found: dict[str, Trace] = {}
    covered: list[str] = []
    for path, folder in [*wanted, (cwd, True)]:
        if ".." not in path and any(path.startswith(f"{above}/") for above in covered):
            continue  # no link of the tree leads out of what is mounted there: most are below /dev
        known, missing = resolve(tree, path)
        place = "/" + "/".join((*known, *missing))
        # What lies in something else that is mounted is made there.
        if not any(place.startswith(f"{above}/") for above in covered):
            for count in range(1, len(missing) + 1):
                inner = "/" + "/".join((*known, *missing[:count]))
                found.setdefault(inner, Trace(inner, folder or count < len(missing)))
            if path == cwd and not missing and place not in covered:
                _require_folder(tree, known, cwd)
        covered.append(place)
    return tuple(found.values())


def _require_no_link(tree: int, name: str) -> None:
    """crun (1.8.1) and runc (1.1) follow a link /dev out of the tree, and make devices and links on the host there."""
    try:
        facts = os.stat(name, dir_fd=tree, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISLNK(facts.st_mode):
        raise CannotRun(
            f"/{name} is a symbolic link in the container: what an engine puts there would come to lie on the host",
            remedy="Do not run this image; or with isolation 'process', which makes /dev without following a link.",
        )


def _require_folder(tree: int, names: Sequence[str], path: str) -> None:
    if not names:
        return
    with _folder(tree, names[:-1]) as above:
        facts = os.stat(names[-1], dir_fd=above, follow_symlinks=False)
    if not stat.S_ISDIR(facts.st_mode):
        raise CannotRun(f"not a directory: {path} in the container, where the program is to begin", remedy=_ELSEWHERE)


def _is_folder(mount: Mapping[str, Any]) -> bool:
    """A file can be bound on a file only."""
    return not (mount.get("type") == "bind" and os.path.exists(mount["source"]) and not os.path.isdir(mount["source"]))


def resolve(tree: int, path: str) -> tuple[list[str], list[str]]:
    """The names that lead to a path without symbolic links: those that are there, and those that are not.

    Raises `CannotRun` if a file is in the way.
    """
    known: list[str] = []
    pending = [name for name in reversed(path.split("/")) if name not in ("", ".")]
    links = 0
    while pending:
        name = pending.pop()
        if name == "..":
            known = known[:-1]
            continue
        with _folder(tree, known) as above:
            try:
                facts = os.stat(name, dir_fd=above, follow_symlinks=False)
            except FileNotFoundError:
                missing = [name]
                for other in reversed(pending):
                    missing = missing[:-1] if other == ".." else [*missing, other]
                return known, missing
            if not stat.S_ISLNK(facts.st_mode):
                if pending and not stat.S_ISDIR(facts.st_mode):
                    raise CannotRun(
                        f"not a directory: /{'/'.join((*known, name))}, on the way to {path} in the container",
                        remedy=_ELSEWHERE,
                    )
                known.append(name)
                continue
            links += 1
            if links > _LINKS:
                raise KernelError("openat2", errno.ELOOP, path=path)
            target = os.readlink(name, dir_fd=above)
        if target.startswith("/"):
            known = []
        pending += [part for part in reversed(target.split("/")) if part not in ("", ".")]
    return known, []


def make(tree: int, traces: Sequence[Trace]) -> None:
    """Make what was planned. What is there by now is left as it is."""
    for trace in traces:
        names = trace.path.strip("/").split("/")
        with _folder(tree, names[:-1]) as above, _times_kept(above):
            try:
                if trace.folder:
                    os.mkdir(names[-1], 0o755, dir_fd=above)
                    made = os.open(names[-1], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
                else:
                    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                    made = os.open(names[-1], flags, 0o644, dir_fd=above)
            except FileExistsError:
                continue
            except OSError as error:
                raise KernelError(
                    "mkdirat" if trace.folder else "openat", error.errno or errno.EIO, path=trace.path
                ) from None
            try:
                # Whatever the umask is, and a folder above that passes on its group.
                os.fchown(made, os.geteuid(), os.getegid())
                os.fchmod(made, 0o755 if trace.folder else 0o644)
            finally:
                os.close(made)


def erase(tree: int, traces: Sequence[Trace]) -> None:
    """Take away what `make` made, unless a program has altered it or put something in it."""
    for trace in reversed(traces):
        names = trace.path.strip("/").split("/")
        try:
            with _folder(tree, names[:-1]) as above, _times_kept(above):
                facts = os.stat(names[-1], dir_fd=above, follow_symlinks=False)
                if (facts.st_uid, facts.st_gid) != (os.geteuid(), os.getegid()):
                    continue
                if trace.folder and facts.st_mode == stat.S_IFDIR | 0o755:
                    os.rmdir(names[-1], dir_fd=above)
                elif not trace.folder and (facts.st_mode, facts.st_size) == (stat.S_IFREG | 0o644, 0):
                    os.unlink(names[-1], dir_fd=above)
        except FileNotFoundError:
            continue
        except KernelError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise KernelError("unlinkat", error.errno or errno.EIO, path=trace.path) from None


@contextmanager
def _folder(tree: int, names: Sequence[str]) -> Iterator[int]:
    fd = open_beneath(tree, "/" + "/".join(names), os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _times_kept(folder: int) -> Iterator[None]:
    """A folder keeps its times, whatever is made or removed in it inside."""
    before = os.fstat(folder)
    try:
        yield
    finally:
        after = os.fstat(folder)
        if after.st_mtime_ns != before.st_mtime_ns:
            os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))
