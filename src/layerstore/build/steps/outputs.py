"""What becomes of an image beside the store: an archive, a registry, a tar or a folder of its files."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from layerstore import ConfigError, Image, ImageID, NotFound, Store
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
        with _named(store, image, names) as chosen:
            _archive(store, chosen, wanted)
    elif wanted.kind == "tar":
        _tar(store, image, wanted.dest)
    else:
        _folder(store, image, Path(wanted.dest))


@contextmanager
def _named(store: Store, image: Image, names: tuple[str, ...]) -> Iterator[list[Image | str]]:
    """While inside: the image under these names, as `Store.save` is told; by itself if there are none.

    A name that another image has is that one's again afterwards.
    """
    others: dict[str, ImageID] = {}
    for name in names:
        with suppress(NotFound):
            found = store.image(name)
            if {name, f"{name}:latest"} & set(found.tags):
                others[name] = found.id
    try:
        for name in names:
            image.tag(name)
        yield list(names) or [image]
    finally:
        for name in names:
            if name in others:
                store.tag(others[name], name)
            else:
                with suppress(NotFound):
                    store.remove_image(name)


def _archive(store: Store, chosen: list[Image | str], wanted: Export) -> None:
    form = "oci" if wanted.kind == "oci" else "docker-archive"
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
