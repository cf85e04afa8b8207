"""What is read without a mount is what the mount shows: every driver, images, containers and checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import layerstore
from core.adding import Adder
from drivers.test_alike import FORMS, LOWER, UPPER, edit
from layerstore import Checkpoint, Container, Image, Store
from layerstore.testing import ModelTree, strategies, trees
from layerstore.testing.edits import Edit, MountedTree
from support.properties import by_day

pytestmark = pytest.mark.root

HOMES = {**{form: ("ext4", options) for form, options in FORMS.items()}, "btrfs": ("btrfs", ())}
HOMES["overlay2, renamed"] = ("ext4", ("overlay2.metacopy=true", "overlay2.redirect_dir=true"))


def opened(folder: Path, form: str) -> Store:
    driver = form.partition(",")[0]
    config = layerstore.Config(
        data_root=folder / "store", exec_root=folder / "run", storage_driver=driver, storage_opts=HOMES[form][1]
    )
    return layerstore.open(config=config)


def assert_equal(*things: Image | Container | Checkpoint) -> None:
    for of in things:
        with of.open_tree() as root:
            expected = trees.listing(f"/proc/self/fd/{root}")
        with of.browse() as tree:
            trees.assert_same(expected, trees.browsed(tree))


@pytest.mark.parametrize("form", HOMES)
def test_it_is_what_the_mount_shows(form: str, backing: Callable[[str], Path]) -> None:
    with opened(backing(HOMES[form][0]), form) as store:
        add = Adder(store)
        image = add(LOWER, UPPER)
        assert_equal(image)
        box = store.create_container(image)
        assert_equal(box)
        with box.mount() as root:
            edit(root)
            if "fuse" not in str(HOMES[form][1]):  # which keeps what is written to itself
                assert_equal(box)
        assert_equal(box)
        first = box.checkpoint()
        with box.mount() as root:
            (root / "etc/group").chmod(0o600)
            (root / "etc/deep").mkdir()
            for old, new in (("opt/tree", "opt/moved"), ("etc", "lib/etc"), ("lib", "other")):
                with suppress(OSError):  # EXDEV, but where overlay may redirect
                    (root / old).rename(root / new)
        assert_equal(box, first, box.checkpoint(), box.commit())


@st.composite
def lives(draw: st.DrawFn) -> tuple[list[strategies.Layer], list[Edit], list[Edit]]:
    """The layers of an image, and what is done in a container of it, before a checkpoint and after that."""
    layers = draw(strategies.stacks(max_layers=3, acls=False))
    tree = ModelTree(breaks_links=True)
    for layer in layers:
        tree.apply(layer.entries)
    edits = draw(strategies.edits(tree, max_size=16))
    half = len(edits) // 2
    return layers, edits[:half], edits[half:]


@pytest.mark.parametrize("form", HOMES)
def test_any_life(form: str, backing: Callable[[str], Path]) -> None:
    with opened(backing(HOMES[form][0]), form) as store:

        @by_day(5)
        @given(life=lives())
        def lived(life: tuple[Sequence[strategies.Layer], Sequence[Edit], Sequence[Edit]]) -> None:
            layers, before, after = life
            box = store.create_container(Adder(store)(*(layer.tar for layer in layers)))
            with editing(box) as tree:
                applied(before, tree)
            kept = box.checkpoint()
            with editing(box) as tree:
                applied(after, tree)
            assert_equal(store.images()[0], box, kept)
            box.remove()
            store.prune(all_images=True)

        lived()


@contextmanager
def editing(box: Container) -> Iterator[MountedTree]:
    with box.mount() as root, MountedTree(root) as tree:
        yield tree


def applied(edits: Sequence[Edit], tree: MountedTree) -> None:
    """What a driver refuses (a rename of a folder of a lower layer) is no matter here."""
    for one in edits:
        with suppress(OSError):
            one.apply(tree)
