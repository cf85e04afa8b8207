"""`StackMachine`: random lives of a store, compared with the model after every step, for Hypothesis.

It works through the public interface of a store: images are loaded, containers made, mounted, edited, committed,
sealed and removed, the store closed and opened again. After each step every mounted tree is what the model says,
`changes()` of the container that was touched gives the very list, and one image more is read out, which verifies its
DiffIDs. At the end all images are looked at, and after all is removed nothing is left in the driver's home.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, TypeVar

from attrs import evolve
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import layerstore
from layerstore import ChainID, Config, InUse, Store
from layerstore.kernel.files import remove_tree
from layerstore.testing import tars, trees
from layerstore.testing.edit_strategies import CHANGING, DESCRIBING, MAKING, REMOVING
from layerstore.testing.editing import ModelTree
from layerstore.testing.edits import MountedTree
from layerstore.testing.limits import NO_LIMITS, Limits
from layerstore.testing.lives import (
    Box,
    Picture,
    Point,
    Step,
    boxes,
    branched,
    images,
    mounted,
    one_of,
    some,
    step_of,
    unmounted,
)
from layerstore.testing.strategies import Layer, stacks

__all__ = ["StackMachine", "machine_for"]

T = TypeVar("T")

_MOST_BOXES, _MOST_IMAGES, _MOST_POINTS = 3, 6, 5


class StackMachine(RuleBasedStateMachine):
    """A store of one driver, in one folder, against the model. Make one for a driver with `machine_for`.

    A failure shrinks to the steps that are needed::

        state = StackMachine()
        state.begin(layers=None)
        state.make(step=c1: write(b'a', b''))
        state.commit(box='c1')
        ...
    """

    driver: ClassVar[str] = "overlay2"
    """Its name, as in `storage-driver`."""
    options: ClassVar[tuple[str, ...]] = ()
    """Its storage-opts, as in daemon.json."""
    folder: ClassVar[Path | None] = None
    """Where each example makes its store, and removes it; on the filesystem that is to be tested."""
    breaks_links: ClassVar[bool | None] = None
    """Does the first write through one name of a lower file separate it from its other names? None: find out."""

    limits: ClassVar[Limits] = NO_LIMITS
    """What a program that the driver uses does otherwise, and is left out for that."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(prefix="machine-", dir=self.folder))
        self.boxes: dict[str, Box] = {}
        self.pictures: dict[str, Picture] = {}
        self._touched: str | None = None
        self._counter = 0
        self._turn = self._edits = 0
        self._store = self._open()
        if type(self).breaks_links is None:
            type(self).breaks_links = _breaks_links(self._store)

    def _open(self) -> Store:
        return layerstore.open(
            config=Config(
                data_root=self.place / "store",
                exec_root=self.place / "run",
                storage_driver=self.driver,
                storage_opts=self.options,
            )
        )

    def _name(self, letter: str) -> str:
        self._counter += 1
        return f"{letter}{self._counter}"

    # --- images and containers come and go ---------------------------------------------------------------------------

    @initialize(layers=st.none() | stacks(max_layers=2, acls=False))
    def begin(self, layers: list[Layer] | None) -> None:
        """One container to begin with, on an image or on nothing."""
        if layers is not None:
            self.load(layers)
        self.create(next(iter(self.pictures), None))

    @precondition(lambda self: len(self.pictures) < _MOST_IMAGES)
    @rule(layers=stacks(max_layers=2, acls=False))
    def load(self, layers: list[Layer]) -> None:
        """An image comes from an archive."""
        name = self._name("i")
        tree = ModelTree(breaks_links=bool(self.breaks_links))
        layers = [evolve(layer, entries=self.limits.entries(layer.entries)) for layer in layers]
        for layer in layers:
            tree.apply(layer.entries)
        archive = tars.docker_archive([layer.tar for layer in layers], f"{name}:latest")
        [image] = self._store.load(io.BytesIO(archive))
        same = next((other for other in self.pictures if self._store.image(other).id == image.id), None)
        assert same is None or same == name, "each image has a config of its own"
        self.pictures[name] = Picture(tree, image.layers, None)

    @precondition(lambda self: len(self.boxes) < _MOST_BOXES)
    @rule(image=st.none() | one_of(lambda machine: images(machine) or [""]))
    def create(self, image: str | None) -> None:
        """A container, on any image or on nothing: so histories branch. It is mounted."""
        name = self._name("c")
        picture = self.pictures.get(image or "")
        handle = self._store.create_container(image if picture else None, name=f"box-{name}")
        below = picture.tree if picture is not None and picture.layers else None
        tree = ModelTree(breaks_links=bool(self.breaks_links)) if below is None else below.branch()
        self.boxes[name] = Box(handle, image if picture else None, below, tree)
        self.mount(name)

    @precondition(some(unmounted))
    @rule(box=one_of(unmounted))
    def mount(self, box: str) -> None:
        """A container is mounted, perhaps again."""
        state = self.boxes[box]
        state.mounted = state.handle.mount()
        state.hand = MountedTree(state.mounted.path)
        self._touched = box

    @precondition(some(mounted))
    @rule(box=one_of(mounted))
    def unmount(self, box: str) -> None:
        """What was written is on the disk now."""
        self._let_go(self.boxes[box])
        self._touched = box

    @precondition(lambda self: bool(self.boxes) and len(self.pictures) < _MOST_IMAGES)
    @rule(box=one_of(boxes))
    def commit(self, box: str) -> None:
        """An image of a container, mounted or not. Unmounted, the container goes on with a new layer."""
        state, name = self.boxes[box], self._name("i")
        changed = len(state.tree.changes(state.below)) > 0
        image = state.handle.commit(name)
        old = (*(() if state.image is None else self.pictures[state.image].layers), *state.sealed)
        assert image.layers[: len(old)] == old, "the layers below are those of what it was on"
        assert len(image.layers) - len(old) == changed, "a layer more if, and only if, something changed"
        if changed:
            tree = state.tree.commit(state.below)
            if state.loose:
                self._learn_anew(tree, image.chain_ids[-1], state)
        else:
            tree = ModelTree(breaks_links=bool(self.breaks_links)) if state.below is None else state.below
        self.pictures[name] = Picture(tree, image.layers, state.image)
        if changed and state.mounted is None:
            state.image, state.below, state.tree, state.loose = name, tree, tree.branch(), []
            state.sealed = ()
            state.handle = self._store.container(f"box-{box}")
        self._touched = box

    @precondition(some(unmounted))
    @rule(box=one_of(unmounted))
    def seal(self, box: str) -> None:
        """A layer of what a container has written, and no image; the container goes on on top of it."""
        state = self.boxes[box]
        changed = len(state.tree.changes(state.below)) > 0
        layer = state.handle.seal()
        assert (layer is not None) == changed, "a layer if, and only if, something changed"
        if layer is not None:
            tree = state.tree.commit(state.below)
            if state.loose:
                self._learn_anew(tree, layer.chain_id, state)
            state.below, state.tree, state.loose = tree, tree.branch(), []
            state.sealed = (*state.sealed, layer.diff_id)
        self._touched = box

    def _learn_anew(self, tree: ModelTree, layer: ChainID, box: Box) -> None:
        """The times of directories that nobody promised are those that the layer has got."""
        loose = {id(inode) for inode in box.loose}
        for path, inode in box.tree.walk():
            made = tree.find(path)
            if id(inode) in loose and made is not None:
                made.mtime = None
        with self._store.open_layers(layer) as root:
            tree.learn(trees.listing(Path(f"/proc/self/fd/{root}"), content=False))

    @precondition(some(boxes))
    @rule(box=one_of(boxes))
    def remove_container(self, box: str) -> None:
        """A container goes, with what was written in it."""
        state = self.boxes.pop(box)
        self._let_go(state)
        state.handle.remove()

    @precondition(some(images))
    @rule(image=one_of(images))
    def remove_image(self, image: str) -> None:
        """An image goes, unless a container or another image needs it."""
        needed = any(image in box.images for box in self.boxes.values()) or any(
            other.parent == image for other in self.pictures.values()
        )
        try:
            self._store.remove_image(image)
        except InUse:
            assert needed, "nothing needs it"
        else:
            assert not needed, "it was in use"
            del self.pictures[image]

    # --- containers branch -------------------------------------------------------------------------------------------

    @precondition(some(boxes))
    @rule(box=one_of(boxes), at_work=st.booleans())
    def checkpoint(self, box: str, *, at_work: bool) -> None:
        """What a container is now is kept, while somebody is in it or not. It goes on."""
        state, label = self.boxes[box], self._name("p")
        if len(state.points) == _MOST_POINTS:
            gone = next(iter(state.points))
            state.handle.checkpoint_named(gone).remove()
            del state.points[gone]
        with self._left(state, at_work=at_work):
            made = self._branched(state, lambda: state.handle.checkpoint(label))
        assert made.consistent or (at_work and state.mounted is not None), "nobody could write"
        tree = state.tree.snapshot()
        state.points[label] = Point(state.image, state.below, tree, state.seen_as(tree), state.sealed)
        self._touched = box

    @precondition(some(branched))
    @rule(box=one_of(branched), data=st.data())
    def rollback(self, box: str, data: st.DataObject) -> None:
        """A container is again what it was at one of its checkpoints, mounted as before."""
        state = self.boxes[box]
        label = data.draw(st.sampled_from(sorted(state.points)))
        with self._left(state, at_work=False):
            state.handle.rollback(label)
        point = state.points[label]
        state.image, state.below, state.tree = point.image, point.below, point.tree.branch()
        state.loose, state.sealed = point.looked_up(state.tree), point.sealed
        self._touched = box

    @precondition(lambda self: bool(self.boxes) and len(self.boxes) < _MOST_BOXES)
    @rule(box=one_of(boxes), at_work=st.booleans())
    def fork(self, box: str, *, at_work: bool) -> None:
        """Another container begins where one is. It is mounted."""
        state, name = self.boxes[box], self._name("c")
        with self._left(state, at_work=at_work):
            [handle] = self._branched(state, lambda: state.handle.fork(names=[f"box-{name}"]))
        tree = state.tree.branch()
        loose = state.seen_as(tree)
        self.boxes[name] = Box(handle, state.image, state.below, tree, loose=loose, sealed=state.sealed)
        self.mount(name)

    @contextmanager
    def _left(self, box: Box, *, at_work: bool) -> Iterator[None]:
        """While inside, no program is in a container, if it is mounted, unless it is to be `at_work`."""
        if box.mounted is None or box.hand is None or at_work:
            yield
            return
        box.hand.close()
        try:
            yield
        finally:
            box.hand = MountedTree(box.mounted.path)

    def _branched(self, box: Box, deed: Callable[[], T]) -> T:
        """Do something; if the container has got another layer of its own by that, what it had is not its own now."""
        before = box.handle.inspect()["GraphDriver"]
        made = deed()
        if box.handle.inspect()["GraphDriver"] != before:
            tree = box.tree.branch()
            box.loose, box.tree = box.seen_as(tree), tree
        return made

    @precondition(some(images))
    @rule(image=one_of(images))
    def save_and_load(self, image: str) -> None:
        """What is saved is loaded again as the same image."""
        archive = io.BytesIO()
        self._store.save(image, archive)
        archive.seek(0)
        before = self._store.image(image).id
        [loaded] = self._store.load(archive)
        assert loaded.id == before

    @rule()
    def reopen(self) -> None:
        """Another process takes over."""
        again = mounted(self)
        for box in self.boxes.values():
            self._let_go(box, unmount=False)
        self._store.close()
        self._store = self._open()
        for name, box in self.boxes.items():
            box.handle = self._store.container(f"box-{name}")
            assert box.handle.mountpoint is None, "a store that is closed leaves nothing mounted"
        for name in again:
            self.mount(name)

    # --- programs edit -----------------------------------------------------------------------------------------------

    @precondition(some(mounted))
    @rule(step=step_of(*MAKING))
    def make(self, step: Step) -> None:
        """Something new: a file, a directory, a link."""
        self._edit(step)

    @precondition(some(mounted))
    @rule(step=step_of(*CHANGING))
    def change(self, step: Step) -> None:
        """Other bytes in a file."""
        self._edit(step)

    @precondition(some(mounted))
    @rule(step=step_of(*REMOVING))
    def take_away(self, step: Step) -> None:
        """Something is removed or renamed."""
        self._edit(step)

    @precondition(some(mounted))
    @rule(step=step_of(*DESCRIBING))
    def describe(self, step: Step) -> None:
        """Another mode, owner, time or attribute."""
        self._edit(step)

    def _edit(self, step: Step) -> None:
        box = self.boxes[step.box]
        assert box.hand is not None
        anew = self.limits.needs_remount(step.edit, box.tree, box.below)
        self._edits += 1
        for edit in self.limits.completed(step.edit, self._edits):
            edit.apply(box.tree)
            edit.apply(box.hand)
        box.loose += self.limits.loosened(step.edit, box.tree)
        self._touched = step.box
        if anew:
            self._let_go(box)
            self.mount(step.box)

    # --- what has to be so after each step ---------------------------------------------------------------------------

    @invariant()
    def all_is_what_the_model_says(self) -> None:
        """The trees of all mounted containers, the changes of the one that was touched, and one layer of one image."""
        for name in mounted(self):
            self._look(name)
        touched = self.boxes.get(self._touched or "")
        if touched is not None:
            self._compare_changes(touched)
        self._touched = None
        self._read_one_layer()

    def _read_one_layer(self) -> None:
        """In turn, so that each is read now and then; reading a layer out verifies its DiffID."""
        every = [(name, number) for name in images(self) for number in range(len(self.pictures[name].layers))]
        if every:
            self._turn += 1
            name, number = every[self._turn % len(every)]
            image = self._store.image(name)
            assert image.layers == self.pictures[name].layers, f"image {name} has other layers now"
            self._store.write_layer(image.chain_ids[number], _nowhere)

    def _look(self, name: str) -> None:
        box = self.boxes[name]
        assert box.mounted is not None
        seen = trees.listing(box.mounted.path)
        for folder in box.loose:
            folder.mtime = None
        if box.below is not None and len(box.tree.changes(box.below)) == 0:
            box.below.learn(seen)
        box.tree.learn(seen)
        trees.assert_same(box.tree.listing(seen), seen)

    def _compare_changes(self, box: Box) -> None:
        expected, found = box.tree.changes(box.below), box.handle.changes()
        if found != expected:
            given, wanted = list(map(str, found)), list(map(str, expected))
            extra, missing = sorted({*given} - {*wanted}), sorted({*wanted} - {*given})
            raise AssertionError(f"changes() gives too much: {extra}, and not: {missing}; in all {given}")
        for label, point in box.points.items():
            since, kept = box.handle.changes(label), box.tree.changes(point.tree)
            assert since == kept or box.loose, f"since {label}: {list(map(str, since))}, not {list(map(str, kept))}"

    # --- the end -----------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            if self.boxes or self.pictures:
                self._finish()
        finally:
            self._clean_up()

    def _finish(self) -> None:
        for name in unmounted(self):
            self.mount(name)
            self._look(name)
            self._compare_changes(self.boxes[name])
        for name in boxes(self):
            self.remove_container(name)
        for name, picture in self.pictures.items():
            with self._store.image(name).mount() as root:
                seen = trees.listing(root)
            if picture.layers:
                picture.tree.root.mtime = None
                trees.assert_same(picture.tree.listing(seen), seen)
        if self.pictures:
            self._store.save(list(self.pictures), io.BytesIO())
        while self.pictures:
            for name in images(self):
                self.remove_image(name)
        assert (self._store.info().layers, self._store.check()) == (0, []), "all is removed"

    def _let_go(self, box: Box, *, unmount: bool = True) -> None:
        if box.hand is not None:
            box.hand.close()
        if box.mounted is not None and unmount:
            box.mounted.unmount()
        box.mounted = box.hand = None

    def _clean_up(self) -> None:
        """Whatever state a failure has left."""
        for box in self.boxes.values():
            if box.hand is not None:
                box.hand.close()
        try:
            for container in self._store.containers():
                container.remove(force=True)
            self._store.prune(all_images=True)
            self._store.close()
        finally:
            remove_tree(self.place)


