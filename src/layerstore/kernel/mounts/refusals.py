"""Why the kernel refused a mount or an unmount, found out afterwards.

Overlay refuses some things without a word, and mounts read-only instead of failing; an unmount that is busy does not
say who holds it. Here the reason is looked for, and what the user can do about it. Nothing here runs when all is well.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from layerstore.errors import KernelError
from layerstore.kernel.mounts import table
from layerstore.kernel.mounts.recipe import Mount

MAX_LOWERS = 500
"""OVL_MAX_STACK of the kernel."""

_PRIVILEGE = "Mounting needs root (CAP_SYS_ADMIN): use sudo, or a privileged container."
_MODULE = "Load it with `modprobe {}`, or use a kernel that has it."


def of_mount(call: str, mount: Mount, number: int, path: Path | str | None, words: str) -> KernelError:
    """The error for a mount that failed with `number` in `call`; `words` are those that the kernel gave."""
    where, detail, remedy = path, words.removeprefix("overlay: "), None
    match number:
        case errno.EPERM | errno.EACCES if os.geteuid() != 0:
            remedy = _PRIVILEGE
        case errno.EPERM:
            remedy = "Root is not enough here: the container or service that this runs in is not allowed to mount."
        case errno.ENODEV:
            detail, remedy = f"the kernel has no {mount.type}", _MODULE.format(mount.type)
        case errno.ENOENT | errno.ENOTDIR:
            where = _missing(mount) or path
        case errno.ENOSPC if call in ("open_tree", "fsmount", "move_mount"):  # which write to no disk
            detail, remedy = "too many mounts", "Unmount some, or raise the limit: sysctl fs.mount-max."
    if mount.type == "overlay":
        explained = _of_overlay(mount, number, detail)
        if explained is not None:
            detail, remedy = explained
    return KernelError(call, number, path=where, detail=detail or None, remedy=remedy)


def of_writing(mount: Mount, target: Path | None) -> KernelError:
    """The error for a mount that should be writable, succeeded, and is read-only."""
    upper, work = _option(mount, "upperdir"), _option(mount, "workdir")
    detail, remedy = "it would be read-only; the kernel's log (dmesg) has the reason", None
    if mount.type == "overlay" and upper is None:
        detail = "it has no upper directory, so it can only be read"
    elif work is not None:
        number = _writing_error(work)
        if number is not None:
            detail = f"it would be read-only: its work directory {work} cannot be written: {os.strerror(number)}"
        if number == errno.ENOSPC:
            space = os.statvfs(work)
            short = "no inode" if space.f_files and not space.f_favail else "no space"
            detail, remedy = f"{detail}: {short} is left", "Free some on that filesystem."
        elif number == errno.EDQUOT:
            remedy = "The quota of that directory is used up: free some of it, or raise the limit."
        elif number == errno.EROFS:
            remedy = "The filesystem below is mounted read-only."
    return KernelError("mount", errno.EROFS, path=target or upper or mount.source, detail=detail, remedy=remedy)


def of_unmount(target: Path, number: int) -> KernelError:
    """The error for an unmount that failed."""
    detail = remedy = None
    match number:
        case errno.EINVAL:
            detail = "nothing is mounted there"
        case errno.EPERM | errno.EACCES:
            remedy = _PRIVILEGE
        case errno.EBUSY:
            inner = table.mounts_below(target)
            found = [str(place) for _, place in inner] or list(holders(target))
            if inner:
                detail, remedy = f"mounts stand on it: {', '.join(found)}", "Unmount them first."
            elif found:
                detail = f"held by {', '.join(found)}"
                remedy = "End these processes, or let them close their files and leave the directory."
            else:
                remedy = "Something holds it that is not to be seen from here, such as a loop device."
    return KernelError("umount2", number, path=target, detail=detail, remedy=remedy)


def holders(target: Path) -> Iterator[str]:
    """The processes that have something of the mount at `target` open, in any mount namespace."""
    ids = _copies(target)
    within = os.fsencode(os.path.realpath(target)) + b"/"
    for process in table.processes():
        if _holds(process, ids, within):
            yield f"{_command(process)} (pid {process})"


# ---- overlay


def _of_overlay(mount: Mount, number: int, words: str) -> tuple[str, str | None] | None:
    """Detail and remedy, where overlay's own words are missing or not enough."""
    lowers = [value for key, value in mount.options if key in ("lowerdir+", "datadir+") and value is not None]
    match number:
        case errno.EINVAL if len(lowers) > MAX_LOWERS:
            return (
                f"too many lower directories: {len(lowers)}, and the limit is {MAX_LOWERS}",
                "Flatten the image: export a container of it and import the result as one layer.",
            )
        case errno.EINVAL if not words:
            reason = _silent_conflict(mount, lowers)
            return None if reason is None else (reason, None)
        case errno.ELOOP:
            return words or "one directory is there twice, or lies inside another", None
        case errno.ESTALE:
            return (
                words or "its upper directory was last used with other lower directories",
                "It was mounted with index=on; only the same stack can be mounted again.",
            )
        case errno.EBUSY:
            return words or "its upper or work directory belongs to another mount", "Unmount that one first."
    return None


