"""Damaged layers fetched anew: from a blob that is kept here, from remotes, from the registries where they were seen.

What is fetched takes the damaged one's place as a load would have it, verified by its DiffID. Only layers are mended
here; what else `check` finds is told and left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from layerstore.digest import DiffID, parse
from layerstore.errors import LayerstoreError, NotFound
from layerstore.registry.ways import Ways, ways
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.blobs import Blobs
    from layerstore.config import Config
    from layerstore.images import Images
    from layerstore.layers import Layers, Progress, Staged

__all__ = ["Mended", "mend"]


@frozen
class Mended:
    """What became of a damaged layer: `source` is where it was fetched from, `error` why it could not be mended."""

    layer: str
    source: str = ""
    error: LayerstoreError | None = None


def mend(
    damaged: Iterable[str],
    images: Images,
    layers: Layers,
    blobs: Blobs,
    config: Config,
    texts: Sequence[str],
    *,
    progress: Progress | None = None,
) -> Iterator[Mended]:
    """Fetch damaged layers (by DiffID) anew, one after another. `texts`: the remotes to ask before daemon.json's."""
    wanted = [DiffID(parse(name)) for name in dict.fromkeys(damaged)]
    if not wanted:
        return
    with ways(config, blobs, texts) as all_ways:
        at_work = _Mending(images, layers, all_ways, progress)
        left = at_work.in_order(wanted)
        while left:
            done = at_work.next(left)
            yield from done
            left = [diff_id for diff_id in left if diff_id not in {one.layer for one in done}]


@frozen
class _Mending:
    images: Images
    layers: Layers
    ways: Ways
    progress: Progress | None

    def in_order(self, wanted: Sequence[DiffID]) -> list[DiffID]:
        """Those below before those above, for these may be made of them."""
        depth = {diff_id: at for image in self.images.all() for at, diff_id in enumerate(image.layers)}
        return sorted(wanted, key=lambda diff_id: depth.get(diff_id, 0))

    def next(self, left: Sequence[DiffID]) -> list[Mended]:
        """Mend the first layer; where a layer holds what is below it, all those of the same image with it."""
        image = next((image for image in self.images.all() if left[0] in image.layers), None)
        if image is None:
            return [Mended(left[0], error=NotFound(f"no image has the layer {left[0]} any more", remedy=""))]
        is_alone = self.layers.files.independent
        together = left[:1] if is_alone else [diff_id for diff_id in left if diff_id in image.layers]
        staged: dict[DiffID, Staged] = {}
        sources: dict[DiffID, str] = {}
        try:
            for diff_id in together:
                staged[diff_id], sources[diff_id] = self._fetched(diff_id)
            self.images.add_staged(image.config_bytes, staged, trust=is_alone)
        except LayerstoreError as error:
            return [Mended(diff_id, error=error) for diff_id in together]
        finally:
            for one in staged.values():
                self.layers.discard(one)
        return [Mended(diff_id, source=sources[diff_id]) for diff_id in together]

    def _fetched(self, diff_id: DiffID) -> tuple[Staged, str]:
        """The layer, staged, and where it came from: the first place that gives it as it should be."""
        failure: LayerstoreError | None = None
        for way in self.ways.of(diff_id):
            try:
                with way.open() as stream:
                    return self.layers.stage(stream, expected=diff_id, progress=self.progress), way.place
            except NotFound:
                continue
            except LayerstoreError as error:
                failure = failure or error
        if failure is not None:
            raise failure
        raise NotFound(
            f"layer {diff_id} is nowhere to be had",
            remedy="Name a remote that has it (--from), or load or pull an image that has it again.",
        )
