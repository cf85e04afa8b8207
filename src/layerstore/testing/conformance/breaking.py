"""Work that is broken off: by a call that fails, or by the death of the process, at each call in turn.

After a failure the driver has either done what it was asked, or raised an error and left nothing; and it can go on.
After a death, another process finds each layer whole or not at all, can go on, and can remove what there is.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial

import pytest
from attrs import evolve

from layerstore.driver import Layer, State, StorageDriver
from layerstore.testing import edits as make
from layerstore.testing import trees
from layerstore.testing.calls import SYNCING, Answer, Call, CannotWatch, Death, Failure, run_watched
from layerstore.testing.conformance.examples import BASE
from layerstore.testing.conformance.subject import Subject, assert_tree, model_of
from layerstore.testing.editing import ModelTree
from layerstore.testing.edits import Edit, apply_all
from layerstore.testing.remains import Remains
from layerstore.testing.tars import Kind
from layerstore.testing.workbench import Workbench, key
from layerstore.values import frozen

Bench = Workbench[StorageDriver]

EDITED: Sequence[Edit] = [
    make.write(b"etc/passwd", b"other"),
    make.rmtree(b"data"),
    make.mkdir(b"data", 0o711),
    make.mkdir(b"data/deep"),
    make.write(b"data/deep/new", b"x"),
    make.unlink(b"one"),
    make.chmod(b"etc", 0o700),
    make.setxattr(b"etc/passwd", b"user.new", b"1"),
    *(make.utimes(path, 10**18 + 5) for path in (b"etc/passwd", b"data/deep/new", b"data/deep", b"data", b"etc")),
]
"""What is in a container that is sealed, removed or compared: something to be brought into order in every dialect."""

_DEFECTS = frozenset({"AssertionError", "AttributeError", "LookupError", "NameError", "TypeError", "UnboundLocalError"})
"""What is no error of a driver, but a driver that did not think of one."""

_FULL = frozenset(
    (
        *("mkdir", "mkdirat", "mknod", "mknodat", "link", "linkat", "symlink", "symlinkat", "creat"),
        *("write", "pwrite64", "ftruncate", "fallocate", "copy_file_range"),
        *("setxattr", "lsetxattr", "fsetxattr", "rename", "renameat", "renameat2"),
    )
)
"""Calls that need room, and fail for want of it."""


@frozen
class Trial:
    """One piece of work in hand: on which layer, on what parents, and how things stood before."""

    bench: Bench
    image: list[Layer]
    layer: Layer
    was: Remains
    tree: trees.Tree | None
    keeps_times: bool

    def seen_from(self, bench: Bench) -> Trial:
        """The same, as another process sees it."""
        return evolve(self, bench=bench)

    @property
    def is_there(self) -> bool:
        """Are there files of the layer that the driver knows of?"""
        return self.bench.has(self.layer) and os.path.lexists(self.bench.tree(self.layer))

    def assert_shows(self, model: ModelTree, layer: Layer, parents: Sequence[Layer]) -> None:
        """Work that is broken off may leave other times of directories, in which it made or removed marks."""
        seen = self.bench.listing(layer, parents)
        for path, inode in model.walk():
            if inode.kind is Kind.FOLDER or not self.keeps_times:
                inode.mtime = None if os.fsdecode(path) in seen else inode.mtime
        assert_tree(model, seen)

    def assert_changes(self, model: ModelTree, layer: Layer) -> None:
        """The list is exact."""
        found = self.bench.changes(layer, self.image)
        assert list(map(str, found)) == list(map(str, model.changes(model_of(BASE))))


@frozen
class Work:
    """One thing that a driver does, and how it is seen whether it was done.

    `ready` makes what is needed, `do` is the deed. `done` asserts that it was done in full, `undone` that all is as
    before and can be done again, `dead` that what another process finds is one of the two.
    """

    ready: Callable[[Bench, list[Layer]], Layer]
    do: Callable[[Trial], object]
    done: Callable[[Trial], None]
    undone: Callable[[Trial], None]
    dead: Callable[[Trial], None]
    may_leave: frozenset[str] = frozenset({"home"})
    """Names of parts of `Remains` in which a failure may leave something."""
    every: frozenset[str] = frozenset()
    """Names of calls each of which is made to fail, by day too: what is below such an error is easily lost."""
    keeps_tree: bool = False
    """Is the layer's own tree compared with what it was?"""


# --- making ----------------------------------------------------------------------------------------------------------


def _nothing(bench: Bench, image: list[Layer]) -> Layer:
    return Layer(key(), State.WRITABLE)


def _nothing_staged(bench: Bench, image: list[Layer]) -> Layer:
    return Layer(key(), State.STAGED)


def _made(trial: Trial) -> None:
    box, bench = trial.layer, trial.bench
    trial.assert_shows(model_of(BASE), box, trial.image)
    assert len(bench.changes(box, trial.image)) == 0
    with bench.mount(box, trial.image) as root:
        (root / "new").touch()
    assert list(map(str, bench.changes(box, trial.image))) == ["A /new"]


