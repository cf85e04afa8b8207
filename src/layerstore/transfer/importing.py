"""Importing: the tar of a root filesystem becomes an image of one layer, as `docker import` has it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from layerstore import platforms
from layerstore.compression import open_stream
from layerstore.errors import named
from layerstore.images import config as config_of
from layerstore.images import instructions as instructions_of
from layerstore.transfer.loading import FileObject
from layerstore.transfer.standard import STANDARD, standard_input

if TYPE_CHECKING:
    from layerstore.images import Image, Images
    from layerstore.layers import Layers, Progress


def import_tar(
    source: str | Path | BinaryIO,
    reference: str | None,
    *,
    images: Images,
    layers: Layers,
    message: str,
    instructions: Sequence[str],
    platform: str | None,
    progress: Progress | None,
) -> Image:
    """See `Store.import_tar`."""
    run_config = instructions_of.apply(None, instructions)
    chosen = None if platform is None else platforms.parse(platform)
    label = source if isinstance(source, str | Path) else getattr(source, "name", "-")
    with _opened(source) as raw, open_stream(raw, limits=layers.limits) as stream:
        staged = layers.stage(stream, label=str(label), progress=progress)
    try:
        made = config_of.derive(
            None,
            new_layer=staged.diff_id,
            run_config=run_config,
            created=config_of.now(),
            comment=message or f"Imported from {label}",
            platform=chosen,
        )
        names = [] if reference is None else [reference]
        return images.add_staged(made, {staged.diff_id: staged}, names, trust=True)
    finally:
        layers.discard(staged)


@contextmanager
def _opened(source: str | Path | BinaryIO) -> Iterator[FileObject]:
    if isinstance(source, str | Path) and str(source) == STANDARD:
        yield FileObject(standard_input(), "standard input")
    elif isinstance(source, str | Path):
        with named("open", source):
            file = FileIO(source)
        with file:
            yield FileObject(file, str(source))
    else:
        yield FileObject(source, str(getattr(source, "name", "the stream")))
