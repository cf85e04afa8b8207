"""Images made of other images, or of nothing, without a container: a layer appended, a configuration altered.

A folder is read where it lies, and its layer's tar is made as it is taken in; layer, config and names get their rows in
one transaction. What is appended lies on the image as a layer does: but where the image has a folder already, that
keeps its looks, and lists them, so that whoever unpacks the layer alone does not lose them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from layerstore import platforms, reference
from layerstore.compression import open_stream
from layerstore.errors import CannotCopy, ConfigError, named
from layerstore.gathering import Folder, Piece, layer_of, walk
from layerstore.images import config as config_of
from layerstore.images import instructions as instructions_of
from layerstore.images import rows
from layerstore.kernel.files.descriptors import FOLDER, opened
from layerstore.layers import Layers, LayerSource, Progress, StoredLayer
from layerstore.layers.adding import add
from layerstore.limits import Limits
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.database import Transaction
    from layerstore.digest import DiffID, ImageID
    from layerstore.images.image import Image
    from layerstore.images.images import Images
    from layerstore.tar import Readable

__all__ = [
    "Ground",
    "Source",
    "Step",
    "append",
    "folder_layer",
    "latest_or_epoch",
    "names_of",
    "require_root",
    "tar_layer",
    "with_config",
]

Source = str | os.PathLike[str] | BinaryIO
"""A folder of the host, or a tar: a file, or an open one."""


@frozen
class Ground:
    """What is built on: an image, or nothing (then for `platform`, None being this machine's)."""

    images: Images
    layers: Layers
    image: Image | None
    platform: str | None = None

    def derived(self, step: Step, new_layer: DiffID | None, run_config: Mapping[str, Any]) -> bytes:
        """The config of what is built."""
        return config_of.derive(
            None if self.image is None else self.image.config,
            new_layer=new_layer,
            run_config=run_config,
            created=config_of.now(),
            author=step.author,
            comment=step.message,
            created_by=step.created_by,
            platform=None if self.platform is None else platforms.parse(self.platform),
        )

    @property
    def run_config(self) -> Mapping[str, Any]:
        """The run configuration of the image."""
        return {} if self.image is None else self.image.config.get("config") or {}

    @property
    def parent(self) -> ImageID | None:
        """The image."""
        return None if self.image is None else self.image.id


@frozen
class Step:
    """What is said of a step in the history of the image, and what that is called."""

    created_by: str
    message: str
    author: str | None
    tags: Sequence[str]


def append(
    ground: Ground,
    source: Source,
    at: str,
    step: Step,
    *,
    owner: tuple[int, int] | None,
    latest: int | None,
    instructions: Sequence[str],
    progress: Progress | None,
) -> Image:
    """See `Base.append`."""
    images, image = ground.images, ground.image
    run_config = instructions_of.apply(ground.run_config, instructions)
    tags = [reference.normalise(tag) for tag in step.tags]
    made: list[ImageID] = []

    def record(tx: Transaction, layer: StoredLayer) -> None:
        if image is not None:
            rows.resolve(tx, image.id)
        config = ground.derived(step, layer.diff_id, run_config)
        made.append(rows.insert(tx, config, layer.chain_id, ground.parent, tags))

    with ExitStack() as after:
        is_folder = isinstance(source, str | os.PathLike) and Path(source).is_dir()
        if isinstance(source, str | os.PathLike) and is_folder:
            tree = None if image is None else after.enter_context(image.open_tree())
            root = after.enter_context(opened(Path(source), FOLDER))
            layer = folder_layer(
                root, os.fspath(source), tree, names_of(at), owner, latest_or_epoch(latest), is_bottom=image is None
            )
        else:
            require_root(at)
            layer = tar_layer(source, ground.layers.limits)
        parent = None if image is None else image.chain_id
        add(ground.layers, layer, parent, record=record, progress=progress)
    return images.get(made[0])


def with_config(
    ground: Ground,
    step: Step,
    *,
    instructions: Sequence[str],
    env: Mapping[str, str | None],
    labels: Mapping[str, str | None],
    settings: Mapping[str, Any],
    ports: Iterable[str],
    volumes: Iterable[str],
) -> Image:
    """See `Base.with_config`. `settings` are values by the names that they have in the run configuration."""
    exposed = [f"EXPOSE {port}" for port in ports]
    run_config = instructions_of.apply(ground.run_config, [*instructions, *exposed])
    if env:
        run_config["Env"] = _environment(run_config.get("Env") or (), env)
    if labels:
        known = {**(run_config.get("Labels") or {}), **labels}
        run_config["Labels"] = {name: value for name, value in known.items() if value is not None}
    if added := list(volumes):
        run_config["Volumes"] = {**(run_config.get("Volumes") or {}), **{path: {} for path in added}}
    given = {name: value for name, value in settings.items() if value is not None}
    if "Entrypoint" in given and run_config.get("Cmd") == ground.run_config.get("Cmd"):
        run_config.pop("Cmd", None)  # the image's command was meant for its own entrypoint
    run_config |= {name: value if isinstance(value, str) else list(value) for name, value in given.items()}
    top = None if ground.image is None else ground.image.chain_id
    config = ground.derived(step, None, run_config)
    return ground.images.add_known(config, top, step.tags, parent=ground.parent)


def _environment(entries: Iterable[str], changes: Mapping[str, str | None]) -> list[str]:
    known = {entry.partition("=")[0]: entry for entry in entries}
    for name, value in changes.items():
        if not name or "=" in name:
            raise ConfigError(f"{name!r} cannot be the name of a variable", remedy="Give names and values apart.")
        known.pop(name, None) if value is None else known.update({name: f"{name}={value}"})
    return list(known.values())


# --- layers


def latest_or_epoch(latest: int | None) -> int | None:
    """What is said, or else the time of SOURCE_DATE_EPOCH, if that is set."""
    epoch = config_of.epoch() if latest is None else None
    return latest if epoch is None else epoch


def names_of(at: str) -> list[bytes]:
    """The names on the way to a path of an image. Raises `ConfigError` for `..`."""
    names = [os.fsencode(name) for name in at.split("/") if name not in ("", ".")]
    if b".." in names:
        raise ConfigError(f"{at!r} has a .. in it", remedy="Say where it goes, from the root of the image.")
    return names


def require_root(at: str) -> None:
    """Raise `ConfigError` unless a path is the root: of a tar, the entries say where they go."""
    if names_of(at):
        raise ConfigError("`at` is for folders: the entries of a tar say where they go")


def tar_layer(source: Source, limits: Limits) -> LayerSource:
    """A layer that is a tar as it is, compressed or not."""

    @contextmanager
    def stream() -> Iterator[Readable]:
        with ExitStack() as after:
            raw: Readable | BinaryIO
            if isinstance(source, str | os.PathLike):
                with named("open", source):
                    raw = after.enter_context(FileIO(os.fspath(source)))
            else:
                raw = source
            yield after.enter_context(open_stream(raw, limits=limits))

    label = os.fspath(source) if isinstance(source, str | os.PathLike) else str(getattr(source, "name", "-"))
    return LayerSource(stream, label=label)


def folder_layer(
    root: int,
    label: str,
    tree: int | None,
    at: Sequence[bytes],
    owner: tuple[int, int] | None,
    latest: int | None,
    *,
    is_bottom: bool,
) -> LayerSource:
    """A layer of what is in the folder `root`, at a path of the image whose tree is `tree`.

    None: that is not at hand, and then folders above are not listed, unless there is nothing below (`is_bottom`).
    """
    modified = os.fstat(root).st_mtime_ns
    when = modified if latest is None else min(modified, latest)
    above = [b"/".join(at[:depth]) for depth in range(len(at) + 1)]
    there = [name for name in above if _is_there(tree, name, is_folder=True)]
    is_known = is_bottom or tree is not None
    made = [Folder(name, mtime_ns=when) for name in above if name not in there] if is_known else []
    taken: list[tuple[bytes, bytes]] = []
    with named("read", label):
        listing = walk(root)
    for path, is_folder in listing.entries():
        if path:
            name = b"/".join((*at, path))
            if _is_there(tree, name, is_folder=is_folder) and is_folder:
                there.append(name)
            else:
                taken.append((path, name))
    pieces: list[Piece | Folder] = [*made, Piece(root, taken, owner=owner, latest=latest)]
    if tree is not None:
        pieces.append(Piece(tree, [(name, name) for name in there]))
    return layer_of(pieces, label=label)


def _is_there(tree: int | None, name: bytes, *, is_folder: bool) -> bool:
    """Does the image have this already? Raises `CannotCopy` if that is a folder and this is not, or this and not that.

    The folders above have been asked for before: none of them is a symbolic link.
    """
    if tree is None:
        return False
    try:
        mode = os.stat(name or b".", dir_fd=tree, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(mode) != is_folder:
        shown = os.fsdecode(b"/" + name)
        found = "folder" if stat.S_ISDIR(mode) else "symbolic link" if stat.S_ISLNK(mode) else "file"
        wanted = "a folder" if is_folder else "no folder"
        remedy = "Append what is in it at the place where the link leads." if found == "symbolic link" else None
        raise CannotCopy(
            f"{shown} is a {found} in the image, and {wanted} in what is appended", remedy=remedy, path=shown
        )
    return True
