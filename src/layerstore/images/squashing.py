"""Several layers of an image become one: what they make together, against what lies below them.

Both trees are compared, so a file that one layer brings and a later one removes is nowhere in it. Config and history
stay: steps whose layers went into the new one have none any more, and one step more says where it comes from.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from layerstore import reference, tar
from layerstore.changes import compare_trees
from layerstore.digest import ChainID, DiffID, ImageID, short
from layerstore.errors import ConfigError, NotFound
from layerstore.images import config as config_of
from layerstore.images import rows
from layerstore.layers import Layers, LayerSource, StoredLayer
from layerstore.layers.adding import add
from layerstore.layers.relay import relay

if TYPE_CHECKING:
    from layerstore.database import Transaction
    from layerstore.images.image import Image
    from layerstore.images.images import Images

__all__ = ["squash"]


def squash(images: Images, layers: Layers, image: Image, since: Image | str | None, tags: Sequence[str]) -> Image:
    """See `Store.squash`."""
    base, parent = _base(images, image, since)
    kept = 0 if base is None else image.chain_ids.index(base) + 1
    if len(image.chain_ids) - kept < 2:
        if tags:
            images.name(image.id, [reference.normalise(tag) for tag in tags])
        return images.get(image.id)
    comment = f"merge {short(image.id)} to {'scratch' if base is None else short(parent or base)}"
    names = [reference.normalise(tag) for tag in tags]
    made: list[ImageID] = []

    def config(new: DiffID | None) -> bytes:
        return config_of.squashed(image.config, kept, new, comment)

    def record(tx: Transaction, layer: StoredLayer) -> None:
        rows.resolve(tx, image.id)
        made.append(rows.insert(tx, config(layer.diff_id), layer.chain_id, parent, names))

    with ExitStack() as trees:
        new = trees.enter_context(images.trees.opened(image, image.chain_id))
        old = None if base is None else trees.enter_context(images.trees.opened(image, base))
        changes = compare_trees(new, old, content=True)
        if not len(changes):
            return images.add_known(config(None), base, tags, parent=parent)
        source = LayerSource(
            lambda: relay(lambda write: tar.pack(changes, new, write=write)),
            label=reference.familiar(names[0]) if names else image.short_id,
        )
        add(layers, source, base, record=record)
    return images.get(made[0])


def _base(images: Images, image: Image, since: Image | str | None) -> tuple[ChainID | None, ImageID | None]:
    """The layer of an image that `since` means, and the image that it is the top of, if it was meant by that."""
    if since is None:
        return None, None
    if isinstance(since, str):
        for chain, diff_id in zip(image.chain_ids, image.layers, strict=True):
            if since in (chain, diff_id):
                return chain, None
        try:
            since = images.get(since)
        except NotFound as error:
            error.remedy = "Name an image that it was built on, or one of its layers by its digest in full."
            raise
    if since.chain_id is None:
        return None, None
    if since.chain_id not in image.chain_ids:
        raise ConfigError(
            f"image {since.short_id} is not what image {image.short_id} was built on: its layers are not below",
            remedy="`layerstore history --layers` shows the layers of an image.",
        )
    return since.chain_id, since.id
