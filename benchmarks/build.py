"""Images built from Dockerfiles: layerstore beside buildah and docker.

    python -m benchmarks.build --images FOLDER [--name python] [--rounds 5] [--only SUBJECT;...]

The base is the lowest layer of NAME, a Debian root. Each builder builds the same context by its own command, with the
host's network, and has it in its own storage on the same disk. What is timed, until the command returns:

  cached      all of 20 steps are cached; the context has 60,000 files, none of which has changed
  one file    the same, and the file that the last step copies has changed
  20 RUN      RUN true, twenty times, nothing cached
  COPY        20,000 files in one step, nothing cached
  two stages  two that do not need each other and wait half a second each, and a third that copies from both
"""

from __future__ import annotations

import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.bench import (
    Measured,
    chosen,
    dockerd,
    filesystem,
    machine,
    table,
    usual_options,
    warm,
    write_results,
)
from benchmarks.rooms import Room, cgroups_given_back, open_rooms

BASE = "localhost/debian:1"
CACHED, ONE_FILE, RUNS, COPY, STAGES = "cached", "one file", "20 RUN", "COPY", "two stages"
CASES = (CACHED, ONE_FILE, RUNS, COPY, STAGES)
AGAIN = (RUNS, COPY, STAGES)
"""Those that are built without a cache."""


def contexts(place: Path) -> dict[str, Path]:
    """The folder of each case."""
    made = {name: place / name.replace(" ", "-") for name in CASES if name != ONE_FILE}
    for folder in made.values():
        folder.mkdir(parents=True)
    files(made[CACHED] / "tree", 60_000)
    (made[CACHED] / "last").write_text("0\n")
    steps = [
        f"FROM {BASE}",
        "COPY tree /tree",
        *(f"RUN echo {number} > /{number}" for number in range(18)),
        "COPY last /",
    ]
    dockerfile(made[CACHED], steps)
    made[ONE_FILE] = made[CACHED]
    dockerfile(made[RUNS], [f"FROM {BASE}", *["RUN true"] * 20])
    files(made[COPY] / "tree", 20_000)
    dockerfile(made[COPY], [f"FROM {BASE}", "COPY tree /tree"])
    waits = "FROM {0} AS {1}\nRUN sleep 0.5 && echo {1} > /{1}"
    stages = [waits.format(BASE, name) for name in ("one", "two")]
    dockerfile(made[STAGES], [*stages, f"FROM {BASE}", "COPY --from=one /one /", "COPY --from=two /two /"])
    return made


def files(folder: Path, count: int) -> None:
    """A tree of small files, a hundred a folder."""
    for number in range(0, count, 100):
        below = folder / f"{number // 1000:03}" / f"{number // 100:04}"
        below.mkdir(parents=True)
        for one in range(number, number + 100):
            (below / f"file-{one}").write_text(f"{one}\n" * 50)


def dockerfile(folder: Path, lines: list[str]) -> None:
    (folder / "Dockerfile").write_text("\n".join(lines) + "\n")


class Subject(ABC):
    """One builder, with its storage in `home`."""

    title: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, home: Path, room: Room) -> None:
        self.home = home
        self.room = room

    @contextmanager
    def ready(self, tar: Path) -> Iterator[None]:
        """While inside: it has the base. Untimed."""
        self.take(tar)
        yield

    @abstractmethod
    def take(self, tar: Path) -> None:
        """Make the base of a tar."""

    @abstractmethod
    def build(self, context: Path, *, cached: bool) -> float:
        """Seconds of one build."""


class Ours(Subject):
    title = "layerstore, crun, overlay2"
    needs = ("crun",)

    def command(self, *words: str | Path) -> list[str]:
        program = Path(sys.executable).with_name("layerstore")
        return [str(program), "--config", f"{self.home}/daemon.json", *map(str, words)]

    def take(self, tar: Path) -> None:
        places = {"data-root": f"{self.home}/store", "exec-root": f"{self.home}/run", "storage-driver": "overlay2"}
        (self.home / "daemon.json").write_text(json.dumps({**places, "default-runtime": "crun"}))
        self.room.timed(*self.command("import", tar, BASE))

    def build(self, context: Path, *, cached: bool) -> float:
        options = [] if cached else ["--no-cache"]
        return self.room.timed(*self.command("build", "-q", *options, "-t", context.name.lower(), context))


