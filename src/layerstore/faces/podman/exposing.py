"""An additional image store is written, brought up to date, and taken away again.

What podman may be reading is replaced file by file, each by a rename: layers first, then the list of layers, then that
of images; and what is in no list any more goes last. The folder has nothing that cannot be made again.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO

from layerstore.digest import ChainID, DiffID
from layerstore.errors import ConfigError, Damaged, DriverNotSupported, NotFound, named
from layerstore.faces.podman.configs import wrong_with
from layerstore.faces.podman.documents import ExposedImage, ExposedLayer, link_of, name_of
from layerstore.faces.podman.splitting import write_split
from layerstore.images import Image
from layerstore.reference import parse
from layerstore.store import Store
from layerstore.values import frozen

__all__ = ["Exposed", "expose", "withdraw"]

_DRIVER = "overlay2"
_MARK = ".layerstore"
"""In a folder that is ours: the ID of the store that it is of."""

_LOCKS = ("overlay-images/images.lock", "overlay-layers/layers.lock")
_SPLIT = ".tar-split.gz"
_LAST_WRITER = 64
"""Bytes in such a file, other ones after each change (containers/storage, `lockfile_unix.go`)."""


@frozen
class Exposed:
    """What podman finds there: names of images, with their IDs; and what is left out, with what is wrong with it."""

    images: Mapping[str, str]
    left_out: Mapping[str, str]


def expose(store: Store, folder: Path, *, only: Sequence[str] = (), exact: bool = True) -> Exposed:
    """Make `folder` an additional image store (containers-storage.conf(5), `additionalimagestores`) of `store`.

    Of all its images, or of those in `only`, as they are now: what comes later is there after the next call, and what
    is not named any more is gone. Layers that podman sees stay in the store, whatever is removed there, until they are
    not exposed any more or `withdraw`. A folder that is there is empty, or was made so before.

    `exact`: podman can save and push them, too. For that each layer that is new there is read, twice; else only its
    names are.

    Raises `DriverNotSupported` for a store of another driver than overlay2, `ConfigError`, `NotFound`, `KernelError`.
    """
    _require_overlay(store)
    images = [store.image(name) for name in only] or store.images()
    owner = _owner(folder)
    known: dict[ChainID, ExposedLayer] = {}
    chosen: list[ExposedImage] = []
    left_out: dict[str, str] = {}
    with _owned(folder, store):
        held = set(store.leases(owner))
        for image in images:
            if (wrong := wrong_with(image.config_bytes)) is not None:
                left_out[_name(image)] = wrong
                continue
            try:
                for chain in image.chain_ids:
                    store.lease(None, chain, owner=owner, name=chain)
                exposed = ExposedImage(image, _layers(store, image, known))
                _write_image(store, folder, exposed, exact=exact)
                chosen.append(exposed)
            except Damaged as error:
                left_out[_name(image)] = error.message
            except NotFound:
                if only:  # else it has gone meanwhile
                    raise
        layers = {layer.chain: layer for image in chosen for layer in image.layers}
        with _told(folder):
            _publish(folder, list(layers.values()), chosen)
        leased = held.union(chain for image in images for chain in image.chain_ids)
        store.end_leases(owner, leased - set(layers))
    return Exposed({_name(image.image): image.id for image in chosen}, left_out)


def withdraw(store: Store, folder: Path) -> None:
    """Let podman find nothing there any more; nothing keeps its layers but the store itself, then.

    The folder stays, without images: podman starts no more if one that storage.conf names is missing. Containers that
    podman has made on them are of no use after it. Raises `NotFound`, `ConfigError`, `KernelError`.
    """
    if not (folder / _MARK).exists():
        raise NotFound(f"nothing is exposed in {folder}", remedy="Name the folder that was given to `expose`.")
    with _owned(folder, store):
        with _told(folder):
            _publish(folder, [], [])
        store.end_leases(_owner(folder), list(store.leases(_owner(folder))))


# --- which images, as what ---


def _require_overlay(store: Store) -> None:
    if store.driver_name != _DRIVER:
        raise DriverNotSupported(
            f"podman cannot have layers of {store.driver_name}: they are not in the form of its overlay driver",
            remedy=f"`layerstore migrate {_DRIVER}` converts the store; or `layerstore serve`, and podman pulls.",
        )


def _layers(store: Store, image: Image, known: dict[ChainID, ExposedLayer]) -> list[ExposedLayer]:
    folders = image.folders
    below: list[ChainID] = []
    found: list[ExposedLayer] = []
    for chain, diff_id in zip(image.chain_ids, image.layers, strict=True):
        if chain not in known:
            known[chain] = _layer(store, chain, found[-1].chain if found else None, diff_id, below, folders)
        found.append(known[chain])
        below = list(known[chain].seen)
    return found


def _layer(
    store: Store,
    chain: ChainID,
    parent: ChainID | None,
    diff_id: DiffID,
    below: Sequence[ChainID],
    folders: Mapping[ChainID, Path],
) -> ExposedLayer:
    users, groups, hides_all = set[int](), set[int](), False
    for entry in store.layer_entries(chain):
        users.add(entry.uid)
        groups.add(entry.gid)
        hides_all |= entry.opaque and not entry.path
    # Overlay refuses a folder that it is given twice; and it takes no notice of a root that hides what is below.
    others = [] if hides_all else [one for one in below if folders[one] != folders[chain]]
    size = store.layer(chain).size
    return ExposedLayer(chain, parent, diff_id, size, (chain, *others), sorted(users), sorted(groups))


def _name(image: Image) -> str:
    return min(image.tags, default=image.short_id)


# --- the folder ---


def _owner(folder: Path) -> str:
    return "podman " + os.fsencode(folder.resolve()).decode(errors="backslashreplace")


@contextmanager
def _owned(folder: Path, store: Store) -> Iterator[None]:
    """The folder, made if there is none. Whoever else writes it waits; podman does not."""
    with named("mkdir", folder):
        folder.mkdir(parents=True, exist_ok=True)
        _claim(folder, store)
        for name in ("overlay/l", "overlay-images", "overlay-layers"):
            (folder / name).mkdir(parents=True, exist_ok=True)
    with named("write", folder), (folder / _MARK).open("rb") as mark:
        fcntl.flock(mark, fcntl.LOCK_EX)
        yield


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """podman's own locks, while lists are written; and podman told that something is new."""
    with ExitStack() as undo:
        locks = []
        for name in _LOCKS:
            locks.append(os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644))
            undo.callback(os.close, locks[-1])
        for lock in locks:
            fcntl.lockf(lock, fcntl.LOCK_EX)
        yield
        for lock in locks:
            os.pwrite(lock, os.urandom(_LAST_WRITER), 0)


