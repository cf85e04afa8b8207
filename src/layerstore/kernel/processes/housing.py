"""What a program finds in a root of its own, beside the container's tree: data, and how C is told of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from attrs import field

from layerstore.errors import KernelError, LayerstoreError, named
from layerstore.kernel._shim import ffi, lib
from layerstore.values import frozen

__all__ = ["PATH", "Bind", "House", "Tmpfs"]

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs of a container are looked for, if nothing else is said: docker's."""

MOST_GROUPS = 256
"""As init.c has room for."""

_READ_ONLY, _NOSUID, _NODEV, _NOEXEC = 1, 2, 4, 8  # of mount(2)
_STRICT = _NOSUID | _NODEV | _NOEXEC


@frozen
class Bind:
    """A file or folder of the host that is seen at `target`, with what is mounted below it."""

    source: str
    target: str
    read_only: bool = False


@frozen
class Tmpfs:
    """An empty folder in memory at `target`. `options` are those of tmpfs(5): `size=64m`, `mode=1777`."""

    target: str
    options: tuple[str, ...] = ()


@frozen
class _Filesystem:
    """A filesystem that is mounted where there is a folder for it."""

    type: str
    target: str
    data: str = ""
    flags: int = _STRICT
    devices: bool = False


_USUAL = (
    _Filesystem("proc", "/proc"),
    _Filesystem("tmpfs", "/dev", "mode=755,size=65536k", _NOSUID, devices=True),
    _Filesystem("devpts", "/dev/pts", "newinstance,ptmxmode=0666,mode=0620,gid=5", _NOSUID | _NOEXEC),
    _Filesystem("tmpfs", "/dev/shm", "mode=1777,size=65536k"),
    _Filesystem("mqueue", "/dev/mqueue"),
    _Filesystem("sysfs", "/sys", flags=_STRICT | _READ_ONLY),
)
"""What docker mounts, but for cgroups (runtime-spec, config-linux.md, "Default Filesystems" and "Default Devices")."""


@frozen
class House:
    """A root of its own. `init`: the program has a parent in it that buries orphans and passes signals on."""

    mounts: tuple[Bind | Tmpfs, ...] = ()
    hostname: str | None = None
    isolated: bool = True
    """With pid, ipc and uts namespaces of its own."""
    terminal: bool = False
    limits: Mapping[int, tuple[int, int]] = {}
    """By the numbers of `resource`: the soft and the hard limit; -1 is none."""
    umask: int = 0o022
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = field(default=())
    init: bool = True
    makes_folder: bool = False
    """The folder that the program begins in is made if it is not there."""

    def words(self, names: Sequence[bytes], argv: Sequence[bytes], status: int) -> list[bytes]:
        """The arguments of what is executed first: see init.c."""
        numbers = (status, self.uid, self.gid, int(self.init), len(self.groups), *self.groups, len(names))
        return [b"init", *(b"%d" % number for number in numbers), *names, *argv]

    def made(self, keep: list[object], undo: ExitStack) -> Any:
        """`struct ls_house`. What it points to is in `keep`, what it has open is closed by `undo`."""
        places: list[dict[str, object]] = []
        for usual in _USUAL:
            flags = lib.LS_PLACE_OPTIONAL | (lib.LS_PLACE_DEVICES if usual.devices else 0)
            places.append(_place(usual.target, keep, type=usual.type, data=usual.data, mount=usual.flags, flags=flags))
        for mount in self._ordered:
            if isinstance(mount, Tmpfs):
                options = ",".join(mount.options)
                places.append(_place(mount.target, keep, type="tmpfs", data=options, mount=_NOSUID | _NODEV))
                continue
            with named("stat", mount.source):
                is_file = not stat.S_ISDIR(os.stat(mount.source).st_mode)
            tree = lib.ls_clone_tree(os.fsencode(mount.source), lib.LS_MOUNT_READ_ONLY if mount.read_only else 0)
            if tree < 0:
                raise KernelError("open_tree", -tree, path=mount.source)
            undo.callback(os.close, tree)
            places.append(_place(mount.target, keep, tree=tree, flags=lib.LS_PLACE_FILE if is_file else 0))
        made = ffi.new("struct ls_house *")
        made.places = _held(ffi.new("struct ls_place[]", places), keep)
        made.place_count = len(places)
        made.hostname = ffi.NULL if self.hostname is None else _text(self.hostname, keep)
        made.namespaces = lib.LS_NEW_PID | lib.LS_NEW_IPC | lib.LS_NEW_UTS if self.isolated else 0
        made.terminal = self.terminal
        limits = [
            {"resource": name, "soft": _limit(soft), "hard": _limit(hard)} for name, (soft, hard) in self.limits.items()
        ]
        made.limits = _held(ffi.new("struct ls_limit[]", limits), keep)
        made.limit_count = len(limits)
        made.umask = self.umask
        made.makes_folder = self.makes_folder
        made.image = _image(undo)
        return _held(made, keep)

    def target(self, position: int) -> str:
        """The place of this number."""
        return [*(usual.target for usual in _USUAL), *(mount.target for mount in self._ordered)][position]

    @property
    def _ordered(self) -> list[Bind | Tmpfs]:
        """The mounts, so that none hides one that was made before."""
        return sorted(self.mounts, key=lambda mount: mount.target.rstrip("/").count("/"))


def _place(
    target: str,
    keep: list[object],
    *,
    type: str | None = None,
    data: str = "",
    mount: int = 0,
    tree: int = -1,
    flags: int = 0,
) -> dict[str, object]:
    return {
        "target": _text(target, keep),
        "tree": tree,
        "type": ffi.NULL if type is None else _text(type, keep),
        "data": _text(data, keep),
        "mount_flags": mount,
        "flags": flags,
    }


def _limit(value: int) -> int:
    return value % (1 << 64)


def _text(text: str, keep: list[object]) -> object:
    return _held(ffi.new("char[]", os.fsencode(text)), keep)


def _held(made: object, keep: list[object]) -> object:
    keep.append(made)
    return made


def _image(undo: ExitStack) -> int:
    """The extension itself, which is a program too, opened; where it lies as no program may, a copy in memory."""
    from layerstore.kernel import _shim

    path = str(_shim.__file__)
    if not lib.ls_has_init():
        raise LayerstoreError(
            f"on a machine of the kind {os.uname().machine} programs can be started by a runtime alone",
            remedy="Let crun or runc run it (isolation `full`).",
        )
    with named("open", path):
        image = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        undo.callback(os.close, image)
        if os.fstat(image).st_mode & 0o111 and not os.fstatvfs(image).f_flag & os.ST_NOEXEC:
            return image
        copy = os.memfd_create("layerstore-init", os.MFD_CLOEXEC)
        undo.callback(os.close, copy)
        size = os.fstat(image).st_size
        while (done := os.fstat(copy).st_size) < size:
            os.sendfile(copy, image, done, size - done)
    # A file that is open for writing is not executed.
    readable = os.open(f"/proc/self/fd/{copy}", os.O_RDONLY | os.O_CLOEXEC)
    undo.callback(os.close, readable)
    return readable
