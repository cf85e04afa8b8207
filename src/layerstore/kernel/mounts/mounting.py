"""Mounts, as data and as deeds.

A driver says what to mount with `Mount` values and never mounts; the core does, here. The kernel's new mount interface
is used where it can be (directories by descriptor: no limit of length, no escaping, the kernel's own words on failure),
else mount(2). Whatever fails leaves nothing mounted. Why something failed is found out in `kernel.refusals`,
afterwards: what succeeds pays for no check. Two types have a file each for what is theirs alone: `fuse` and `aufs`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from layerstore.errors import DriverNotSupported, KernelError
from layerstore.kernel._shim import lib
from layerstore.kernel.files.descriptors import FOLDER, HANDLE, NO_DESCRIPTORS, open_path, opened
from layerstore.kernel.mounts.apart import apart
from layerstore.kernel.mounts.recipe import AUFS, EROFS, FUSE_OVERLAYFS, PAGE, Mount, OldKernel, words_of
from layerstore.kernel.mounts.table import id_of

__all__ = ["attach", "attach_clone", "clone_of", "detached", "new_tree", "unmount"]

_STRING_LIMIT = 255  # of fsconfig(2)

_FOLDERS = frozenset({"lowerdir+", "datadir+", "upperdir", "workdir"})
_FILES = frozenset({"device"})
_ATTRIBUTES = {
    "nosuid": lib.LS_MOUNT_NOSUID,
    "nodev": lib.LS_MOUNT_NODEV,
    "noexec": lib.LS_MOUNT_NOEXEC,
    "noatime": lib.LS_MOUNT_NOATIME,
    "nodiratime": lib.LS_MOUNT_NODIRATIME,
}

# Overlay takes directories by descriptor since Linux 6.13; the first refusal turns this off for the process. Erofs,
# which mounts files since 6.12, has none to take.
_by_descriptor = True


def attach(mounts: Sequence[Mount], target: Path) -> int:
    """Mount the recipe so that its tree is seen at `target`, and return the ID of the mount there (see `mount_id`).

    It is the only one to be unmounted: those that it stands on are attached nowhere, and go with it.
    """
    *below, top = mounts
    if below and _by_descriptor:
        with suppress(OldKernel):
            return _attach_tree(_tree_on(below, top), top, target)
    with ExitStack() as away:
        for mount in below:
            away.callback(_attached_below(mount))
        return _attach_one(top, target)


@contextmanager
def detached(mounts: Sequence[Mount]) -> Iterator[int]:
    """The recipe's tree, attached nowhere, as a readable directory descriptor. It is gone with the last descriptor."""
    *below, top = mounts
    with ExitStack() as undo:
        tree = _detached_on(below, top)
        undo.callback(os.close, tree)
        # The descriptor of a mount is O_PATH: good for openat, not for reading.
        folder = open_path(f"/proc/self/fd/{tree}", FOLDER)
        undo.callback(os.close, folder)
        yield folder


def new_tree(mounts: Sequence[Mount]) -> int:
    """The recipe's tree as a detached mount, its descriptor, for whoever attaches it in a namespace of its own.

    It is gone with the last descriptor, unless it was attached.
    """
    *below, top = mounts
    return _detached_on(below, top)


def clone_of(place: Path) -> int:
    """The mount at `place`, without what is mounted below it, once more: a detached mount, to be attached elsewhere."""
    with opened(place, HANDLE) as folder:
        tree = lib.ls_clone_mount(folder)
    if tree < 0:
        raise KernelError("open_tree", -tree, path=place)
    return int(tree)


def attach_clone(tree: int, target: Path) -> int:
    """Attach a clone of a mount (a descriptor, which stays the caller's), and return the ID of the mount there."""
    identity = id_of(tree)  # asked before: what fails after it is attached would leave it so
    answer = lib.ls_attach(tree, os.fsencode(target))
    if answer < 0:
        raise KernelError("move_mount", -answer, path=target)
    return identity


def unmount(target: Path, *, lazy: bool = False) -> None:
    """Undo one mount. If it is busy, the error says by whom; `lazy` takes it away and leaves them what they hold."""
    answer = _unmounted(target, lazy=lazy)
    if answer < 0:
        raise _not_unmounted(target, answer)


# ---- one mount


def _attach_one(mount: Mount, target: Path) -> int:
    if _by_descriptor or mount.type == EROFS:
        try:
            tree = _new_tree(mount)
        except OldKernel:
            pass
        else:
            return _attach_tree(tree, mount, target)
    _mount_old(mount, target)
    try:
        with opened(target, HANDLE) as seen:
            _ensure_writable(mount, seen, target)
            return id_of(seen)
    except BaseException:
        _undo(target)
        raise