class Buildah(Subject):
    title = "buildah, crun, overlay"
    needs = ("buildah", "podman", "crun")

    def command(self, *words: str | Path) -> list[str]:
        places = [f"--root={self.home}/root", f"--runroot={self.home}/run", "--storage-driver=overlay"]
        return ["buildah", *places, *map(str, words)]

    def take(self, tar: Path) -> None:
        self.room.timed("podman", *self.command()[1:], "import", "-q", tar, BASE)

    def build(self, context: Path, *, cached: bool) -> float:
        how = ["--isolation=oci", "--runtime=crun", "--cgroupns=host", "--network=host", "--pull-never"]
        options = ["--layers"] if cached else ["--layers", "--no-cache"]
        return self.room.timed(*self.command("bud", "-q", *how, *options, "-t", context.name.lower(), context))


class BuildahChroot(Buildah):
    """Without a runtime: the quickest that it has."""

    title = "buildah, chroot, overlay"

    def build(self, context: Path, *, cached: bool) -> float:
        options = ["--layers"] if cached else ["--layers", "--no-cache"]
        how = ["--isolation=chroot", "--network=host", "--pull-never"]
        return self.room.timed(*self.command("bud", "-q", *how, *options, "-t", context.name.lower(), context))


class Docker(Subject):
    title = "docker (classic builder), runc, overlay2"
    needs = ("docker", "dockerd", "runc")

    def command(self, *words: str | Path) -> list[str]:
        return ["env", "DOCKER_BUILDKIT=0", "docker", "--host", f"unix://{self.home}/socket", *map(str, words)]

    @contextmanager
    def ready(self, tar: Path) -> Iterator[None]:
        with dockerd(self.home), super().ready(tar):
            yield

    def take(self, tar: Path) -> None:
        self.room.timed(*self.command("import", tar, BASE))

    def build(self, context: Path, *, cached: bool) -> float:
        options = [] if cached else ["--no-cache"]
        return self.room.timed(
            *self.command("build", "-q", "--network", "host", *options, "-t", context.name.lower(), context)
        )


SUBJECTS: tuple[type[Subject], ...] = (Ours, Buildah, BuildahChroot, Docker)


def measure(subjects: list[Subject], folders: dict[str, Path], rounds: int) -> list[Measured]:
    """Each subject in turn on each case, then all again; the first round does not count."""
    found: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds + 1):
        for case in CASES:
            if case == ONE_FILE:
                (folders[case] / "last").write_text(f"{number + 1}\n")
            for subject in subjects:
                taken = subject.build(folders[case], cached=case not in AGAIN)
                if number:
                    found.setdefault((subject.title, case), []).append(taken)
        print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
    return [Measured(title, case, tuple(seconds)) for (title, case), seconds in found.items()]


def tables(measured: list[Measured]) -> str:
    """Milliseconds, least / median; and our median in parts of the best peer's."""
    found = {(one.subject, one.input): one for one in measured}
    titles = list(dict.fromkeys(one.subject for one in measured))
    rows = []
    for case in CASES:
        cells = [f"{found[title, case].least * 1e3:.0f} / {found[title, case].median * 1e3:.0f}" for title in titles]
        peers = [found[title, case].median for title in titles if title != Ours.title]
        share = f"{found[Ours.title, case].median / min(peers):.2f}" if peers and Ours.title in titles else ""
        rows.append([case, *cells, share])
    return table(["ms, least / median", *titles, "ours : best peer"], rows)


def main() -> None:
    """Measure and write the results file."""
    parser = usual_options("benchmarks.build", __doc__)
    parser.add_argument("--name", default="python", help="whose lowest layer is taken (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    tar = options.images.resolve() / f"{options.name}.layers" / "000.tar"
    kinds = chosen(SUBJECTS, options.only)
    facts: dict[str, Any] = machine()
    with cgroups_given_back(), filesystem(options.work, size=12 << 30) as place, ExitStack() as stack:
        folders = contexts(place / "contexts")
        warm([tar, *set(folders.values())])
        rooms = stack.enter_context(open_rooms(place, len(kinds)))
        subjects = []
        for kind, home in zip(kinds, rooms.homes, strict=True):
            room = rooms.room(bears_hybrid=issubclass(kind, Ours | Docker))
            subject = kind(home, room)
            subjects.append(subject)
            stack.enter_context(subject.ready(tar))
        measured = measure(subjects, folders, options.rounds)
    facts |= {"load average": f"{os.getloadavg()[2]:.1f} over the last 15 minutes"}
    write_results(
        options.results / f"{facts['date']}-build",
        title="Images built from Dockerfiles",
        facts=facts,
        measured=measured,
        tables=tables(measured),
        remarks=[
            f"{options.rounds} rounds after one that does not count, interleaved: each subject in turn on each case.",
            "By command line, its start included. Contexts and all storages are on the one disk.",
            *str(__doc__).split("\n\n")[-1].strip().splitlines(),
        ],
    )


if __name__ == "__main__":
    main()
