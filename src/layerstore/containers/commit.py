"""A container becomes an image: its changes a layer, its image's config one with a step more.

Unmounted, the writable layer itself becomes the layer: it is read once, to hash it, and nothing is copied; the
container goes on with a fresh one on top, and stands on the new image. Mounted or running, programs may write to it at
any time, so its changes are copied, and what was hashed is what is kept; the container stays as it is. All rows are
written in one transaction: before it nothing has changed, after it everything has.
"""

from __future__ import annotations

from collections.abc import Sequence

from layerstore import reference
from layerstore.containers import rows
from layerstore.containers.comparing import standing
from layerstore.containers.mounting import Mounts
from layerstore.containers.rows import Row
from layerstore.database import Database
from layerstore.digest import DiffID
from layerstore.driver import Layer, LayerKey, State
from layerstore.images import Image, Images
from layerstore.images import config as config_of
from layerstore.images import instructions as instructions_of
from layerstore.images import rows as image_rows
from layerstore.layers import Layers, Staged, Storage
from layerstore.layers.assembly import assembling
from layerstore.segments import rows as segment_rows
from layerstore.session import Session


class Commit:
    """One commit of one container, whose lock the caller holds."""

    def __init__(
        self,
        database: Database,
        session: Session,
        storage: Storage,
        layers: Layers,
        images: Images,
        mounts: Mounts,
        row: Row,
        *,
        tag: str | None,
        message: str,
        author: str | None,
        instructions: Sequence[str],
    ) -> None:
        self._database = database
        self._session = session
        self._storage = storage
        self._layers = layers
        self._images = images
        self._mounts = mounts
        self._row = row
        self._tags = [] if tag is None else [reference.normalise(tag)]
        self._message = message
        self._author = author
        base = None if row.image_id is None else images.get(row.image_id)
        self._base = None if base is None else base.config
        run_config = None if base is None else base.config.get("config")
        self._run_config = instructions_of.apply(run_config, instructions)

    def run(self) -> Image:
        """Do it."""
        self._database.require_writable()
        row = self._row
        image = self._layers.stack(row.chain_id)
        with self._database.read() as tx:
            below, since = rows.below(tx, row), standing(tx, row)
        self._mounts.require_files(row, below.layers)
        in_use = self._mounts.is_used(row)
        if not in_use:
            self._mounts.require_unmounted(row)
        staged = self._layers.stage_changes(
            row.layer, below.layers, in_use=in_use, since=since if below.segments else None
        )
        try:
            content = [diff.diff_id for diff in reversed(image.diffs)]
            if staged is not None:
                content.append(staged.diff_id)
            return self._add(content, staged, in_use=in_use)
        finally:
            if staged is not None:
                self._layers.discard(staged)

    def _add(self, content: Sequence[DiffID], staged: Staged | None, *, in_use: bool) -> Image:
        """Make the image of these layers, of which only what is staged is new."""
        row = self._row
        config = config_of.derive(
            self._base,
            new_layer=None if staged is None else staged.diff_id,
            run_config=self._run_config,
            created=config_of.now(),
            author=self._author,
            comment=self._message,
        )
        goes_on = staged is not None and (staged.is_container or (row.segment is not None and not in_use))
        fresh = Layer(self._session.new_key(), State.WRITABLE) if goes_on else None
        unneeded: list[LayerKey] = []
        offered = {} if staged is None else {staged.diff_id: staged}
        try:
            with assembling(self._layers, content, "it is being committed", offered=offered, trust=True) as assembly:
                assembly.place()
                if fresh is not None:
                    self._storage.driver.create(fresh, assembly.stack, size=row.size)
                with self._database.write() as tx:
                    assembly.record(tx)
                    image = image_rows.insert(tx, config, assembly.top, row.image_id, self._tags)
                    if fresh is not None and assembly.top is not None:
                        name = self._tags[0] if self._tags else ""
                        rows.stand_on(tx, row.id, fresh.key, assembly.top, image, name)
                        unneeded = segment_rows.release(tx, row.segment)
        finally:
            if fresh is not None:
                # One of the two belongs to the container now, and the other, unless it is the new layer, to nobody.
                self._layers.drop([row.key, fresh.key, *unneeded], quietly=True)
        return self._images.get(image)
