"""`make torture`: all operations, all drivers, all points. It shows its progress, can be continued, ends in a table.

What has been walked is noted in a file, a line for each (subject, operation, kind), under the revision of the sources
and the share of the points that was asked for; a line that is there is not walked again. Whoever asks for each tenth
point only (`--every 10`), or takes over what was walked of other revisions (`--any`), gets a table that says so.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from tempfile import TemporaryDirectory

from attrs import define, frozen

from layerstore.testing.filesystems import enter_private_namespace, unmount
from layerstore.testing.torture import Ground, Operation, Subject, Walk, Walked
from torture.subjects import POWER, ROOT, SUBJECTS, operations, unknown_installed
from torture.table import Row, write_table

MANY, FEW = 100, 25
"""Random moments at which the power fails, beside each flush: of overlay2 and btrfs, and of the others."""


_SCRATCH = re.compile(r"[^\s'\"]*/layerstore-torture-[^/]*/\d+/")
"""What paths of a machine begin with, in what is written down."""


@frozen
class Job:
    """One operation of one subject, with the kinds of faults that are not walked yet."""

    subject: Subject
    operation: Operation
    kinds: tuple[str, ...]


@define
class Teller:
    """Says how far a walk is, once every few seconds."""

    label: str
    count: int
    done: int = 0
    told: float = 0.0

    def step(self) -> None:
        """One point more."""
        self.done += 1
        now = time.monotonic()
        if now - self.told > 10:
            self.told = now
            print(f"  {self.label}: {self.done} of {self.count}", flush=True)


def kinds_of(subject: Subject, operation: Operation) -> tuple[str, ...]:
    """Those that depend on the filesystem are walked on each."""
    return tuple(kind for kind in operation.kinds if kind == "power" or subject in SUBJECTS)


def jobs(walks: Sequence[Row]) -> Iterator[Job]:
    """What is still to be done: the most important operation first, with each subject."""
    walked = {(row["subject"], row["operation"], row["kind"]) for row in walks}
    everything = {subject: operations(subject) for subject in (*SUBJECTS, *POWER)}
    for at_once in zip(*everything.values(), strict=True):
        for subject, operation in zip(everything, at_once, strict=True):
            left = [kind for kind in kinds_of(subject, operation) if (str(subject), str(operation), kind) not in walked]
            if left:
                yield Job(subject, operation, tuple(left))


def rows(state: Path, every: int, revision: str | None) -> list[Row]:
    """What has been walked of these sources, or of any, with that share of the points; the latest of each."""
    lines = state.read_text().splitlines() if state.exists() else []
    found: list[Row] = [json.loads(line) for line in lines]
    fits = [row for row in found if row["every"] == every and revision in (None, row["revision"])]
    return list({(row["subject"], row["operation"], row["kind"]): row for row in fits}.values())


def revision() -> str:
    """Of the sources; what is not committed yet has none of its own."""
    done = subprocess.run(
        ["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def walked(walk: Walk, kind: str, every: int, label: str) -> Walked:
    """All points of a kind, or each of so many."""

    def all_of(found: Sequence[object], go: Callable[..., Walked]) -> Walked:
        chosen = found[::every]
        return go(chosen, Teller(f"{label}, {kind}", len(chosen)).step)

    if kind == "statements":
        return all_of(range(1, walk.statements() + 1), walk.die_between_statements)
    if kind == "lines":
        return all_of(range(1, walk.lines() + 1), walk.die_between_lines)
    if kind == "power":
        recording = walk.record()
        many = MANY if walk.ground.subject.driver in ("overlay2", "btrfs") else FEW
        cuts = walk.cuts(recording, many)
        end = [cut for cut in cuts if cut.after == len(recording.log)]
        return all_of(
            [*end, *(cut for cut in cuts if cut not in end)], lambda some, tell: walk.cut(recording, some, tell)
        )
    return all_of(walk.points(kind), walk.fail)


def work(todo: Sequence[Job], turn: Synchronized[int], state: Path, every: int) -> None:
    """Walk what nobody else has taken, until all is."""
    enter_private_namespace()
    grounds: dict[Subject, Ground] = {}
    with TemporaryDirectory(prefix="layerstore-torture-") as folder, unknown_installed():
        while (number := taken(turn)) < len(todo):
            job = todo[number]
            label = f"{job.subject}: {job.operation}"
            try:
                if job.subject not in grounds:
                    grounds[job.subject] = Ground(in_memory(Path(folder) / str(len(grounds))), job.subject)
                walk = Walk(grounds[job.subject], job.operation)
            except AssertionError as error:
                print(f"{label} could not be tried at all: {error}", flush=True)
                continue
            for kind in job.kinds:
                began = time.monotonic()
                done = walked(walk, kind, every, label)
                note(state, job, kind, done, every, time.monotonic() - began)
        for ground in grounds.values():
            unmount(ground.scratch)


def in_memory(folder: Path) -> Path:
    """A folder for a ground, with a tmpfs for what it keeps."""
    memory = folder / "memory"
    memory.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", memory], check=True)
    return folder


def taken(turn: Synchronized[int]) -> int:
    """The number of the next job."""
    with turn.get_lock():
        turn.value += 1
        return turn.value - 1


def note(state: Path, job: Job, kind: str, done: Walked, every: int, seconds: float) -> None:
    """Write down what came of a walk, and say it."""
    row = {
        "revision": revision(),
        "every": every,
        "subject": str(job.subject),
        "operation": str(job.operation),
        "kind": kind,
        "points": done.points,
        "missed": done.missed,
        "losses": [{"where": loss.where, "what": _SCRATCH.sub("/", loss.what)} for loss in done.losses],
        "seconds": round(seconds, 1),
    }
    with state.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(f"{job.subject}: {job.operation}, {kind}: {done.points} points, lost {len(done.losses)}", flush=True)
    for loss in done.losses:
        print(f"  LOST {loss.where}: {loss.what}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, default=ROOT / ".torture.jsonl", help="what has been walked")
    parser.add_argument("--every", type=int, default=1, help="walk only each of so many points")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results", help="where the table goes")
    parser.add_argument("--table", action="store_true", help="only write the table of what has been walked")
    parser.add_argument("--any", action="store_true", help="take over what was walked of other revisions")
    options = parser.parse_args()
    wanted = None if options.any else revision()
    with unknown_installed():
        known = rows(options.state, options.every, wanted)
        todo = [] if options.table else list(jobs(known))
        expected = [
            (str(subject), str(operation), kind)
            for subject in dict.fromkeys((*SUBJECTS, *POWER))
            for operation in operations(subject)
            for kind in kinds_of(subject, operation)
        ]
    print(f"{len(todo)} operations are to be tried", flush=True)
    fork = multiprocessing.get_context("fork")
    turn = fork.Value("i", 0)
    workers = [
        fork.Process(target=work, args=(todo, turn, options.state, options.every))
        for _ in range(min(options.workers, len(todo)))
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    found = rows(options.state, options.every, wanted)
    table = write_table(options.results, found, expected, options.every)
    print(f"the table is in {table}")
    lost = sum(len(row["losses"]) for row in found)
    return 1 if lost or any(worker.exitcode for worker in workers) else 0


if __name__ == "__main__":
    sys.exit(main())
