"""Where things come to lie in the tree of a stage: paths without symbolic links, parents as they are, owners by name.

Nothing is written here, and no link of an image leads out of its tree, which is a descriptor.
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections.abc import Sequence

from layerstore import CannotRun, KernelError, LayerstoreError, open_beneath
from layerstore.build.errors import BuildError, Place
from layerstore.gathering import Folder
from layerstore.runtime import bundle
from layerstore.values import frozen

__all__ = [
    "Spot",
    "absolute",
    "facts_at",
    "folder_of",
    "folders_above",
    "names_in",
    "new_folders",
    "owner_of",
    "spot",
    "user_of",
]

_NUMBER = re.compile("[0-9]+")
_HIGHEST = 2**32 - 2
"""The one above it is nobody's: chown(2) takes it for leaving an owner alone."""


@frozen
class Spot:
    """A path of a tree, without symbolic links and without a / in front; `known` of its names are there already."""

    names: tuple[str, ...]
    known: int
    kind: int | None
    """The file type (`stat.S_IFDIR`, …) of what is there; None if nothing is."""

    @property
    def path(self) -> str:
        """As one text; "" is the root."""
        return "/".join(self.names)

    @property
    def is_folder(self) -> bool:
        """Is a folder there?"""
        return self.kind == stat.S_IFDIR

    @property
    def is_there(self) -> bool:
        """Is anything there?"""
        return self.kind is not None


def absolute(working_dir: str, path: str) -> str:
    """A path of the image, from its working directory on; without `.` and `..`, and from the root on."""
    return posixpath.normpath("/" + posixpath.join(working_dir or "/", path).lstrip("/"))


def spot(tree: int, path: str, place: Place) -> Spot:
    """Where a path leads. Raises `BuildError` if a file is in the way of it."""
    try:
        known, missing = bundle.resolve(tree, path)
    except CannotRun as error:
        raise BuildError(error.message.replace(" in the container", ""), place=place, remedy=None) from None
    names = (*known, *missing)
    kind = None if missing else stat.S_IFMT(facts_at(tree, known).st_mode)
    return Spot(tuple(names), len(known), kind)


def facts_at(tree: int, names: Sequence[str]) -> os.stat_result:
    """What is at a path without symbolic links."""
    if not names:
        return os.fstat(tree)
    above = open_beneath(tree, "/" + "/".join(names[:-1]), os.O_PATH | os.O_DIRECTORY)
    try:
        return os.stat(names[-1], dir_fd=above, follow_symlinks=False)
    finally:
        os.close(above)


def folder_of(tree: int, names: Sequence[str]) -> Folder:
    """A folder of the tree as it is, to be listed in a layer again: whoever unpacks that must not lose what it was."""
    fd = open_beneath(tree, "/" + "/".join(names), os.O_RDONLY | os.O_DIRECTORY)
    try:
        facts = os.fstat(fd)
        return Folder(
            name=os.fsencode("/".join(names)),
            mode=stat.S_IMODE(facts.st_mode),
            uid=facts.st_uid,
            gid=facts.st_gid,
            mtime_ns=facts.st_mtime_ns,
            xattrs=_xattrs(fd),
        )
    finally:
        os.close(fd)


def _xattrs(fd: int) -> dict[bytes, bytes]:
    try:
        names = os.listxattr(fd)
    except OSError:
        return {}
    kept = (name for name in names if not name.startswith(("trusted.overlay.", "user.overlay.", "trusted.fuse")))
    return {os.fsencode(name): os.getxattr(fd, name) for name in kept if name != "security.selinux"}


def folders_above(tree: int, names: Sequence[str], known: int) -> list[Folder]:
    """The folders that lead to a path and are there, from the one below the root on."""
    return [folder_of(tree, names[:count]) for count in range(1, known + 1)]


def new_folders(names: Sequence[str], known: int, *, mode: int, owner: tuple[int, int], mtime_ns: int) -> list[Folder]:
    """Those of them that are to be made."""
    return [
        Folder(
            name=os.fsencode("/".join(names[:count])),
            mode=mode,
            uid=owner[0],
            gid=owner[1],
            mtime_ns=mtime_ns,
            xattrs={},
        )
        for count in range(known + 1, len(names) + 1)
    ]


def names_in(tree: int, path: str) -> dict[bytes, int] | None:
    """What is in a folder of the tree, by name, with the file type of each; None if there is no such folder."""
    try:
        fd = open_beneath(tree, f"/{path}", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except KernelError:
        return None
    try:
        with os.scandir(fd) as entries:
            return {os.fsencode(entry.name): _kind(entry) for entry in entries}
    finally:
        os.close(fd)


def _kind(entry: os.DirEntry[str]) -> int:
    if entry.is_symlink():
        return stat.S_IFLNK
    return stat.S_IFDIR if entry.is_dir(follow_symlinks=False) else stat.S_IFREG


def owner_of(tree: int | None, text: str, place: Place) -> tuple[int, int]:
    """What `--chown` means: `user[:group]`, each a name of the tree's own files or a number.

    A number without a group is both; a name has the group that passwd says (BuildKit, solver/llbsolver/file). `tree` is
    None where nothing is known of it. Raises `BuildError` for a name that is not there: BuildKit takes root in silence,
    though its reference says that the build fails.
    """
    user, _, group = text.partition(":")
    if _NUMBER.fullmatch(user) and _NUMBER.fullmatch(group or user):
        numbers = int(user), int(group or user)
        if max(numbers) > _HIGHEST:
            raise BuildError(
                f"the owner {text} cannot be: uids and gids must be in range 0-{_HIGHEST}",
                place=place,
                remedy="Write a smaller number, or a name of the stage's own /etc/passwd and /etc/group.",
            )
        return numbers
    return user_of(tree, text, place)


def user_of(tree: int | None, text: str, place: Place) -> tuple[int, int]:
    """What USER means, as numbers. Raises `BuildError` for a name that is not there."""
    if text in ("", "0", "root"):
        return 0, 0
    if tree is None:
        raise BuildError(f"unable to find user {text}: nothing is in this stage yet", place=place)
    try:
        found = bundle.find_user(tree, text)
    except LayerstoreError as error:
        raise BuildError(
            error.message,
            place=place,
            remedy="Names are looked up in the stage's own /etc/passwd and /etc/group: add it there, or give a number.",
        ) from None
    return found.uid, found.gid
