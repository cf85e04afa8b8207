"""A tree that was changed is kept as it is, gone back to, and begun from: by layerstore, by docker, podman, tar and cp.

    python -m benchmarks.branch --images FOLDER [--name manyfiles] [--files 10,10000] [--rounds 3] [--only WAY;...]

The image has 60,000 files; `--name python` has 16,000, to show what an image's size does. Every way has a filesystem of
its own. Beside that (`--parts ways,row,sandboxes`): a thousand checkpoints in a row, and two hundred sandboxes.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from benchmarks.bench import Measured, chosen, filesystem, machine, table, usual_options, warm, write_results
from benchmarks.branching import Aufs, Btrfs, MountedOverlay2, Overlay2, Overlay2OnXfs, Vfs, in_a_row, sandboxes
from benchmarks.rooms import cgroups_given_back
from benchmarks.ways import Docker, Podman, Reflinks, Tar, Way, synced

WAYS: tuple[type[Way], ...] = (
    Overlay2,
    MountedOverlay2,
    Overlay2OnXfs,
    Btrfs,
    Aufs,
    Vfs,
    Podman,
    Docker,
    Reflinks,
    Tar,
)
STEPS = ("checkpoint", "a sync after it", "rollback", "fork")


def measure(kind: type[Way], folder: Path, images: Path, name: str, files: list[int], rounds: int) -> list[Measured]:
    """One way, on a filesystem of its own."""
    found: dict[tuple[str, str], list[float]] = {}
    layers = sorted((images / f"{name}.layers").glob("*.tar"))
    with filesystem(folder, size=12 << 30, kind=kind.filesystem) as place:
        way = kind(place / "home", images / f"{name}.docker.tar", layers)
        way.home.mkdir()
        warm([way.archive, *layers])
        with way.ready():
            for number in range(rounds + 1):
                for changed in files:
                    way.begin(changed)
                    synced(place)
                    seconds = [way.checkpoint(), synced(place), way.rollback(changed), way.fork()]
                    way.end()
                    if number:
                        for step, taken in zip(STEPS, seconds, strict=True):
                            found.setdefault((f"{kind.title}: {step}", str(changed)), []).append(taken)
                print(f"{kind.title}: round {number} of {rounds}", file=sys.stderr, flush=True)
    return [Measured(title, changed, tuple(seconds)) for (title, changed), seconds in found.items()]


def tables(measured: list[Measured], files: list[int]) -> str:
    """Milliseconds, least / median, a table for each number of changed files."""
    found = {(one.subject, one.input): one for one in measured}
    titles = dict.fromkeys(one.subject.rpartition(": ")[0] for one in measured)
    parts = []
    for changed in files:
        rows = [
            [
                title,
                *(
                    f"{found[f'{title}: {step}', str(changed)].least * 1e3:.1f} / "
                    f"{found[f'{title}: {step}', str(changed)].median * 1e3:.1f}"
                    for step in STEPS
                ),
            ]
            for title in titles
        ]
        parts.append(table([f"{changed:,} changed files; ms, least / median", *STEPS], rows))
    return "\n\n".join(parts)


def main() -> None:
    """Measure and write the results file."""
    parser = usual_options("benchmarks.branch", __doc__)
    parser.add_argument("--name", default="manyfiles", help="which of them (default: %(default)s)")
    parser.add_argument("--files", default="10,10000", help="how many are changed (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", default="ways,row,sandboxes", help="(default: %(default)s)")
    options = parser.parse_args()

    files = [int(part) for part in options.files.split(",")]
    kinds = chosen(WAYS, options.only)

    facts = machine()
    parts = options.parts.split(",")
    images, rounds = options.images.resolve(), options.rounds
    archive = images / f"{options.name}.docker.tar"
    measured: list[Measured] = []
    row: list[Measured] = []
    remarks: list[str] = []
    with cgroups_given_back():
        if "ways" in parts:
            for kind in kinds:
                measured += measure(kind, options.work, images, options.name, files, rounds)
        for driver in (Overlay2, Btrfs):
            if "row" in parts:
                found, said = in_a_row(driver, options.work, archive)
                row += found
                remarks += said
            if "sandboxes" in parts:
                remarks += sandboxes(driver, options.work, archive)
    facts |= {"load average": f"{os.getloadavg()[2]:.1f} over the last 15 minutes"}
    row.sort(key=lambda one: (one.subject, float(re.findall(r"\d+|$", one.input)[0] or 0)))
    shown = [tables(measured, files)] if measured else []
    if row:
        lines = [
            [one.subject, one.input, f"{one.least * 1e3:.1f} / {one.median * 1e3:.1f}", f"{max(one.seconds) * 1e3:.1f}"]
            for one in row
        ]
        shown.append(table(["a thousand checkpoints in a row", "which", "ms, least / median", "most"], lines))
    write_results(
        options.results / f"{facts['date']}-branch",
        title="Containers that branch",
        facts=facts,
        measured=measured + row,
        tables="\n\n".join(shown),
        remarks=[
            *remarks,
            f"Of the ways: {options.rounds} rounds after one that does not count.",
            "The filesystem is synced before a checkpoint, so that what was changed is not in its time; the sync"
            " after it is what it has left to be written.",
            "docker and podman by command line; a rollback is `rm` of what was changed since and `create` from the"
            " committed image, a fork a `create`. With tar and cp it is the whole tree.",
        ],
    )


if __name__ == "__main__":
    main()
