"""An operation is broken off at each of its points, and what is found then is judged.

It is judged by what an undisturbed run shows: the store as it was before, or as it is after, and nothing else
anywhere; then the operation is done once more, and comes to what it comes to.
"""

from __future__ import annotations

import os
import random
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from importlib import import_module
from pathlib import Path

from attrs import evolve, field

from layerstore.kernel.files import syncfs
from layerstore.testing.calls import Call, Failure, Run, Verdict, run_watched
from layerstore.testing.power import copy_image
from layerstore.testing.recording import Cut, Entry, Recorder, Write, cuts, entries
from layerstore.testing.remains import descriptors
from layerstore.testing.torture.faults import Point, Steps, answer_at, counted, killed_at, lines, points_of, statements
from layerstore.testing.torture.grounds import Ground, apart, rebooted
from layerstore.testing.torture.operations import Act, Operation, Place
from layerstore.testing.torture.pictures import MOUNTED, Picture, inventory, picture_of
from layerstore.testing.torture.sameness import facts_of, names_in, same
from layerstore.values import define, frozen

__all__ = ["Loss", "Recording", "Walk", "Walked"]

_MOUNTS = ("row of mounts", "row of holds")
"""Rows that mean nothing where the kernel says that nothing is mounted."""

_ENDS_WELL = frozenset({"LayerstoreError", "MemoryError"})
"""Classes one of which every failure has to be of."""


@frozen
class Loss:
    """A point after which something was not as it has to be."""

    where: str
    what: str


@define
class Walked:
    """What became of a walk: how many points, how many of them were not met, and what was lost."""

    points: int = 0
    missed: int = 0
    losses: list[Loss] = field(factory=list)


@frozen
class Found:
    """Whether a point was met, and a digest of the state after it, in which nothing was wrong."""

    met: bool
    state: str


@frozen
class State:
    """A store at one moment: what it shows, and all that there is for it."""

    shown: Picture
    kept: Counter[str]

    @classmethod
    def of(cls, place: Place, settle: Act | None = None) -> State:
        """As the next process finds it, which has `check` say that all of it is whole.

        It asks what works there, too: what a driver notes of that, for this boot, is noted then, if it was not before.
        """
        if settle is not None:
            settle(place)
        place.store.info()
        problems = [str(one) for one in place.store.check(content=True)]
        assert not problems, f"check: {problems}"
        shown = picture_of(place.store, place.out)
        place.store.wait()
        place.close()
        kept = inventory(place.data_root, place.out)
        return cls(shown, kept if any(name.startswith(MOUNTED) for name in shown) else _without(kept, _MOUNTS))

    def after_a_boot(self) -> State:
        """The same, where nothing is mounted any more."""
        shown = {name: value for name, value in self.shown.items() if not name.startswith(MOUNTED)}
        return State(shown, _without(self.kept, ("mount ", "row of leases", *_MOUNTS)))


@frozen
class Undisturbed:
    """A run without any fault."""

    before: State
    after: State
    names: frozenset[bytes] = field(repr=False)
    """Those of before and after, which are not random where they are met again."""
    calls: Sequence[Call] = field(repr=False)

    def after_a_boot(self) -> Undisturbed:
        """What is found when the machine has stopped right after it, or before."""
        return evolve(self, before=self.before.after_a_boot(), after=self.after.after_a_boot())


@frozen
class Recording:
    """What the disk was told to do: its image at the beginning, and then this."""

    base: Path
    log: Sequence[Entry] = field(repr=False)


