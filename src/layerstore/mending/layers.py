"""Damaged layers taken in anew: out of what is left of them here, from archives, remotes, and registries.

What is found takes the damaged one's place as a load would have it: a new layer under a new key, verified by its
DiffID, and one transaction. What is mounted goes on with the old files, until it is mounted anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from layerstore.blobs import KnownBlob
from layerstore.digest import ChainID, DiffID, parse
from layerstore.driver import Layer, LayerKey
from layerstore.errors import LayerstoreError, NotFound
from layerstore.images import rows as image_rows
from layerstore.layers import rows
from layerstore.layers.assembly import assembling
from layerstore.layers.relay import relay
from layerstore.manifests import read
from layerstore.registry.ways import Way, Ways
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.layers import Diff, Layers, Progress, Staged
    from layerstore.mending.archives import Archives

__all__ = ["Mended", "mend"]

HERE = "what the store has"
"""The place of a layer that is made of its own files, and of equal ones of the store."""


@frozen
class Mended:
    """What became of a damaged layer: `source` is where it was had from, `error` why it could not be mended."""

    layer: str
    source: str = ""
    error: LayerstoreError | None = None


def mend(
    damaged: Iterable[str], layers: Layers, ways: Ways, archives: Archives, *, progress: Progress | None = None
) -> Iterator[Mended]:
    """Have damaged layers (by DiffID) taken in anew, those below before those above."""
    asked = list(dict.fromkeys(DiffID(parse(name)) for name in damaged))
    wanted = list(asked)
    at_work = _Mending(layers, ways, archives, progress)
    failed: set[ChainID] = set()
    told: dict[DiffID, Mended] = {}
    while todo := at_work.next(wanted, failed):
        became = at_work.mend(todo)
        wanted += at_work.above([chain for chain, done in became.items() if done.error is None])
        for chain, done in became.items():
            before = told.get(DiffID(parse(done.layer)))
            if done.error is not None:
                failed.add(chain)
            if before is None or before.error is None:
                told[DiffID(parse(done.layer))] = done
    for name in asked:
        gone = NotFound(f"no damaged layer {name} is in the store any more", remedy="")
        yield told.get(name, Mended(name, error=gone))


@frozen
class _Damaged:
    """A damaged layer, and the content of its stack, bottom to top."""

    chain: ChainID
    diff: Diff
    stack: tuple[DiffID, ...]


@frozen
class _Mending:
    layers: Layers
    ways: Ways
    archives: Archives
    progress: Progress | None

    def next(self, wanted: Sequence[DiffID], failed: set[ChainID]) -> list[_Damaged]:
        """The layer to mend now: of those left, one that lies lowest; where layers hold what is below, its stack's."""
        found: list[_Damaged] = []
        with self.layers.database.read() as tx:
            for chain, kept in rows.all_kept(tx).items():
                if kept.diff_id in wanted and chain not in failed:
                    stack = rows.stack(tx, chain)
                    if stack.diffs[0].damaged:
                        names = tuple(diff.diff_id for diff in reversed(stack.diffs))
                        found.append(_Damaged(chain, stack.diffs[0], names))
        found.sort(key=lambda one: len(one.stack))
        if not found or self.layers.files.independent:
            return found[:1]
        # What stands on a damaged tree is made anew with it: all damaged ones of the tallest such stack at once.
        first = found[0].stack
        top = max((one for one in found if one.stack[: len(first)] == first), key=lambda one: len(one.stack))
        return [one for one in found if one.stack == top.stack[: len(one.stack)]]

    def above(self, mended: Collection[ChainID]) -> list[DiffID]:
        """What stands on mended layers, and holds what these had: it is noted where it is not what they are."""
        if self.layers.files.independent or not mended:
            return []
        found: list[DiffID] = []
        with self.layers.database.read() as tx:
            stacks = [rows.stack(tx, chain) for chain in rows.all_kept(tx)]
        for stack in sorted(stacks, key=lambda stack: len(stack.chain)):
            diff, below = stack.diffs[0], [Layer(one.key) for one in stack.diffs[1:]]
            if diff.damaged or not set(stack.chain[1:]) & set(mended):
                continue
            if any(self.layers.files.inherited_damages(diff, below, content=True)):
                self.layers.mark_damaged(diff.key)
                found.append(diff.diff_id)
        return found

    def mend(self, damaged: Sequence[_Damaged]) -> dict[ChainID, Mended]:
        """Mend layers of one stack, bottom to top: all, or none."""
        is_alone = self.layers.files.independent
        staged: dict[DiffID, Staged] = {}
        sources: dict[DiffID, str] = {}
        top = damaged[-1]
        try:
            for one in damaged:
                if one.diff.diff_id not in staged:
                    staged[one.diff.diff_id], sources[one.diff.diff_id] = self._fetched(one.diff)
            with assembling(self.layers, top.stack, "it is being mended", offered=staged, trust=is_alone) as assembly:
                assembly.place()
                with self.layers.database.write() as tx:
                    assembly.record(tx)
        except LayerstoreError as error:
            return {one.chain: Mended(one.diff.diff_id, error=error) for one in damaged}
        finally:
            for layer in staged.values():
                self.layers.discard(layer)
        return {one.chain: Mended(one.diff.diff_id, source=sources[one.diff.diff_id]) for one in damaged}

    def _fetched(self, diff: Diff) -> tuple[Staged, str]:
        """The layer, staged, and where it came from: the first place that gives it as it should be."""
        failure: LayerstoreError | None = None
        for way in self._ways(diff):
            try:
                with way.open() as stream:
                    return self.layers.stage(stream, expected=diff.diff_id, progress=self.progress), way.place
            except NotFound:
                continue
            except LayerstoreError as error:
                failure = error if failure is None and way.place != HERE else failure
        if failure is not None:
            raise failure
        raise NotFound(
            f"layer {diff.diff_id} is nowhere to be had",
            remedy="Name a remote or an archive that has it (--from), or load or pull an image that has it again.",
        )

    def _ways(self, diff: Diff) -> Iterator[Way]:
        with self.layers.database.read() as tx:
            others = [one for one in rows.all_diffs(tx) if one.key != diff.key]
            trees = [Layer(LayerKey(key)) for key in sorted(rows.owned(tx)[1])]
        files = self.layers.files
        for other in others:
            if other.diff_id == diff.diff_id and not other.damaged:
                yield Way(HERE, partial(relay, partial(files.give_out, other)))
        trees += [Layer(one.key) for one in others]
        if not files.lacks(diff):  # who reads its holes waits for the registry, which is asked below
            yield Way(HERE, partial(relay, partial(files.salvage, diff, others, trees)))
        yield from self.archives.of(diff.diff_id)
        yield from self.ways.of(diff.diff_id, list(self._said(diff.diff_id)))

    def _said(self, diff_id: DiffID) -> Iterator[KnownBlob]:
        """The blobs that hold a layer, as manifests of its images say: of one that came lazily no more is known."""
        blobs = self.ways.blobs
        with self.layers.database.read() as tx:
            stacks = {row.id: rows.stack(tx, row.chain_id) for row in image_rows.every(tx) if row.chain_id is not None}
        for image, stack in stacks.items():
            layers = [diff.diff_id for diff in reversed(stack.diffs)]
            if diff_id not in layers:
                continue
            for manifest in blobs.manifests_of(image):
                found = () if manifest.is_index else read(manifest).layers
                if len(found) == len(layers):
                    blob = found[layers.index(diff_id)]
                    yield KnownBlob(blob.digest, diff_id, blob.size, blob.media_type)
