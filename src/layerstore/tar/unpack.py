"""A layer's tar becomes files, its DiffID and its skeleton, in one pass.

The stream is hashed and parsed in the calling thread and files are written in others; all that is done per entry is C
(engine.h). Nothing is synced here, and nothing of the tar can act outside `tree`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, Protocol

from layerstore.digest import DiffID
from layerstore.driver import Dialect
from layerstore.errors import DigestMismatch, KernelError, LayerstoreError, LimitExceeded, named
from layerstore.kernel._shim import ffi, lib
from layerstore.kernel.files.descriptors import private
from layerstore.limits import UNLIMITED, USUAL, Limits
from layerstore.tar.engine import failure_of, memory_told, no_memory, notices, opened_tree, strings, taken
from layerstore.tar.skeleton import SkeletonWriter, shadow_of
from layerstore.values import frozen

DIALECTS = {
    Dialect.OVERLAY: lib.LS_DIALECT_OVERLAY,
    Dialect.AUFS: lib.LS_DIALECT_AUFS,
    Dialect.MERGED: lib.LS_DIALECT_MERGED,
}
"""The numbers by which the C parts know the dialects."""

_NO_LIMIT = (1 << 63) - 1
_TAKE = 1 << 18
_LIMITED = {
    "max-layer-entries": ("the layer", "entries"),
    "max-layer-memory": ("what is to be remembered of the layer", "bytes"),
    "max-pax-header": ("an extension header", "bytes"),
}
"""Of the limits that C keeps: what has too much, and of what."""
_MORE_THREADS = "Raise the limit of threads (`ulimit -u`, or the cgroup's `pids.max`), or end other programs."


class Readable(Protocol):
    """Where a tar comes from: anything that has `readinto`, as files opened in binary mode and `io.BytesIO` have.

    It blocks until there are bytes, fills at most the whole buffer and returns how many bytes it has put there, 0 at
    the end. The buffer is valid until it returns. What it raises goes through to the caller of `unpack`.
    """

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill the beginning of `buffer`; 0 at the end."""


@frozen
class Unpacked:
    """What unpacking a layer's tar found out.

    `diff_id` is the digest of the tar and `size` its length in bytes. `entries` is the number of entries, those of
    whiteouts among them. `root_opaque`: the layer hides all that the layers below have.

    `implied` are the directories that the tar needs but does not list: their mode, owner and times are those of the
    layers below, which `adopt_implied` gives them. `needs_parents`: a hard link leads to what no earlier entry has
    made, so the tar has to be unpacked again, with `below` or as `bottom`. `notices` are things of the tar that no
    filesystem can hold, each as "what: /path".
    """

    diff_id: DiffID
    size: int
    entries: int
    root_opaque: bool
    implied: tuple[str, ...]
    needs_parents: bool
    notices: tuple[str, ...]


def unpack(
    stream: Readable,
    tree: Path | int,
    *,
    dialect: Dialect,
    skeleton: Path,
    expected: DiffID | None = None,
    below: int | None = None,
    bottom: bool = False,
    threads: int = 2,
    progress: Callable[[int], object] | None = None,
    limits: Limits = USUAL,
) -> Unpacked:
    """Unpack the uncompressed tar that `stream` gives into `tree`, and write its skeleton to the new file `skeleton`.

    `tree` is an empty folder, or a directory descriptor: with `MERGED`, that of a writable mount, which then changes as
    if a program had changed it. It is left open. `dialect` is the form in which removals lie in it.

    `below` is a directory descriptor of the parents' merged tree. It may be left out for drivers with independent
    layers; for `MERGED` it is the tree itself (and left out for a bottom layer). `bottom` says that there are no
    parents. `expected` is what the digest of the tar must be. Files that the tar replaces by later entries of the same
    name go to the folder `shadow_of(skeleton)`. `threads` write files, beside the calling thread, which reads and
    hashes. `progress` is told the bytes of the tar as they come: each time how many more.

    Raises `InvalidArchive` (malformed, cut short, leads outside), `LimitExceeded` (more than one of `limits` allows),
    `DigestMismatch` (not `expected`), `CannotRepresent`
    (a mark that the dialect has no room for), `KernelError` (no space, no permission, no memory) with the path within
    the layer. The skeleton is whole or not there; what was made in `tree` until then is left for the caller to discard.
    """
    with memory_told(), ExitStack() as undo:
        tree_fd = undo.enter_context(opened_tree(tree))
        return _taken_in(
            stream, tree_fd, dialect, skeleton, expected, below, max(threads, 1), progress, limits, bottom=bottom
        )


