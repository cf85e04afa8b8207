"""Segments: what a container has written so far, sealed as it lies; merged ones; and what is between two of them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from layerstore.changes import compare_trees
from layerstore.driver import Dialect, Layer, StorageDriver, look
from layerstore.testing import edits as make
from layerstore.testing import trees
from layerstore.testing.conformance.examples import BASE, EDITS
from layerstore.testing.conformance.subject import Subject
from layerstore.testing.edits import Edit, apply_all
from layerstore.testing.workbench import Workbench, key

Bench = Workbench[StorageDriver]

CHAIN: Sequence[Sequence[Edit]] = (
    [make.write(b"data/deep/a", b"a"), make.unlink(b"etc/passwd"), make.mkdir(b"new"), make.write(b"new/x", b"x")],
    [make.rmtree(b"data"), make.chmod(b"etc", 0o700)],
    [make.mkdir(b"data", 0o711), make.write(b"data/back", b"b"), make.write(b"etc/passwd", b"again")],
    [make.unlink(b"etc/empty"), make.mkdir(b"etc/empty"), make.write(b"etc/empty/x", b"x"), make.unlink(b"new/x")],
    [make.rmtree(b"etc/empty"), make.write(b"etc/empty", b"a file"), make.mkdir(b"data/deep")],
    [make.rmtree(b"new"), make.rmdir(b"hollow"), make.append(b"data/back", b"c")],
    [make.mkdir(b"new"), make.write(b"new/y", b"y"), make.link(b"new/z", b"new/y"), make.mkdir(b"hollow")],
    [make.rmtree(b"etc"), make.mkdir(b"etc"), make.write(b"etc/new", b"x"), make.setxattr(b"", b"user.x", b"1")],
    [make.write(b"etc/newer", b"y"), make.unlink(b"new/z")],
)
"""What a container does between checkpoints: names come and go, files become folders and the other way."""


class Segments(Subject):
    """What a driver may do for checkpoints. One that leaves it to the core is not asked."""

    def test_a_segment_is_what_was_written(self, bench: Bench) -> None:
        image = bench.stack(BASE)
        for program in EDITS.values():
            box = bench.container(image)
            with bench.edit(box, image) as hand:
                apply_all(program, hand)
            seen, changed = bench.listing(box, image), list(bench.changes(box, image))
            segment = _segment(bench, box, image)
            trees.assert_same(seen, bench.listing(segment, image))
            assert list(bench.changes(segment, image)) == changed
            above = _above(bench, segment, image)
            fresh = bench.container(above)
            trees.assert_same(seen, bench.listing(fresh, above))
            assert len(bench.changes(fresh, above)) == 0
            with bench.edit(fresh, above) as hand:
                hand.write(b"more", b"x")
            trees.assert_same(seen, bench.listing(segment, image))
            assert list(map(str, bench.changes(fresh, above))) == ["A /more"]
            found = bench.driver.changes_since(fresh, above, [segment], image)
            assert list(map(str, found)) == sorted([*map(str, changed), "A /more"], key=_path)
            for layer in (fresh, segment, *([] if segment.key == box.key else [box])):
                bench.remove(layer)

    def test_merged_segments_say_the_same(self, bench: Bench) -> None:
        """Any that lie on each other may be merged; below and above them nothing looks different."""
        image = bench.stack(BASE)
        stack: list[Layer] = []
        seen = [bench.listing(image[0])]
        for program in CHAIN:
            parents = [*stack, *image]
            box = bench.container(parents if bench.driver.capabilities.dialect is not Dialect.MERGED else parents[:1])
            with bench.edit(box, parents) as hand:
                apply_all(program, hand)
            seen.append(bench.listing(box, parents))
            stack.insert(0, _segment(bench, box, parents))
        if bench.driver.capabilities.dialect is Dialect.MERGED:
            assert not bench.driver.merge(stack, key())
            return
        for top in range(2, len(stack) + 1):
            for count in range(2, top + 1):
                parts = stack[len(stack) - top :][:count]
                merged = Layer(key())
                if not bench.driver.merge(parts, merged.key):
                    pytest.skip("it merges no segments")
                below = [*stack[len(stack) - top :][count:], *image]
                trees.assert_same(seen[top], bench.listing(merged, below))
                _assert_between(bench, merged, below)
                bench.remove(merged)
        for count in range(1, len(stack)):
            base = [*stack[count:], *image]
            found = bench.driver.changes_since(stack[0], [*stack[1:], *image], stack[1:count], base)
            with (
                look(bench.driver, stack[0], [*stack[1:], *image]) as new,
                look(bench.driver, base[0], base[1:]) as old,
            ):
                assert found == compare_trees(new, old, content=True)


def _assert_between(bench: Bench, merged: Layer, below: Sequence[Layer]) -> None:
    """What a merged one changes is found, and what stands on it is not disturbed."""
    with look(bench.driver, merged, below) as new, look(bench.driver, below[0], below[1:]) as old:
        wanted = compare_trees(new, old, content=True)
    box = bench.container([merged, *below])
    assert len(bench.changes(box, [merged, *below])) == 0
    assert bench.driver.changes_since(box, [merged, *below], [merged], below) == wanted
    bench.remove(box)


def _segment(bench: Bench, box: Layer, parents: Sequence[Layer]) -> Layer:
    name = key()
    made = bench.driver.segment(box, parents, name, in_use=False)
    if made is None:
        pytest.skip("it leaves segments to the core")
    assert made == box.key or made.startswith(name)
    return Layer(made)


def _above(bench: Bench, segment: Layer, image: Sequence[Layer]) -> list[Layer]:
    """What stands on a segment has these for parents: a whole tree hides all that is below it."""
    return [segment] if bench.driver.capabilities.dialect is Dialect.MERGED else [segment, *image]


def _path(line: str) -> bytes:
    return line[2:].encode(errors="surrogateescape")
