"""Push of an image to a registry on this machine: layerstore against skopeo and podman.

    python -m benchmarks.push --images FOLDER [--names python,manyfiles] [--rounds 5] [--only SUBJECT,...]

FOLDER holds, for each NAME, the archive `NAME.docker.tar` (README.md in this folder), which every subject has loaded
before. Each push goes to a docker-registry that was started for it and has nothing, so that all layers are compressed
and sent: nobody has a blob to send again. CPU is that of the subject alone, not the registry's.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from benchmarks.bench import Measured, filesystem, machine, run, table, unmount_below, write_results

NAMES = ("python", "manyfiles", "bigfile")


class Subject(ABC):
    """One way to give an image to a registry, out of a store in `home`."""

    title: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, home: Path) -> None:
        self.home = home

    @abstractmethod
    def load(self, archive: Path) -> None:
        """Have the image in the store, untimed."""

    @abstractmethod
    def push(self, name: str) -> None:
        """The work that is timed."""

    def empty(self) -> None:
        """Everything away again, untimed."""
        unmount_below(self.home)
        for path in self.home.iterdir():
            shutil.rmtree(path)


class Layerstore(Subject):
    title = "layerstore push"

    def load(self, archive: Path) -> None:
        self._run("load", "-q", "--name", "localhost/pushed", "-i", archive)

    def push(self, name: str) -> None:
        self._run("tag", "localhost/pushed", name)
        self._run("push", "-q", name)

    def _run(self, *words: str | Path) -> None:
        run(Path(sys.executable).with_name("layerstore"), "--root", self.home / "store", *words)


class LayerstoreZstd(Layerstore):
    title = "layerstore push --compression zstd"

    def push(self, name: str) -> None:
        self._run("tag", "localhost/pushed", name)
        self._run("push", "-q", "--compression", "zstd", name)


class Skopeo(Subject):
    title = "skopeo copy, containers-storage"
    needs = ("skopeo",)

    @property
    def _store(self) -> str:
        return f"containers-storage:[overlay@{self.home}/root+{self.home}/run]localhost/pushed:latest"

    def load(self, archive: Path) -> None:
        run("skopeo", "copy", "-q", "--insecure-policy", f"docker-archive:{archive}", self._store)

    def push(self, name: str) -> None:
        run("skopeo", "copy", "-q", "--insecure-policy", "--dest-tls-verify=false", self._store, f"docker://{name}")


class Podman(Subject):
    title = "podman push, overlay"
    needs = ("podman", "skopeo")

    def load(self, archive: Path) -> None:
        store = f"containers-storage:[overlay@{self.home}/root+{self.home}/run]localhost/pushed:latest"
        run("skopeo", "copy", "-q", "--insecure-policy", f"docker-archive:{archive}", store)

    def push(self, name: str) -> None:
        places = [f"--root={self.home}/root", f"--runroot={self.home}/run", "--storage-driver=overlay"]
        run("podman", *places, "push", "-q", "--tls-verify=false", "localhost/pushed", f"docker://{name}")


SUBJECTS: tuple[type[Subject], ...] = (Layerstore, LayerstoreZstd, Skopeo, Podman)


@contextmanager
def registry(place: Path) -> Iterator[str]:
    """A docker-registry without content; its host and port."""
    with tempfile.TemporaryDirectory(prefix="layerstore-registry-", dir=place) as name:
        folder = Path(name)
        settings = {
            "version": 0.1,
            "log": {"level": "info", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}},
            "http": {"addr": "127.0.0.1:0", "secret": "of the benchmark"},
        }
        (folder / "config.yml").write_text(json.dumps(settings))
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "docker-registry", "serve", str(folder / "config.yml")],
                env={"PATH": "/usr/bin:/bin", "OTEL_TRACES_EXPORTER": "none"},
                stdout=log,
                stderr=log,
            )
        try:
            for _ in range(500):
                if found := re.search(r"listening on (127\.0\.0\.1:\d+)", (folder / "log").read_text()):
                    break
                time.sleep(0.02)
            else:
                sys.exit("docker-registry does not start")
            yield found[1]
        finally:
            process.kill()
            process.wait()


def cpu() -> float:
    """The seconds of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(
    archives: dict[str, Path], subjects: list[Subject], *, rounds: int, place: Path
) -> tuple[dict[tuple[str, str], list[float]], dict[tuple[str, str], list[float]]]:
    """Wall and CPU seconds of every subject on every image, in turn, after one round that does not count."""
    walls: dict[tuple[str, str], list[float]] = {}
    cpus: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds + 1):
        for name, archive in archives.items():
            for subject in subjects:
                subject.load(archive)
                run("sync", "-f", place)
                with registry(place) as host:
                    before, start = cpu(), time.perf_counter()
                    subject.push(f"{host}/bench/{name}:latest")
                    taken = time.perf_counter() - start
                    used = cpu() - before
                text = f"round {number}  {name:12} {subject.title:36} {taken:7.2f} s, CPU {used:6.2f} s"
                print(text, file=sys.stderr, flush=True)
                if number:
                    walls.setdefault((subject.title, name), []).append(taken)
                    cpus.setdefault((subject.title, name), []).append(used)
                subject.empty()
    return walls, cpus