def _made_or_not(trial: Trial) -> None:
    if trial.is_there:
        _made(trial)


def _gone(trial: Trial) -> None:
    assert not trial.bench.has(trial.layer)
    left = trial.bench.tree(trial.layer)
    assert not (left.is_relative_to(trial.bench.driver.home) and os.path.lexists(left))


def _not_made(trial: Trial) -> None:
    _gone(trial)
    trial.bench.create(trial.layer, trial.image)
    _made(trial)


def _staged_layer(trial: Trial) -> None:
    assert trial.bench.tree(trial.layer).is_dir()
    assert not trial.bench.has(trial.layer)


# --- sealing ---------------------------------------------------------------------------------------------------------


def _edited() -> ModelTree:
    model = model_of(BASE)
    apply_all(EDITED, model)
    return model


def _container(bench: Bench, image: list[Layer]) -> Layer:
    box = bench.container(image)
    with bench.edit(box, image) as hand:
        apply_all(EDITED, hand)
    return box


def _filled(bench: Bench, image: list[Layer]) -> Layer:
    return bench.staged((), *BASE)


def _sealed(trial: Trial) -> None:
    """Sealed again, if it was: what comes of it is right."""
    sealed = trial.bench.seal_only(trial.layer, trial.image)
    trial.assert_shows(_edited(), sealed, trial.image)
    trial.assert_changes(_edited(), sealed)
    trial.bench.remove(sealed)


def _still_a_container(trial: Trial) -> None:
    assert trial.bench.has(trial.layer)
    trial.assert_shows(_edited(), trial.layer, trial.image)
    trial.assert_changes(_edited(), trial.layer)
    _sealed(trial)


def _sealed_layer(trial: Trial) -> None:
    assert trial.bench.has(trial.layer)
    trial.assert_shows(model_of(BASE), Layer(trial.layer.key), ())


def _still_staged(trial: Trial) -> None:
    _sealed_layer(evolve(trial, layer=trial.bench.seal(trial.layer)))


def _sealed_or_not(trial: Trial) -> None:
    sealed = evolve(trial, layer=Layer(trial.layer.key))
    if sealed.is_there:
        _sealed_layer(sealed)


# --- away, and compared ----------------------------------------------------------------------------------------------


def _whole_or_gone(trial: Trial) -> None:
    """Of the layer's own files; what is beside them may be gone."""
    if trial.is_there:
        assert trial.tree is not None
        trees.assert_same(trial.tree, trees.listing(trial.bench.tree(trial.layer)))


def _not_removed(trial: Trial) -> None:
    _whole_or_gone(trial)
    trial.bench.remove(trial.layer)
    _gone(trial)


def _compare(trial: Trial) -> None:
    trial.assert_changes(_edited(), trial.layer)


def _unaltered(trial: Trial) -> None:
    assert trial.tree is not None
    trees.assert_same(trial.tree, trees.listing(trial.bench.tree(trial.layer)))
    _compare(trial)


WORK: Mapping[str, Work] = {
    "create a container": Work(
        ready=_nothing,
        do=lambda trial: trial.bench.create(trial.layer, trial.image),
        done=_made,
        undone=_not_made,
        dead=_made_or_not,
        may_leave=frozenset(),
    ),
    "create a staged layer": Work(
        ready=_nothing_staged,
        do=lambda trial: trial.bench.create(trial.layer),
        done=_staged_layer,
        undone=_gone,
        dead=lambda trial: None,
        may_leave=frozenset(),
    ),
    "seal a container": Work(
        ready=_container,
        do=lambda trial: trial.bench.driver_seal(trial.layer, trial.image),
        done=_sealed,
        undone=_still_a_container,
        dead=_still_a_container,
        every=frozenset({"getdents64", "openat2"}),
    ),
    "seal a staged layer": Work(
        ready=_filled,
        do=lambda trial: trial.bench.driver_seal(trial.layer, ()),
        done=_sealed_layer,
        undone=_still_staged,
        dead=_sealed_or_not,
    ),
    "remove a container": Work(
        ready=_container,
        do=lambda trial: trial.bench.remove(trial.layer),
        done=_gone,
        undone=_not_removed,
        dead=_whole_or_gone,
        may_leave=frozenset({"home", "staging"}),
        keeps_tree=True,
    ),
    "find changes": Work(
        ready=_container,
        do=_compare,
        done=_unaltered,
        undone=_unaltered,
        dead=_unaltered,
        may_leave=frozenset(),
        every=frozenset({"getdents64", "openat2"}),
        keeps_tree=True,
    ),
}


# --- where it is broken off ------------------------------------------------------------------------------------------


