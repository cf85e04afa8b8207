"""The layers and the edits that drivers are tried with.

What is in them decides what the kit can see: a fact of a file that none of them has is tested by nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from layerstore.testing import edits as make
from layerstore.testing.edits import Edit
from layerstore.testing.tars import Entry, char, fifo, file, folder, hardlink, opaque, symlink, whiteout
from layerstore.testing.without_root import is_within

__all__ = ["BASE", "EDITS", "EMPTIED", "OTHER", "STACKS"]


BASE: Sequence[Entry] = (
    folder(b".", mode=0o750, uid=7, gid=8, xattrs={b"trusted.root": b"kept"}),
    folder(b"etc", mode=0o750, uid=3, gid=4, mtime=10**18 + 1, xattrs={b"user.note": b"a\0b"}),
    file(b"etc/passwd", b"root:x:0:0\n", mode=0o640, mtime=10**18 + 999_999_999),
    file(b"etc/tool", b"#!/bin/sh\n", mode=0o4755, uid=1000, xattrs={b"user.mime": b"text", b"trusted.own": b""}),
    file(b"etc/empty"),
    folder(b"data"),
    folder(b"data/deep"),
    file(b"data/deep/big", b"0123456789abcdef" * 4096),
    file(b"data/\xff\xfe", b"no UTF-8"),
    file(b"data/" + b"n" * 251, b"as long as a name may be that a whiteout in a tar can remove"),
    symlink(b"data/link", b"../etc/passwd", uid=5),
    fifo(b"data/pipe", mode=0o600),
    fifo(b"data/null", mode=0o666) if is_within() else char(b"data/null", 1, 3, mode=0o666),
    folder(b"hollow", mode=0o1777),
    folder(b"shared", mode=0o2775, gid=4),
    file(b"one", b"same file"),
    hardlink(b"two", b"one"),
)
"""A layer with something of everything."""

OTHER: Sequence[Entry] = (
    folder(b"etc", mode=0o711),
    file(b"etc/passwd", b"of another image"),
    folder(b"data", mode=0o701, uid=11),
    folder(b"data/deep"),
    file(b"data/deep/theirs", b"x"),
    folder(b"data/deep/deeper"),
    file(b"data/deep/deeper/still", b"x"),
    file(b"data/theirs", b"x"),
    folder(b"one"),
    file(b"one/theirs", b"x"),
    file(b"hollow", b"a file here"),
    file(b"two", b"x"),
)
"""Another image, in which the same names are other things, or hold others."""

EMPTIED: Sequence[Entry] = (folder(b"data"), folder(b"hollow"), file(b"unrelated", b"x"))
"""One that has next to nothing of it."""

STACKS: Mapping[str, Sequence[Sequence[Entry]]] = {
    "one layer": [BASE],
    "the topmost file is seen": [BASE, [file(b"one", b"new"), file(b"three", b"")], [file(b"three", b"newer")]],
    "a file is removed": [BASE, [folder(b"etc", mtime=1), whiteout(b"etc/passwd")]],
    "a directory is removed": [BASE, [whiteout(b"data")]],
    "what was removed comes back": [BASE, [whiteout(b"one")], [file(b"one", b"again")]],
    "a directory is emptied": [BASE, [folder(b"data", mtime=2), opaque(b"data")]],
    "a directory is emptied and filled": [BASE, [folder(b"data", mtime=2), opaque(b"data"), file(b"data/new", b"x")]],
    "a removed directory comes back without what it had": [BASE, [whiteout(b"data")], [folder(b"data", mode=0o700)]],
    "a file becomes a directory": [BASE, [folder(b"one"), file(b"one/inner", b"x")]],
    "a directory becomes a file": [BASE, [file(b"data", b"x")]],
    "a file becomes a directory and a file again": [BASE, [folder(b"one"), file(b"one/in")], [file(b"one", b"file")]],
    "a directory becomes a link to another": [BASE, [symlink(b"data", b"etc")]],
    "attributes of a directory change": [BASE, [folder(b"data", mode=0o711, uid=9, gid=9, mtime=7)]],
    "attributes of the root change": [BASE, [folder(b".", mode=0o711, uid=9, xattrs={b"user.new": b"1"})]],
    "links within a layer": [
        BASE, [file(b"x", b"1"), hardlink(b"y", b"x"), folder(b"hollow"), hardlink(b"hollow/z", b"x")],
    ],
}  # fmt: skip
"""Layers on each other, bottom to top, as tars have them."""

EDITS: Mapping[str, Sequence[Edit]] = {
    "nothing": [],
    "a new file": [make.write(b"new", b"x")],
    "a new file in a directory of the image": [make.write(b"data/deep/new", b"x")],
    "a file is written over": [make.write(b"etc/passwd", b"other")],
    "a file is written over with what it had": [make.write(b"etc/passwd", b"root:x:0:0\n")],
    "one byte more": [make.append(b"data/deep/big", b"!")],
    "a file is cut": [make.truncate(b"data/deep/big", 5)],
    "a file is lengthened": [make.truncate(b"etc/empty", 100_000)],
    "other bytes, the same size and time": [
        make.write(b"etc/passwd", b"ROOT:x:0:0\n"),
        make.utimes(b"etc/passwd", 10**18 + 999_999_999),
    ],
    "a time that was there already": [make.utimes(b"etc/passwd", 10**18 + 999_999_999)],
    "a time that differs by a nanosecond": [make.utimes(b"etc/passwd", 10**18 + 999_999_998)],
    "a mode": [make.chmod(b"etc/tool", 0o6711)],
    "a mode that was there already": [make.chmod(b"etc/passwd", 0o640)],
    "a mode and back": [make.chmod(b"etc/passwd", 0), make.chmod(b"etc/passwd", 0o640)],
    "the mode of a directory": [make.chmod(b"data/deep", 0o1700)],
    "an owner takes setuid away": [make.chown(b"etc/tool", 1, 2)],
    "the owner of a link": [make.chown(b"data/link", 70_000, 2**31 + 1)],
    "the owner of a directory": [make.chown(b"data", 1000, 1000)],
    "attributes of the root": [make.chmod(b"", 0o711), make.setxattr(b"", b"user.x", b"1")],
    "an xattr": [make.setxattr(b"etc/tool", b"user.new", bytes(range(256)))],
    "another value of an xattr": [make.setxattr(b"etc/tool", b"user.mime", b"image")],
    "an xattr less": [make.removexattr(b"etc/tool", b"trusted.own")],
    "an xattr of a directory": [make.setxattr(b"etc", b"trusted.new", b"")],
    "xattrs with overlay's names": [
        make.setxattr(b"data", b"trusted.overlay.opaque", b"y"),
        make.setxattr(b"etc/empty", b"trusted.overlay.metacopy", b""),
    ],
    "a file is removed": [make.unlink(b"data/deep/big")],
    "an empty directory is removed": [make.rmdir(b"hollow")],
    "a directory is removed": [make.rmtree(b"data")],
    "a directory is removed and comes back": [make.rmtree(b"data"), make.mkdir(b"data"), make.write(b"data/new", b"x")],
    "a file comes and goes": [make.write(b"etc/new", b"x"), make.unlink(b"etc/new")],
    "a file is removed and comes back": [make.unlink(b"etc/passwd"), make.write(b"etc/passwd", b"back")],
    "a file becomes a directory": [make.unlink(b"etc/empty"), make.mkdir(b"etc/empty"), make.write(b"etc/empty/x")],
    "a directory becomes a file": [make.rmtree(b"data"), make.write(b"data", b"x")],
    "a file becomes a directory and a file again": [
        make.unlink(b"etc/empty"), make.mkdir(b"etc/empty"), make.rmdir(b"etc/empty"), make.write(b"etc/empty", b"x"),
    ],
    "a directory becomes a link": [make.rmtree(b"data"), make.symlink(b"data", b"etc")],
    "a file is renamed": [make.rename(b"data/deep/big", b"data/small")],
    "a file is renamed over another": [make.rename(b"data/deep/big", b"etc/passwd")],
    "a file is renamed and back": [make.rename(b"etc/passwd", b"x"), make.rename(b"x", b"etc/passwd")],
    "a new directory is renamed": [make.mkdir(b"a"), make.write(b"a/f", b"x"), make.rename(b"a", b"data/b")],
    "a new directory is renamed over one of the image": [
        make.mkdir(b"a", 0o700), make.write(b"a/f", b"x"), make.rename(b"a", b"hollow"),
    ],
    "a new directory gets files of the image": [make.mkdir(b"a"), make.rename(b"etc/passwd", b"a/passwd")],
    "a new link to a file of the image": [make.link(b"data/passwd", b"etc/passwd")],
    "a link replaces the file": [make.link(b"x", b"etc/passwd"), make.unlink(b"etc/passwd")],
    "new links": [make.write(b"a", b"x"), make.link(b"b", b"a"), make.link(b"data/c", b"b"), make.append(b"b", b"y")],
    "one name of two is removed": [make.unlink(b"one")],
    "both names of a file are removed": [make.unlink(b"one"), make.unlink(b"two")],
    "symbolic links": [make.symlink(b"new", b"/etc"), make.unlink(b"data/link"), make.symlink(b"data/link", b"x")],
    "names of any bytes": [
        make.write(b"data/\xff\xfe", b"x"), make.write(b"new\nline", b"x"), make.write(b"\x80" * 251, b"x"),
    ],
    "new files belong to the group of their directory": [
        make.write(b"shared/file", b"x"), make.mkdir(b"shared/folder"), make.write(b"shared/folder/file", b"x"),
    ],
    "special files go and change": [make.unlink(b"data/pipe"), make.chmod(b"data/null", 0o600)],
    "all is removed": [
        make.rmtree(b"data"), make.rmtree(b"etc"), make.rmdir(b"hollow"), make.unlink(b"two"),
        make.rmdir(b"shared"),
    ],
}  # fmt: skip
"""What a program does in a container on `BASE`."""
