"""Files that lie in other trees become a layer's tar: read from there, under other names, with other attributes.

Per layer in Python, per file in C (pack.c). Nothing is copied first, and nothing is spooled.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Any

from attrs import field

from layerstore.kernel._shim import ffi, lib
from layerstore.kernel.files.numbers import written
from layerstore.tar.engine import failure_of, memory_told, no_memory
from layerstore.tar.unpack import Readable
from layerstore.values import frozen

_SECOND = 1_000_000_000
_PERMISSIONS = 0o10000


@frozen
class Piece:
    """Files that a layer takes from a tree, and what becomes of them there.

    `root` is a directory descriptor of that tree, which stays the caller's. `entries` are pairs: a path below it, and
    the name that this file, folder, symlink or device has in the layer; both without a slash at either end, b"" the
    root. A folder brings itself alone, none of what is in it. No path leads through a symlink.

    `owner` is the user and group of all of them, None: each keeps its own. `modes` gives for a mode (its lower twelve
    bits) and whether it is a directory's the mode that it becomes; symlinks have none. Times later than `latest`
    (nanoseconds since the epoch) become `latest`. Xattrs go along. Files that have several names among the entries of
    one piece are hard links in the layer.
    """

    root: int
    entries: Sequence[tuple[bytes, bytes]]
    owner: tuple[int, int] | None = None
    modes: Callable[[int, bool], int] | None = None
    latest: int | None = None


@frozen
class Folder:
    """A directory of a layer that is on no disk. `mtime_ns` is nanoseconds since the epoch; `name` as in `Piece`."""

    name: bytes
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    xattrs: Mapping[bytes, bytes] = field(factory=dict)


@contextmanager
def gathered(pieces: Sequence[Piece | Folder]) -> Iterator[Readable]:
    """The tar of a layer of `pieces`, as it is made: deterministic PAX, sorted by name, as `pack` makes it.

    Of several entries of one name the last one counts. The descriptors of the pieces are read until the end of it.
    Reading raises `CannotRepresent` for a name that begins with `.wh.` and for a device 0/0, and `KernelError` when a
    file cannot be read, is not there any more, or becomes shorter meanwhile: with the path below its piece's root.
    """
    trees = [piece for piece in pieces if isinstance(piece, Piece)]
    made = [piece for piece in pieces if isinstance(piece, Folder)]
    with memory_told(), ExitStack() as undo:
        kept: list[Any] = []  # what the C structures point to
        listed = _listed(pieces)
        c_pieces = ffi.new("struct ls_piece[]", [_piece(piece, kept) for piece in trees] or 1)
        c_made = ffi.new("struct ls_made[]", [_made(folder, kept) for folder in made])
        packer = lib.ls_pack_gather(c_pieces, len(trees), c_made, ffi.from_buffer(listed), len(listed))
        if packer == ffi.NULL:
            raise no_memory()
        undo.callback(lib.ls_pack_free, packer)
        yield _Gathered(packer, (c_pieces, c_made, listed, kept))


class _Gathered:
    """The stream; only one thread reads it at a time. `_kept` is what the packer points to."""

    def __init__(self, packer: Any, kept: object) -> None:
        self._packer = packer
        self._kept = kept

    def readinto(self, buffer: memoryview, /) -> int:
        got: int = lib.ls_pack_read(self._packer, ffi.from_buffer(buffer, require_writable=True), len(buffer))
        if got < 0:
            raise failure_of(lib.ls_pack_failure, self._packer)
        lib.ls_pack_taken(self._packer)
        return got


def _listed(pieces: Sequence[Piece | Folder]) -> bytes:
    """The entries of all pieces in the order of their names, as `ls_pack_gather` takes them."""
    number, folder = 0, sum(isinstance(piece, Piece) for piece in pieces)
    records: dict[bytes, bytes] = {}
    for piece in pieces:
        if isinstance(piece, Piece):
            prefix = struct.pack("=I", number)
            records.update((name, b"%b%b\0%b\0" % (prefix, name, path)) for path, name in piece.entries)
            number += 1
        else:
            records[piece.name] = struct.pack("=I", folder) + piece.name + b"\0\0"
            folder += 1
    return b"".join(records[name] for name in sorted(records))


@lru_cache(maxsize=4)
def _table(modes: Callable[[int, bool], int]) -> list[int]:
    """What becomes of each mode, of files and then of folders; many pieces of a layer have the same."""
    return [modes(mode, folder) & 0o7777 for folder in (False, True) for mode in range(_PERMISSIONS)]


def _piece(piece: Piece, kept: list[Any]) -> dict[str, Any]:
    uid, gid = piece.owner or (0, 0)
    seconds, ns = divmod(piece.latest or 0, _SECOND)
    modes = ffi.NULL
    if piece.modes is not None:
        modes = ffi.new("uint16_t[]", _table(piece.modes))
        kept.append(modes)
    return {
        "root": piece.root,
        "owned": piece.owner is not None,
        "limited": piece.latest is not None,
        "uid": uid,
        "gid": gid,
        "latest": seconds,
        "latest_ns": ns,
        "modes": modes,
    }


def _made(folder: Folder, kept: list[Any]) -> dict[str, Any]:
    seconds, ns = divmod(folder.mtime_ns, _SECOND)
    xattrs = b"".join(
        written(len(name)) + written(len(value)) + name + value for name, value in sorted(folder.xattrs.items())
    )
    data = ffi.new("uint8_t[]", xattrs)
    kept.append(data)
    return {
        "mode": folder.mode & 0o7777,
        "uid": folder.uid,
        "gid": folder.gid,
        "mtime": seconds,
        "mtime_ns": ns,
        "xattrs": data,
        "xattrs_length": len(xattrs),
    }
