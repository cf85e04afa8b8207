"""A container becomes an image: its changes a layer, its image's config one with a step more.

Unmounted, the writable layer itself becomes the layer: it is read once, to hash it, and nothing is copied; the
container goes on with a fresh one on top, and stands on the new image. Mounted, programs may write to it at any time,
so its changes are copied, and what was hashed is what is kept; the container stays as it is. All rows are written in
one transaction: before it nothing has changed, after it everything has.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial

from layerstore import reference, tar
from layerstore.changes import Changes
from layerstore.containers import rows
from layerstore.containers.mounting import Mounts
from layerstore.containers.rows import Row
from layerstore.digest import ChainID, DiffID, chain_id
from layerstore.driver import LayerKey
from layerstore.images import Image, Images, instructions
from layerstore.images import config as config_of
from layerstore.images import rows as image_rows
from layerstore.kernel.mounts import detached
from layerstore.layers import Stack
from layerstore.layers import rows as layer_rows
from layerstore.layers.folders import Diff
from layerstore.layers.relay import relay
from layerstore.layers.rows import visible
from layerstore.locks import of_diff


class Commit:
    """One commit of one container, whose lock the caller holds."""

    def __init__(
        self,
        images: Images,
        mounts: Mounts,
        row: Row,
        *,
        tag: str | None,
        message: str,
        author: str | None,
        changes: Sequence[str],
    ) -> None:
        self._images = images
        self._layers = images.layers
        self._mounts = mounts
        self._row = row
        self._tags = [] if tag is None else [reference.normalise(tag)]
        self._message = message
        self._author = author
        base = None if row.image_id is None else images.get(row.image_id)
        self._base = None if base is None else base.config
        self._run_config = instructions.apply(None if base is None else base.config.get("config"), changes)

    def run(self) -> Image:
        """Do it."""
        self._layers.database.require_writable()
        row, driver = self._row, self._layers.driver
        below = self._layers.stack(row.chain_id)
        self._mounts.require_files(row, below.keys)
        mounted = self._mounts.is_mounted(row)
        if not mounted:
            self._mounts.require_unmounted(row)
        changes = driver.changes(row.key, below.keys)
        if not len(changes):
            return self._add(None)
        self._layers.check_depth(len(below.chain) + 1)
        if mounted or not changes.sealable:
            return self._copied(changes, below)
        return self._sealed(changes, below)

    def _config(self, new_layer: DiffID | None) -> bytes:
        return config_of.derive(
            self._base,
            new_layer=new_layer,
            run_config=self._run_config,
            created=config_of.now(),
            author=self._author,
            comment=self._message,
        )

    def _add(self, new_layer: DiffID | None) -> Image:
        """The image, all of whose layers are in the store. The container stays where it is."""
        config = self._config(new_layer)
        return self._images.add_staged(config, {}, self._tags, parent=self._row.image_id, trust=True)

    def _copied(self, changes: Changes, below: Stack) -> Image:
        """Commit what may change meanwhile, or what the layer has only attributes or directions of."""
        with (
            self._tree(below) as root,
            relay(lambda write: tar.pack(changes, root, write=write)) as stream,
        ):
            staged = self._layers.stage(stream)
        try:
            config = self._config(staged.diff_id)
            layers = {staged.diff_id: staged}
            return self._images.add_staged(config, layers, self._tags, parent=self._row.image_id, trust=True)
        finally:
            self._layers.discard(staged)

    def _tree(self, below: Stack) -> AbstractContextManager[int]:
        """A directory descriptor of the container's tree."""
        return detached(self._layers.driver.mounts(self._row.key, below.keys, read_only=True))

    def _sealed(self, changes: Changes, below: Stack) -> Image:
        """Commit the writable layer itself, and give the container a new one on top of it."""
        row, layers, folders = self._row, self._layers, self._layers.folders
        skeleton = folders.staged_skeleton(row.key)
        with ExitStack() as after:
            after.callback(partial(skeleton.unlink, missing_ok=True))
            with self._tree(below) as root:
                packed = tar.pack(changes, root, skeleton=skeleton)
            after.enter_context(layers.locks.one(of_diff(packed.diff_id)))
            chain = chain_id(row.chain_id, packed.diff_id)
            # From here on the key is no longer just the container's: a sweep must leave its skeleton alone.
            after.enter_context(layers.lease([("diff", row.key), ("layer", chain)], "it is being committed"))
            with layers.database.read() as tx:
                there = layer_rows.find(tx, [chain]).get(chain)
            if there is not None and not there.damaged:
                return self._exchange(chain, there, below, None)
            own = Diff(row.key, packed.diff_id, packed.size, packed.entries)
            if changes[0].path != "/":
                own = folders.imply_root(own, below.keys)
            return self._exchange(chain, None, below, own)

    def _exchange(self, chain: ChainID, there: Diff | None, below: Stack, own: Diff | None) -> Image:
        """Let the container stand on the layer `chain`: one that is `there`, or its `own`, which is sealed for it."""
        row, layers = self._row, self._layers
        fresh = layers.session.new_key()
        doubtful: list[LayerKey] = [row.key, fresh]
        try:
            if own is not None:
                [own] = layers.folders.keep([(own, below.keys)])
                doubtful.append(own.key)
            stored = own or there
            assert stored is not None
            config = self._config(stored.diff_id)
            layers.driver.create(fresh, visible((stored, *below.diffs)), size=row.size)
            with layers.database.write() as tx:
                if own is not None:
                    layer_rows.put_layer(tx, chain, row.chain_id, own)
                doubtful += layer_rows.forget_orphans(tx)
                image = image_rows.insert(tx, config, chain, row.image_id, self._tags)
                rows.stand_on(tx, row.id, fresh, chain, image, self._tags[0] if self._tags else "")
        finally:
            layers.drop(doubtful, quietly=True)
            layers.drop_skeleton(row.key)
        return self._images.get(image)