def take_listing(
    stream: Readable,
    listing: Path,
    *,
    keep: Path | None = None,
    expected: DiffID | None = None,
    below: int | None = None,
    bottom: bool = False,
    progress: Callable[[int], object] | None = None,
    limits: Limits = USUAL,
    streamed: bool = False,
    claimed: DiffID | None = None,
    skip: Callable[[int], object] | None = None,
) -> Unpacked:
    """Write the new file `listing`: what a tar that stays as it is says of each name, and where in it the data are.

    `keep` is a new file that gets the tar, by a thread of its own; on an error it is the caller's to discard. All else
    is as with `unpack` into a folder in overlay's dialect, and so are the errors. A listing is read by `entries`, and
    makes an index that the kernel can mount.

    `streamed`: it has a stream, too, as a skeleton has. `claimed`: `stream` has anything in the place of file data, for
    which nobody has the bytes yet; that this is the digest of the tar is believed, and `content` of files is wrong.
    `skip`: it is told how many bytes of file data come next, which `stream` then does not have to give: with `claimed`.
    """
    with memory_told():
        place = (lib.LS_NO_TREE, Dialect.OVERLAY, listing)
        if keep is None:
            return _taken_in(
                stream,
                *place,
                expected,
                below,
                0,
                progress,
                limits,
                bottom=bottom,
                streamed=streamed,
                claimed=claimed,
                skip=skip,
            )
        with named("open", keep):
            kept = FileIO(keep, "xb", opener=private)
        with kept:
            done = _taken_in(stream, *place, expected, below, 1, progress, limits, bottom=bottom, keep=kept)
            with named("close", keep):
                kept.close()
        return done


def _taken_in(
    stream: Readable,
    tree: int,
    dialect: Dialect,
    skeleton: Path,
    expected: DiffID | None,
    below: int | None,
    threads: int,
    progress: Callable[[int], object] | None,
    limits: Limits,
    *,
    bottom: bool,
    keep: FileIO | None = None,
    streamed: bool = False,
    claimed: DiffID | None = None,
    skip: Callable[[int], object] | None = None,
) -> Unpacked:
    with ExitStack() as undo:
        nothing = lib.LS_BELOW_NOTHING if bottom else lib.LS_BELOW_UNKNOWN
        unpacker = lib.ls_unpack_new(
            tree, nothing if below is None else below, DIALECTS[dialect], os.fsencode(shadow_of(skeleton))
        )
        if unpacker == ffi.NULL:
            raise no_memory()
        undo.callback(lib.ls_unpack_free, unpacker)
        most = (limits.layer_entries, limits.pax_header, limits.layer_memory)
        lib.ls_unpack_limit(unpacker, ffi.new("struct ls_unpack_limits *", [limit or _NO_LIMIT for limit in most]))
        if keep is not None and lib.ls_unpack_keep(unpacker, keep.fileno(), os.path.abspath(os.fsencode(keep.name))):
            raise no_memory()
        if streamed:
            lib.ls_unpack_stream(unpacker)
        if lib.ls_unpack_begin(unpacker):
            raise _failure(unpacker)
        undo.enter_context(_writers(unpacker, threads))
        out = undo.enter_context(SkeletonWriter(skeleton))
        diff_id, size = _feed(stream, unpacker, out, progress, limits, claimed, skip)
        if expected is not None and diff_id != expected:
            raise DigestMismatch("the layer", expected=expected, actual=diff_id, layer=expected)
        if lib.ls_unpack_finish(unpacker):
            raise _failure(unpacker, limits)
        out.add(taken(lib.ls_unpack_skeleton, unpacker))
        facts = ffi.new("struct ls_unpack_result *")
        lib.ls_unpack_facts(unpacker, facts)
        unpacked = Unpacked(
            diff_id=diff_id,
            size=size,
            entries=facts.entries,
            root_opaque=bool(facts.root_opaque),
            implied=tuple(os.fsdecode(path) for path in strings(taken(lib.ls_unpack_implied, unpacker))),
            needs_parents=bool(facts.needs_parents),
            notices=notices(taken(lib.ls_unpack_notices, unpacker)),
        )
        out.close(taken(lib.ls_unpack_index, unpacker))
        return unpacked