def _claim(folder: Path, store: Store) -> None:
    """Raise `ConfigError` if it is a folder of somebody else: podman's own store, say."""
    try:
        owner = (folder / _MARK).read_text().strip()
    except FileNotFoundError:
        if any(path.name != _draft(folder / _MARK).name for path in folder.iterdir()):
            raise ConfigError(
                f"{folder} is not empty", remedy="Name a folder of its own for this: one that is not there, say."
            ) from None
        _replace(folder / _MARK, f"{store.id}\n".encode())
        return
    if owner != store.id:
        raise ConfigError(f"{folder} has images of another store", remedy="Name another folder, or remove this one.")


def _write_image(store: Store, folder: Path, image: ExposedImage, *, exact: bool) -> None:
    """An image's layers and documents, which no list has yet. Raises `Damaged`."""
    overlay, places = folder / "overlay", image.image.folders
    for layer in image.layers:
        own = overlay / layer.id
        own.mkdir(exist_ok=True)
        _link(own / "diff", places[layer.chain])
        _link(overlay / "l" / link_of(layer.chain), Path("..", layer.id, "diff"))
        _replace(own / "link", link_of(layer.chain).encode())
        if layer.lower:
            _replace(own / "lower", layer.lower.encode())
        split = folder / "overlay-layers" / f"{layer.id}{_SPLIT}"
        if exact and not split.exists():
            _put(split, partial(_write_split, store, layer.chain, places[layer.chain]))
    own = folder / "overlay-images" / image.id
    own.mkdir(exist_ok=True)
    for name, data in image.parts().items():
        _replace(own / name_of(name), data)


def _publish(folder: Path, layers: Sequence[ExposedLayer], images: Sequence[ExposedImage]) -> None:
    """Say what there is, and remove all else."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    _replace(folder / "overlay-layers/layers.json", _json([layer.row(now) for layer in layers]))
    rows = [image.row(parse(tag).full for tag in image.image.tags) for image in images]
    _replace(folder / "overlay-images/images.json", _json(rows))
    names = {layer.id for layer in layers}
    links = {link_of(layer.chain) for layer in layers}
    kept = {image.id for image in images}
    overlay = folder / "overlay"
    gone = [
        *(path for path in overlay.iterdir() if path.name not in names and path.name != "l"),
        *(path for path in (overlay / "l").iterdir() if path.name not in links),
        *(path for path in (folder / "overlay-images").iterdir() if path.is_dir() and path.name not in kept),
        *(path for path in (folder / "overlay-layers").glob(f"*{_SPLIT}") if path.name[: -len(_SPLIT)] not in names),
        *(folder / "overlay-layers").glob(".*.new"),
    ]
    for path in gone:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _replace(path: Path, data: bytes) -> None:
    if not path.exists() or path.read_bytes() != data:
        _put(path, lambda name: _write(name, data))


def _write(path: Path, data: bytes) -> None:
    with _synced(path) as file:
        file.write(data)


def _write_split(store: Store, chain: ChainID, tree: Path, path: Path) -> None:
    with _synced(path) as file:
        write_split(store, chain, tree, file)


@contextmanager
def _synced(path: Path) -> Iterator[IO[bytes]]:
    """So that no power cut leaves a file that says nothing."""
    with path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _link(path: Path, target: Path) -> None:
    if not path.is_symlink() or path.readlink() != target:
        _put(path, lambda name: name.symlink_to(target))


def _put(path: Path, make: Callable[[Path], object]) -> None:
    name = _draft(path)
    name.unlink(missing_ok=True)
    make(name)
    name.replace(path)


def _draft(path: Path) -> Path:
    """Where a file is written first. One that is found was left by who was killed."""
    return path.with_name(f".{path.name}.new")
