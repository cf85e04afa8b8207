"""Layers with tables of contents, written as the two formats say, with Python's own tarfile, zlib and zstandard."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import zstandard

_TYPES = {
    tarfile.REGTYPE: "reg",
    tarfile.DIRTYPE: "dir",
    tarfile.SYMTYPE: "symlink",
    tarfile.LNKTYPE: "hardlink",
    tarfile.CHRTYPE: "char",
    tarfile.BLKTYPE: "block",
    tarfile.FIFOTYPE: "fifo",
}
CHUNK = 20_000


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def estargz(tar: bytes) -> tuple[bytes, dict[str, str]]:
    """The blob, and the annotations of its descriptor."""
    blob, entries = _pieces(tar, lambda data: gzip.compress(data, 6, mtime=0))
    table = json.dumps({"version": 1, "entries": entries}).encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as out:
        member = tarfile.TarInfo("stargz.index.json")
        member.size = len(table)
        out.addfile(member, io.BytesIO(table))
    extra = b"SG" + (22).to_bytes(2, "little") + b"%016xSTARGZ" % len(blob)
    footer = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff" + len(extra).to_bytes(2, "little") + extra + b"\x01\0\0\xff\xff"
    whole = blob + gzip.compress(packed.getvalue(), 6, mtime=0) + footer + bytes(8)
    return whole, {"containerd.io/snapshot/stargz/toc.digest": digest(table)}


def chunked(tar: bytes) -> tuple[bytes, dict[str, str]]:
    """The same of zstd:chunked."""
    blob, entries = _pieces(tar, zstandard.ZstdCompressor(write_content_size=False).compress)
    for entry, after in zip(entries, [*entries[1:], {}], strict=True):
        if entry.get("offset") and after.get("type") != "chunk":
            entry["endOffset"] = entry.pop("end")
    table = json.dumps({"version": 1, "entries": entries}).encode()
    packed = zstandard.ZstdCompressor().compress(table)
    start = len(blob) + 8
    frame = (0x184D2A50).to_bytes(4, "little") + len(packed).to_bytes(4, "little") + packed
    numbers = b"".join(number.to_bytes(8, "little") for number in (start, len(packed), len(table), 1))
    footer = numbers + b"GNUlInUx"
    whole = blob + frame + (0x184D2A50).to_bytes(4, "little") + len(footer).to_bytes(4, "little") + footer
    prefix = "io.github.containers.zstd-chunked.manifest"
    notes = {f"{prefix}-checksum": digest(packed), f"{prefix}-position": f"{start}:{len(packed)}:{len(table)}:1"}
    return whole, notes


def _pieces(tar: bytes, compress: Callable[[bytes], bytes]) -> tuple[bytes, list[dict[str, Any]]]:
    """The tar, compressed piece by piece, and the entries of a table of it."""
    blob, entries, at = b"", [], 0
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        for member in opened:
            entry = _entry(member)
            entries.append(entry)
            if not member.isreg() or not member.size:
                continue
            content = tar[member.offset_data : member.offset_data + member.size]
            blob += compress(tar[at : member.offset_data])
            at = member.offset_data + member.size
            entry["digest"] = digest(content)
            for begin in range(0, len(content), CHUNK):
                piece = content[begin : begin + CHUNK]
                place = {
                    "offset": len(blob),
                    "chunkOffset": begin,
                    "chunkSize": len(piece),
                    "chunkDigest": digest(piece),
                }
                blob += compress(piece)
                place["end"] = len(blob)
                if begin:
                    entries.append({"type": "chunk", "name": member.name, **place})
                else:
                    entry.update(place)
    return blob + compress(tar[at:]), entries


def _entry(member: tarfile.TarInfo) -> dict[str, Any]:
    seconds, _, fraction = str(Decimal(member.pax_headers.get("mtime", int(member.mtime)))).partition(".")
    when = datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return {
        "name": member.name + ("/" if member.isdir() else ""),
        "type": _TYPES[member.type],
        "mode": member.mode,
        "uid": member.uid,
        "gid": member.gid,
        "size": member.size if member.isreg() else 0,
        "modtime": f"{when}.{fraction}Z" if fraction else f"{when}Z",
        "linkName": member.linkname,
        "devMajor": member.devmajor,
        "devMinor": member.devminor,
        "xattrs": {
            key.removeprefix("SCHILY.xattr."): base64.b64encode(value.encode("utf-8", "surrogateescape")).decode()
            for key, value in member.pax_headers.items()
            if key.startswith("SCHILY.xattr.")
        },
    }
