"""A layer in the form of tar-split: with it podman makes a layer's tar again of the files, bit for bit.

It is lines of JSON, gzipped: pieces of the tar as they are, and files of the tree, each with its CRC (tar-split,
`tar/storage`). A file whose bytes are not those of the tar, since a later entry replaced it, say, is put in as a piece.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import IO

from layerstore.digest import ChainID
from layerstore.errors import LayerstoreError
from layerstore.kernel._shim import ffi, lib
from layerstore.kernel.files.descriptors import file_of, open_beneath_plainly, open_tree_root
from layerstore.layers.relay import relay
from layerstore.store import Store
from layerstore.values import frozen

__all__ = ["write_split"]

_FILE, _SEGMENT = 1, 2
_BLOCK = 512
_PIECE = 1 << 20
_LARGEST_HEADER = 64 << 20
_DIGITS = 20
"""Of the length of a record."""


@frozen
class Payload:
    """Bytes of a file, as a tar has them: next come `size` of them."""

    name: bytes
    size: int


def write_split(store: Store, chain: ChainID, tree: Path, out: IO[bytes]) -> None:
    """Write the tar-split of a layer whose files lie in `tree`. Reads the layer twice.

    Raises `NotFound`, `Damaged`, `KernelError`, and `OSError` of `out`.
    """

    def produce(write: Callable[[memoryview], object]) -> None:
        store.write_layer(chain, write)

    root = open_tree_root(tree)
    try:
        with relay(produce) as stream:
            crcs = list(_agreeing(stream, root))
    finally:
        os.close(root)
    with relay(produce) as stream, gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1, mtime=0) as packed:
        for number, entry in enumerate(_entries(stream, crcs)):
            packed.write(json.dumps({**entry, "position": number}, separators=(",", ":")).encode() + b"\n")


def _agreeing(stream: FileIO, root: int) -> Iterator[int | None]:
    """For each payload: its CRC, or None if the tree has no such file, or another."""
    for part in _parts(stream):
        if isinstance(part, Payload):
            crc = _crc_of(_pieces(stream, part.size))
            yield crc if crc == _crc_in_tree(root, part) else None


def _entries(stream: FileIO, crcs: Sequence[int | None]) -> Iterator[dict[str, object]]:
    number = 0
    for part in _parts(stream):
        if not isinstance(part, Payload):
            yield _segment(part)
            continue
        crc = crcs[number]
        number += 1
        for piece in _pieces(stream, part.size):
            if crc is None:
                yield _segment(piece)
        if crc is not None:
            yield {"type": _FILE, **_named(part.name), "size": part.size, "payload": _base64(crc.to_bytes(8, "big"))}


def _segment(data: bytes) -> dict[str, object]:
    return {"type": _SEGMENT, "payload": _base64(data)}


def _named(name: bytes) -> dict[str, str]:
    try:
        return {"name": name.decode()}
    except UnicodeDecodeError:
        return {"name_raw": _base64(name)}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# --- a tar, as far as it has to be understood: what is not is a piece ---


def _parts(stream: FileIO) -> Iterator[bytes | Payload]:
    """What a tar is made of. After a payload is given, the caller reads its bytes."""
    long_name: bytes | None = None
    pax: dict[bytes, bytes] = {}
    while header := _read(stream, _BLOCK):
        size = _size_of(header)
        kind = header[156:157]
        if size is None:
            yield header
            continue
        if kind in (b"x", b"g", b"L", b"K"):
            size = min(size, _LARGEST_HEADER)
            body = _read(stream, -(-size // _BLOCK) * _BLOCK)
            yield header + body
            if kind == b"L":
                long_name = body[:size].split(b"\0")[0]
            elif kind == b"x":
                pax = _records(body[:size])
            continue
        yield header
        if kind in (b"0", b"\0", b"7"):
            name = pax.get(b"path", long_name) or _name_of(header)
            said = pax.get(b"size", b"")  # empty: the header's counts again; behind the tar's end it may be anything
            size = int(said) if said.isdigit() and len(said) <= _DIGITS else size
            if size and not any(key.startswith(b"GNU.sparse") for key in pax):
                yield Payload(name, size)
                if padding := _read(stream, -size % _BLOCK):
                    yield padding
            else:
                yield from _pieces(stream, -(-size // _BLOCK) * _BLOCK)
        elif kind == b"S":  # an old sparse file: its map and data are pieces
            while header[482:483] == b"\1" or header[504:505] == b"\1":
                header = _read(stream, _BLOCK)
                yield header
                header = b"\0" * 482 + header[504:505]
            yield from _pieces(stream, -(-size // _BLOCK) * _BLOCK)
        long_name, pax = None, {}


def _size_of(header: bytes) -> int | None:
    """What the header says; None for what is no header."""
    field = header[124:136]
    if len(header) < _BLOCK or not header.strip(b"\0"):
        return None
    if field[0] & 0x80:
        return int.from_bytes(field, "big") & ((1 << 95) - 1)
    try:
        return int(field.strip(b"\0 ") or b"0", 8)
    except ValueError:
        return None


def _name_of(header: bytes) -> bytes:
    name = header[:100].split(b"\0")[0]
    prefix = header[345:500].split(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _records(body: bytes) -> dict[bytes, bytes]:
    """Of a PAX header: `LENGTH KEY=VALUE\\n`, again and again."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(body):
        length = body[at : at + _DIGITS].partition(b" ")[0]
        end = at + int(length) if length.isdigit() else at
        if not at + len(length) < end <= len(body):
            break
        key, _, value = body[at + len(length) + 1 : end - 1].partition(b"=")
        found[key] = value
        at = end
    return found


def _read(stream: FileIO, count: int) -> bytes:
    """So many bytes; fewer only at the end."""
    return b"".join(_pieces(stream, count))


def _pieces(stream: FileIO, count: int) -> Iterator[bytes]:
    while count and (piece := stream.read(min(count, _PIECE))):
        count -= len(piece)
        yield piece


# --- CRCs ---


def _crc_of(pieces: Iterator[bytes]) -> int:
    crc = 0
    for piece in pieces:
        crc = lib.ls_crc64(crc, ffi.from_buffer(piece), len(piece))
    return crc


def _crc_in_tree(root: int, payload: Payload) -> int | None:
    """Of the file that podman would read: at that name, through no symlink, and so large."""
    try:
        found = open_beneath_plainly(root, payload.name.lstrip(b"/"), os.O_PATH | os.O_NOFOLLOW)
    except LayerstoreError:
        return None
    try:
        facts = os.fstat(found)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size != payload.size:
            return None  # a folder, or a device, which may do something when it is opened
        file = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(found)
    with file_of(file) as stream:
        return _crc_of(_pieces(stream, payload.size))
