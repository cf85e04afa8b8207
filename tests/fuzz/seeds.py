"""What fuzzing begins with: a small input for each thing that a target knows, made here and not kept as files."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path

from layerstore.driver import Dialect
from layerstore.errors import LayerstoreError
from layerstore.tar import take_listing, unpack
from layerstore.tar.skeleton import SkeletonReader
from layerstore.testing import tars
from layerstore.testing.tars import Entry, Sparse, Style

_HOW = (0, 1, 2, 3)
"""The first byte of the target `unpack`: overlay's form or that of aufs, and whether there may be layers below."""


def archives() -> Iterator[bytes]:
    """Tars of one entry of each kind in each style, and of some that have to do with each other."""
    entries = [
        tars.folder(b"d/"),
        tars.file(b"d/f", b"x" * 600, xattrs={b"user.a": b"b", b"security.capability": bytes(20)}),
        tars.symlink(b"s", b"d"),
        tars.hardlink(b"h", b"d/f"),
        tars.fifo(b"p"),
        tars.char(b"c", 1, 3),
        tars.block(b"b", 7, 0),
        tars.file(b"s/through", b"y"),
        tars.file(b"n" * 150, b"z"),
        tars.whiteout(b"d/gone"),
        tars.opaque(b"d"),
        tars.file(b"d", b"again"),
    ]
    yield tars.archive(*entries)
    yield from (tars.archive(entry) for entry in entries)
    for form in Sparse:
        yield tars.archive(tars.sparse(b"f", 5000, (0, b"a" * 512), (4096, b"b" * 100), form=form))
    for style in Style:
        for entry in (tars.file(b"d/f", b"x", style=style), tars.symlink(b"s" * 90, b"t" * 90, style=style)):
            yield tars.archive(entry)
    yield tars.archive(tars.file(b"../up", b"x"))
    yield tars.archive(tars.hardlink(b"h", b"later"), tars.file(b"later", b"x"))
    yield tars.archive(tars.file(b"a", b"1"), tars.file(b"a", b"2"), tars.folder(b"a/"), tars.file(b"a/b", b"3"))
    yield tars.archive(tars.symlink(b"a", b"."), tars.file(b"a/b", b"1"), tars.folder(b"a/"), Entry(b"a/b", data=b"2"))


def skeletons(place: Path) -> Iterator[bytes]:
    """The skeletons of these, as the target of that name has them: index and stream behind the length of the first."""
    for number, tar in enumerate(archives()):
        tree, skeleton = place / f"tree{number}", place / f"skeleton{number}"
        tree.mkdir()
        try:
            unpack(io.BytesIO(tar), tree, dialect=Dialect.OVERLAY, skeleton=skeleton, bottom=True)
        except LayerstoreError:
            continue  # one of those that must not be unpacked
        with SkeletonReader(skeleton) as reader:
            index, stream = reader.index(), b"".join(reader.stream())
        yield len(index).to_bytes(2, "little") + b"\x00" + index + stream


def listings(place: Path) -> Iterator[bytes]:
    """The listings of two of them, one upon the other, as the target `index` has them."""
    found = []
    for number, tar in enumerate(archives()):
        try:
            take_listing(io.BytesIO(tar), place / f"listing{number}", bottom=True)
        except LayerstoreError:
            continue
        with SkeletonReader(place / f"listing{number}") as reader:
            found.append(reader.index())
    for lower, upper in pairwise([*found, found[0]]):
        yield len(lower).to_bytes(2, "little") + lower + upper


def edits() -> Iterator[bytes]:
    """One edit of each kind in each tree, and a few on each other, for the target `changes`."""
    for marks, what in product(range(3), range(30)):
        yield bytes([marks, what, *(byte for tree in range(4) for byte in (tree, what, 5 * tree + what, what + 3))])


def texts() -> Iterator[bytes]:
    """What can be compressed well, badly and not at all."""
    for level in range(7):
        yield bytes([level, 3, 9]) + b"the same again and " * 9
        yield bytes([level, 200, 0]) + bytes(range(256)) * 2
        yield bytes([level, 0, 63]) + b"\0" * 300


def deflated() -> Iterator[bytes]:
    """These as deflate, of each kind of block and of several, behind a span."""
    kinds = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FIXED, zlib.Z_HUFFMAN_ONLY)
    for text, kind, level in product(list(texts())[:3], kinds, (0, 1, 9)):
        stream = zlib.compressobj(level, zlib.DEFLATED, -15, 9, kind)
        parts = [stream.compress(text * 3), stream.flush(zlib.Z_BLOCK), stream.compress(text), stream.flush()]
        yield b"\x01" + b"".join(parts)


def of(target: str, place: Path) -> list[bytes]:
    """Those of a target. `place` is an empty folder for what it takes to make them."""
    if target == "headers":
        return list(archives())
    if target == "unpack":
        return [bytes([how]) + tar for tar, how in product(archives(), _HOW)]
    if target == "skeleton":
        return list(skeletons(place))
    if target == "index":
        return list(listings(place))
    if target == "blocks":
        return list(deflated())
    return list(edits() if target == "changes" else texts())
