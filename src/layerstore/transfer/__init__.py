"""Images in and out: docker-archive and OCI layout, as a tar, a folder or a stream.

An archive that comes in is hostile until proved otherwise. `documents` reads its JSON, `docker_archive` and `oci` say
what images it has, `archive` and `stream` where their bytes lie, and `loading` gives them to the store. `saving` is the
way back, to a `target`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from layerstore.digest import Digest
    from layerstore.images import Image, Images, Loaded
    from layerstore.layers import Layers, LayerSource, Progress
    from layerstore.transfer.incoming import Blob

__all__ = ["load", "save"]


def load(
    source: str | Path | BinaryIO,
    *,
    images: Images,
    layers: Layers,
    only: Sequence[str] = (),
    names: Sequence[str] = (),
    platform: str | None = None,
    progress: Progress | None = None,
    elsewhere: Callable[[Blob], LayerSource] | None = None,
) -> list[Loaded]:
    """Put the images of an archive into the store: a tar, a folder, an open file, or "-" for standard input.

    `platform` (`linux/arm64`) chooses where an image is there for several; the default is this machine's. `only` are
    names or IDs of images that the archive has: the others stay out. `names` take the place of those that the archive
    gives to its image, or to the one that `only` chooses. All images come in, or none. Raises `InvalidArchive`;
    `NotFound` and `Ambiguous` where `only` or `names` do not fit the archive.

    `elsewhere` says where a layer can be read that an archive lists and lacks: one that can be read in any order.

    `oci:FOLDER[:NAME]`, `oci-archive:FILE[:NAME]` and `docker-archive:FILE[:NAME|@NUMBER]` name an archive, too, and of
    what it has one image.
    """
    if isinstance(source, str) and ":" in source:
        from layerstore.transfer import places

        place = places.require_known(places.parse(source))
        if isinstance(place, places.InArchive):
            source = Path(place.path)
            only = (*only, *place.wanted)
    from layerstore.transfer.loading import load_images

    return load_images(
        source,
        images=images,
        layers=layers,
        only=only,
        names=names,
        platform=platform,
        progress=progress,
        elsewhere=elsewhere,
    )


def save(
    images: Sequence[Image],
    names: Sequence[Sequence[str]],
    target: str | Path | BinaryIO,
    *,
    layers: Layers,
    format: str = "docker-archive",
    folder: bool | None = None,
    compression: str | None = None,
    progress: Progress | None = None,
    annotations: Mapping[str, str] | None = None,
) -> tuple[Digest, ...]:
    """Write images, each under its full `names`, to a tar, a folder, an open file, or "-" for standard output.

    The same images give the same bytes. `folder`: None makes a folder where `target` is one or ends with a slash.

    `oci:FOLDER[:NAME]`, `oci-archive:FILE[:NAME]` and `docker-archive:FILE[:NAME]` are targets, too, which say the
    format themselves, and what the one image is called there.

    `annotations` are those of the manifests, of whose digests one for each image is returned; a docker-archive has
    neither.
    """
    called = None
    if isinstance(target, str) and ":" in target:
        from layerstore.transfer import places

        place = places.require_known(places.parse(target))
        if isinstance(place, places.InArchive):
            called = place.only_name(len(images))
            target, folder = Path(place.path), place.form == "oci"
            format = "docker-archive" if place.form == "docker-archive" else "oci"
    from layerstore.transfer.saving import save_images

    return save_images(
        images,
        names if called is None else [[called]],
        target,
        layers=layers,
        format=format,
        folder=folder,
        compression=compression,
        progress=progress,
        annotations=annotations,
    )
