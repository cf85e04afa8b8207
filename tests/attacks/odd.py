"""Tars that are odd, and what becomes of them in other tools' hands: see docs/hostile-layers.md, which explains each.

`ODD` are single layers by the name that the table has for them. `TOOLS` give a tree for a tar, or refuse it.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from layerstore.testing import tars
from layerstore.testing.tars import (
    BLOCK,
    END,
    EPOCH,
    GNU_MAGIC,
    SECOND,
    V7_MAGIC,
    archive,
    base256,
    char,
    encode,
    fifo,
    file,
    folder,
    gnu_long,
    hardlink,
    header,
    opaque,
    pax,
    raw_pax,
    symlink,
    whiteout,
)
from support import images

Listing = Mapping[str, str]
"""What each path is, in a line."""


def sparse(version: tuple[int, int]) -> bytes:
    """Two pieces of a file of 4,096 bytes, in one of PAX's ways."""
    if version == (1, 0):
        body = tars.padded(b"2\n0\n1\n4095\n1\n") + b"ab"
        records = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"4096")]
        records.append((b"GNU.sparse.name", b"f"))
    elif version == (0, 1):
        body = b"ab"
        records = [(b"GNU.sparse.size", b"4096"), (b"GNU.sparse.numblocks", b"2"), (b"GNU.sparse.name", b"f")]
        records.append((b"GNU.sparse.map", b"0,1,4095,1"))
    else:
        body = b"ab"
        records = [(b"GNU.sparse.size", b"4096"), (b"GNU.sparse.numblocks", b"2")]
        records += [(b"GNU.sparse.offset", b"0"), (b"GNU.sparse.numbytes", b"1")]
        records += [(b"GNU.sparse.offset", b"4095"), (b"GNU.sparse.numbytes", b"1")]
    return pax(records) + header(b"f", size=len(body)) + tars.padded(body) + END


def old_sparse() -> bytes:
    """The same in old GNU format."""
    extents = tars.octal(0, 12) + tars.octal(1, 12) + tars.octal(4095, 12) + tars.octal(1, 12) + bytes(48)
    rest = bytes(41) + extents + b"\0" + tars.octal(4096, 12)
    return header(b"f", typeflag=b"S", size=2, magic=GNU_MAGIC, rest=rest) + tars.padded(b"ab") + END


ODD: dict[str, bytes] = {
    "a name twice": archive(file(b"f", b"first"), file(b"f", b"second", mode=0o600)),
    "a folder where a link to a folder was": archive(
        folder(b"d"), symlink(b"l", b"d"), folder(b"l"), file(b"l/f", b"x")
    ),
    "a link where a folder with something in it was": archive(folder(b"d"), file(b"d/f", b"x"), symlink(b"d", b"e")),
    "a file where a folder with something in it was": archive(folder(b"d"), file(b"d/f", b"x"), file(b"d", b"y")),
    "a folder where a file was": archive(file(b"d", b"x"), folder(b"d"), file(b"d/f", b"y")),
    "parents that are not listed": archive(file(b"a/b/f", b"x")),
    "a hard link to a later entry": archive(hardlink(b"h", b"f"), file(b"f", b"x")),
    "a hard link to nothing": archive(hardlink(b"h", b"f")),
    "a hard link to a link": archive(symlink(b"l", b"f"), hardlink(b"h", b"l")),
    "an absolute name": archive(file(b"/f", b"x")),
    ".. within": archive(folder(b"a"), file(b"a/../f", b"x")),
    ".. that leads out": archive(file(b"../f", b"x")),
    "a file through a link to a folder": archive(folder(b"d"), symlink(b"l", b"d"), file(b"l/f", b"x")),
    "a file through an absolute link": archive(symlink(b"l", b"/no/such/place"), file(b"l/f", b"x")),
    "a whiteout, and the name itself": archive(whiteout(b"f"), file(b"f", b"x")),
    "the name itself, and a whiteout": archive(file(b"f", b"x"), whiteout(b"f")),
    "an opaque mark after what it does not hide": archive(folder(b"d"), file(b"d/f", b"x"), opaque(b"d")),
    "PAX: path and linkpath": pax([(b"path", b"l" * 120), (b"linkpath", b"w" * 120)])
    + header(b"s", typeflag=b"2")
    + END,
    "PAX: size, uid, gid, mtime": (
        pax([(b"size", b"1"), (b"uid", b"3000000"), (b"gid", b"3000001"), (b"mtime", b"1.5")])
        + header(b"f", size=0)
        + tars.padded(b"x")
        + END
    ),
    "PAX: a record nobody knows": pax([(b"VENDOR.thing", b"x")]) + encode(file(b"f")) + END,
    "PAX: a record of length 0": raw_pax(b"0 path=x\n") + archive(file(b"f")),
    "PAX: a NUL in the path": pax([(b"path", b"f\0g")]) + encode(file(b"x")) + END,
    "PAX: the name of an xattr twice": (
        pax([(b"SCHILY.xattr.user.a", b"1"), (b"SCHILY.xattr.user.a", b"2")]) + encode(file(b"f")) + END
    ),
    "PAX, global: path and uid": pax([(b"path", b"g"), (b"uid", b"7")], typeflag=b"g") + encode(file(b"f")) + END,
    "GNU's long name and PAX's path": (
        gnu_long(b"L", b"gnu") + pax([(b"path", b"pax")]) + header(b"own", magic=GNU_MAGIC) + END
    ),
    "a sparse file, old GNU": old_sparse(),
    "a sparse file, PAX 0.0": sparse((0, 0)),
    "a sparse file, PAX 0.1": sparse((0, 1)),
    "a sparse file, PAX 1.0": sparse((1, 0)),
    "a time before 1970": archive(file(b"f", mtime=-SECOND)),
    "a time after 2446": header(b"f", mtime=base256(20_000_000_000, 12)) + END,
    "a mode with bits of a type": header(b"f", mode=0o100644) + END,
    "a mode of 07777": archive(file(b"f", mode=0o7777)),
    "a number in base 256": header(b"f", uid=base256(3_000_000, 8)) + END,
    "a device": archive(char(b"c", 1, 3), fifo(b"p")),
    "the device 0/0": archive(char(b"c", 0, 0), file(b"f")),
    "a sum of signed bytes": header(b"f\xff", signed=True) + END,
    "a wrong sum": header(b"f")[:148] + b"0000000\0" + header(b"f")[156:] + END,
    "no end": encode(file(b"f", b"x")),
    "something after the end": archive(file(b"f", b"x")) + b"garbage" * 100,
    "a block of zeros in the middle": encode(file(b"f")) + bytes(BLOCK) + encode(file(b"g")) + END,
    "two archives, one after the other": archive(file(b"f")) + archive(file(b"g")),
    "a type nobody knows": header(b"f", typeflag=b"Z") + END,
    "a volume's label": header(b"label", typeflag=b"V", magic=GNU_MAGIC) + encode(file(b"f")) + END,
    "a hard link with data": encode(file(b"f", b"x")) + header(b"h", typeflag=b"1", linkname=b"f", size=1) + END,
    "a link that leads nowhere": header(b"l", typeflag=b"2") + END,
    "a file whose name ends in a slash": header(b"d/", size=0) + END,
    "the same of version 7": header(b"d/", magic=V7_MAGIC, typeflag=b"\0") + END,
    "the root": archive(folder(b".", mode=0o700, uid=7), file(b"f")),
    "cut short within a file": encode(file(b"f", b"x" * 2000))[:1000],
    "a name of 300 bytes": pax([(b"path", b"n" * 300)]) + header(b"x") + END,
}


