"""Listings made by hand, as `tar/index.h` says: a witness for the engine, and they can say what no tar does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import field

from layerstore.tar.skeleton import SkeletonWriter
from layerstore.values import frozen

FILE, LINK, SYMLINK, CHAR, BLOCK, FOLDER, FIFO = range(1, 8)
STATED, IMPLIED, OPAQUE, WHITEOUT, HOLLOW = 1, 2, 8, 16, 1024


@frozen
class Payload:
    """Bytes of the tar. `extents`: where in the file they are, if not from its beginning."""

    place: int
    size: int
    extents: Sequence[tuple[int, int]] = ()


@frozen
class Node:
    """One name of a layer. `source` is the number of its payload, from 1. `xattrs` that are text stay as they are."""

    path: bytes
    type: int = FILE
    flags: int = STATED
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    ns: int = 0
    size: int = 0
    device: tuple[int, int] = (0, 0)
    target: bytes = b""
    source: int = 0
    apart: int = 0
    xattrs: Mapping[bytes, bytes] | bytes = field(factory=dict)
    words: bytes = b""


def number(value: int) -> bytes:
    """LEB128, of 64 bits."""
    value &= (1 << 64) - 1
    text = bytearray()
    while value > 0x7F:
        text.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*text, value])


def signed(value: int) -> bytes:
    """Zigzag: the sign is the lowest bit."""
    return number(value << 1 if value >= 0 else (-value << 1) - 1)


def string(text: bytes) -> bytes:
    return number(len(text)) + text


def xattrs(pairs: Mapping[bytes, bytes]) -> bytes:
    """A canonical list of them."""
    return b"".join(number(len(name)) + number(len(value)) + name + value for name, value in sorted(pairs.items()))


def _node(node: Node) -> bytes:
    facts = [node.type, node.flags, node.mode, node.uid, node.gid]
    text = string(node.path) + b"".join(map(number, facts)) + signed(node.mtime) + number(node.ns)
    text += b"".join(map(number, node.device)) if node.type in (CHAR, BLOCK) else number(node.size)
    return text + bytes(16) + (string(node.target) if node.type == LINK else b"")


def _place(node: Node) -> bytes:
    kept = node.xattrs if isinstance(node.xattrs, bytes) else xattrs(node.xattrs)
    return number(node.source) + number(node.apart) + string(kept) + string(node.words)


def index(nodes: Sequence[Node], payloads: Sequence[Payload] = ()) -> bytes:
    """The index of a listing."""
    text = b"LSINDEX1" + number(len(payloads))
    for payload in payloads:
        text += number(payload.size) + bytes(8) + number(0) + string(b"") + number(len(payload.extents))
        text += b"".join(number(offset) + number(length) for offset, length in payload.extents)
    text += number(len(nodes)) + b"".join(map(_node, nodes)) + b"LSPLACE1"
    return text + b"".join(number(payload.place) for payload in payloads) + b"".join(map(_place, nodes))


def write(path: Path, content: bytes) -> Path:
    """A listing with that index. What was there goes."""
    path.unlink(missing_ok=True)
    with SkeletonWriter(path) as out:
        out.close(content)
    return path
