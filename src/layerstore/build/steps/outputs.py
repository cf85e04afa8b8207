"""What becomes of an image beside the store: an archive, a registry, a tar or a folder of its files."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from layerstore import ConfigError, Image, Store
from layerstore.build.options import Export

__all__ = ["export"]


def export(store: Store, image: Image, wanted: Export, tags: tuple[str, ...]) -> None:
    """Write an image as `wanted` says. Raises `ConfigError` for a place that it cannot be written to."""
    names = wanted.names or tags
    if wanted.kind == "image":
        if wanted.push:
            if not names:
                raise ConfigError("there is nothing to push: the image has no name", remedy="Give it one (-t NAME).")
            for name in names:
                store.push(name)
        return
    if wanted.dest is None:
        raise ConfigError(
            f"output of type {wanted.kind} needs a place", remedy=f"Give type={wanted.kind},dest=PATH; - is stdout."
        )
    if wanted.kind in ("oci", "docker"):
        _archive(store, image, wanted, names)
    elif wanted.kind == "tar":
        _tar(store, image, wanted.dest)
    else:
        _folder(store, image, Path(wanted.dest))


def _archive(store: Store, image: Image, wanted: Export, names: tuple[str, ...]) -> None:
    form = "oci" if wanted.kind == "oci" else "docker-archive"
    chosen: list[Image | str] = list(names) or [image]
    dest = wanted.dest or "-"
    if dest == "-":
        store.save(chosen, sys.stdout.buffer, format=form)
    elif wanted.kind == "oci" and (dest.endswith("/") or os.path.isdir(dest)):
        store.save(chosen, Path(dest), format="oci", folder=True)
    else:
        store.save(chosen, Path(dest), format=form)


def _tar(store: Store, image: Image, dest: str) -> None:
    """The whole tree as one tar."""
    container = store.create_container(image, lasts=False)
    try:
        if dest == "-":
            container.export(sys.stdout.buffer.write)
            return
        place = Path(dest)
        fd, name = tempfile.mkstemp(prefix=f".{place.name}.", dir=place.parent)
        try:
            with open(fd, "wb") as file:
                container.export(file.write)
                os.fchmod(file.fileno(), 0o644)
            os.rename(name, place)
        except BaseException:
            os.unlink(name)
            raise
    finally:
        container.remove()


def _folder(store: Store, image: Image, dest: Path) -> None:
    """The files themselves, on those that are there."""
    dest.mkdir(parents=True, exist_ok=True)
    container = store.create_container(image, lasts=False)
    try:
        container.copy_out("/.", dest, archive=os.geteuid() == 0)
    finally:
        container.remove()
