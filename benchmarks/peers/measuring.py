"""One turn after another: each kind of work by each program in turn, then all again.

Before each measurement everybody gets the same: the filesystem has nothing to write, the kernel's caches are empty,
and then the input, the program's own files and one listing of images are read.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from attrs import define, field, frozen

from benchmarks.bench import run, warm
from benchmarks.clients import Registry
from benchmarks.metering import meter
from benchmarks.peers.images import Image
from benchmarks.peers.programs import Commands, Program
from benchmarks.peers.rows import DISK, DURABLE, RETURNS, Case, Row, Stand
from layerstore.errors import LayerstoreError

_PATIENCE = 600.0
"""Seconds after which a command is not waited for any more."""

_ENOUGH: Mapping[Stand, set[Stand]] = {
    "nothing": set(),  # it is emptied even so: what a failure has left is not known
    "an image": {"an image", "a pulled image"},
    "a pulled image": {"a pulled image"},
}

Key = tuple[str, str, str, str]
"""Kind of work, figure, image, program."""


class Failed(Exception):
    """A command of a program has failed; what it said."""


@define
class Found:
    """Seconds, or bytes for what is used of the disk, of each round that counts; and what did not work."""

    figures: dict[Key, list[float]] = field(factory=dict)
    failures: dict[tuple[str, str, str], str] = field(factory=dict)
    """(kind of work, image, program) → what was said. It is not tried again."""
    cannot: set[tuple[str, str]] = field(factory=set)
    """(kind of work, program)."""
    rounds: int = 0


@frozen
class Bench:
    """All that turns share. `place` is the filesystem, `folder` lies elsewhere."""

    place: Path
    folder: Path
    programs: Sequence[Program]
    rows: Sequence[Row]
    images: Sequence[Image]
    contexts: dict[str, Path]
    """image → folder of the build."""
    registry: Registry | None
    is_cold: bool
    files: int
    found: Found = field(factory=Found)
    stands: dict[str, Stand] = field(factory=dict)
    """What a program's store has."""

    def measure(self, rounds: int, minutes: float) -> Found:
        """So many rounds after one that does not count.

        After the first of them none begins that would end later than `minutes` from now.
        """
        start = time.monotonic()
        for number in range(rounds + 1):
            began = time.monotonic()
            for image in self.images:
                self.stands.clear()
                for row in self.rows:
                    # Whoever comes first meets what the one before has left: it is somebody else each time.
                    first = number % len(self.programs)
                    for program in [*self.programs[first:], *self.programs[:first]]:
                        self.turn(row, program, image, number)
            self.found.rounds = number
            now = time.monotonic()
            print(f"round {number} of {rounds}: {now - began:.0f} s", file=sys.stderr, flush=True)
            if now - start + (now - began) > minutes * 60 and 0 < number < rounds:
                print(f"no more rounds: {minutes:g} minutes are asked for", file=sys.stderr, flush=True)
                break
        return self.found

    def turn(self, row: Row, program: Program, image: Image, number: int) -> None:
        """One kind of work by one program."""
        who = (row.key, image.title, program.title)
        if who in self.found.failures or (row.registry and self.registry is None):
            return
        with self._empty_registry() if row.registry == "empty" else nullcontext() as empty:
            case = Case(
                image,
                self.contexts[image.title],
                self.place / "saved.tar",
                f"{self.registry.host}/bench/{image.title}:1" if self.registry else "",
                f"{empty.host}/bench/pushed:1" if empty else "",
                self.files,
            )
            if row.act(program, case) is None:
                self.found.cannot.add((row.key, program.title))
                return
            try:
                figures = self._measured(row, program, case)
            except Failed as failed:
                self.found.failures[who] = str(failed)
                self.stands.pop(program.title, None)  # whatever that is now
                print(
                    f"{number}  {image.title:12} {row.key:18} {program.title:18} {failed}", file=sys.stderr, flush=True
                )
                return
        for figure, amount in figures.items():
            if number:
                key = (row.key, figure, image.title, program.title)
                self.found.figures.setdefault(key, []).append(amount)
        words = ", ".join(f"{figure} {amount:.3f}" for figure, amount in figures.items() if figure != DISK)
        print(f"{number}  {image.title:12} {row.key:18} {program.title:18} {words}", file=sys.stderr, flush=True)

    def _measured(self, row: Row, program: Program, case: Case) -> dict[str, float]:
        self._stand(row.needs, program, case)
        self._do(row.before(program, case))
        case.file.unlink(missing_ok=True)
        used = self._settled(row, program, case)
        commands = row.act(program, case) or []
        taken = self._do(commands)
        start = time.perf_counter()
        run("sync", "-f", self.place)
        rest = time.perf_counter() - start
        figures = {RETURNS: taken}
        if row.writes:
            figures[DURABLE] = taken + rest
        if row.weighs:
            figures[DISK] = float(_used(self.place) - used)
        case.file.unlink(missing_ok=True)
        self._do(row.after(program, case))
        if row.leaves is not None:
            self.stands[program.title] = row.leaves
        return figures

    def _stand(self, needed: Stand, program: Program, case: Case) -> None:
        """Let the store of a program have what is needed."""
        if self.stands.get(program.title) in _ENOUGH[needed]:
            return
        program.empty()
        if needed == "an image":
            self._do(program.load(case.image) or [])
        elif needed == "a pulled image":
            self._do(program.pull(case.image, case.pulled) or [])
            self._do(program.named(case.image, case.pulled))
        self.stands[program.title] = needed

    def _settled(self, row: Row, program: Program, case: Case) -> int:
        """Bring caches to where they are the same for all; the bytes that are in use then."""
        run("sync", "-f", self.place)
        if self.is_cold:
            run("sync")
            Path("/proc/sys/vm/drop_caches").write_text("3")
        reads = [*row.input(case), *program.files()]
        if row.registry and self.registry is not None:
            reads += [self.registry.storage, *_programs("docker-registry")]
        warm(list(dict.fromkeys(reads)))
        self._do(program.look())
        run("sync", "-f", self.place)
        return _used(self.place)

    def _do(self, commands: Commands) -> float:
        """The seconds of commands, one after another."""
        taken = 0.0
        for words in commands:
            if callable(words):
                start = time.perf_counter()
                try:
                    words()
                except (LayerstoreError, OSError, RuntimeError) as error:
                    raise Failed(str(error)) from None
                taken += time.perf_counter() - start
                continue
            ran = meter(*words, timeout=_PATIENCE)
            if not ran.is_done:
                raise Failed(f"{_shown(words)}: {ran.said}")
            taken += ran.cost.wall
        return taken

    @contextmanager
    def _empty_registry(self) -> Iterator[Registry | None]:
        if self.registry is None:
            yield None
        else:
            with tempfile.TemporaryDirectory(dir=self.folder) as name, Registry(Path(name)) as registry:
                yield registry


def _shown(words: Sequence[str | Path]) -> str:
    """A command without what is the same in all of that program, and without this run's folders."""
    parts = [os.fspath(word) for word in words]
    return " ".join([Path(parts[0]).name, *(part for part in parts[1:] if not part.startswith(("-", "/")))])


def _used(place: Path) -> int:
    """The bytes in use of a filesystem."""
    facts = os.statvfs(place)
    return (facts.f_blocks - facts.f_bfree) * facts.f_frsize


def _programs(*tools: str) -> list[Path]:
    return [Path(found).resolve() for tool in tools if (found := shutil.which(tool))]
