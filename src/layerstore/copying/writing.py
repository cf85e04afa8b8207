"""Entries put into a folder of a tree.

A file comes into being without a name, and gets it when it is whole, so nobody finds half of one; where a filesystem
has no such files, it has its name from the beginning. What has that name goes just before, a symbolic link like a
file. No other name is ever used: who dies would leave it in the tree. A folder that is there stays, and nothing takes
its place. Folders get their attributes at the end, for what is made in them changes their times.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from io import FileIO
from typing import BinaryIO, TypeVar

from attrs import field

from layerstore.copying.entries import Entry, refused
from layerstore.errors import CannotCopy, InvalidArchive, KernelError
from layerstore.kernel.files import copy_data, open_beneath
from layerstore.values import define, frozen

T = TypeVar("T")

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE = 1 << 20

_NO_NAMELESS = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)
"""What is said of O_TMPFILE where there are no files without a name: on overlay before Linux 6.1, on NFS, by FUSE."""


@frozen
class Manner:
    """How things are written. `owner`: whose everything becomes; None: whose it was.

    `exact`: with setuid bits, extended attributes and devices. `folders`: folders that are there already get the
    attributes of those that are copied onto them.
    """

    owner: tuple[int, int] | None
    exact: bool
    folders: bool


@define
class Writer:
    """Writes entries into `base`, the descriptor of a folder within the tree `root`, which has it at `place`.

    `links`: folders on the way of an entry may be symbolic links that the tree has, and those that no entry names are
    made.
    """

    base: int
    manner: Manner
    root: int = -1
    place: str = ""
    links: bool = False
    size: int = 0
    entries: int = 0
    notices: list[str] = field(factory=list)
    _folders: list[Entry] = field(factory=list, init=False)
    _chain: list[tuple[str, int]] = field(factory=list, init=False)

    def put(self, entry: Entry) -> None:
        """Write one entry."""
        if not entry.path:
            if self.manner.folders:
                self._folders.append(entry)
            return
        folder, name = self._opened(entry.path[:-1]), entry.path[-1]
        if stat.S_ISDIR(entry.mode):
            self._make_folder(folder, name, entry)
        elif self._leaves_out(entry):
            return
        else:
            self._make(folder, name, entry)
        self.entries += 1

    def finish(self) -> None:
        """Give the folders what they are to have, the innermost first."""
        for entry in reversed(self._folders):
            folder = self._opened(entry.path)
            with _asking("open", entry.path):
                fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
            try:
                self._settle(fd, entry)
            finally:
                os.close(fd)

    def close(self) -> None:
        """Close the folders that are open."""
        self._leave(0)

    # --- folders ---

    def _opened(self, path: Sequence[str]) -> int:
        """The folder at `path` within the base; those that were open before are used again."""
        common = 0
        for (known, _), name in zip(self._chain, path, strict=False):
            if known != name:
                break
            common += 1
        self._leave(common)
        for at in range(common, len(path)):
            self._chain.append((path[at], self._entered(path[: at + 1])))
        return self._chain[-1][1] if self._chain else self.base

    def _entered(self, path: Sequence[str]) -> int:
        above = self._chain[-1][1] if self._chain else self.base
        try:
            return self._stepped(above, path[-1], path)
        except FileNotFoundError:
            with _asking("mkdir", path):
                if not self.links:
                    raise
                os.mkdir(path[-1], 0o755, dir_fd=above)
                made = os.open(path[-1], _FOLDER, dir_fd=above)
                os.chmod(_handle(made), 0o755)  # whatever the umask is
                return made

    def _stepped(self, above: int, name: str, path: Sequence[str]) -> int:
        """The folder `name` in the one above; `path` is what it is called within the base."""
        try:
            return os.open(name, _FOLDER, dir_fd=above)
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP) or not self.links:
                raise refused("open", error, path) from None
        # A link of the tree's own, as /lib is one to /usr/lib: it leads to a place in the tree.
        return open_beneath(self.root, "/".join([self.place, *path]), os.O_PATH | os.O_DIRECTORY)

    def _leave(self, depth: int) -> None:
        while len(self._chain) > depth:
            os.close(self._chain.pop()[1])

    def _make_folder(self, above: int, name: str, entry: Entry) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=above)
        except FileExistsError:
            if not self._is_folder(above, name):
                raise CannotCopy(
                    f"cannot overwrite non-directory {entry.title} with a directory", path=entry.title
                ) from None
            if not self.manner.folders:
                return
        except OSError as error:
            raise refused("mkdir", error, entry.path) from None
        self._folders.append(entry)

    def _is_folder(self, above: int, name: str) -> bool:
        with suppress(FileNotFoundError):
            return stat.S_ISDIR(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode)
        return False

    # --- all else ---

    def _leaves_out(self, entry: Entry) -> bool:
        if stat.S_ISSOCK(entry.mode):
            self.notices.append(f"left out, for it is a socket: {entry.title}")
            return True
        if (stat.S_ISCHR(entry.mode) or stat.S_ISBLK(entry.mode)) and not self.manner.exact:
            self.notices.append(f"left out, for it is a device: {entry.title}")
            return True
        return False

    def _make(self, folder: int, name: str, entry: Entry) -> None:
        with _asking("create", entry.path):
            if entry.same_as is not None and self._link(folder, name, entry, entry.same_as):
                return
            if stat.S_ISREG(entry.mode):
                self._make_file(folder, name, entry)
            else:
                self._make_special(folder, name, entry)

    def _make_file(self, folder: int, name: str, entry: Entry) -> None:
        if entry.open is None:
            raise InvalidArchive(f"{entry.title} is a link to {'/'.join(entry.same_as or ())}, which is not there")
        try:
            fd, is_named = os.open(".", os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600, dir_fd=folder), False
        except OSError as error:
            if error.errno not in _NO_NAMELESS:
                raise
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = self._placed(folder, name, entry, lambda: os.open(name, flags, 0o600, dir_fd=folder))
            is_named = True
        try:
            with self._undone(folder, name) if is_named else nullcontext():
                with entry.open() as data:
                    self.size += _copied(data, fd)
                self._settle(fd, entry)
            if not is_named:
                self._placed(folder, name, entry, lambda: os.link(_handle(fd), name, dst_dir_fd=folder))
        finally:
            os.close(fd)

    def _make_special(self, folder: int, name: str, entry: Entry) -> None:
        if stat.S_ISLNK(entry.mode):
            self._placed(folder, name, entry, lambda: os.symlink(entry.target, name, dir_fd=folder))
        else:
            mode = stat.S_IFMT(entry.mode) | 0o600
            self._placed(folder, name, entry, lambda: os.mknod(name, mode, entry.device, dir_fd=folder))
        with self._undone(folder, name):
            self._settle_special(folder, name, entry)

    def _placed(self, folder: int, name: str, entry: Entry, make: Callable[[], T]) -> T:
        """Make what gets the name, in the place of what has it."""
        while True:
            try:
                return make()
            except FileExistsError:
                pass
            try:
                os.unlink(name, dir_fd=folder)
            except FileNotFoundError:
                pass
            except IsADirectoryError:
                raise CannotCopy(f"cannot overwrite directory {entry.title} with a file", path=entry.title) from None

    @contextmanager
    def _undone(self, folder: int, name: str) -> Iterator[None]:
        """Take away what has the name, should this fail: it is not whole."""
        try:
            yield
        except BaseException:
            with suppress(OSError):
                os.unlink(name, dir_fd=folder)
            raise

    def _link(self, folder: int, name: str, entry: Entry, earlier: tuple[str, ...]) -> bool:
        """Make one more name for an earlier entry. False if it is not there any more, or there can be no more names."""
        above, opened = self.base, []
        try:
            for at, part in enumerate(earlier[:-1]):
                above = self._stepped(above, part, earlier[: at + 1])
                opened.append(above)
            if not _are_same(above, earlier[-1], folder, name):  # by two ways to it even the name may be the same
                link = partial(os.link, earlier[-1], name, src_dir_fd=above, dst_dir_fd=folder, follow_symlinks=False)
                self._placed(folder, name, entry, link)
        except (OSError, KernelError) as error:
            if error.errno not in (errno.ENOENT, errno.EMLINK, errno.EXDEV):
                raise
            return False
        finally:
            for fd in opened:
                os.close(fd)
        return True

    # --- attributes ---

    def _settle(self, made: int | str, entry: Entry, *, is_link: bool = False) -> None:
        """Owner, mode, xattrs, times: in this order, for a change of owner clears setuid bits and capabilities.

        `made` is a descriptor, or the name of what one is of. A symbolic link has no mode.
        """
        with _asking("setting attributes of", entry.path):
            os.chown(made, *self._owner(entry))
            if not is_link:
                os.chmod(made, self._mode(entry))
            if self.manner.exact:
                for name, value in entry.xattrs.items():
                    os.setxattr(made, name, value)
            os.utime(made, ns=(entry.atime, entry.mtime))

    def _settle_special(self, folder: int, name: str, entry: Entry) -> None:
        """The same, of what cannot be opened. By a descriptor, for a name may be a link to elsewhere by now."""
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            if stat.S_IFMT(os.fstat(fd).st_mode) == stat.S_IFMT(entry.mode):  # else it is somebody else's by now
                self._settle(_handle(fd), entry, is_link=stat.S_ISLNK(entry.mode))
        finally:
            os.close(fd)

    def _owner(self, entry: Entry) -> tuple[int, int]:
        return (entry.uid, entry.gid) if self.manner.owner is None else self.manner.owner

    def _mode(self, entry: Entry) -> int:
        return entry.mode & (0o7777 if self.manner.exact else 0o1777)


def _are_same(above: int, name: str, folder: int, other: str) -> bool:
    """Are two names, each in a folder, those of one file? Raises `FileNotFoundError` if there is not even the first."""
    first = os.stat(name, dir_fd=above, follow_symlinks=False)
    try:
        return os.path.samestat(first, os.stat(other, dir_fd=folder, follow_symlinks=False))
    except FileNotFoundError:
        return False


@contextmanager
def _asking(call: str, path: Sequence[str]) -> Iterator[None]:
    """While inside, a refusal is told of what is copied, and not of the descriptor or the name that stands for it."""
    try:
        yield
    except OSError as error:
        raise refused(call, error, path) from None


def _handle(fd: int) -> str:
    """The name of what a descriptor is of, even where the descriptor can do nothing (O_PATH). It leads nowhere else."""
    return f"/proc/self/fd/{fd}"


def _copied(data: BinaryIO, target: int) -> int:
    """All bytes of an entry, holes as holes where they come from a file."""
    if isinstance(data, FileIO):
        return copy_data(data.fileno(), target)
    size = 0
    while piece := data.read(_PIECE):
        view = memoryview(piece)
        while view:
            view = view[os.write(target, view) :]
        size += len(piece)
    return size
