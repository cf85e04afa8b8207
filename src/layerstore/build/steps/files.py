"""What is copied, told apart by its content: a digest without times, the same wherever the files lie."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable

from layerstore import open_beneath

__all__ = ["digest_of"]

_PIECE = 1 << 20


def digest_of(root: int, entries: Iterable[tuple[bytes, bytes]]) -> str:
    """Of files by their path in a tree and the name that counts: names, kinds, modes, link targets, bytes."""
    whole = hashlib.sha256()
    for path, name in entries:
        whole.update(b"%d %b" % (len(name), name))
        whole.update(_facts(root, path))
    return whole.hexdigest()


def _facts(root: int, path: bytes) -> bytes:
    above, _, name = os.fsdecode(path).rpartition("/")
    folder = open_beneath(root, "/" + above, os.O_PATH | os.O_DIRECTORY)
    try:
        facts = os.stat(name or ".", dir_fd=folder, follow_symlinks=False)
        head = b" %o " % facts.st_mode
        if stat.S_ISLNK(facts.st_mode):
            return head + os.fsencode(os.readlink(name, dir_fd=folder))
        if not stat.S_ISREG(facts.st_mode):
            return head
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        with open(fd, "rb") as file:
            return head + hashlib.file_digest(file, "sha256").digest()
    finally:
        os.close(folder)