def listing(root: Path) -> Listing:
    """A tree in lines: type, mode, owner, what it holds, and times that are not those of entries that do not care."""
    found: dict[str, str] = {}
    for where, names, files in os.walk(root):
        for name in sorted((*names, *files)):
            path = Path(where) / name
            found[str(path.relative_to(root)).encode("utf-8", "surrogateescape").decode("latin-1")] = line(path)
    found["."] = line(root).partition(" @")[0]
    return found


def line(path: Path) -> str:
    facts = path.lstat()
    kind = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "link", stat.S_IFIFO: "fifo"}.get(
        stat.S_IFMT(facts.st_mode), "device"
    )
    held = f"->{os.readlink(path)}" if kind == "link" else ""
    if kind == "file":
        data = path.read_bytes()
        held = f"{len(data)} {data.strip(bytes(1))!r}" + (f" x{facts.st_nlink}" if facts.st_nlink > 1 else "")
    if kind == "device":
        held = f"{os.major(facts.st_rdev)}/{os.minor(facts.st_rdev)}"
    mode = "" if kind == "link" else f" {stat.S_IMODE(facts.st_mode):o}"
    time = "" if facts.st_mtime_ns == EPOCH * SECOND or kind == "dir" else f" @{facts.st_mtime_ns / SECOND:g}"
    return f"{kind}{mode} {facts.st_uid}:{facts.st_gid} {held}{time}".rstrip()


Unpack = Callable[[bytes, Path], Path | None]
"""Unpack a tar somewhere in a folder; None: it was refused."""


def _with(*command: str) -> Unpack:
    def unpack(tar: bytes, place: Path) -> Path | None:
        (place / "tree").mkdir(parents=True)
        done = subprocess.run([*command, "-C", place / "tree", "-f", "-"], input=tar, capture_output=True, check=False)
        return place / "tree" if done.returncode == 0 else None

    return unpack


def umoci(tar: bytes, place: Path) -> Path | None:
    """`umoci raw unpack`."""
    place.mkdir(parents=True)
    layout = images.oci_layout(place / "layout", [tar])
    done = subprocess.run(
        ["umoci", "raw", "unpack", "--image", f"{layout}:latest", place / "tree"], capture_output=True, check=False
    )
    return place / "tree" if done.returncode == 0 else None


TOOLS: dict[str, Unpack] = {
    "tar": _with("tar", "--numeric-owner", "-xp"),
    "bsdtar": _with("bsdtar", "--numeric-owner", "-xp"),
    "umoci": umoci,
}


def present() -> dict[str, Unpack]:
    """Those that this machine has."""
    return {name: unpack for name, unpack in TOOLS.items() if shutil.which(name)}


def random_layer(chance: random.Random) -> list[tars.Entry]:
    """A few entries of few names, which get into each other's way: replaced, linked to, led through."""
    names = [b"a", b"b", b"a/a", b"a/b", b"b/a", b"a/b/a"]
    makers: list[Callable[[bytes], tars.Entry]] = [
        lambda name: file(name, b"%d" % chance.randrange(9)),
        lambda name: file(name, b"%d" % chance.randrange(9), mode=0o600, uid=chance.randrange(3)),
        lambda name: folder(name, mode=chance.choice([0o755, 0o700, 0o1777])),
        lambda name: symlink(name, chance.choice([b"a", b"b", b"/a", b"../b", b"a/b", b"."])),
        lambda name: hardlink(name, chance.choice(names)),
        lambda name: fifo(name),
    ]
    return [chance.choice(makers)(chance.choice(names)) for _ in range(chance.randrange(2, 7))]
