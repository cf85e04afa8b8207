"""Stores of ordinary users: in which user namespace they are opened, and how a process gets there.

The files of such a store belong to IDs that mean something in one namespace only, so the store notes its map, in `ids`,
and is opened nowhere else: by its user, and by root, each of whom goes there first. A keeper (`kernel.namespaces`) is
noted in `keeper`, so that all commands on a store share their mounts.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from layerstore import config as configuration
from layerstore.config import INSIDE, Config
from layerstore.errors import ConfigError, named
from layerstore.kernel import namespaces
from layerstore.kernel.files.descriptors import FOLDER, opened
from layerstore.kernel.namespaces import IdMap

if TYPE_CHECKING:
    from layerstore.kernel.namespaces.keeping import Keeper

__all__ = ["check_ids", "end", "is_needed", "note_ids", "unshare"]

_IDS, _KEEPER = "ids", "keeper"
_REWRITE = "Its user writes the file anew: a line for each range of /proc/self/uid_map and gid_map within."

_MOST = 1 << 16
"""Bytes of such a file: a namespace has 340 ranges of each kind at most (user_namespaces(7))."""


def unshare(data_root: str | Path | None = None, *, config: Config | None = None) -> bool:
    """Take this process to where the store in `data_root` can be opened without root, if it is not there.

    For an ordinary user that is a user namespace and a mount namespace in it: as its root, with the IDs that
    /etc/subuid allots (newuidmap(1)), or as the only ID there is. All processes that come here for one store share its
    mounts. Root goes where the store's user would be, if it is one's; else this does nothing. Returns whether it did
    something.

    Call it at the start of a program: the kernel lets no process go that has several threads. Raises `ConfigError`,
    `KernelError`.
    """
    root = _root_of(data_root, config)
    if not is_needed(root):
        return False
    if os.geteuid() != 0 and (root / "layerstore.db").exists() and _read(root) is None:
        raise _roots(root)
    uid, gid, ids = _wanted(root)
    if threading.active_count() > 1:
        raise ConfigError(
            "a process that has several threads cannot enter a user namespace",
            remedy="Call layerstore.unshare() at the start of the program, or start it with `layerstore unshare`.",
        )
    from layerstore.kernel.namespaces import keeping

    with _locked(root, uid) as folder:
        keeper = _noted(folder, uid, ids)
        if keeper is None:
            keeper = keeping.start(ids, uid, gid)
            try:
                _note(folder, _KEEPER, f"{keeper.pid} {keeper.user} {keeper.mounts}\n", uid, gid)
            except BaseException:  # nobody would find it
                with suppress(ProcessLookupError):
                    os.kill(keeper.pid, 9)
                os.waitpid(keeper.pid, 0)
                raise
    keeping.enter(keeper)
    os.environ[INSIDE] = str(uid)
    return True


def is_needed(data_root: Path) -> bool:
    """Has this process to go into a user namespace to open the store in `data_root`?"""
    if namespaces.is_within():
        return False
    return os.geteuid() != 0 or (data_root / _IDS).exists()


def end(data_root: str | Path | None = None, *, config: Config | None = None) -> bool:
    """End the keeper of a store's namespace: what is mounted there is gone with its last process. False: there is none.

    Called from outside of it.
    """
    root = _root_of(data_root, config)
    if not is_needed(root) or not root.is_dir():
        return False
    uid, _, ids = _wanted(root)
    with _locked(root, uid) as folder:
        keeper = _noted(folder, uid, ids)
        if keeper is None:
            return False
        with named("kill"):
            os.kill(keeper.pid, 15)
        os.unlink(_KEEPER, dir_fd=folder)
    return True


def check_ids(data_root: Path, *, is_new: bool) -> None:
    """Raise `ConfigError` if this process is not where the store in `data_root` can be opened."""
    noted = _read(data_root)
    if not namespaces.is_within():
        if noted is None:
            return
        raise ConfigError(
            f"the store in {data_root} is an ordinary user's: its files have the IDs of a user namespace",
            remedy="Call layerstore.unshare(data_root) first, or start the program with `layerstore unshare`.",
            path=data_root / _IDS,
        )
    if noted is None and not is_new:
        raise _roots(data_root)
    if noted is not None and noted != namespaces.current():
        raise ConfigError(
            f"the store in {data_root} was made in a user namespace with other IDs than this one",
            remedy="Leave this namespace, and let layerstore.unshare() or `layerstore unshare` enter the store's.",
            path=data_root / _IDS,
        )


def _roots(data_root: Path) -> ConfigError:
    if data_root.stat().st_uid == os.geteuid():
        return ConfigError(
            f"the store in {data_root} has lost its file {_IDS!r}, which says what IDs its files have",
            remedy=_REWRITE,
            path=data_root / _IDS,
        )
    return ConfigError(
        f"the store in {data_root} was made by root, and its files belong to nobody in a user namespace",
        remedy="Open it as root, or choose a data-root of your own.",
        path=data_root,
    )


def note_ids(data_root: Path) -> None:
    """Write down, for a new store, the IDs of the namespace that it is made in, if it is one. Durable on return."""
    if namespaces.is_within() and _read(data_root) is None:
        with opened(data_root, FOLDER) as folder:
            _note(folder, _IDS, str(namespaces.current()), os.geteuid(), os.getegid())


def _root_of(data_root: str | Path | None, config: Config | None) -> Path:
    given = configuration.root_of(data_root)
    return given or (config or configuration.load()).data_root


def _read(data_root: Path) -> IdMap | None:
    try:
        ids = IdMap.parsed(_text(data_root / _IDS))
        if not ids.has_root:
            raise ValueError("it says nothing of root")
        return ids
    except (FileNotFoundError, NotADirectoryError, PermissionError):  # whoever cannot open it is told so then
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the IDs of the store in {data_root} cannot be read: {error}",
            remedy=_REWRITE,
            path=data_root / _IDS,
        ) from None


def _wanted(data_root: Path) -> tuple[int, int, IdMap]:
    """Whose namespace the store is opened in, and the IDs in it."""
    uid, gid = os.geteuid(), os.getegid()
    ids = _read(data_root)
    if uid == 0:
        facts = data_root.stat()
        uid, gid = facts.st_uid, facts.st_gid
    allowed = namespaces.allotted(uid, gid)
    if ids is None:
        from shutil import which

        tools = uid == 0 or all(map(which, ("newuidmap", "newgidmap")))
        return uid, gid, allowed if tools else namespaces.one_id(uid, gid)
    # The file is the user's, who could write into it what belongs to others.
    if not ids.is_within(allowed):
        raise ConfigError(
            f"the store in {data_root} was made with IDs that /etc/subuid and /etc/subgid do not allot to user {uid}",
            remedy="Have them allotted again: its files belong to them.",
            path=data_root / _IDS,
        )
    return uid, gid, ids


@contextmanager
def _locked(data_root: Path, uid: int) -> Iterator[int]:
    """The data-root, open and locked: one process at a time looks for the keeper, or makes one."""
    with named("mkdir", data_root):
        data_root.mkdir(mode=0o711, parents=True, exist_ok=True)
    with opened(data_root, FOLDER) as folder:
        # Its user could have put a link to another one in its place since.
        if os.geteuid() == 0 and os.fstat(folder).st_uid != uid:
            raise ConfigError(f"{data_root} was put in another's place meanwhile", path=data_root)
        with named("flock", data_root):
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield folder


def _noted(folder: int, uid: int, ids: IdMap) -> Keeper | None:
    try:
        words = _text(_KEEPER, folder).split()
    except OSError:
        return None
    if len(words) != 3 or not words[0].isdecimal():
        return None
    from layerstore.kernel.namespaces import keeping

    keeper = keeping.find(int(words[0]), uid, ids)
    return keeper if keeper == keeping.Keeper(int(words[0]), words[1], words[2]) else None


def _text(path: Path | str, folder: int | None = None) -> str:
    """What a small file says that is the user's, who might have made it anything. Raises `OSError`."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "it is no plain file")
        return os.read(fd, _MOST).decode(errors="replace")
    finally:
        os.close(fd)


def _note(folder: int, name: str, text: str, uid: int, gid: int) -> None:
    """Let a file in a folder say this, durably, which may be the user's."""
    fresh = f"{name}-{os.urandom(4).hex()}"
    with named("write", name):
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
        try:
            os.write(fd, text.encode())
            if os.geteuid() != uid:
                os.fchown(fd, uid, gid)
            os.fsync(fd)
            os.rename(fresh, name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:
            os.unlink(fresh, dir_fd=folder)
            raise
        finally:
            os.close(fd)
        os.fsync(folder)
