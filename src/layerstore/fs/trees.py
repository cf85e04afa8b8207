"""What all filesystems of images have in common: a path begins with the name of one, and none can be written to."""

from __future__ import annotations

import errno
import threading
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from io import BufferedReader
from typing import Any, NoReturn

from fsspec import AbstractFileSystem

from layerstore import Entry, LayerstoreError, NotFound, Tree

__all__ = ["TreeFileSystem"]


class File(BufferedReader):
    """An open file, with its `size`, which fsspec asks for."""

    def __init__(self, opened: BufferedReader, size: int) -> None:
        super().__init__(opened.detach())
        self.size = size


class TreeFileSystem(AbstractFileSystem):
    """A filesystem whose topmost names are images. What fails is an `OSError` of the kind that Python has for it.

    `info` of a symbolic link tells what it leads to, with `islink` and `destination`; in a list a link that leads to a
    folder has the type `link`, so that nobody walks in circles. Beside what fsspec asks for there are `mode`, `uid`,
    `gid`, `mtime` (in seconds) and `mtime_ns`.
    """

    root_marker = ""

    def __init__(self, of: str | None, **more: Any) -> None:
        """`of`: the image that all paths are in; None: each begins with the name of one."""
        super().__init__(**more)
        self._of = of
        self._of_thread = threading.local()

    # --- what each kind of them says ---

    @abstractmethod
    def _split(self, path: str) -> tuple[str, str]:
        """The image that a path, which is not empty, begins with, and the rest. Raises `LayerstoreError`."""

    @abstractmethod
    def _browse(self, of: str) -> AbstractContextManager[Tree]:
        """While inside: its tree. Raises `LayerstoreError`."""

    def _images(self) -> list[str]:
        """The images that there are, as far as that can be told."""
        return []

    # --- reading ---

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        stripped = super()._strip_protocol(path)
        return stripped.lstrip("/") if isinstance(stripped, str) else stripped

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """What is known of a path: see the class."""
        path = self._strip_protocol(path)
        if self._is_above(path):
            return _folder("")
        with self._opened(path) as (tree, inner):
            entry = tree.find(inner, follow=False)
            return _described(path, entry, tree.find(inner) if entry.is_symlink else entry)

    def ls(self, path: str, *by_place: Any, **more: Any) -> list[Any]:
        """What is in a folder, sorted; of anything else, it itself. Without a path: the images.

        As fsspec has it: `detail`, by its name or by place, says whether each is all that is known of it (True), or its
        path alone.
        """
        [detail] = by_place or [more.get("detail", True)]
        path = self._strip_protocol(path)
        found = self._named() if self._is_above(path) else self._listed(path)
        return found if detail else [one["name"] for one in found]

    def _named(self) -> list[dict[str, Any]]:
        with _told(""):
            return [_folder(name) for name in self._images()]

    def _listed(self, path: str) -> list[dict[str, Any]]:
        with self._opened(path) as (tree, inner):
            entry = tree.find(inner)
            if not entry.is_folder:
                return [_described(path, tree.find(inner, follow=False), entry)]
            return [
                _described(f"{path}/{child.name}" if path else child.name, child, _target(tree, child), listed=True)
                for child in tree.children(entry)
            ]

    def walk(self, path: str, *args: Any, **more: Any) -> Iterator[tuple[Any, Any, Any]]:
        """As fsspec has it, on one look at the image; so are `glob`, `cat` and `get`."""
        with self._holding(path):
            yield from super().walk(path, *args, **more)

    def glob(self, path: str, *args: Any, **more: Any) -> Any:
        """As fsspec has it, on one look at the image."""
        with self._holding(path):
            return super().glob(path, *args, **more)

    def cat(self, path: Any, *args: Any, **more: Any) -> Any:
        """As fsspec has it, on one look at the image."""
        with self._holding(path):
            return super().cat(path, *args, **more)

    def get(self, rpath: Any, lpath: Any, *args: Any, **more: Any) -> Any:
        """As fsspec has it, on one look at the image."""
        with self._holding(rpath):
            return super().get(rpath, lpath, *args, **more)

    @contextmanager
    def _holding(self, path: Any) -> Iterator[None]:
        """While inside, the image that a path is in stays open. One that is not there is told by who asks for it."""
        first = self._strip_protocol(path if isinstance(path, str) else next(iter(path), ""))
        with ExitStack() as held:
            with suppress(FileNotFoundError):
                if not self._is_above(first):
                    held.enter_context(self._opened(first))
            yield

    def isdir(self, path: str) -> bool:
        """Is there a folder, or a link that leads to one?"""
        return self._is(path, "directory")

    def isfile(self, path: str) -> bool:
        """Is there a file, or a link that leads to one?"""
        return self._is(path, "file")

    def _is(self, path: str, kind: str) -> bool:
        try:
            return bool(self.info(path)["type"] == kind)
        except OSError:
            return False

    def readlink(self, path: str) -> str:
        """Where a symbolic link leads; "" for anything else."""
        with self._opened(self._strip_protocol(path)) as (tree, inner):
            return tree.find(inner, follow=False).target()

    def xattrs(self, path: str) -> dict[str, bytes]:
        """The extended attributes of what is at a path."""
        with self._opened(self._strip_protocol(path)) as (tree, inner):
            return dict(tree.find(inner).xattrs())

    def _open(self, path: str, mode: str = "rb", **_: Any) -> File:
        if mode != "rb":
            self._refuse()
        with self._opened(self._strip_protocol(path)) as (tree, inner):
            entry = tree.find(inner)
            return File(entry.open(), entry.size)

    def _is_above(self, path: str) -> bool:
        """Is this the folder of all images?"""
        return self._of is None and not path

    @contextmanager
    def _opened(self, path: str) -> Iterator[tuple[Tree, str]]:
        """While inside: the tree that a path is in, and the rest of the path. A walk opens it once for all."""
        held: dict[str, Tree] = self._of_thread.__dict__.setdefault("held", {})
        with _told(path):
            if self._is_above(path):
                raise NotFound("a path begins with the name of an image")
            of, inner = self._split(path) if self._of is None else (self._of, path)
            if of in held:
                yield held[of], inner
                return
            with self._browse(of) as tree:
                held[of] = tree
                try:
                    yield tree, inner
                finally:
                    held.pop(of, None)

    # --- writing ---

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        """An image is never altered; make a container of it to write in."""
        raise OSError(errno.EROFS, "an image is never altered: create a container of it, and write in that")

    mkdir = makedirs = rmdir = rm = rm_file = _rm = cp_file = copy = mv = touch = _refuse
    put = put_file = pipe = pipe_file = _refuse