@contextmanager
def _writers(unpacker: Any, count: int) -> Iterator[None]:
    """Threads that write files; they have ended when this returns."""
    running: list[threading.Thread] = []
    try:
        for _ in range(count):
            writer = threading.Thread(target=lib.ls_unpack_write_files, args=(unpacker,))
            try:
                writer.start()
            except RuntimeError:
                raise KernelError("clone", errno.EAGAIN, remedy=_MORE_THREADS) from None
            running.append(writer)
        yield
    finally:
        lib.ls_unpack_stop(unpacker)
        for writer in running:
            writer.join()


def _feed(
    stream: Readable,
    unpacker: Any,
    out: SkeletonWriter,
    progress: Callable[[int], object] | None,
    limits: Limits,
    claimed: DiffID | None,
    skip: Callable[[int], object] | None,
) -> tuple[DiffID, int]:
    """Read, hash and parse to the end of the stream. What is `claimed` is not hashed."""
    digest = hashlib.sha256()
    size = 0
    last = False
    while not last:
        chunk = lib.ls_unpack_chunk(unpacker)
        if chunk == ffi.NULL:
            raise _failure(unpacker)
        view = memoryview(ffi.buffer(chunk, lib.LS_CHUNK))
        spared = min(lib.ls_unpack_awaited(unpacker), len(view)) if skip is not None else 0
        if skip is not None and spared:
            skip(spared)
            view[:spared] = bytes(spared)
        filled = spared + _fill(stream, view[spared:])
        last = filled < lib.LS_CHUNK
        if claimed is None:
            digest.update(view[:filled])
        size += filled
        limits.check("max-layer-size", size, "the layer's tar")
        if lib.ls_unpack_feed(unpacker, filled, last):
            raise _failure(unpacker, limits)
        if lib.ls_unpack_skeleton(unpacker, ffi.new("uint8_t **")) >= _TAKE:
            out.add(taken(lib.ls_unpack_skeleton, unpacker))
            lib.ls_unpack_taken(unpacker)
        if progress is not None:
            progress(filled)
    return claimed or DiffID("sha256:" + digest.hexdigest()), size


def _fill(stream: Readable, view: memoryview) -> int:
    """Fill `view`; less only at the end of the stream."""
    filled = 0
    while filled < len(view):
        got = stream.readinto(view[filled:])
        if got is None:
            raise KernelError(
                "read", errno.EAGAIN, remedy="The stream of a layer's tar has to block until it has bytes."
            )
        if not got:
            break
        filled += got
    return filled


def _failure(unpacker: Any, limits: Limits = UNLIMITED) -> LayerstoreError:
    noted = ffi.new("struct ls_failure *")
    lib.ls_unpack_failure(unpacker, noted)
    if noted.kind != lib.LS_FAIL_LIMIT:
        return failure_of(lib.ls_unpack_failure, unpacker)
    facts = ffi.new("struct ls_unpack_result *")
    lib.ls_unpack_facts(unpacker, facts)
    setting, path = ffi.string(noted.what).decode(), ffi.string(noted.path)
    what, unit = _LIMITED[setting]
    return LimitExceeded(
        f"entry {os.fsdecode(path)!r}: {what}" if path and setting == "max-pax-header" else what,
        setting=setting,
        limit=limits.of(setting),
        met=facts.met,
        unit=unit,
    )