def _silent_conflict(mount: Mount, lowers: list[str]) -> str | None:
    upper, work = _option(mount, "upperdir"), _option(mount, "workdir")
    if upper is not None:
        if work is None:
            return "an upper directory needs a work directory"
        upper, work = os.path.realpath(upper), os.path.realpath(work)
        if os.stat(upper).st_dev != os.stat(work).st_dev:
            return f"the work directory {work} is on another filesystem than the upper directory {upper}"
        if os.path.commonpath([upper, work]) in (upper, work):
            return f"the work directory {work} and the upper directory {upper} must lie beside each other"
        if os.path.lexists(f"{work}/work/incompat/volatile"):
            return f"it was mounted volatile and did not end well: {work}/work/incompat/volatile is left"
    elif len(lowers) == 1:
        return "one lower directory alone is no overlay: it takes two, or an upper directory"
    if ("userxattr", None) in mount.options:
        for key in ("metacopy", "redirect_dir"):
            if _option(mount, key) == "on":
                return f"userxattr and {key}=on exclude each other"
    return None


def _option(mount: Mount, name: str) -> str | None:
    return next((value for key, value in mount.options if key == name), None)


def _missing(mount: Mount) -> str | None:
    """The first directory of the recipe that is none."""
    for key, value in mount.options:
        if key in ("lowerdir+", "datadir+", "upperdir", "workdir") and value is not None and not os.path.isdir(value):
            return value
    return mount.source if mount.type == "bind" and not os.path.lexists(mount.source) else None


def _writing_error(work: str) -> int | None:
    """The errno of making something in the work directory; None if that works."""
    probe = os.path.join(work, f".layerstore-{os.getpid()}")
    try:
        os.mkdir(probe, 0)
    except OSError as error:
        return error.errno
    os.rmdir(probe)
    return None


# ---- processes


def _command(process: int) -> str:
    try:
        return Path(f"/proc/{process}/comm").read_text(errors="replace").strip()
    except OSError:
        return "?"


def _copies(target: Path) -> set[int]:
    """The old IDs of the mount at `target` and of its copies in other mount namespaces, which show the same device."""
    facts = table.facts_of(target, follow=True, old_id=True)
    if facts is None:
        return set()
    ids = {int(facts.id)}
    devices = {device for identity, device, _ in table.mountinfo("self") if identity in ids}
    seen = {table.mount_namespace()}
    for process in table.processes():
        with suppress(OSError):
            namespace = os.stat(f"/proc/{process}/ns/mnt").st_ino
            if namespace not in seen:
                seen.add(namespace)
                ids |= {identity for identity, device, _ in table.mountinfo(process) if device in devices}
    return ids


def _holds(process: int, ids: set[int], within: bytes) -> bool:
    folder = f"/proc/{process}"
    links = [f"{folder}/{name}" for name in ("cwd", "root", "exe")]
    with suppress(OSError):
        links += [f"{folder}/fd/{name}" for name in os.listdir(f"{folder}/fd")]
    for link in links:
        facts = table.facts_of(link, follow=True, old_id=True)
        if facts is not None and int(facts.id) in ids:
            return True
    with suppress(OSError), open(f"{folder}/maps", "rb") as maps:
        return any(within in line for line in maps)
    return False