@contextmanager
def _told(path: str) -> Iterator[None]:
    """While inside, our errors become those that Python has for files."""
    try:
        yield
    except NotFound as error:
        raise FileNotFoundError(errno.ENOENT, str(error), path) from error
    except LayerstoreError as error:
        raise OSError(error.errno or errno.EIO, str(error), path) from error


def _folder(name: str) -> dict[str, Any]:
    return {"name": name, "size": 0, "type": "directory"}


def _target(tree: Tree, entry: Entry) -> Entry | None:
    """What an entry is, or what a link leads to, if it leads anywhere."""
    if not entry.is_symlink:
        return entry
    try:
        return tree.find(entry.path)
    except LayerstoreError:
        return None


def _described(name: str, entry: Entry, leads: Entry | None, *, listed: bool = False) -> dict[str, Any]:
    """One thing in fsspec's words. `leads`: what it is in the end."""
    seen = entry if leads is None else leads
    kind = "directory" if seen.is_folder else "file" if seen.is_file else "link" if seen.is_symlink else "other"
    if listed and entry.is_symlink and seen.is_folder:
        kind = "link"
    described = {
        "name": name,
        "size": seen.size,
        "type": kind,
        "mode": seen.mode,
        "uid": seen.uid,
        "gid": seen.gid,
        "mtime": seen.mtime_ns / 1e9,
        "mtime_ns": seen.mtime_ns,
        "islink": entry.is_symlink,
    }
    if entry.is_symlink:
        described["destination"] = entry.target()
    return described