class Walk:
    """One operation on one ground."""

    def __init__(self, ground: Ground, operation: Operation) -> None:
        self.ground = ground
        self.operation = operation
        self._known: set[str] = set()
        self.usual, modules = apart(lambda: (self._undisturbed(), [*sys.modules]))
        for name in modules:
            with suppress(ModuleNotFoundError):  # a compiled module may have given itself another name
                import_module(name)  # once, and not in each point

    # --- faults of calls, and deaths ---

    def points(self, kind: str) -> list[Point]:
        """All points of the kind "killed" or "errors"."""
        return points_of(self.usual.calls, kind)

    def fail(self, points: Sequence[Point], tell: Callable[[], None] = lambda: None) -> Walked:
        """Let each of these happen. `tell` is called after each."""
        walked = Walked()
        for point in points:
            self._take(walked, point, partial(self._fail, point))
            tell()
        return walked

    def statements(self) -> int:
        """How many statements the database is given."""
        return apart(partial(self._counted, statements))

    def die_between_statements(self, numbers: Sequence[int], tell: Callable[[], None] = lambda: None) -> Walked:
        """Be killed before each of these statements of the database."""
        return self._die_at(statements, "statement", numbers, tell)

    def lines(self) -> int:
        """How many lines of this library's Python are executed."""
        return apart(partial(self._counted, lines))

    def die_between_lines(self, numbers: Sequence[int], tell: Callable[[], None] = lambda: None) -> Walked:
        """Be killed before each of these lines."""
        return self._die_at(lines, "line", numbers, tell)

    # --- power ---

    def record(self, left_out: Point | None = None) -> Recording:
        """Do it on a disk that remembers. `left_out`: a call that is not made."""
        folder = self.ground.scratch
        return apart(partial(self._record, folder / "base", folder / "log", left_out))

    def cut(self, recording: Recording, chosen: Sequence[Cut], tell: Callable[[], None] = lambda: None) -> Walked:
        """Let the power fail at each of these. Uses the recording up."""
        walked = Walked()
        at = 0
        with recording.base.open("r+b", buffering=0) as base:
            for cut in sorted(chosen, key=lambda cut: cut.whole):
                _apply(base.fileno(), _writes(recording.log[at : cut.whole]))
                at = cut.whole
                found = self.ground.copied(recording.base)
                with found.open("r+b", buffering=0) as image:
                    _apply(image.fileno(), cut.pieces)
                ended = self.operation.lasts and cut.after == len(recording.log)
                self._take(walked, _said(cut, recording), partial(self._find, found, ended=ended))
                tell()
        return walked

    def cuts(self, recording: Recording, more: int) -> list[Cut]:
        """Every flush, the end, and so many moments in between, the same each time."""
        return cuts(recording.log, more, random.Random(f"{self.ground.subject} {self.operation}"))

    # --- what happens in the process of a point ---

    def _undisturbed(self) -> Undisturbed:
        with self._begun() as place:
            before = State.of(place, self.operation.settle)
            names = names_in(self._facts(place))
        with self._begun() as place:
            calls: Sequence[Call] = ()
            if self.operation.programs:
                counted(statements, partial(self._open, place), partial(self._do, place))
            else:
                run = run_watched(partial(self._do, place), _allow, before=partial(self._open, place))
                assert run.failure is None, run.failure
                calls = run.calls
            after = State.of(place, self.operation.settle)
            return Undisturbed(before, after, names | names_in(self._facts(place)), calls)

    def _begun(self) -> AbstractContextManager[Place]:
        return self._ready(self.ground.clone())

    @contextmanager
    def _ready(self, device: Path) -> Iterator[Place]:
        with self._plugged(device) as place:
            if self.operation.ready is not None:
                self.operation.ready(place)
                place.close()
            yield place

    @contextmanager
    def _plugged(self, device: Path) -> Iterator[Place]:
        with self.ground.plugged(device) as place:
            beside = self.operation.beside
            with nullcontext() if beside is None else beside(place):
                yield place

    def _open(self, place: Place) -> None:
        if not self.operation.opens:
            _ = place.store

    def _do(self, place: Place) -> None:
        try:
            self.operation.act(place)
        finally:
            place.close()

    def _fail(self, point: Point) -> Found:
        with self._begun() as place:
            held: list[str] = []

            def before() -> None:
                self._open(place)
                held.extend(descriptors())

            def then(_: Failure | None) -> list[str]:
                return sorted((Counter(descriptors()) - Counter(held)).elements())

            met = False
            answer = answer_at(point)

            def answered(number: int, call: Call) -> Verdict:
                nonlocal met
                verdict = answer(number, call)
                met |= verdict is not None
                return verdict

            run = run_watched(partial(self._do, place), answered, then, names=[point.name], before=before)
            assert not run.result, f"it left open: {run.result[:5]}"
            if run.failure is not None:
                assert _ENDS_WELL & {*run.failure.kinds}, (
                    f"no error in words: {run.failure.kinds[0]}: {run.failure.text}"
                )
            ended = not run.died and run.failure is None
            return Found(met, self._judged(place, ended=ended, died=run.died, why=_why(run)))

    def _counted(self, steps: Steps) -> int:
        with self._begun() as place:
            return counted(steps, partial(self._open, place), partial(self._do, place))

    def _die_at(self, steps: Steps, name: str, numbers: Sequence[int], tell: Callable[[], None]) -> Walked:
        walked = Walked()
        for number in numbers:
            self._take(walked, f"{name} {number}", partial(self._die, steps, number))
            tell()
        return walked

    def _die(self, steps: Steps, number: int) -> Found:
        with self._begun() as place:
            died = killed_at(steps, partial(self._open, place), partial(self._do, place), number)
            return Found(died, self._judged(place, ended=not died, died=died))

    def _record(self, base: Path, log: Path, left_out: Point | None) -> Recording:
        recorder = Recorder(self.ground.clone(), self.ground.scratch / "device", log)
        with recorder.serving():
            with self._ready(recorder.device) as place:
                syncfs(place.data_root)
                begun = recorder.noted()
                copy_image(recorder.image, base)
                if left_out is None:
                    _done_apart(partial(self._do_and_stop, place))
                else:
                    run = run_watched(
                        partial(self.operation.act, place),
                        answer_at(left_out),
                        before=partial(self._open, place),
                        names=[left_out.name],
                    )
                    assert run.died or run.failure is None
                ended = recorder.noted()
            return Recording(base, entries(log, ended)[len(entries(log, begun)) :])

    def _do_and_stop(self, place: Place) -> None:
        self._open(place)
        self.operation.act(place)

    def _find(self, image: Path, *, ended: bool) -> Found:
        with rebooted(self.ground.scratch), self._plugged(image) as place:
            return Found(True, self._judged(place, ended=ended, booted=True))

    # --- judgement ---

    def _take(self, walked: Walked, where: object, judged: Callable[[], Found]) -> None:
        """Judge one point, in a process of its own."""
        walked.points += 1
        try:
            found = apart(judged)
        except AssertionError as error:
            walked.losses.append(Loss(str(where), str(error)))
        else:
            walked.missed += not found.met
            self._known.add(found.state)

    def _judged(self, place: Place, *, ended: bool, died: bool = False, booted: bool = False, why: str = "") -> str:
        """Judge a state, if it is not one of those that are known, and return its digest.

        Programs may still be about to alter it: theirs is always judged.
        """
        is_still = not self.operation.programs and self.operation.settle is None
        facts = self._facts(place) if is_still else ()
        state = f"{same(facts, self.usual.names)} {ended} {died} {booted}"
        if state not in self._known or not is_still:
            self._judge(place, ended=ended, died=died, booted=booted, why=why)
        return state

    def _facts(self, place: Place) -> Sequence[bytes]:
        return facts_of(self.ground.scratch, place.data_root, place.out, place.exec_root)

    def _judge(self, place: Place, *, ended: bool, died: bool, booted: bool, why: str) -> None:
        usual = self.usual.after_a_boot() if booted else self.usual
        unmounted = booted or (died and self.operation.pauses)
        told = partial(self._told, unmounted=unmounted, booted=booted)
        found = self._found(place, booted=booted)
        shown, before, after = (told(state.shown) for state in (found, usual.before, usual.after))
        void = self.operation.void if died or booted else ()
        if shown == after:
            _refuse(_without(found.kept - usual.after.kept, void), "it left behind")
        else:
            assert not ended, f"it said that it had ended, and this is lost: {_differing(after, shown)}{why}"
            if shown == before and not self.operation.has_steps:
                _refuse(_without(found.kept - usual.before.kept, void), "it was not done, and left behind")
            else:
                is_between = all(shown.get(name) in (before.get(name), after.get(name)) for name in {*shown, *after})
                is_half = not (self.operation.has_steps and is_between)
                unlike = f"not as before: {_differing(before, shown)}, nor as after: {_differing(after, shown)}"
                assert not is_half, f"half-made, {unlike}{why}"
        if found.shown == usual.after.shown:
            return
        ended_mounts = [name for name in usual.before.shown if name.startswith(MOUNTED) and name not in found.shown]
        if self.operation.ready is not None and (booted or ended_mounts):
            self.operation.ready(place)
            place.close()
        everything = partial(self._told, unmounted=unmounted, booted=False, loose=frozenset())
        if everything(found.shown) != everything(usual.after.shown):
            self._do(place)
        again = self._found(place, booted=booted)
        assert again.shown == usual.after.shown, f"done again, it is not: {_differing(usual.after.shown, again.shown)}"
        _refuse(_without(again.kept - usual.after.kept, void), "done again, it left behind")

    def _found(self, place: Place, *, booted: bool) -> State:
        found = State.of(place, self.operation.settle)
        return found.after_a_boot() if booted else found

    def _told(
        self, shown: Picture, *, unmounted: bool, booted: bool, loose: frozenset[str] | None = None
    ) -> Mapping[str, str]:
        """What is judged of a picture. What is written for the host is not synced, and may be anything after a boot."""
        without = (MOUNTED,) * unmounted + ("file ",) * booted
        left_out = self.operation.loose if loose is None else loose
        return {name: value for name, value in shown.items() if name not in left_out and not name.startswith(without)}


