"""Mounts that a program serves: fuse-overlayfs, which stacks directories where the kernel's overlay does not fit.

The mount is made here, as every other, and the program is handed the device that it has to answer: so a mount that is
attached nowhere ends with its last descriptor, and the program with it, however this process ends. Only where the
kernel has no new mount interface does the program mount by itself. Either way it answers when `serve` returns.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from layerstore.errors import KernelError
from layerstore.kernel._shim import lib
from layerstore.kernel.files.descriptors import open_path, opened
from layerstore.kernel.mounts.recipe import Mount, OldKernel, words_of

__all__ = ["DEVICE", "PROGRAM", "new_tree", "option_text", "program", "serve"]

PROGRAM = "fuse-overlayfs"
DEVICE = "/dev/fuse"

_INSTALL = "Install fuse-overlayfs, or choose another way to stack layers."
_LONGEST = 32 * 4096 - 1
"""Of one argument of a program (MAX_ARG_STRLEN of the kernel), its NUL not counted."""

_FOLDERS = frozenset({"lowerdir+", "upperdir", "workdir"})
_SPLITTING = ":"
"""What no name of a layer may hold: fuse-overlayfs splits there, and knows no way to escape it."""


def program() -> str | None:
    """Where fuse-overlayfs is installed. It runs in another folder than this, so what PATH has relative is left out."""
    for folder in os.get_exec_path():
        path = os.path.join(folder, PROGRAM)
        if os.path.isabs(path) and os.access(path, os.X_OK):
            return path
    return None


def new_tree(mount: Mount, attributes: int) -> int:
    """A detached mount: its descriptor."""
    with opened(DEVICE, os.O_RDWR) as device:
        context = lib.ls_fsopen(b"fuse")
        if context == -errno.ENOSYS:
            raise OldKernel
        if context < 0:
            raise KernelError("fsopen", -context, detail="fuse")
        try:
            tree = _mounted(mount, context, device, attributes)
        finally:
            os.close(context)
        try:
            serve(mount, f"/dev/fd/{device}", device=device)
        except BaseException:
            os.close(tree)
            raise
    return tree


def _mounted(mount: Mount, context: int, device: int, attributes: int) -> int:
    settings = {
        "source": PROGRAM,
        "subtype": PROGRAM,
        "fd": str(device),
        "rootmode": f"{0o40000:o}",
        "user_id": str(os.geteuid()),
        "group_id": str(os.getegid()),
    }
    answer = 0
    for key, value in settings.items():
        answer = answer or lib.ls_fsconfig_string(context, key.encode(), value.encode())
    for flag in ("default_permissions", "allow_other", *(["ro"] if mount.read_only else [])):
        answer = answer or lib.ls_fsconfig_flag(context, flag.encode())
    answer = answer or lib.ls_fsconfig_create(context)
    if answer < 0:
        raise KernelError("fsconfig", -answer, detail=words_of(context) or "fuse")
    tree = lib.ls_fsmount(context, attributes)
    if tree < 0:
        raise KernelError("fsmount", -tree, detail=words_of(context) or "fuse")
    return int(tree)


def serve(mount: Mount, place: str, *, device: int | None = None) -> None:
    """Let the program answer for the mount at `place`, or for `device`; without one, it mounts at `place` itself."""
    command = program()
    if command is None:
        raise KernelError("execve", errno.ENOENT, path=PROGRAM, remedy=_INSTALL)
    folder, text = option_text(mount, own_mount=device is None)
    import subprocess  # not worth its time at the start of programs that mount nothing like this

    try:
        done = subprocess.run(
            [command, "-o", text, place],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=() if device is None else (device,),
            env={**os.environ, "LC_ALL": "C"},
        )
    except OSError as error:
        raise KernelError("execve", error.errno or errno.EIO, path=_missing(mount) or command) from None
    if done.returncode:
        said = [line.strip() for line in done.stderr.decode(errors="replace").splitlines()]
        detail = "; ".join(line for line in said if line and "unknown argument ignored" not in line)
        missing = _missing(mount)
        raise KernelError(
            PROGRAM,
            _number(detail) if missing is None else errno.ENOENT,
            path=missing or next((value for key, value in mount.options if key in ("upperdir", "lowerdir+")), None),
            detail=detail or f"it ended with status {done.returncode}",
        )


def option_text(mount: Mount, *, own_mount: bool = False) -> tuple[Path, str]:
    """The folder to run the program in, and its options there.

    Layers are named relative to the folder that holds them all: 500 of them would be too long an argument else. That is
    never a layer itself: with an empty part in LD_LIBRARY_PATH the loader looks for libraries where the program runs.
    `own_mount`: the program has to know the mount's attributes, too.
    """
    named = [os.path.abspath(value) for key, value in mount.options if key in _FOLDERS and value is not None]
    if not named:
        raise KernelError(PROGRAM, errno.EINVAL, detail="there is no directory to mount")
    folder = os.path.commonpath(named)
    if folder in named:
        folder = os.path.dirname(folder)
    parts: list[str] = []
    lowers: list[str] = []
    for key, value in mount.options:
        if value is not None and key in _FOLDERS:
            path = os.path.abspath(value)
            name = os.path.relpath(path, folder)
            # It resolves the upper directory's name, and splits that.
            if _SPLITTING in (os.path.realpath(path) if key == "upperdir" else name):
                raise KernelError(
                    PROGRAM,
                    errno.EINVAL,
                    path=path,
                    detail="it cannot take a name with a colon",
                    remedy="Put the layers into a folder without a colon in its name.",
                )
            if key == "lowerdir+":
                lowers.append(name)
            else:
                parts.append(f"{key}={_escaped(name)}")
        elif value is not None:
            parts.append(f"{key}={_escaped(value)}")
        elif own_mount or key not in ("noatime", "nodev", "nosuid", "noexec", "nodiratime"):
            parts.append(key)
    if lowers:
        parts.insert(0, f"lowerdir={_escaped(':'.join(lowers))}")
    if own_mount:
        # libfuse forbids devices unless it is told otherwise.
        parts += [*(["ro"] if mount.read_only else []), *([] if ("nodev", None) in mount.options else ["dev"])]
    text = ",".join(parts)
    if len(os.fsencode(text)) > _LONGEST:
        raise KernelError(
            PROGRAM,
            errno.E2BIG,
            detail=f"{len(lowers)} layers",
            remedy="Flatten the image: export a container of it and import the result as one layer.",
        )
    return Path(folder), text


def _escaped(value: str) -> str:
    """As libfuse reads options: a comma ends one, a backslash takes the next character as it is."""
    return value.replace("\\", "\\\\").replace(",", "\\,")


def _missing(mount: Mount) -> str | None:
    """The first directory of the recipe that is none."""
    folders = (value for key, value in mount.options if key in _FOLDERS and value is not None)
    return next((folder for folder in folders if not os.path.isdir(folder)), None)


def _number(text: str) -> int:
    """The errno whose words the program's message ends with."""
    for number in errno.errorcode:
        if text.endswith(os.strerror(number)):
            return number
    return errno.EIO


def check_device() -> None:
    """Raise `KernelError` if there is no FUSE here."""
    os.close(open_path(DEVICE, os.O_RDWR))