def _chosen(calls: Iterable[Call], *, thorough: bool, every: Collection[str] = ()) -> list[tuple[str, int]]:
    """Calls by name and number. By day the first, the middle and the last of each name, and all of those in `every`."""
    points: list[tuple[str, int]] = []
    for name, count in Counter(call.name for call in calls).items():
        whole = thorough or name in every
        points += [(name, n) for n in range(count) if whole or n in (0, count // 2, count - 1)]
    return points


def _at(point: tuple[str, int], verdict: int | Death, *, altering: bool) -> Answer:
    seen = 0

    def answer(_: int, call: Call) -> int | Death | None:
        nonlocal seen
        if call.name != point[0] or (altering and not call.alters):
            return None
        seen += 1
        return verdict if seen == point[1] + 1 else None

    return answer


def _errors(name: str, *, thorough: bool) -> Sequence[int]:
    natural = errno.ENOSPC if name in _FULL else errno.EIO
    return [natural, *({errno.ENOSPC, errno.EIO, errno.EPERM, errno.ENOMEM} - {natural})] if thorough else [natural]


class Breaking(Subject):
    """What a driver does is broken off at each point."""

    @pytest.mark.parametrize("work", list(WORK))
    def test_a_call_that_fails_is_an_error_that_leaves_nothing(
        self, bench: Bench, image: list[Layer], work: str, *, thorough: bool, keeps_times: bool
    ) -> None:
        part = WORK[work]
        for point in _chosen(self._calls(part, bench, image), thorough=thorough, every=part.every):
            for number in _errors(point[0], thorough=thorough):
                trial = self._begin(part, bench, image, keeps_times=keeps_times)
                try:
                    run_watched(
                        partial(part.do, trial),
                        _at(point, number, altering=False),
                        partial(_judge, part, trial, point),
                        names=[point[0]],
                    )
                except AssertionError as error:
                    place = f"{point[0]} number {point[1] + 1} fails with {errno.errorcode[number]}"
                    raise AssertionError(f"{place}: {error}") from None
                self._clear(bench, trial.layer)

    @pytest.mark.parametrize("work", [name for name in WORK if name != "find changes"])
    def test_a_death_leaves_each_layer_whole_or_gone(
        self, bench: Bench, image: list[Layer], work: str, *, thorough: bool, keeps_times: bool
    ) -> None:
        part = WORK[work]
        calls = [call for call in self._calls(part, bench, image) if call.alters]
        before = Remains.of(bench.driver)
        for point in _chosen(calls, thorough=thorough):
            trial = self._begin(part, bench, image, keeps_times=keeps_times)
            run = run_watched(partial(part.do, trial), _at(point, Death(), altering=True), names=[point[0]])
            if run.died:
                bench.empty_staging()
            other = bench.again()
            try:
                part.dead(trial.seen_from(other))
                self._clear(other, trial.layer)
                left = Remains.of(other.driver).more_than(before)
                assert not left, f"it left what cannot be removed: {left[:5]}"
            except (AssertionError, OSError) as error:
                raise AssertionError(f"dead at {point[0]} number {point[1] + 1}: {error}") from error
            finally:
                self._clear(bench, trial.layer)

    def _begin(self, part: Work, bench: Bench, image: list[Layer], *, keeps_times: bool) -> Trial:
        layer = part.ready(bench, image)
        tree = trees.listing(bench.tree(layer)) if part.keeps_tree else None
        return Trial(bench, image, layer, Remains.of(bench.driver), tree, keeps_times)

    def _calls(self, part: Work, bench: Bench, image: list[Layer]) -> list[Call]:
        """All that the work does when nobody disturbs it. It is done twice: what is noted once a home is then there."""
        for _ in range(2):
            trial = self._begin(part, bench, image, keeps_times=True)
            try:
                run = run_watched(partial(part.do, trial), _allow, partial(_expect_done, part, trial))
            except CannotWatch as error:
                pytest.skip(str(error))
            self._clear(bench, trial.layer)
        return run.calls

    def _clear(self, bench: Bench, layer: Layer) -> None:
        """Remove what there is of it: another process may have made it, and sealed it under another key."""
        for found in [*bench.keys()]:
            if found.startswith(layer.key):
                bench.remove(Layer(found))
        if layer.is_staged:
            bench.remove(layer)
        bench.empty_staging()


def _allow(_: int, call: Call) -> None:
    """Every call."""


def _expect_done(part: Work, trial: Trial, failure: Failure | None) -> None:
    if failure is not None:
        raise AssertionError(failure.trace)
    part.done(trial)


def _judge(part: Work, trial: Trial, point: tuple[str, int], failure: Failure | None) -> None:
    if failure is None:
        assert point[0] not in SYNCING, "what could not be synced is not on the disk"
        part.done(trial)
        return
    assert not _DEFECTS & {*failure.kinds}, failure.trace
    left = Remains.of(trial.bench.driver).more_than(trial.was, ignoring=part.may_leave)
    assert not left, f"it failed, and left {left[:5]}"
    part.undone(trial)
