"""The bytes of a blob, given out as they were: read from a file or a row, or made again of a layer.

What is made again is verified by its digest, each time; a recipe that does not make it any more is forgotten.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import evolve

from layerstore.blobs import rows
from layerstore.blobs.kept import KeptFiles
from layerstore.blobs.window import Window
from layerstore.database import Database, Transaction
from layerstore.digest import DiffID, Digest, hex_of
from layerstore.errors import Damaged, NotFound
from layerstore.kernel.files.descriptors import file_of
from layerstore.layers import Layers
from layerstore.layers.relay import Write
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.compression.recipes import Recipe


@frozen
class _Found:
    """How a blob can be given out. `is_guess`: the recipes were not proved, or by another library."""

    size: int
    data: bytes | None = None
    is_file: bool = False
    diff_id: DiffID | None = None
    recipes: tuple[Recipe, ...] = ()
    is_guess: bool = False


class Outgoing:
    """See `Blobs.size`, `Blobs.write`."""

    def __init__(self, database: Database, layers: Layers, files: KeptFiles, *, is_writable: bool) -> None:
        self._database = database
        self._layers = layers
        self._files = files
        self._is_writable = is_writable

    def size(self, digest: Digest, *, prove: bool) -> int | None:
        """See `Blobs.size`."""
        with self._database.read() as tx:
            found = self._found(tx, digest)
        if found is None or (found.is_guess and not found.is_file and not (prove and self.prove(digest))):
            return None
        return found.size

    def prove(self, digest: Digest) -> bool:
        """See `Blobs.prove`."""
        while True:
            try:
                self.write(digest, lambda _: None, start=0, end=None)
            except NotFound:
                return False
            except Damaged:
                if not self._is_writable:
                    return False
                continue  # in another way: what has failed, a file, a recipe or the layer itself, is noted
            return True

    def write(self, digest: Digest, write: Write, *, start: int, end: int | None) -> None:
        """See `Blobs.write`."""
        with self._database.read() as tx:
            found = self._found(tx, digest)
        if found is None:
            raise _not_found(digest)
        stop = found.size if end is None else min(end, found.size)
        if found.data is not None:
            write(memoryview(found.data)[start:stop])
        elif not (found.is_file and self._write_file(digest, write, start, stop)):
            if found.diff_id is None:
                raise _not_found(digest)
            self._write_layer(found, found.diff_id, digest, Window(write, start, stop, found.size))

    def mark_damaged(self, digest: Digest) -> None:
        """Note that a kept file is not what it was."""
        if self._is_writable:
            with self._database.write() as tx:
                rows.set_damaged(tx, digest, damaged=True)

    # --- how ---

    def _found(self, tx: Transaction, digest: Digest) -> _Found | None:
        """The cheapest and surest way first."""
        if (config := rows.config_of(tx, digest)) is not None:
            return _Found(len(config), data=config)
        has_rows = rows.are_there(tx)
        if has_rows and (manifest := rows.find_manifest(tx, digest)) is not None:
            return _Found(len(manifest.data), data=manifest.data)
        made = self._made(tx, digest, has_rows=has_rows)
        if has_rows and (size := rows.size_of_file(tx, digest)) is not None:
            return _Found(size, is_file=True) if made is None else evolve(made, size=size, is_file=True)
        return made

    def _made(self, tx: Transaction, digest: Digest, *, has_rows: bool) -> _Found | None:
        """How it can be made of a layer."""
        if (plain := rows.size_of_layer(tx, DiffID(digest))) is not None:
            return _Found(plain, diff_id=DiffID(digest))
        known = rows.find_known(tx, digest) if has_rows else None
        if known is None or known.recipe is None or rows.size_of_layer(tx, known.diff_id) is None:
            return None
        from layerstore.compression.recipes import parted

        recipes = tuple(parted(known.recipe))
        if not recipes:
            return None
        is_guess = not known.is_proved or recipes[0] != recipes[0].renewed
        return _Found(known.size, diff_id=known.diff_id, recipes=recipes, is_guess=is_guess)

    # --- the ways ---

    def _write_file(self, digest: Digest, write: Write, start: int, stop: int) -> bool:
        """False if the file is not there."""
        fd = self._files.open(digest)
        if fd is None:
            self.mark_damaged(digest)
            return False
        with file_of(fd):
            try:
                self._files.write(fd, digest, write, start, stop)
            except Damaged:
                self.mark_damaged(digest)
                raise
        return True

    def _write_layer(self, found: _Found, diff_id: DiffID, digest: Digest, window: Window) -> None:
        chain = self._layers.named(diff_id)
        if not found.recipes:
            with window:
                self._layers.give_out(chain, window.write)
            return
        from layerstore.compression.recipes import making

        hashed = hashlib.sha256()

        def write(data: memoryview) -> None:
            hashed.update(data)
            window.write(data)

        with window:
            with making(found.recipes[0], self._layers.size(chain), write) as feed:
                self._layers.give_out(chain, feed)
            if hashed.hexdigest() != hex_of(digest):
                self._set_recipes(digest, found.recipes[1:], is_proved=False)
                raise Damaged(
                    f"the blob {digest} cannot be made again: {found.recipes[0]} makes another one of its layer",
                    remedy="It may be in the registry that it came from.",
                    layer=diff_id,
                )
            if found.is_guess:
                self._set_recipes(digest, [found.recipes[0].renewed], is_proved=True)

    def _set_recipes(self, digest: Digest, recipes: Sequence[Recipe], *, is_proved: bool) -> None:
        if self._is_writable:
            from layerstore.compression.recipes import joined

            with self._database.write() as tx:
                rows.set_recipe(tx, digest, joined(recipes), is_proved=is_proved)


def _not_found(digest: Digest) -> NotFound:
    return NotFound(f"no blob {digest}", remedy="It may be in the registry that it came from.")