def _attach_tree(tree: int, mount: Mount, target: Path) -> int:
    try:
        identity = id_of(tree)  # before, as in `attach_clone`
        answer = lib.ls_attach(tree, os.fsencode(target))
        if answer < 0:
            raise _refused("move_mount", mount, -answer, target)
        return identity
    finally:
        os.close(tree)


def _attached_below(mount: Mount) -> Callable[[], None]:
    """Attach a mount that another one will stand on; what takes its name away, which leaves it to that one."""
    where = Path(mount.target or "")
    _attach_one(mount, where)
    return partial(_undo, where)


def _detached_on(below: Sequence[Mount], top: Mount) -> int:
    """A detached mount that stands on others."""
    if below and _by_descriptor:
        with suppress(OldKernel):
            return _tree_on(below, top)
    with ExitStack() as away:
        for mount in below:
            away.callback(_attached_below(mount))
        return _detached_one(top)


def _tree_on(below: Sequence[Mount], top: Mount) -> int:
    """The same; what is below is at no moment seen by anybody else."""

    def make() -> int:
        for mount in below:
            _attach_one(mount, Path(mount.target or ""))
        return _new_tree(top)

    return apart(make)


def _detached_one(mount: Mount) -> int:
    if _by_descriptor or mount.type == EROFS:
        with suppress(OldKernel):
            return _new_tree(mount)
    import tempfile

    place = Path(tempfile.mkdtemp(prefix="layerstore-"))
    try:
        _mount_old(mount, place)
        try:
            # A clone can be attached elsewhere later; what was here cannot, once it is taken away.
            with opened(place, HANDLE) as folder:
                tree = lib.ls_clone_mount(folder)
            if tree < 0:
                tree = open_path(place, HANDLE)
        finally:
            _undo(place)
    finally:
        place.rmdir()
    return _writable(mount, tree)


def _new_tree(mount: Mount) -> int:
    """A detached mount: its descriptor."""
    attributes = _attributes(mount)
    if mount.type == AUFS:
        raise OldKernel  # and so is any other
    if mount.type == FUSE_OVERLAYFS:
        from layerstore.kernel.mounts import fuse

        return _writable(mount, fuse.new_tree(mount, attributes))
    if mount.type == "bind":
        if mount.ids is not None:
            from layerstore.kernel.mounts import mapped

            return mapped.clone(mount.source, attributes, mount.ids)
        tree = lib.ls_clone_tree(os.fsencode(mount.source), attributes)
        if tree == -errno.ENOSYS:
            raise OldKernel
        if tree < 0:
            raise _refused("open_tree", mount, -tree, mount.source)
        return int(tree)
    context = lib.ls_fsopen(mount.type.encode())
    if context == -errno.ENOSYS:
        raise OldKernel
    if context < 0:
        raise _refused("fsopen", mount, -context, None)
    try:
        with ExitStack() as maps:
            _configure(mount, context, maps)
        tree = lib.ls_fsmount(context, attributes)
        if tree < 0:
            raise _refused("fsmount", mount, -tree, None, words_of(context))
    finally:
        os.close(context)
    return _writable(mount, int(tree))


def _writable(mount: Mount, tree: int) -> int:
    """`tree` itself, if it is as writable as it should be; else it is closed."""
    try:
        _ensure_writable(mount, tree, None)
    except BaseException:
        os.close(tree)
        raise
    return tree


def _configure(mount: Mount, context: int, maps: ExitStack) -> None:
    mapped = None
    if mount.ids is not None:
        from layerstore.kernel.mounts.mapped import Mapped

        mapped = maps.enter_context(Mapped(mount.ids))
    with _short_name(mount.source) as source:
        answer = lib.ls_fsconfig_string(context, b"source", source)
        if answer >= 0 and mount.read_only:
            answer = lib.ls_fsconfig_flag(context, b"ro")
        if answer < 0:
            raise _refused("fsconfig", mount, -answer, None, words_of(context))
        for key, value in mount.options:
            if value is None:
                answer = 0 if key in _ATTRIBUTES else lib.ls_fsconfig_flag(context, key.encode())
            elif key in _FOLDERS:
                answer = (mapped or lib).ls_fsconfig_folder(context, key.encode(), os.fsencode(value))
            else:
                short = maps.enter_context(_short_name(value)) if key in _FILES else os.fsencode(value)
                answer = lib.ls_fsconfig_string(context, key.encode(), short)
            if answer < 0:
                words = words_of(context)
                if key in _FOLDERS and answer == -errno.EINVAL and _unable(words):
                    _go_without_descriptors()
                    raise OldKernel
                raise _refused("fsconfig", mount, -answer, value if key in _FOLDERS else None, words)
        answer = (mapped or lib).ls_fsconfig_create(context)
        if answer < 0:
            raise _refused("fsconfig", mount, -answer, None, words_of(context))


