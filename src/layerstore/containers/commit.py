"""A container becomes an image: what it has written a layer (`sealing`), its image's config one with a step more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import evolve

from layerstore import reference
from layerstore.images import Image, Images
from layerstore.images import config as config_of
from layerstore.images import instructions as instructions_of
from layerstore.images import rows as image_rows

if TYPE_CHECKING:
    from layerstore.containers.rows import Row
    from layerstore.containers.sealing import Sealing, Written
    from layerstore.database import Transaction
    from layerstore.digest import ChainID, ImageID


class Commit:
    """One commit of one container, whose lock the caller holds."""

    def __init__(
        self,
        sealing: Sealing,
        images: Images,
        *,
        tag: str | None,
        message: str,
        author: str | None,
        instructions: Sequence[str],
    ) -> None:
        self._sealing = sealing
        self._row = sealing.row
        self._images = images
        self._tags = [] if tag is None else [reference.normalise(tag)]
        self._message = message
        self._author = author
        base = None if self._row.image_id is None else images.get(self._row.image_id)
        self._base = None if base is None else base.config
        run_config = None if base is None else base.config.get("config")
        self._run_config = instructions_of.apply(run_config, instructions)

    def run(self) -> Image:
        """Do it."""
        with self._sealing.written() as written:
            config = self._config(written)
            made: list[ImageID] = []

            def conclude(tx: Transaction, top: ChainID | None) -> Row:
                image = image_rows.insert(tx, config, top, self._row.image_id, self._tags)
                made.append(image)
                return evolve(self._row, image_id=image, image_name=self._tags[0] if self._tags else "")

            self._sealing.keep(written, "it is being committed", conclude)
        return self._images.get(made[0])

    def _config(self, written: Written) -> bytes:
        """That of the image of these layers, of which only what is staged is new."""
        return config_of.derive(
            self._base,
            below=written.below,
            new_layer=None if written.staged is None else written.staged.diff_id,
            run_config=self._run_config,
            created=config_of.now(),
            author=self._author,
            comment=self._message,
        )
