"""Directories that a layer's tar needs but does not list.

They look as they do in the layers below: mode, owner, times and xattrs. A stored layer can be shared by several stacks
as long as these come out alike, which `ImpliedFacts.digest` tells.

Each is a path as `Unpacked.implied` has them: "" is the root; a slash at the end is one that is needed for whiteouts
alone; two slashes, one that a later entry has made something else: it matters only if the parents have a symlink there.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from layerstore.driver import Dialect
from layerstore.errors import KernelError
from layerstore.kernel._shim import ffi, lib
from layerstore.tar.unpack import DIALECTS

_FOLDER, _SYMLINK = 1, 2


@frozen
class ImpliedFacts:
    """What the parents say of a layer's implied directories.

    `digest` is of their modes, owners and xattrs: layers of equal DiffID and equal digest are the same on disk. Times
    are left out: a directory's time alone is no reason to keep a layer twice. `symlinked`: the parents have a symlink
    in one of the places, so the layer must be unpacked again, with `below`, which follows it.
    """

    digest: str
    symlinked: bool


def implied_digest(implied: Sequence[str], below: int | None) -> ImpliedFacts:
    """Look the directories `implied` up in `below`, a directory fd of the parents' merged tree (None: no parents)."""
    digest = hashlib.sha256()
    symlinked = False
    value = ffi.new("uint64_t *")
    for path in implied:
        encoded = os.fsencode(path.rstrip("/"))
        found = lib.ls_implied_look(-1 if below is None else below, encoded, value)
        if found < 0:
            raise KernelError("openat2", -found, path=path)
        symlinked |= found == _SYMLINK
        if path.endswith("//"):
            continue
        gone = path.endswith("/") and found != _FOLDER
        digest.update(b"%d:%b%d%b;" % (len(encoded), encoded, value[0], b"-" if gone else b""))
    return ImpliedFacts(digest.hexdigest(), symlinked)


def adopt_implied(tree: Path, implied: Sequence[str], below: int | None, dialect: Dialect) -> ImpliedFacts:
    """Give the directories `implied` of an unpacked layer the attributes that they have in `below`.

    One that holds nothing but whiteouts (its path ends with a slash) is removed where the parents have no such
    directory: a whiteout of what is not there does nothing.
    """
    facts = implied_digest(implied, below)
    if facts.symlinked:
        return facts
    tree_fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        for path in implied:
            if path.endswith("//"):
                continue
            failed = lib.ls_implied_adopt(
                tree_fd,
                -1 if below is None else below,
                DIALECTS[dialect],
                os.fsencode(path.removesuffix("/")),
                path.endswith("/"),
            )
            if failed:
                raise KernelError("fsetattr", -failed, path=path)
    finally:
        os.close(tree_fd)
    return facts
