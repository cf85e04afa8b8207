"""The stores that are attached to this one, and what is asked of them: which images they have, and to lend one.

An image is borrowed when somebody names it: it gets its rows, in one transaction, with a diff for each layer that this
store has not; the files stay where they are. It has no name here: what its names mean is asked over there each time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from layerstore import reference
from layerstore.attached import rows
from layerstore.attached.elsewhere import gone, unfit
from layerstore.attached.kinds import peer
from layerstore.attached.values import AttachedImage, AttachedLayer
from layerstore.digest import ChainID, DiffID, ImageID, beginning, chain_ids, hex_of
from layerstore.driver import BORROWED, LayerKey
from layerstore.errors import Ambiguous, DriverNotSupported, InUse, InvalidReference, NotFound
from layerstore.images import config as config_of
from layerstore.images import rows as image_rows
from layerstore.layers import rows as layer_rows
from layerstore.layers.diffs import Diff

if TYPE_CHECKING:
    from layerstore.attached.values import AttachedStore
    from layerstore.database import Database, Transaction
    from layerstore.images import Images
    from layerstore.images.images import Meant
    from layerstore.layers import Layers, Storage
    from layerstore.session import Session

__all__ = ["Attached"]


class Attached:
    """The attached stores, in the order in which they are asked."""

    def __init__(
        self,
        specs: Sequence[str],
        database: Database,
        session: Session,
        storage: Storage,
        layers: Layers,
        images: Images,
    ) -> None:
        self._specs = specs
        self._database = database
        self._session = session
        self._storage = storage
        self.layers = layers
        self.store = images

    @cached_property
    def peers(self) -> list[AttachedStore]:
        """What reads each of them. Raises `ConfigError` if one is not there."""
        peers = [peer(spec) for spec in self._specs]
        for one in peers:
            one.require()
        return peers

    # --- what there is ---

    def images(self) -> Iterator[AttachedImage]:
        """All their images, one store after the other. What is removed meanwhile is left out."""
        for one in self.peers:
            names: dict[ImageID, list[str]] = {}
            for name, image in one.names().items():
                names.setdefault(image, []).append(name)
            for image in one.ids():
                if (config := one.config(image)) is not None:
                    yield _image(one, image, config, names.get(image, ()))

    def find(self, ref: str) -> tuple[AttachedStore, ImageID, str | None] | None:
        """What a name, an ID or the beginning of one means in the first store that knows it. Raises `Ambiguous`."""
        name, first = _named(ref), beginning(ref)
        for one in self.peers:
            names = {} if name is None else one.names()
            for full in () if name is None else (name.pinned, name.full if name.digest is None else None):
                if full is not None and full in names:
                    return one, names[full], full
            found = [] if first is None else [image for image in one.ids() if image.startswith(first)]
            if len(found) > 1:
                raise Ambiguous(f"several images of {one.root.spec} have an ID that begins with {hex_of(ref)}")
            if found:
                return one, found[0], None
        return None

    # --- to be used ---

    def lent(self, ref: str | None) -> Meant | None:
        """What a name means, if not an image of this store: that of an attached one is borrowed. See `Images.lent`.

        Raises `Damaged`, and `DriverNotSupported` where it cannot be used as it lies.
        """
        if ref is None:
            return None
        try:
            with self._database.read() as tx:
                image_rows.resolve(tx, ref)
                return None
        except NotFound:
            found = self.find(ref)
        if found is None:
            return None
        one, image, name = found
        with self._database.read() as tx:
            is_there = image_rows.find(tx, image) is not None
        if not is_there:
            self._borrow(one, image)
        return image, name

    def refuse_removal(self, ref: str) -> None:
        """Raise `InUse` if it is the name of an image in an attached store: nothing is removed there."""
        if (found := self.find(ref)) is not None:
            raise InUse(
                f"image {ref} is one of the attached store {found[0].root.spec}",
                holders=[found[0].root.spec],
                remedy="Nothing is ever removed there from here: use the program that keeps that store.",
            )

    def _borrow(self, one: AttachedStore, image: ImageID) -> None:
        spec = one.root.spec
        config = one.config(image)
        if config is None:
            raise NotFound(f"the attached store {spec} has no image {image} any more")
        if not self._storage.driver.capabilities.borrows:
            raise DriverNotSupported(
                f"a store by {self._storage.driver.name} cannot use the images of {spec} where they lie",
                remedy="`layerstore adopt IMAGE` makes one this store's own. A store by overlay2 can.",
            )
        diff_ids = config_of.layers(config_of.read(config))
        self.layers.check_depth(len(diff_ids))
        self.layers.limits.check("max-config-size", len(config), "the image's config")
        self._database.provide(rows.TABLES)
        self._session.begin()
        known: dict[ChainID, tuple[AttachedLayer, int, int]] = {}
        while True:
            with self._database.read() as tx:
                missing = _missing(tx, diff_ids)
            for chain, diff_id in missing.items():
                if chain not in known:
                    known[chain] = _measured(one, chain, diff_id)
                    self.layers.limits.check("max-layer-size", known[chain][1], "the layer's tar")
            with self._database.write() as tx:
                missing = _missing(tx, diff_ids)
                if missing.keys() <= known.keys():
                    self._record(tx, one, config, diff_ids, known)
                    return

    def _record(
        self,
        tx: Transaction,
        one: AttachedStore,
        config: bytes,
        diff_ids: Sequence[DiffID],
        known: dict[ChainID, tuple[AttachedLayer, int, int]],
    ) -> None:
        parent: ChainID | None = None
        missing = _missing(tx, diff_ids)
        for chain, diff_id in zip(chain_ids(diff_ids), diff_ids, strict=True):
            if chain in missing:
                layer, size, entries = known[chain]
                key = LayerKey(f"{self._session.new_key()}{BORROWED}")
                layer_rows.insert_diff(tx, Diff(key, diff_id, size, entries, root_opaque=layer.whole, dependent=True))
                layer_rows.insert_layer(tx, chain, parent, key)
                rows.add(tx, key, one.root.spec, chain)
            parent = chain
        image_rows.insert(tx, config, parent, None, [])


def _missing(tx: Transaction, diff_ids: Sequence[DiffID]) -> dict[ChainID, DiffID]:
    chains = chain_ids(diff_ids)
    there = layer_rows.find(tx, chains)
    return {chain: diff_id for chain, diff_id in zip(chains, diff_ids, strict=True) if chain not in there}


def _measured(one: AttachedStore, chain: ChainID, diff_id: DiffID) -> tuple[AttachedLayer, int, int]:
    """A layer that can be borrowed, with the bytes and entries of its tar."""
    layer = one.layer(chain, diff_id)
    if layer is None:
        raise gone(rows.Lying(one.root.spec, chain, diff_id))
    if layer.unfit is not None:
        raise unfit(one.root.spec, layer)
    if layer.measure is None:
        raise DriverNotSupported(
            f"layer {diff_id} in the attached store {one.root.spec} cannot be used where it lies: "
            "nothing there says what its tar was",
            remedy="`layerstore adopt IMAGE` makes a new tar of its files.",
        )
    return layer, *layer.measure()


def _image(one: AttachedStore, image: ImageID, config: bytes, names: Sequence[str]) -> AttachedImage:
    return AttachedImage(
        id=image,
        tags=tuple(sorted(reference.familiar(name) for name in names if "@" not in name)),
        digests=tuple(sorted(reference.familiar(name) for name in names if "@" in name)),
        size=one.size(image, config_of.layers(config_of.read(config))),
        parent=one.parent(image),
        store=one.root.spec,
        config_bytes=config,
    )


def _named(ref: str) -> reference.Reference | None:
    try:
        return reference.parse(ref)
    except InvalidReference:
        return None