def tables(
    walls: dict[tuple[str, str], list[float]],
    cpus: dict[tuple[str, str], list[float]],
    titles: list[str],
    names: list[str],
) -> str:
    """Medians of seconds and CPU seconds, and the ratio of layerstore to the best peer."""
    rows = []
    for kind, found in (("wall", walls), ("CPU", cpus)):
        medians = {key: statistics.median(values) for key, values in found.items()}
        rows += [[f"{title}, {kind}", *(f"{medians[title, name]:.2f}" for name in names)] for title in titles]
        peers = [title for title in titles if not title.startswith(Layerstore.title)]
        if peers and Layerstore.title in titles:
            ratios = [medians[Layerstore.title, n] / min(medians[peer, n] for peer in peers) for n in names]
            rows.append([f"**layerstore : best peer, {kind}**", *(f"**{ratio:.2f}**" for ratio in ratios)])
    return table(["seconds, median", *names], rows)


def main() -> None:
    """Measure and write the results file."""
    parser = argparse.ArgumentParser(description="Push: layerstore against skopeo and podman.")
    parser.add_argument("--images", type=Path, required=True, help="folder with NAME.docker.tar")
    parser.add_argument("--names", default=",".join(NAMES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="subjects whose titles begin so, with commas between")
    parser.add_argument("--place", type=Path, default=Path("/var/tmp"), help="where the filesystem's file lies")
    parser.add_argument("--size", type=int, default=24, help="GiB of the filesystem")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    archives = {name: given.images / f"{name}.docker.tar" for name in given.names.split(",")}
    wanted = tuple(given.only.split(",")) if given.only else ("",)
    kinds = [kind for kind in SUBJECTS if kind.title.startswith(wanted) and all(map(shutil.which, kind.needs))]
    with filesystem(given.place, size=given.size << 30) as place:
        subjects = []
        for number, kind in enumerate(kinds):
            home = place / str(number)
            home.mkdir()
            subjects.append(kind(home))
        walls, cpus = measure(archives, subjects, rounds=given.rounds, place=place)
    titles = [subject.title for subject in subjects]
    facts = machine()
    write_results(
        given.results / f"{facts['date']}-push",
        title="Push to docker-registry on the same machine",
        facts=facts,
        measured=[
            Measured(f"{title}, {kind}", name, tuple(found[title, name]))
            for kind, found in (("wall", walls), ("CPU", cpus))
            for title, name in found
        ],
        tables=tables(walls, cpus, titles, list(archives)),
        remarks=[
            "Loaded from a docker-archive before; the registry has nothing, so every layer is compressed and sent.",
            "The registry's own CPU is not counted, but it runs on the same cores.",
            "layerstore's time has that of `layerstore tag`, too.",
        ],
    )


if __name__ == "__main__":
    os.environ.setdefault("LC_ALL", "C.UTF-8")
    main()
