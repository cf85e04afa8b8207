"""What ADD does beyond COPY: archives are taken apart.

A tar is unpacked into layers of its own, which nobody but this build needs: no entry of it can lead anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import BinaryIO

from layerstore import LayerSource, open_beneath, open_stream
from layerstore.build.context import Chosen, is_tar
from layerstore.build.errors import Place
from layerstore.build.steps.origins import LayerOrigin, Origin
from layerstore.build.steps.work import Work

__all__ = ["unpacked"]


def unpacked(work: Work, origin: Origin, one: Chosen) -> tuple[Origin, Sequence[Chosen]] | None:
    """What a file has that is a tar, compressed or not; None if it is none. Raises `BuildError` if it is damaged."""
    if one.is_folder:
        return None
    with origin.open_tree() as root:

        def opened(path: str, _: int) -> int:
            return open_beneath(root, path, os.O_RDONLY | os.O_NONBLOCK)

        with open("/" + os.fsdecode(one.path), "rb", buffering=0, opener=opened) as file:
            return unpacked_file(work, file, os.fsdecode(one.path))


def unpacked_file(work: Work, file: BinaryIO, name: str) -> tuple[Origin, Sequence[Chosen]] | None:
    """The same, of an open file."""
    limits = work.store.config.limits
    if not is_tar(file, limits):
        return None
    file.seek(0)
    layer = work.store.add_layer(LayerSource(lambda: open_stream(file, limits=limits)), None, record=work.session.hold)
    origin = LayerOrigin(work.store, layer.chain_id, name)
    return origin, origin.choose(["/"], parents=False, exclude=(), place=Place(name, 0, 0, ""))