def _unable(words: str) -> bool:
    """Do the kernel's words mean that it takes no directories by descriptor? Before 6.13 it says one of these."""
    return any(sign in words for sign in ("Unknown parameter", "Bad value for", "Parameter type"))


def _go_without_descriptors() -> None:
    global _by_descriptor
    _by_descriptor = False


def _mount_old(mount: Mount, target: Path) -> None:
    if mount.ids is not None:
        raise DriverNotSupported(
            "this kernel cannot show a stack of layers with other owners", remedy="This needs Linux 6.13 or later."
        )
    attributes = _attributes(mount)
    place = os.fsencode(target)
    if mount.type == "bind":
        answer = lib.ls_mount_bind(os.fsencode(mount.source), place, attributes)
        if answer < 0:
            raise _refused("mount", mount, -answer, mount.source)
        return
    if mount.type == FUSE_OVERLAYFS:
        from layerstore.kernel.mounts import fuse

        fuse.serve(mount, os.path.abspath(target))
        return
    if mount.type == AUFS:
        from layerstore.kernel.mounts import aufs

        answer = aufs.mount_branches(mount, place, attributes)
        if answer < 0:
            raise _refused("mount", mount, -answer, target)
        return
    names = [os.fsencode(value) for key, value in mount.options if key in _FOLDERS and value is not None]
    data = _old_data(mount, names)
    # Plain names are better where they fit: mountinfo shows them.
    if len(data) < PAGE and not any(mark in name for name in names for mark in b":,\\"):
        answer = lib.ls_mount(os.fsencode(mount.source), place, mount.type.encode(), attributes, data)
    else:
        with ExitStack() as fds:
            numbers = []
            for name in names:
                fd = open_path(name, HANDLE)
                fds.callback(os.close, fd)
                numbers.append(str(fd).encode())
            data = _old_data(mount, numbers)
            answer = lib.ls_mount_by_fds(os.path.abspath(place), mount.type.encode(), attributes, data)
    if answer < 0:
        raise _refused("mount", mount, -answer, target)


def _old_data(mount: Mount, names: Sequence[bytes]) -> bytes:
    """The option string of mount(2), with `names` for the directories, in the order in which the options have them."""
    lower = b""
    parts = []
    given = iter(names)
    for key, value in mount.options:
        if key == "lowerdir+":
            lower += (b":" if lower else b"") + next(given)
        elif key == "datadir+":
            lower += b"::" + next(given)
        elif key in _FOLDERS:
            parts.append(key.encode() + b"=" + next(given))
        elif value is not None:
            # Of all options only those with SELinux labels have commas, and it reads quotes.
            parts.append(os.fsencode(f'{key}="{value}"' if "," in value else f"{key}={value}"))
        elif key not in _ATTRIBUTES:
            parts.append(key.encode())
    if lower:
        parts.insert(0, b"lowerdir=" + lower)
    return b",".join(parts)


def _attributes(mount: Mount) -> int:
    attributes: int = lib.LS_MOUNT_READ_ONLY if mount.read_only else 0
    for key, value in mount.options:
        if value is None:
            attributes |= _ATTRIBUTES.get(key, 0)
    return attributes


def _ensure_writable(mount: Mount, tree: int, target: Path | None) -> None:
    # Overlay falls back to read-only without an error when it cannot write to its work directory.
    if mount.read_only or not os.fstatvfs(tree).f_flag & os.ST_RDONLY:
        return
    from layerstore.kernel.mounts import refusals

    raise refusals.of_writing(mount, target)


def _refused(call: str, mount: Mount, number: int, path: Path | str | None, words: str = "") -> KernelError:
    if number in NO_DESCRIPTORS:  # then nothing can be imported either
        return KernelError(call, number, path=path)
    from layerstore.kernel.mounts import refusals

    return refusals.of_mount(call, mount, number, path, words)


def _undo(target: Path) -> None:
    """Takes a mount away whatever holds it; the failure that led here is the one to report."""
    _unmounted(target, lazy=True)


def _unmounted(target: Path, *, lazy: bool) -> int:
    answer: int = lib.ls_unmount(os.fsencode(target), lazy)
    return answer


def _not_unmounted(target: Path, answer: int) -> KernelError:
    from layerstore.kernel.mounts import refusals

    return refusals.of_unmount(target, -answer)


@contextmanager
def _short_name(source: str) -> Iterator[bytes]:
    """`source` in a form that fsconfig takes."""
    name = os.fsencode(source)
    if len(name) <= _STRING_LIMIT:
        yield name
        return
    with opened(name, os.O_PATH) as fd:
        yield b"/proc/self/fd/%d" % fd