def machine_for(
    driver: str,
    folder: Path,
    *,
    options: Sequence[str] = (),
    breaks_links: bool | None = None,
    limits: Limits = NO_LIMITS,
) -> type[StackMachine]:
    """The machine for one driver, which makes its stores in `folder`.

    `limits`: what a program that the driver leaves the mounting to is known to do otherwise.

    >>> def test_any_life_of_a_store(backing):
    ...     run_state_machine_as_test(machine_for("mydriver", backing("xfs"), options=["mydriver.fast=yes"]))
    """
    facts = {
        "driver": driver,
        "options": tuple(options),
        "folder": folder,
        "breaks_links": breaks_links,
        "limits": limits,
    }
    return type("StackMachine", (StackMachine,), facts)


def _nowhere(data: object) -> None:
    """Reading is all that is wanted."""


def _breaks_links(store: Store) -> bool:
    """Try it once."""
    tar = tars.archive(tars.file(b"a", b"x"), tars.hardlink(b"b", b"a"))
    image = store.import_tar(io.BytesIO(tar), "links")
    with store.create_container(image) as box:
        with box.mount() as root:
            with MountedTree(root) as hand:
                hand.append(b"a", b"y")
            broken = (root / "b").read_bytes() == b"x"
        box.remove()
    store.remove_image("links")
    return broken
