"""What becomes of an image beside the store: an archive, a registry, a tar or a folder of its files.

A file or a new folder is made beside its place, and takes it when it is whole.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from layerstore import ConfigError, Image, ImageID, KernelError, NotFound, Store, reference
from layerstore.build.options import Export
from layerstore.build.steps.session import BuildSession

__all__ = ["export", "require", "require_file", "require_folder"]

_WITHOUT_NAMELESS = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT)
"""What filesystems and kernels say that have no files without names (open(2), O_TMPFILE)."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
_ROOM = "Free some space there, or write elsewhere."


# --- what can be known before there is an image ---


def require(wanted: Export, tags: tuple[str, ...]) -> None:
    """Raises `ConfigError` for a place that cannot be written to, `InvalidReference` for what is no name."""
    for name in wanted.names:
        reference.normalise(name)
    if wanted.kind == "image":
        if wanted.push and not (wanted.names or tags):
            raise ConfigError("there is nothing to push: the image has no name", remedy="Give it one (-t NAME).")
        return
    if wanted.kind == "cacheonly":
        return
    if wanted.dest is None:
        raise ConfigError(
            f"output of type {wanted.kind} needs a place", remedy=f"Give type={wanted.kind},dest=PATH; - is stdout."
        )
    if wanted.dest == "-" and wanted.kind != "local":
        _require_stdout()
    elif wanted.kind == "local" or (wanted.kind == "oci" and _is_folder(wanted.dest)):
        require_folder(wanted.dest)
        if wanted.kind == "oci" and os.path.isdir(wanted.dest) and os.listdir(wanted.dest):
            raise ConfigError(
                f"{wanted.dest} is no empty folder",
                remedy="Name one that does not exist, or is empty.",
                path=wanted.dest,
            )
    else:
        require_file(wanted.dest)


def require_file(path: str) -> None:
    """Raises `ConfigError` if no file can be written there."""
    if os.path.isdir(path):
        raise ConfigError(f"{path} cannot be written: it is a folder", remedy="Name a file.", path=path)
    if os.path.exists(path) and not os.path.isfile(path):
        return  # a device or a pipe, which is written to in place
    folder = os.path.dirname(os.path.realpath(path))
    if not os.path.isdir(folder):
        raise ConfigError(
            f"{path} cannot be written: there is no folder {folder}",
            remedy="Make that folder, or name another file.",
            path=path,
        )
    _require_writable(folder, path)


def require_folder(path: str) -> None:
    """Raises `ConfigError` if there can be no folder there, which is made with those above it if there is none."""
    above = os.path.abspath(path)
    while not os.path.lexists(above):
        above = os.path.dirname(above)
    if not os.path.isdir(above):
        raise ConfigError(f"{path} cannot be written: {above} is no folder", remedy="Name another folder.", path=path)
    _require_writable(above, path)


def _require_writable(folder: str, path: str) -> None:
    try:
        os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except OSError as error:
        if error.errno not in _WITHOUT_NAMELESS:
            known = KernelError("open", error.errno or errno.EIO)
            raise ConfigError(
                f"{path} cannot be written: {error.strerror}", remedy=known.remedy, path=path, errno=error.errno
            ) from None


def _require_stdout() -> None:
    if sys.stdout is None:
        raise ConfigError("standard output is closed", remedy="Name a file (dest=PATH).")
    if sys.stdout.isatty():
        raise ConfigError("will not write an image to a terminal", remedy="Name a file (dest=PATH), or redirect it.")


# --- what is done with one ---


def export(
    session: BuildSession, image: Image, wanted: Export, tags: tuple[str, ...], annotations: Mapping[str, str]
) -> str | None:
    """Write an image as `wanted` says, which `require` has found nothing wrong with; its manifest's digest, if any."""
    names = wanted.names or tags
    dest = wanted.dest or "-"
    if wanted.kind == "image":
        if wanted.push:
            pushed = [session.store.push(name, annotations=annotations) for name in names]
            return pushed[0].digest
    elif wanted.kind in ("oci", "docker"):
        with _named(session.store, image, names) as chosen:
            return _archive(session.store, chosen, wanted, annotations)
    elif wanted.kind == "cacheonly":
        return None
    elif wanted.kind == "tar":
        with session.container(image.chain_id) as container, _file(dest) as write:
            container.export(write)
    else:
        _folder(image, Path(dest))
    return None


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


def _archive(store: Store, chosen: list[Image | str], wanted: Export, annotations: Mapping[str, str]) -> str | None:
    given = annotations if wanted.kind == "oci" else None
    form = "oci" if wanted.kind == "oci" else "docker-archive"
    dest = wanted.dest or "-"
    if dest == "-":
        made = store.save(chosen, sys.stdout.buffer, format=form, annotations=given)
    elif wanted.kind == "oci" and _is_folder(dest):
        with _told("mkdir", dest):
            Path(dest).parent.mkdir(parents=True, exist_ok=True)
        made = store.save(chosen, Path(dest), format="oci", folder=True, annotations=given)
    else:
        made = store.save(chosen, Path(dest), format=form, annotations=given)
    return made[0] if made else None


def _is_folder(dest: str) -> bool:
    """Is an OCI layout to be a folder there?"""
    return dest.endswith("/") or os.path.isdir(dest)


@contextmanager
def _file(dest: str) -> Iterator[Callable[[memoryview], object]]:
    """While inside: what writes to a file, which is there when all was written; - is standard output."""
    if dest == "-":
        with _told("write", "standard output"):
            yield sys.stdout.buffer.write
            sys.stdout.buffer.flush()
        return
    place = Path(os.path.realpath(dest))
    if place.exists() and not place.is_file():
        with _told("write", place), place.open("wb", buffering=0) as file:
            yield file.write
        return
    draft = _beside(place)
    try:
        with _told("write", place):
            with draft.open("xb") as file:
                yield file.write
            draft.replace(place)
    except BaseException:
        with suppress(OSError):  # it may be what could not be made
            draft.unlink()
        raise


def _folder(image: Image, dest: Path) -> None:
    """The files themselves, on those that are there."""
    archive = os.geteuid() == 0
    if os.path.lexists(dest):
        with _told("write", dest):
            image.copy_out("/.", dest, archive=archive)
        return
    draft = _beside(dest)
    with _told("mkdir", dest):
        draft.mkdir(parents=True)
    try:
        with _told("write", dest):
            image.copy_out("/.", draft, archive=archive)
            draft.rename(dest)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _beside(place: Path) -> Path:
    return place.with_name(f".{place.name[:200]}.{secrets.token_hex(4)}")


@contextmanager
def _told(call: str, place: str | Path) -> Iterator[None]:
    """An error of the kernel says on what, and what to do about a place that has nothing to do with a data-root."""
    try:
        yield
    except OSError as error:
        remedy = _ROOM if error.errno in _FULL else None
        raise KernelError(call, error.errno or errno.EIO, path=place, remedy=remedy) from error
    except KernelError as error:
        if error.errno in _FULL:
            raise KernelError(error.call, error.errno, path=place, remedy=_ROOM) from error
        raise
