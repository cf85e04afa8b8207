"""Durable pull of an image from a registry on this machine: layerstore against skopeo and podman.

    python -m benchmarks.pull --images FOLDER [--names python,manyfiles] [--rounds 5] [--only SUBJECT,...]

FOLDER holds, for each NAME, the layout `NAME.oci` (README.md in this folder). It is pushed to a docker-registry that
runs for as long as this does; every subject starts with an empty store on a fresh ext4 and a synced filesystem. It is
timed until its files are on disk: `sync -f` is part of the time of all but layerstore, which syncs by itself. CPU is
that of the subject alone, not the registry's.
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

from benchmarks.bench import Measured, filesystem, machine, run, table, unmount_below, warm, write_results

NAMES = ("python", "manyfiles", "bigfile")


class Subject(ABC):
    """One way to get an image out of a registry, into `home`."""

    title: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    syncs_itself: ClassVar[bool] = False

    def __init__(self, home: Path) -> None:
        self.home = home

    @abstractmethod
    def pull(self, name: str) -> None:
        """The work that is timed."""

    def empty(self) -> None:
        """Everything away again, untimed."""
        unmount_below(self.home)
        for path in self.home.iterdir():
            shutil.rmtree(path)


class Layerstore(Subject):
    title = "layerstore pull"
    syncs_itself = True
    driver: ClassVar[str] = "overlay2"

    def pull(self, name: str) -> None:
        program = Path(sys.executable).with_name("layerstore")
        run(program, "--root", self.home / "store", "-s", self.driver, "pull", "-q", name)


class Skopeo(Subject):
    title = "skopeo copy -> containers-storage"
    needs = ("skopeo",)

    def pull(self, name: str) -> None:
        store = f"containers-storage:[overlay@{self.home}/root+{self.home}/run]localhost/pulled:latest"
        run("skopeo", "copy", "-q", "--insecure-policy", "--src-tls-verify=false", f"docker://{name}", store)


class Podman(Subject):
    title = "podman pull, overlay"
    needs = ("podman",)

    def pull(self, name: str) -> None:
        places = [f"--root={self.home}/root", f"--runroot={self.home}/run", "--storage-driver=overlay"]
        run("podman", *places, "pull", "-q", "--tls-verify=false", name)


SUBJECTS: tuple[type[Subject], ...] = (Layerstore, Skopeo, Podman)


@contextmanager
def registry(folder: Path) -> Iterator[str]:
    """A docker-registry that keeps its blobs in `folder`; its host and port."""
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
    names: dict[str, str], storage: Path, subjects: list[Subject], *, rounds: int, place: Path
) -> tuple[dict[tuple[str, str], list[float]], dict[tuple[str, str], list[float]]]:
    """Wall and CPU seconds of every subject on every image, in turn, after one round that does not count."""
    walls: dict[tuple[str, str], list[float]] = {}
    cpus: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds + 1):
        for image, name in names.items():
            for subject in subjects:
                warm([storage])
                run("sync", "-f", place)
                before, start = cpu(), time.perf_counter()
                subject.pull(name)
                used, pulled = cpu() - before, time.perf_counter()
                run("sync", "-f", place)
                taken = (pulled if subject.syncs_itself else time.perf_counter()) - start
                text = f"round {number}  {image:12} {subject.title:36} {taken:7.2f} s, CPU {used:6.2f} s"
                print(text, file=sys.stderr, flush=True)
                if number:
                    walls.setdefault((subject.title, image), []).append(taken)
                    cpus.setdefault((subject.title, image), []).append(used)
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
        peers = [title for title in titles if title != Layerstore.title]
        if peers and Layerstore.title in titles:
            ratios = [medians[Layerstore.title, n] / min(medians[peer, n] for peer in peers) for n in names]
            rows.append([f"**layerstore : best peer, {kind}**", *(f"**{ratio:.2f}**" for ratio in ratios)])
    return table(["seconds, median", *names], rows)


def main() -> None:
    """Measure and write the results file."""
    parser = argparse.ArgumentParser(description="Durable pull: layerstore against skopeo and podman.")
    parser.add_argument("--images", type=Path, required=True, help="folder with NAME.oci")
    parser.add_argument("--names", default=",".join(NAMES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="subjects whose titles begin so, with commas between")
    parser.add_argument("--place", type=Path, default=Path("/var/tmp"), help="where the filesystem's file lies")
    parser.add_argument("--size", type=int, default=24, help="GiB of the filesystem")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    names = given.names.split(",")
    wanted = tuple(given.only.split(",")) if given.only else ("",)
    kinds = [kind for kind in SUBJECTS if kind.title.startswith(wanted) and all(map(shutil.which, kind.needs))]
    with (
        tempfile.TemporaryDirectory(prefix="layerstore-registry-", dir=given.place) as folder,
        registry(Path(folder)) as host,
        filesystem(given.place, size=given.size << 30) as place,
    ):
        pushed = {}
        for name in names:
            pushed[name] = f"{host}/bench/{name}:latest"
            layout = f"oci:{given.images / name}.oci:latest"
            run(
                "skopeo",
                "copy",
                "-q",
                "--insecure-policy",
                "--dest-tls-verify=false",
                layout,
                f"docker://{pushed[name]}",
            )
        subjects = []
        for number, kind in enumerate(kinds):
            home = place / str(number)
            home.mkdir()
            subjects.append(kind(home))
        walls, cpus = measure(pushed, Path(folder) / "storage", subjects, rounds=given.rounds, place=place)
    titles = [subject.title for subject in subjects]
    facts = machine()
    write_results(
        given.results / f"{facts['date']}-pull",
        title="Pull from docker-registry on the same machine",
        facts=facts,
        measured=[
            Measured(f"{title}, {kind}", name, tuple(found[title, name]))
            for kind, found in (("wall", walls), ("CPU", cpus))
            for title, name in found
        ],
        tables=tables(walls, cpus, titles, names),
        remarks=[
            "Until everything is on disk: `sync -f` is part of the time of all but layerstore, which syncs by itself.",
            "The registry's own CPU is not counted, but it runs on the same cores.",
        ],
    )


if __name__ == "__main__":
    os.environ.setdefault("LC_ALL", "C.UTF-8")
    main()
