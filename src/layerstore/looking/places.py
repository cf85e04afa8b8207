"""A path as a user says it, found in a tree: which links it leads over, and what is at its end.

Trees are a stranger's: every step is a descriptor of its own, and nothing leads out of the root.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from layerstore import KernelError, LayerstoreError, open_beneath
from layerstore.values import frozen

__all__ = ["Found", "find", "names_of", "read_file", "same_bytes", "spellings"]

_MOST_LINKS = 40  # as the kernel has it
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_LARGEST = 512 << 20
_PIECE = 1 << 20


@frozen
class Found:
    """Where a path leads. `path` is without a leading slash; b"" is the root.

    `links` are those on the way, each with what it says. The last component is not followed. Where the tree ends
    before the path does, the rest of it is as it was said.
    """

    path: bytes
    links: tuple[tuple[bytes, bytes], ...]
    facts: os.stat_result | None
    """What is there; None: nothing."""


def find(root: int, path: str | bytes) -> Found:
    """Where `path` leads in the tree `root`, a directory descriptor. Raises `LayerstoreError` for a circle of links."""
    waiting = [part for part in os.fsencode(path).split(b"/") if part not in (b"", b".")][::-1]
    done: list[bytes] = []
    links: list[tuple[bytes, bytes]] = []
    while waiting:
        part = waiting.pop()
        if part == b"..":
            done = done[:-1]
            continue
        here = b"/".join((*done, part))
        facts = _facts(root, here)
        if facts is not None and stat.S_ISLNK(facts.st_mode) and waiting:
            if len(links) == _MOST_LINKS:
                raise LayerstoreError(f"{os.fsdecode(path)}: the links on the way lead in a circle")
            target = _target(root, here)
            links.append((here, target))
            if target.startswith(b"/"):
                done = []
            waiting += [part for part in target.split(b"/") if part not in (b"", b".")][::-1]
        else:
            done.append(part)
    resolved = b"/".join(done)
    return Found(resolved, tuple(links), _facts(root, resolved))


def _facts(root: int, path: bytes) -> os.stat_result | None:
    try:
        descriptor = open_beneath(root, path or b".", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except KernelError as error:
        if error.errno in (*_ABSENT, errno.ENAMETOOLONG):
            return None
        raise
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def _target(root: int, path: bytes) -> bytes:
    descriptor = open_beneath(root, path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return os.readlink(b"", dir_fd=descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _opened(root: int, path: str | bytes) -> Iterator[int | None]:
    """A regular file of the tree, to be read; None if there is none. Devices and pipes are not opened."""
    try:
        place = open_beneath(root, path, os.O_PATH | os.O_CLOEXEC)
    except KernelError as error:
        if error.errno not in _ABSENT:
            raise
        yield None
        return
    try:
        if not stat.S_ISREG(os.fstat(place).st_mode):
            yield None
            return
        descriptor = os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(place)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_file(root: int, path: str | bytes) -> bytes | None:
    """The bytes of a file of the tree; None if there is no regular file.

    Raises `LayerstoreError` for one of more than 512 MiB: a hole may say that it has terabytes.
    """
    with _opened(root, path) as descriptor:
        if descriptor is None:
            return None
        if os.fstat(descriptor).st_size > _LARGEST:
            raise LayerstoreError(f"/{os.fsdecode(path)} is larger than {_LARGEST >> 20} MiB: it is not read")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read()


def names_of(root: int, folder: str) -> list[str]:
    """The names in a folder of the tree, sorted; none if there is no such folder."""
    try:
        descriptor = open_beneath(root, folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except KernelError as error:
        if error.errno not in _ABSENT:
            raise
        return []
    try:
        return sorted(os.listdir(descriptor))
    finally:
        os.close(descriptor)


def spellings(root: int, path: bytes) -> list[bytes]:
    """The path, and what else it is called by the links in the root: packages have /bin/ls where usr/bin/ls lies."""
    found = [path]
    for name in names_of(root, "."):
        link = os.fsencode(name)
        facts = _facts(root, link)
        if facts is not None and stat.S_ISLNK(facts.st_mode):
            with suppress(LayerstoreError):
                target = find(root, link + b"/-").path.removesuffix(b"-").removesuffix(b"/")
                if target and path.startswith(target + b"/"):
                    found.append(link + path[len(target) :])
    return found


def same_bytes(one: int, other: int, path: bytes) -> bool:
    """Have two trees the same under a path: a link to the same, a file of the same bytes; else what is no file."""
    facts = [_facts(root, path) for root in (one, other)]
    if any(fact is None for fact in facts):
        return facts[0] is facts[1]
    if all(fact is not None and stat.S_ISLNK(fact.st_mode) for fact in facts):
        return _target(one, path) == _target(other, path)
    with _opened(one, path) as first, _opened(other, path) as second:
        if first is None or second is None:
            return first is second
        if os.fstat(first).st_size != os.fstat(second).st_size:
            return False
        with open(first, "rb", closefd=False) as a, open(second, "rb", closefd=False) as b:
            while piece := a.read(_PIECE):
                if piece != b.read(len(piece)):
                    return False
            return True
