"""`make torture`: all operations, all drivers, all points. It shows its progress, can be continued, ends in a table.

What has been walked is noted in a file, a line for each (subject, operation, kind), under the revision of the sources
and the share of the points that was asked for; a line that is there is not walked again. Whoever asks for each tenth
point only (`--every 10`), or takes over what was walked of other revisions (`--any`), gets a table that says so. Such
shares add up: `--every 10 --first 3` are the points 3, 13, 23 and so on, and after ten of them all were walked.

A call can fail with three to five errors, and most of what follows is the same: each call fails in each night, with
another error in the next (`--turn 1`, and so on), and with all of them if one asks for it (`--turn all`).
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from tempfile import TemporaryDirectory

from attrs import asdict, define, frozen

from layerstore.testing.filesystems import enter_private_namespace, unmount
from layerstore.testing.torture import Ground, Operation, Point, Subject, Walk, Walked
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


def jobs(walks: Sequence[Row], only: str = "") -> Iterator[Job]:
    """What is still to be done: the most important operation first, with each subject.

    `only`: what has this in the name of subject or operation.
    """
    walked = {(row["subject"], row["operation"], row["kind"]) for row in walks}
    everything = {subject: operations(subject) for subject in (*SUBJECTS, *POWER)}
    for at_once in itertools.zip_longest(*everything.values()):
        for subject, operation in zip(everything, at_once, strict=True):
            if operation is None or only not in f"{subject}: {operation}":
                continue
            left = [kind for kind in kinds_of(subject, operation) if (str(subject), str(operation), kind) not in walked]
            if left:
                yield Job(subject, operation, tuple(left))


def one_each(points: Sequence[Point], turn: int | None) -> list[Point]:
    """Of the points of one call, which differ by what becomes of it, the one whose turn it is; None: all of them."""
    if turn is None:
        return [*points]
    found = []
    for (_, number), faults in itertools.groupby(points, lambda point: (point.name, point.number)):
        choice = [*faults]
        found.append(choice[(turn + number) % len(choice)])
    return found


def rows(state: Path, every: int, turn: int | None, revision: str | None) -> list[Row]:
    """What has been walked of these sources, or of any, with shares of that size; the latest of each."""
    lines = state.read_text().splitlines() if state.exists() else []
    found: list[Row] = [{"first": 0, **json.loads(line)} for line in lines]
    share = (every, turn)
    fits = [row for row in found if (row["every"], row["turn"]) == share and revision in (None, row["revision"])]
    return list({(row["first"], row["subject"], row["operation"], row["kind"]): row for row in fits}.values())


def revision() -> str:
    """Of the sources; what is not committed yet has none of its own."""
    done = subprocess.run(
        ["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


@frozen
class Share:
    """Of the points of a walk each of so many, from the first that is meant, counted from 0; and the turn of errors."""

    every: int
    first: int
    turn: int | None


def walked(walk: Walk, kind: str, share: Share, label: str) -> Walked:
    """The points of a kind that are in the share."""

    def all_of(found: Sequence[object], go: Callable[..., Walked]) -> Walked:
        chosen = found[share.first :: share.every]
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
    return all_of(one_each(walk.points(kind), share.turn), walk.fail)


def work(todo: Sequence[Job], next_job: Synchronized[int], state: Path, share: Share) -> None:
    """Walk what nobody else has taken, until all is."""
    enter_private_namespace()
    grounds: dict[Subject, Ground] = {}
    with TemporaryDirectory(prefix="layerstore-torture-") as folder, unknown_installed():
        while (number := taken(next_job)) < len(todo):
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
                done = walked(walk, kind, share, label)
                note(state, job, kind, done, share, time.monotonic() - began)
        for ground in grounds.values():
            unmount(ground.scratch)


def in_memory(folder: Path) -> Path:
    """A folder for a ground, with a tmpfs for what it keeps."""
    memory = folder / "memory"
    memory.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", memory], check=True)
    return folder


def taken(next_job: Synchronized[int]) -> int:
    """The number of the next job."""
    with next_job.get_lock():
        next_job.value += 1
        return next_job.value - 1


def note(state: Path, job: Job, kind: str, done: Walked, share: Share, seconds: float) -> None:
    """Write down what came of a walk, and say it."""
    row = {
        "revision": revision(),
        **asdict(share),
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
    parser.add_argument("--first", type=int, default=0, help="from this one on, with --every: shares add up")
    parser.add_argument(
        "--turn",
        type=lambda word: None if word == "all" else int(word),
        default=0,
        help="which of its errors a call fails with: another for each number, all for `all`",
    )
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)) + 1)
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results", help="where the table goes")
    parser.add_argument("--table", action="store_true", help="only write the table of what has been walked")
    parser.add_argument("--any", action="store_true", help="take over what was walked of other revisions")
    parser.add_argument(
        "--only", metavar="WORD", default="", help='walk only what has this in its name: "erofs on ext4: pull lazily"'
    )
    options = parser.parse_args()
    if not 0 <= options.first < options.every:
        parser.error("--first is one of the points up to --every, counted from 0")
    share = Share(options.every, options.first, options.turn)
    wanted = None if options.any else revision()
    with unknown_installed():
        known = rows(options.state, share.every, share.turn, wanted)
        done = [row for row in known if row["first"] == share.first]
        todo = [] if options.table else list(jobs(done, options.only))
        expected = [
            (str(subject), str(operation), kind)
            for subject in dict.fromkeys((*SUBJECTS, *POWER))
            for operation in operations(subject)
            for kind in kinds_of(subject, operation)
        ]
    print(f"{len(todo)} operations are to be tried", flush=True)
    fork = multiprocessing.get_context("fork")
    next_job = fork.Value("i", 0)
    workers = [
        fork.Process(target=work, args=(todo, next_job, options.state, share))
        for _ in range(min(options.workers, len(todo)))
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    found = rows(options.state, share.every, share.turn, wanted)
    table = write_table(options.results, found, expected, share.every, share.turn)
    print(f"the table is in {table}")
    lost = sum(len(row["losses"]) for row in found)
    return 1 if lost or any(worker.exitcode for worker in workers) else 0


if __name__ == "__main__":
    sys.exit(main())