def _why(run: Run) -> str:
    return f"; it said: {run.failure.text}" if run.failure is not None else ""


def _without(kept: Counter[str], beginnings: tuple[str, ...]) -> Counter[str]:
    return Counter({name: count for name, count in kept.items() if not name.startswith(beginnings)})


def _refuse(left: Counter[str], words: str) -> None:
    assert not left, f"{words}: {sorted(left.elements())[:8]}"


def _differing(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    return sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))


def _said(cut: Cut, recording: Recording) -> str:
    moment = "at the end" if cut.after == len(recording.log) else f"after entry {cut.after}"
    return f"{moment}, {cut.whole} entries whole and {len(cut.pieces)} pieces more"


def _writes(log: Sequence[Entry]) -> Iterator[tuple[int, bytes]]:
    return ((entry.offset, entry.data) for entry in log if isinstance(entry, Write))


def _apply(image: int, pieces: Iterable[tuple[int, bytes]]) -> None:
    for offset, data in pieces:
        os.pwrite(image, data, offset)


def _allow(_: int, call: Call) -> None:
    """Every call."""


def _done_apart(deed: Callable[[], object]) -> None:
    """In a child that stops right after it, as a machine without power does: nothing is closed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads and fork
        process = os.fork()
    if process == 0:
        try:
            deed()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(process, 0)
    assert status == 0, "it failed, undisturbed"
