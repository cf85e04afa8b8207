"""A container becomes an image: what it has written a layer (`sealing`), its image's config one with a step more."""

from __future__ import annotations

from collections.abc import Mapping
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
    from layerstore.containers.wishes import CommitWish
    from layerstore.database import Transaction
    from layerstore.digest import ChainID, ImageID


class Commit:
    """One commit of one container, whose lock the caller holds."""

    def __init__(self, sealing: Sealing, images: Images, wish: CommitWish) -> None:
        self._sealing = sealing
        self._row = sealing.row
        self._images = images
        self._wish = wish
        self._tags = [] if wish.tag is None else [reference.normalise(wish.tag)]
        base = None if self._row.image_id is None else images.get(self._row.image_id)
        self._base = None if base is None else base.config
        run_config = None if base is None else base.config.get("config")
        if wish.run_config is not None:
            run_config = wish.run_config(run_config or {})
        self._run_config = instructions_of.apply(run_config, wish.instructions)
        created_by = _command(run_config) or "; ".join(wish.instructions)
        self._created_by = created_by if wish.created_by is None else wish.created_by

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
            author=self._wish.author,
            comment=self._wish.message,
            created_by=self._created_by,
        )


def _command(run_config: object) -> str:
    """That of the image, as docker's history has it, or else its entrypoint; nothing if it says neither."""
    said = run_config if isinstance(run_config, Mapping) else {}
    words = said.get("Cmd") or said.get("Entrypoint")
    return " ".join(map(str, words)) if isinstance(words, list) else ""
