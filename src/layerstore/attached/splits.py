"""A layer's tar, put together again of its files and the tar-split that docker and podman keep of it, bit for bit.

A tar-split is lines of JSON, gzipped: pieces of the tar as they are (type 2), and files, by name and size, whose bytes
come there (type 1; tar-split, `tar/storage`). It is hostile until the digest of the tar says otherwise: names are
looked up within the layer's folder, nothing is longer than the file that it is of, and lines have a limit.
"""

from __future__ import annotations

import base64
import binascii
import errno
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import IO, Any, cast

from layerstore.digest import DiffID
from layerstore.errors import Damaged, KernelError, named
from layerstore.kernel.files.descriptors import open_beneath, open_tree_root, plain_file_of
from layerstore.values import frozen

__all__ = ["measured", "write_tar"]

Write = Callable[[memoryview], object]
Wrong = Callable[[str], Damaged]
"""Makes the error for a tar-split that says what it cannot."""

_FILE, _SEGMENT = 1, 2
_LONGEST = 64 << 20
"""Bytes of a line. One that is honest has headers and padding, or what follows the end of a tar."""
_PIECE = 1 << 18
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


@frozen
class _Part:
    """A piece of the tar (`data`), or `size` bytes of a file."""

    data: bytes = b""
    name: bytes = b""
    size: int = 0


def measured(split: FileIO, wrong: Wrong) -> tuple[int, int]:
    """The bytes of the tar that a tar-split is of, and its entries, as it says; no file is looked at."""
    size = entries = 0
    for part in _parts(split, wrong):
        size += len(part.data) + part.size
        entries += not part.data
    return size, entries


def write_tar(split: FileIO, tree: Path, expected: DiffID, write: Write, wrong: Wrong) -> None:
    """Write the tar of the layer whose files lie in the folder `tree`.

    Raises `Damaged` if a file is not as long as it was, or the tar not `expected`: what was written is void then.
    """
    digest = hashlib.sha256()
    waiting = bytearray()

    def give(data: bytes | memoryview) -> None:
        digest.update(data)
        write(memoryview(data))

    root = open_tree_root(tree)
    try:
        buffer = memoryview(bytearray(_PIECE))
        for part in _parts(split, wrong):
            waiting += part.data
            if part.size:
                if waiting:
                    give(bytes(waiting))
                    waiting.clear()
                _give_file(root, part, buffer, give, wrong)
            elif len(waiting) >= _PIECE:
                give(bytes(waiting))
                waiting.clear()
        if waiting:
            give(bytes(waiting))
    finally:
        os.close(root)
    if (found := f"sha256:{digest.hexdigest()}") != expected:
        raise wrong(f"its files are not what they were: they make the tar {found}")


def _give_file(root: int, part: _Part, buffer: memoryview, give: Callable[[memoryview], None], wrong: Wrong) -> None:
    shown = f"/{os.fsdecode(part.name).strip('/')}"
    try:
        fd = open_beneath(root, part.name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW)
    except KernelError as error:
        if error.errno in _ABSENT:
            raise wrong(f"{shown} is missing") from None
        raise
    with named("open", shown):
        file = plain_file_of(fd)
    if file is None:
        raise wrong(f"{shown} is no file any more")
    with file, named("read", shown):
        size = os.fstat(file.fileno()).st_size
        if size != part.size:
            raise wrong(f"{shown} has {size} bytes, and had {part.size}")
        left = part.size
        while left:
            count = file.readinto(buffer[: min(left, _PIECE)])
            if not count:
                raise wrong(f"{shown} has become shorter")
            give(buffer[:count])
            left -= count


def _parts(split: FileIO, wrong: Wrong) -> Iterator[_Part]:
    from isal import igzip

    lines = cast("IO[bytes]", cast(Any, igzip.IGzipFile)(fileobj=split, mode="rb"))
    position = 0
    while True:
        try:
            line = lines.readline(_LONGEST + 1)
        except (OSError, EOFError, zlib.error, ValueError) as error:  # isal's own error is one of zlib's
            raise wrong(f"its tar-split cannot be inflated: {error}") from None
        if not line:
            return
        if len(line) > _LONGEST:
            raise wrong(f"its tar-split has a line of more than {_LONGEST} bytes")
        yield _part(line, position, wrong)
        position += 1


def _part(line: bytes, position: int, wrong: Wrong) -> _Part:
    try:
        said = json.loads(line)
        kind, payload = said["type"], said.get("payload")
        if said.get("position", position) != position:
            raise wrong(f"its tar-split has entry {said['position']!r} in place of {position}")
        if kind == _SEGMENT:
            return _Part(data=base64.b64decode(payload, validate=True))
        if kind != _FILE:
            raise wrong(f"its tar-split has an entry of type {kind!r}")
        raw, name, size = said.get("name_raw"), said.get("name", ""), said.get("size", 0)
        bytes_of = base64.b64decode(raw, validate=True) if raw else os.fsencode(name)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error):
        raise wrong(f"entry {position} of its tar-split is none") from None
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 62:
        raise wrong(f"entry {position} of its tar-split has the size {size!r}")
    if size and (b"\0" in bytes_of or not bytes_of.strip(b"/")):
        raise wrong(f"entry {position} of its tar-split names no file")
    return _Part(name=bytes_of, size=size)
