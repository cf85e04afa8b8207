"""A night of fuzzing: each target with 20 million inputs, in slices, in turns; it can be interrupted and goes on.

    PYTHONPATH=tests python -m fuzz.night [--inputs 20000000] [--only unpack,changes] [--state FILE] [--work FOLDER]

What has been tried is noted in a file, a line for each slice, under a digest of all C that was compiled: only what was
tried of today's counts, and what broke a target is no reason to leave it out when it is mended. What libFuzzer found
worth keeping stays in FOLDER, and what broke a target, too. In the end `benchmarks/results/DATE-fuzz.md` says how many
inputs each target was given, at which revisions, and what was found.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fuzz import building, seeds
from layerstore.bench import machine
from layerstore.testing.filesystems import unmount
from torture.night import revision
from torture.subjects import ROOT

Row = dict[str, Any]

SECONDS = 120
"""Of a slice."""

OPTIONS = ("-print_final_stats=1", "-rss_limit_mb=2048", "-timeout=60", "-max_len=16384")
ENVIRONMENT = {**os.environ, "ASAN_OPTIONS": "quarantine_size_mb=16:detect_leaks=1"}
_TOLD = re.compile(r"number_of_executed_units: (\d+)")
_COVERED = re.compile(r"cov: (\d+)")


def rows(state: Path, sources: str) -> list[Row]:
    """What has been tried so far of these sources (`building.sources`)."""
    found = [json.loads(line) for line in state.read_text().splitlines()] if state.exists() else []
    return [row for row in found if row.get("sources") == sources]


def tried(found: Sequence[Row], target: str) -> int:
    """The inputs that a target was given."""
    return sum(row["inputs"] for row in found if row["target"] == target)


class Turns:
    """Which target is next: the one that has had the fewest slices, which nobody is at, until each has its inputs."""

    def __init__(self, state: Path, targets: Sequence[str], inputs: int, sources: str) -> None:
        self._state = state
        self._sources = sources
        self._inputs = inputs
        self._given = dict.fromkeys(targets, 0)
        self._busy = set[str]()
        self._lock = threading.Lock()

    def take(self) -> str | None:
        """One, which is the caller's until `give_back`; None: there is nothing left that another is not at."""
        with self._lock:
            found = rows(self._state, self._sources)
            broken = {row["target"] for row in found if row["broke"]}
            free = self._given.keys() - self._busy - broken
            left = [target for target in sorted(free) if tried(found, target) < self._inputs]
            if not left:
                return None
            target = min(left, key=self._given.__getitem__)
            self._given[target] += 1
            self._busy.add(target)
            return target

    def give_back(self, target: str, row: Row) -> None:
        """Note what came of it."""
        with self._lock:
            self._busy.remove(target)
            with self._state.open("a") as file:
                file.write(json.dumps({**row, "sources": self._sources}) + "\n")
            so_far = tried(rows(self._state, self._sources), target)
            print(f"{target}: {so_far:,} inputs{row['broke'][-500:]}", flush=True)


@contextmanager
def memory() -> Iterator[Path]:
    """A tmpfs: trees are made and removed thousands of times a second."""
    with tempfile.TemporaryDirectory(prefix="layerstore-fuzz-") as folder:
        place = Path(folder) / "memory"
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
        try:
            yield place
        finally:
            unmount(place)


def sow(target: str, corpus: Path, making: Path) -> None:
    """Make the folder of what a target is given first. It has its name when it is whole, whatever ends before."""
    draft = corpus.with_name(f"{corpus.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    making.mkdir()
    for number, seed in enumerate(seeds.of(target, making)):
        (draft / f"seed{number}").write_bytes(seed)
    shutil.rmtree(making)
    draft.rename(corpus)


def slice_of(target: str, program: Path, work: Path, place: Path, at: str) -> Row:
    """Fuzz one target, as it is `at` a revision, for a while, beginning with what was worth keeping before."""
    corpus = work / target
    if not corpus.exists():
        sow(target, corpus, place / "making")
    inside = place / "work"
    inside.mkdir()
    begun = time.monotonic()
    found = building.HERE / "found" / target
    options = (*OPTIONS, f"-max_total_time={SECONDS}", f"-artifact_prefix={work}/broken-{target}-")
    folders = [corpus, *([found] if found.exists() else [])]
    done = subprocess.run([program, *options, *folders], cwd=inside, env=ENVIRONMENT, capture_output=True, check=False)
    shutil.rmtree(inside)
    text = done.stderr.decode(errors="replace")
    told, covered = _TOLD.search(text), _COVERED.findall(text)
    return {
        "revision": at,
        "target": target,
        "inputs": int(told[1]) if told is not None else 0,
        "seconds": round(time.monotonic() - begun, 1),
        "covered": int(covered[-1]) if covered else 0,
        "broke": "" if done.returncode == 0 else text[-4000:],
    }


def table(found: Sequence[Row], inputs: int) -> str:
    """What is written down in the end."""
    day = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    facts = machine.facts()
    lines = [
        "# What C reads, given what nobody has thought of",
        "",
        f"- date: {day}",
        f"- revisions: {', '.join(dict.fromkeys(row['revision'] for row in found))}",
        *(f"- {fact}: {value}" for fact, value in facts.items() if fact not in ("tar", "cp", "layerstore")),
        "",
        f"libFuzzer with ASan and UBSan; {inputs:,} inputs each were wanted.",
        "",
        "| target | inputs | edges covered | broken by | hours |",
        "| --- | --- | --- | --- | --- |",
    ]
    for target in building.TARGETS:
        own = [row for row in found if row["target"] == target]
        broken = sum(bool(row["broke"]) for row in own)
        covered = max((row["covered"] for row in own), default=0)
        hours = sum(row["seconds"] for row in own) / 3600
        lines.append(f"| {target} | {tried(found, target):,} | {covered:,} | {broken} | {hours:.1f} |")
    return "\n".join([*lines, ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000_000)
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(building.TARGETS))
    parser.add_argument("--state", type=Path, default=ROOT / ".fuzz.jsonl")
    parser.add_argument("--work", type=Path, default=ROOT / "build/fuzz")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)

    at, sources = revision(), building.sources()  # which are compiled now
    turns = Turns(options.state, options.only, options.inputs, sources)

    def go(_: int) -> None:
        with memory() as place:
            while (target := turns.take()) is not None:
                turns.give_back(target, slice_of(target, programs / target, options.work.resolve(), place, at))

    with tempfile.TemporaryDirectory(prefix="layerstore-fuzz-") as folder:
        programs = Path(folder)
        building.build(programs)
        with ThreadPoolExecutor(options.workers) as pool:
            list(pool.map(go, range(options.workers)))
    found = rows(options.state, sources)
    day = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    (options.results / f"{day}-fuzz.md").write_text(table(found, options.inputs))
    return int(any(row["broke"] for row in found))


if __name__ == "__main__":
    sys.exit(main())
