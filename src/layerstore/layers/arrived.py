"""Is what has come of a lazy layer what its index says? It is read and proved here, and nobody waits for the rest."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from layerstore.errors import Damaged, InvalidArchive, KernelError, named
from layerstore.indexes import LAZY, TAR
from layerstore.kernel.files.descriptors import FOLDER, opened, private
from layerstore.layers.lazy import MEND, Lazy, facts_of, noted, wrong
from layerstore.limits import UNLIMITED
from layerstore.seekable import LayerIndex
from layerstore.tar.skeleton import SkeletonReader, SkeletonWriter

if TYPE_CHECKING:
    from layerstore.layers.diffs import Diff
    from layerstore.layers.relay import Write

__all__ = ["damages", "require_told"]


def damages(folder: Path, stored: Diff, content: Write | None) -> Sequence[str]:
    """What is wrong in a lazy layer's folder, in words. `content`: is given what has come, which is read, too.

    Raises `KernelError`. Nothing, if meanwhile all has come and was proved.
    """
    if (what := wrong(folder)) is not None:
        return [what]
    try:
        found = list(_damages(folder, stored, content))
    except (Damaged, InvalidArchive) as error:
        found = [error.message]
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise
        found = [f"what belongs to a layer that is not there yet is missing: {error.path}"]
    return found if os.path.lexists(folder / LAZY) else []


def _damages(folder: Path, stored: Diff, content: Write | None) -> Iterator[str]:
    with opened(folder, FOLDER) as fd:
        packed, _ = Lazy.of(fd)
        index = LayerIndex.unpacked(packed, UNLIMITED)
        bits = noted(fd)
        if (index.diff_id, index.tar_size) != (stored.diff_id, stored.size):
            yield "its index is that of another layer"
        elif facts_of(fd) != (index.chunk, index.tar_size) or len(bits) != -(-index.chunks // 8):
            yield "what is there of it is not noted as it should be"
        elif content is not None:
            yield from _altered(folder, index, bits, content)


def _altered(folder: Path, index: LayerIndex, bits: bytes, content: Write) -> Iterator[str]:
    """What has come, and is something else by now. Holes are not read: who does that waits."""
    with named("read", folder / TAR), open(folder / TAR, "rb", buffering=0, opener=private) as tar:
        for chunk in range(index.chunks):
            if bits[chunk // 8] >> chunk % 8 & 1:
                at = chunk * index.chunk
                size = min(index.chunk, index.tar_size - at)
                data = os.pread(tar.fileno(), size, at)
                content(memoryview(data))
                if hashlib.sha256(data).digest() != index.hash_of(chunk):
                    yield f"bytes {at} to {at + size} of its tar are not what came"


def require_told(made: Path, folder: Path, stored: Diff) -> None:
    """Raise `Damaged` if a layer's index has told of another tar than `made` lists; else drop the stream."""
    with SkeletonReader(made) as reader:
        listing, stream = reader.index(), b"".join(reader.stream())
    packed, _ = Lazy.of_folder(folder)
    if stream != LayerIndex.unpacked(packed, UNLIMITED).stream:
        raise Damaged(
            f"layer {stored.diff_id}: its index has told of it what it does not have", remedy=MEND, layer=stored.diff_id
        )
    made.unlink()
    with SkeletonWriter(made) as writer:
        writer.close(listing)
