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

from layerstore.driver import Dialect
from layerstore.kernel._shim import ffi, lib
from layerstore.tar.engine import call_failed, opened_tree
from layerstore.tar.unpack import DIALECTS
from layerstore.values import frozen

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
    """What the parents say of the directories `implied`, as `Unpacked.implied` has them.

    `below` is a directory descriptor of the parents' merged tree, None where there are no parents. Raises `KernelError`
    when one of them cannot be looked at.
    """
    digest = hashlib.sha256()
    symlinked = False
    value = ffi.new("uint64_t *")
    failure = ffi.new("struct ls_failure *")
    for path in implied:
        encoded = os.fsencode(path.rstrip("/"))
        found = lib.ls_implied_look(-1 if below is None else below, encoded, value, failure)
        if found < 0:
            raise call_failed(ffi.string(failure.what).decode(), -found, b"/" + encoded)
        symlinked |= found == _SYMLINK
        if path.endswith("//"):
            continue
        gone = path.endswith("/") and found != _FOLDER
        digest.update(b"%d:%b%d%b;" % (len(encoded), encoded, value[0], b"-" if gone else b""))
    return ImpliedFacts(digest.hexdigest(), symlinked)


def adopt_implied(tree: Path, implied: Sequence[str], below: int | None, dialect: Dialect) -> ImpliedFacts:
    """Give the directories `implied` of the layer in the folder `tree` the attributes that they have in `below`.

    One that holds nothing but whiteouts (its path ends with a slash) is removed where the parents have no such
    directory: a whiteout of what is not there does nothing. `dialect` is the form in which the layer was unpacked.

    Returns what `implied_digest` does; if that says `symlinked`, nothing has been altered. Raises `KernelError` with
    the call that failed and the path within the layer, which is then between the two states and is to be discarded.
    """
    facts = implied_digest(implied, below)
    if facts.symlinked:
        return facts
    failure = ffi.new("struct ls_failure *")
    with opened_tree(tree) as tree_fd:
        for path in implied:
            if path.endswith("//"):
                continue
            encoded = os.fsencode(path.removesuffix("/"))
            failed = lib.ls_implied_adopt(
                tree_fd, -1 if below is None else below, DIALECTS[dialect], encoded, path.endswith("/"), failure
            )
            if failed:
                raise call_failed(ffi.string(failure.what).decode(), -failed, b"/" + encoded)
    return facts
