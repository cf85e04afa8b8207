"""What a random life of a store consists of, as it has to be: images, containers, checkpoints; see `machine`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from attrs import field
from hypothesis import strategies as st

from layerstore import Container, Mounted
from layerstore.testing.edit_strategies import one_edit
from layerstore.testing.editing import ModelTree
from layerstore.testing.edits import Edit, MountedTree
from layerstore.testing.model import Inode
from layerstore.values import define, frozen

if TYPE_CHECKING:
    from layerstore.testing.machine import StackMachine


@define
class Picture:
    """An image as it has to be. `parent`: the image that it was committed on, by name."""

    tree: ModelTree
    layers: tuple[str, ...]
    parent: str | None


@define
class Point:
    """A checkpoint as it has to be: what the container was."""

    image: str | None
    below: ModelTree | None
    tree: ModelTree
    loose: list[Inode]
    sealed: tuple[str, ...]

    def looked_up(self, tree: ModelTree) -> list[Inode]:
        """What is `loose`, in a copy of its tree."""
        return _same_in(self.tree, self.loose, tree)


@define
class Box:
    """A container as it has to be. `below`: the tree that its changes are against."""

    handle: Container
    image: str | None
    below: ModelTree | None
    tree: ModelTree
    mounted: Mounted | None = None
    hand: MountedTree | None = None
    loose: list[Inode] = field(factory=list)
    """Directories of which the time is not compared."""
    points: dict[str, Point] = field(factory=dict)
    """Its checkpoints, by label."""
    sealed: tuple[str, ...] = ()
    """The layers that it has above those of its image."""

    @property
    def images(self) -> set[str | None]:
        """The images that it, or a checkpoint of it, stands on."""
        return {self.image, *(point.image for point in self.points.values())}

    def seen_as(self, tree: ModelTree) -> list[Inode]:
        """What is `loose`, in a copy of its tree."""
        return _same_in(self.tree, self.loose, tree)


def _same_in(tree: ModelTree, inodes: Iterable[Inode], copy: ModelTree) -> list[Inode]:
    wanted = {id(inode) for inode in inodes}
    paths = [path for path, inode in tree.walk() if id(inode) in wanted]
    return [inode for path in paths if (inode := copy.find(path)) is not None]


@frozen(repr=False)
class Step:
    """One edit in one container."""

    box: str
    edit: Edit

    def __repr__(self) -> str:
        return f"{self.box}: {self.edit!r}"

    def _repr_pretty_(self, printer: Any, cycle: object) -> None:
        """The same for Hypothesis."""
        printer.text(repr(self))


Names = Callable[["StackMachine"], Sequence[str]]


def one_of(names: Names) -> st.SearchStrategy[str]:
    """One of what there is at that moment."""

    def choose(machine: StackMachine) -> st.SearchStrategy[str]:
        return st.sampled_from(names(machine))

    return st.runner().flatmap(choose)


def step_of(*calls: str) -> st.SearchStrategy[Step]:
    """An edit of one of these kinds, in a container that is mounted."""

    @st.composite
    def drawn(draw: st.DrawFn) -> Step:
        machine: StackMachine = draw(st.runner())
        name = draw(st.sampled_from(mounted(machine)))
        return Step(name, one_edit(draw, machine.boxes[name].tree, calls, machine.limits))

    return drawn()


def images(machine: StackMachine) -> list[str]:
    """Their names."""
    return sorted(machine.pictures)


def boxes(machine: StackMachine) -> list[str]:
    """Names of the containers."""
    return sorted(machine.boxes)


def mounted(machine: StackMachine) -> list[str]:
    """Those that are mounted."""
    return [name for name in boxes(machine) if machine.boxes[name].mounted is not None]


def unmounted(machine: StackMachine) -> list[str]:
    """Those that are not."""
    return [name for name in boxes(machine) if machine.boxes[name].mounted is None]


def branched(machine: StackMachine) -> list[str]:
    """The containers with a checkpoint."""
    return [name for name in boxes(machine) if machine.boxes[name].points]


def some(names: Callable[[StackMachine], Sequence[str]]) -> Callable[[StackMachine], bool]:
    """Is there one of them?"""
    return lambda machine: bool(names(machine))
