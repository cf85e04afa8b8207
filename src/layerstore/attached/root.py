"""The folder of a store that another program keeps: read, and nothing else.

Nothing in it is believed. Whatever is opened lies beneath the folder, and no symbolic link leads there; documents have
a limit, and what is no plain file is none. Nothing is locked and nothing is written: its owner need not know of us.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from io import FileIO
from pathlib import Path
from typing import Any, TypeAlias

from layerstore.errors import ConfigError, Damaged, KernelError, named
from layerstore.kernel.files.descriptors import FOLDER, HANDLE, open_beneath_plainly, opened, plain_file_of

__all__ = ["Root", "State"]

State: TypeAlias = tuple[int, ...]
"""By which a file can be told from one that took its place, or was altered."""

_ABSENT = (errno.ENOENT, errno.ENOTDIR)
_MOST_NAMES = 1_000_000
_PLAIN = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW


class Root:
    """The folder, and how it was named: `docker:/var/lib/docker`."""

    def __init__(self, kind: str, path: Path) -> None:
        self.kind = kind
        self.path = path
        self.spec = f"{kind}:{path}"

    def require(self, *names: str) -> None:
        """Raise `ConfigError` unless the folder is there, has one of these names in it, and belongs to this user.

        What others can rename while it is read cannot be mounted safely.
        """
        try:
            owner = os.stat(self.path).st_uid
        except OSError as error:
            raise ConfigError(
                f"attach {self.spec}: {os.strerror(error.errno or errno.EIO)}",
                remedy="Name the folder in which the other program keeps its images, or leave it out.",
                path=self.path,
            ) from None
        if owner != os.geteuid():
            raise ConfigError(
                f"attach {self.spec}: it belongs to user {owner}, and this is user {os.geteuid()}",
                remedy="A store is attached by the user that it belongs to, in that user's namespace if it has one.",
                path=self.path,
            )
        if not any(self.has(name) for name in names):
            raise ConfigError(
                f"attach {self.spec}: this is no store of {self.kind}: it has no {' and no '.join(names)}",
                remedy="Name the folder in which the other program keeps its images (`docker info`, `podman info`).",
                path=self.path,
            )

    def has(self, name: str) -> bool:
        """Is there something of this name, a folder or a plain file?"""
        fd = self._opened(name, os.O_PATH | os.O_NOFOLLOW)
        if fd is None:
            return False
        try:
            mode = os.fstat(fd).st_mode
            return stat.S_ISDIR(mode) or stat.S_ISREG(mode)
        finally:
            os.close(fd)

    def folder(self, name: str) -> Path | None:
        """Where a folder lies, if there is one, and no symbolic link on the way."""
        fd = self._opened(name, HANDLE | os.O_NOFOLLOW)
        if fd is None:
            return None
        os.close(fd)
        return self.path / name

    def names(self, name: str) -> list[str]:
        """What is in a folder, in order; nothing if there is none."""
        fd = self._opened(name, FOLDER)
        if fd is None:
            return []
        try:
            with named("readdir", self.path / name), os.scandir(fd) as listed:
                found = []
                for entry in listed:
                    found.append(entry.name)
                    if len(found) > _MOST_NAMES:
                        raise self.wrong(name, f"there are more than {_MOST_NAMES} names in it")
        finally:
            os.close(fd)
        return sorted(found)

    def open(self, name: str) -> FileIO | None:
        """A plain file; None if there is nothing of this name. Raises `Damaged`, `KernelError`."""
        fd = self._opened(name, _PLAIN)
        if fd is None:
            return None
        with named("open", self.path / name):
            file = plain_file_of(fd)
        if file is None:
            raise self.wrong(name, "it is no plain file")
        return file

    def state(self, name: str) -> State | None:
        """Another than before if the file is another; None if there is nothing of this name."""
        fd = self._opened(name, os.O_PATH | os.O_NOFOLLOW)
        if fd is None:
            return None
        try:
            facts = os.fstat(fd)
        finally:
            os.close(fd)
        return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns

    def read(self, name: str, limit: int) -> bytes | None:
        """All of a plain file that has no more than `limit` bytes; None if there is nothing of this name."""
        file = self.open(name)
        if file is None:
            return None
        with file, named("read", self.path / name):
            parts, size = [], 0
            while part := file.read(min(limit + 1 - size, 1 << 20)):
                parts.append(part)
                size += len(part)
                if size > limit:
                    raise self.wrong(name, f"it has more than {limit} bytes")
        return b"".join(parts)

    def document(self, name: str, limit: int) -> Any:
        """A JSON document; None if there is none."""
        data = self.read(name, limit)
        if data is None:
            return None
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise self.wrong(name, "it is not JSON") from None

    def wrong(self, name: str, what: str) -> Damaged:
        """The error for something in it that is not as it should be."""
        return Damaged(
            f"the attached store {self.spec}: {name}: {what}",
            remedy="See with the program that keeps the store; nothing is ever written there from here.",
            path=self.path / name,
        )

    def _opened(self, name: str, flags: int) -> int | None:
        try:
            with opened(self.path, HANDLE) as root:
                return open_beneath_plainly(root, name, flags)
        except KernelError as error:
            if error.errno in _ABSENT:
                return None
            if error.errno in (errno.ELOOP, errno.EXDEV):
                raise self.wrong(name, "a symbolic link or `..` is on the way to it") from None
            raise
