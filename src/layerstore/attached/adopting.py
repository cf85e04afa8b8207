"""An image of an attached store becomes this store's own: its layers are taken in, as those of an archive are.

Each is proved by its DiffID on the way, for what the other store keeps of it makes its tar again, bit for bit. Where it
keeps nothing, the tar is made anew, so layer and image have other digests, and that is told. What stands on borrowed
layers already stands on the store's own from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from layerstore.attached import rows
from layerstore.attached.elsewhere import gone
from layerstore.attached.kinds import peer
from layerstore.attached.packing import pack
from layerstore.attached.sharing import share
from layerstore.digest import DiffID, ImageID, chain_ids
from layerstore.driver import Layer
from layerstore.errors import LayerstoreError, NotFound, named
from layerstore.images import config as config_of
from layerstore.images import rows as image_rows
from layerstore.images.image import Image
from layerstore.layers import LayerSource
from layerstore.layers import rows as layer_rows
from layerstore.layers.folders import Folders
from layerstore.layers.relay import relay
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.attached.attached import Attached
    from layerstore.attached.values import AttachedLayer, AttachedStore
    from layerstore.database import Database
    from layerstore.layers import Progress, Storage
    from layerstore.session import Session

__all__ = ["Adopted", "adopt"]


@frozen
class Adopted:
    """An image that became the store's own. `names` are those that it was given; `notices` tell what is otherwise.

    `shared`: bytes of files that lie in the same blocks as in the other store, where the filesystem can do that.
    """

    image: Image
    names: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    shared: int = 0


def adopt(
    attached: Attached,
    database: Database,
    session: Session,
    storage: Storage,
    ref: str,
    *,
    progress: Progress | None = None,
) -> Adopted:
    """`Store.adopt`."""
    database.require_writable()
    database.provide(rows.TABLES)
    try:
        with database.read() as tx:
            image, name = image_rows.resolve(tx, ref)
            has_names = bool(image_rows.tags_of(tx, image))
            row = image_rows.find(tx, image)
            assert row is not None  # in the same transaction
            config = row.config
        layers = _borrowed(database, config)
    except NotFound:
        found = attached.find(ref)
        if found is None:
            raise
        one, image, name = found
        has_names = False
        given = one.config(image)
        if given is None:
            raise
        config, layers = given, _all(one, given)
    names = [] if has_names else _names(attached, database, image, name)
    taken: set[int] = set()
    config, sources, notices = _sources(config, layers, session, taken)
    done = attached.store.add(config, sources, names, progress=progress)
    shared = 0
    if isinstance(storage.files, Folders):
        with database.read() as tx:
            kept = layer_rows.find(tx, done.chain_ids)
        for number in sorted(taken):
            layer, diff = layers[number].layer, kept.get(done.chain_ids[number])
            folder = None if layer is None else layer.folder
            if folder is not None and diff is not None and not Layer(diff.key).is_borrowed:
                with suppress(LayerstoreError):  # removed meanwhile: what was taken in is whole by itself
                    shared += share(folder, storage.files.place_of(Layer(diff.key)), storage.files.entries(diff))
    return Adopted(done, done.names, tuple(notices), shared)


def _names(attached: Attached, database: Database, image: ImageID, name: str | None) -> list[str]:
    """The names that an image gets: the one that it was called by, or all that it has over there and nothing here."""
    if name is not None and "@" not in name:
        return [name]
    with database.read() as tx:
        return [
            full
            for one in attached.peers
            for full, meant in one.names().items()
            if meant == image and "@" not in full and not image_rows.has_tag(tx, full)
        ]


@frozen
class _Level:
    """A layer of the image. `layer` is None where this store has it by itself; `store` is where it lies."""

    diff_id: DiffID
    layer: AttachedLayer | None
    store: str = ""


def _all(one: AttachedStore, config: bytes) -> list[_Level]:
    """The layers of an image of an attached store."""
    diff_ids = config_of.layers(config_of.read(config))
    found = []
    for chain, diff_id in zip(chain_ids(diff_ids), diff_ids, strict=True):
        layer = one.layer(chain, diff_id)
        if layer is None:
            raise gone(rows.Lying(one.root.spec, chain, diff_id))
        found.append(_Level(diff_id, layer, one.root.spec))
    return found


def _borrowed(database: Database, config: bytes) -> list[_Level]:
    """The layers of an image of this store: those that are borrowed, and those that are its own."""
    diff_ids = config_of.layers(config_of.read(config))
    chains = chain_ids(diff_ids)
    with database.read() as tx:
        diffs = layer_rows.find(tx, chains)
        lying = {
            chain: there
            for chain, diff in diffs.items()
            if Layer(diff.key).is_borrowed and (there := rows.find(tx, diff.key)) is not None
        }
    peers = {store: peer(store) for store in {place.store for place in lying.values()}}
    found: list[_Level] = []
    for chain, diff_id in zip(chains, diff_ids, strict=True):
        place = lying.get(chain)
        if place is None:
            found.append(_Level(diff_id, None))
            continue
        layer = peers[place.store].layer(chain, diff_id)
        if layer is None:
            raise gone(place)
        found.append(_Level(diff_id, layer, place.store))
    return found


def _sources(
    config: bytes, levels: Sequence[_Level], session: Session, taken: set[int]
) -> tuple[bytes, list[LayerSource], list[str]]:
    """Where each layer can be read, and the config, which names those otherwise whose tars are made anew.

    `taken` is told the numbers of those that are read.
    """
    sources: list[LayerSource] = []
    notices: list[str] = []
    for number, level in enumerate(levels):
        if level.layer is None:
            sources.append(LayerSource(partial(_nowhere, level.diff_id), level.diff_id))
        elif level.layer.write is not None:
            opening = partial(relay, level.layer.write)
            sources.append(LayerSource(partial(_opened, number, taken, opening), level.diff_id))
        else:
            stack = [one.layer for one in levels[: number + 1] if one.layer is not None]
            with _empty(session) as empty:
                made = pack(stack, level.store, empty)
            packing = partial(_packed, stack, level.store, session)
            sources.append(LayerSource(partial(_opened, number, taken, packing), made.diff_id, made.size))
            if made.diff_id != level.diff_id:
                notices.append(
                    f"layer {level.diff_id}: nothing in {level.store} says what its tar was, so it was made anew: "
                    f"{made.diff_id}"
                )
            notices += made.notices
    if notices:
        config = config_of.renamed(config_of.read(config), [source.diff_id or "" for source in sources])
    return config, sources, notices


def _opened(
    number: int, taken: set[int], opening: Callable[[], AbstractContextManager[FileIO]]
) -> AbstractContextManager[FileIO]:
    taken.add(number)
    return opening()


@contextmanager
def _packed(stack: Sequence[AttachedLayer], store: str, session: Session) -> Iterator[FileIO]:
    with _empty(session) as empty, relay(lambda write: pack(stack, store, empty, write)) as stream:
        yield stream


def _nowhere(diff_id: DiffID) -> NoReturn:
    raise NotFound(f"layer {diff_id} is this store's own, and damaged", remedy="`layerstore check --repair` mends it.")


@contextmanager
def _empty(session: Session) -> Iterator[Path]:
    folder = session.folder / f"{session.new_key()}.empty"
    with named("mkdir", folder):
        folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        folder.rmdir()
