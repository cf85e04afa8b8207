"""Another data-root of this library, whose images are used where they lie: a store of overlay2 or vfs.

Its database is read as one that cannot be written to is: by a copy, which is taken anew when it has changed. Its tars
are put together of its skeletons.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from layerstore import facts, tar
from layerstore.attached.root import Root
from layerstore.attached.values import AttachedLayer, Write, verified
from layerstore.database import Database
from layerstore.database.read_only import copy_to
from layerstore.digest import ChainID, DiffID, ImageID
from layerstore.driver import Layer
from layerstore.errors import ConfigError
from layerstore.images import rows as image_rows
from layerstore.layers import rows as layer_rows
from layerstore.layers.diffs import Diff
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.images.rows import Row

__all__ = ["Layerstore"]

_DATABASE: Final = "layerstore.db"
_HOMES: Final = {"overlay2": ("overlay2/{}/diff", False), "vfs": ("vfs/dir/{}", True)}
_KEY = re.compile(r"[0-9a-f]{32}(?:[a-z][0-9a-z]{0,23})?")


@frozen
class _Known:
    """What its database said. `seen`: what it looked like, so that it is known when it has changed."""

    seen: tuple[object, ...]
    driver: str
    names: Mapping[str, ImageID]
    images: Mapping[ImageID, Row]
    sizes: Mapping[ChainID | None, int]
    diffs: Mapping[ChainID, Diff]


class Layerstore:
    """See `AttachedStore`."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self._last: _Known | None = None

    def require(self) -> None:
        """See `AttachedStore`."""
        self.root.require(_DATABASE)
        driver = self._known().driver
        if driver not in _HOMES:
            raise ConfigError(
                f"attach {self.root.spec}: it is a store by {driver}; only those by {' and '.join(_HOMES)} can be read",
                remedy="Save its images, and load them here; or serve it (`layerstore serve`), and pull them.",
                path=self.root.path,
            )

    def names(self) -> Mapping[str, ImageID]:
        """See `AttachedStore`."""
        return self._known().names

    def ids(self) -> Sequence[ImageID]:
        """See `AttachedStore`."""
        return list(self._known().images)

    def config(self, image: ImageID) -> bytes | None:
        """See `AttachedStore`."""
        row = self._known().images.get(image)
        return None if row is None else row.config

    def parent(self, image: ImageID) -> ImageID | None:
        """See `AttachedStore`."""
        row = self._known().images.get(image)
        return None if row is None else row.parent

    def size(self, image: ImageID, layers: Sequence[DiffID]) -> int:
        """See `AttachedStore`: the bytes of the tars."""
        known = self._known()
        row = known.images.get(image)
        return 0 if row is None else known.sizes.get(row.chain_id, 0)

    def layer(self, chain: ChainID, diff_id: DiffID) -> AttachedLayer | None:
        """See `AttachedStore`. What that store has borrowed itself, it has not."""
        known = self._known()
        diff, home = known.diffs.get(chain), _HOMES.get(known.driver)
        if diff is None or home is None or Layer(diff.key).is_borrowed or not _KEY.fullmatch(diff.key):
            return None
        verified(self.root, _DATABASE, diff.diff_id, diff_id)
        folder = self.root.folder(home[0].format(diff.key))
        if folder is None:
            return None
        whole = home[1] or diff.root_opaque
        layer = AttachedLayer(diff_id, folder, whole, self._unfit(diff))
        skeleton = self.root.path / "skeletons" / diff.key
        if not self.root.has(f"skeletons/{diff.key}"):
            return layer
        write = partial(_export, skeleton, folder, diff_id)
        return AttachedLayer(diff_id, folder, whole, layer.unfit, write, partial(_sizes, diff))

    def _unfit(self, diff: Diff) -> str | None:
        if self.root.has(f"overlay2/{diff.key}/marks"):
            return "it was written with metacopy or redirect_dir"
        return "it is damaged there" if diff.damaged else None

    def _known(self) -> _Known:
        seen = self._seen()
        if self._last is None or self._last.seen != seen:
            self._last = self._asked(seen)
        return self._last

    def _seen(self) -> tuple[object, ...]:
        found: list[object] = []
        for name in (_DATABASE, f"{_DATABASE}-wal"):
            try:
                facts_of = os.lstat(self.root.path / name)
            except FileNotFoundError:
                found.append(None)
            else:
                found.append((facts_of.st_ino, facts_of.st_size, facts_of.st_mtime_ns))
        return tuple(found)

    def _asked(self, seen: tuple[object, ...]) -> _Known:
        if not self.root.has(_DATABASE):
            return _Known(seen, "", {}, {}, {}, {})
        with TemporaryDirectory(prefix="layerstore-") as folder:
            copy = Path(folder) / _DATABASE
            copy_to(self.root.path / _DATABASE, copy)
            with closing(Database(copy)) as database, database.read() as tx:
                driver = facts.read(database).get("driver", "")
                names: dict[str, ImageID] = {}
                for named in (image_rows.all_tags(tx), image_rows.all_digests(tx)):
                    for image, own in named.items():
                        names.update(dict.fromkeys(own, image))
                images = {row.id: row for row in image_rows.every(tx)}
                kept = layer_rows.keys_by_chain(tx)
                diffs = {diff.key: diff for diff in layer_rows.all_diffs(tx)}
                sizes = layer_rows.sizes_of_stacks(tx)
        return _Known(seen, driver, names, images, sizes, {chain: diffs[key] for chain, key in kept.items()})


def _export(skeleton: Path, folder: Path, diff_id: DiffID, write: Write) -> None:
    tar.export(skeleton, folder, write, expected=diff_id)


def _sizes(diff: Diff) -> tuple[int, int]:
    return diff.size, diff.entries
