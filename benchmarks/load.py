"""Durable load of an image: layerstore against plain tar, docker, podman, skopeo and umoci.

    python -m benchmarks.load --images FOLDER [--names python,manyfiles] [--rounds 5] [--only SUBJECT,...]

FOLDER holds, for each NAME, what README.md in this folder says. Every subject starts with an empty store, its input in
the page cache and a synced filesystem. It is timed until its files are on disk: `sync -f` is part of the time of all
but layerstore, which syncs by itself; what a sync after it still finds to do is measured apart, to keep that honest.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import ClassVar

from attrs import define, frozen

from benchmarks.bench import (
    Measured,
    chosen,
    dockerd,
    filesystem,
    machine,
    run,
    table,
    unmount_below,
    usual_options,
    warm,
    write_results,
)

NAMES = ("python", "manyfiles", "bigfile")
BASE = "tar -x"


@frozen
class Image:
    """The forms of one test image on disk."""

    folder: Path
    name: str

    @property
    def archive(self) -> Path:
        """docker-archive, its layers plain."""
        return self.folder / f"{self.name}.docker.tar"

    def layout(self, compression: str) -> Path:
        """OCI layout, tagged `latest`."""
        return self.folder / f"{self.name}.{'oci' if compression == 'gzip' else 'oci-zstd'}"

    @property
    def layers(self) -> list[Path]:
        """The plain tar of each layer, bottom first."""
        return sorted((self.folder / f"{self.name}.layers").glob("*.tar"))

    def blobs(self, compression: str) -> list[Path]:
        """The compressed layers of the layout, bottom first."""
        blobs = self.layout(compression) / "blobs" / "sha256"
        index = json.loads((blobs.parent.parent / "index.json").read_text())
        manifest = json.loads((blobs / index["manifests"][0]["digest"][7:]).read_text())
        return [blobs / layer["digest"][7:] for layer in manifest["layers"]]


class Subject(ABC):
    """One way to get an image's layers onto a disk, in `home`."""

    title: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    syncs_itself: ClassVar[bool] = False

    def __init__(self, home: Path) -> None:
        self.home = home

    @abstractmethod
    def inputs(self, image: Image) -> list[Path]:
        """What is read, to be warmed."""

    @abstractmethod
    def load(self, image: Image) -> None:
        """The work that is timed."""

    def empty(self) -> None:
        """Everything away again, untimed."""
        unmount_below(self.home)
        for path in self.home.iterdir():
            shutil.rmtree(path)

    @contextmanager
    def running(self) -> Iterator[None]:
        """For those with a daemon."""
        yield


class Tar(Subject):
    title = BASE

    def inputs(self, image: Image) -> list[Path]:
        return image.layers

    def load(self, image: Image) -> None:
        for number, layer in enumerate(image.layers):
            folder = self.home / str(number)
            folder.mkdir()
            run("tar", "-xf", layer, "-C", folder)


class InflatedTar(Subject):
    compression: ClassVar[str]

    def inputs(self, image: Image) -> list[Path]:
        return image.blobs(self.compression)

    def load(self, image: Image) -> None:
        for number, layer in enumerate(image.blobs(self.compression)):
            folder = self.home / str(number)
            folder.mkdir()
            with subprocess.Popen([self.compression, "-dc", layer], stdout=subprocess.PIPE) as inflate:
                subprocess.run(["tar", "-xf", "-", "-C", folder], stdin=inflate.stdout, check=True)


class GzipTar(InflatedTar):
    title = "gzip -dc | tar -x"
    needs = ("gzip",)
    compression = "gzip"


class ZstdTar(InflatedTar):
    title = "zstd -dc | tar -x"
    needs = ("zstd",)
    compression = "zstd"


class Layerstore(Subject):
    title = "layerstore, docker-archive"
    syncs_itself = True
    options: ClassVar[tuple[str, ...]] = ()

    def inputs(self, image: Image) -> list[Path]:
        return [image.archive]

    def load(self, image: Image) -> None:
        [source] = self.inputs(image)
        layerstore = Path(sys.executable).with_name("layerstore")
        run(layerstore, "--root", self.home / "store", *self.options, "load", "-q", "-i", source)


class LayerstoreErofs(Layerstore):
    title = "layerstore, docker-archive, erofs"
    options = ("--storage-driver", "erofs")


class LayerstoreGzip(Layerstore):
    title = "layerstore, OCI gzip"

    def inputs(self, image: Image) -> list[Path]:
        return [image.layout("gzip")]


class LayerstoreZstd(Layerstore):
    title = "layerstore, OCI zstd"

    def inputs(self, image: Image) -> list[Path]:
        return [image.layout("zstd")]


class Docker(Subject):
    title = "docker load, overlay2"
    needs = ("docker", "dockerd")

    @property
    def socket(self) -> str:
        return f"unix://{self.home}/socket"

    def inputs(self, image: Image) -> list[Path]:
        return [image.archive]

    def load(self, image: Image) -> None:
        run("docker", "--host", self.socket, "load", "-q", "-i", image.archive)

    def empty(self) -> None:
        images = run("docker", "--host", self.socket, "images", "-aq").split()
        if images:
            run("docker", "--host", self.socket, "rmi", "-f", *dict.fromkeys(images))

    @contextmanager
    def running(self) -> Iterator[None]:
        with dockerd(self.home):
            yield


class Podman(Subject):
    title = "podman load, overlay"
    needs = ("podman",)

    def inputs(self, image: Image) -> list[Path]:
        return [image.archive]

    def load(self, image: Image) -> None:
        places = [f"--root={self.home}/root", f"--runroot={self.home}/run", "--storage-driver=overlay"]
        run("podman", *places, "load", "-q", "-i", image.archive)


class Skopeo(Subject):
    compression: ClassVar[str]
    needs = ("skopeo",)

    def inputs(self, image: Image) -> list[Path]:
        return [image.layout(self.compression)]

    def load(self, image: Image) -> None:
        store = f"containers-storage:[overlay@{self.home}/root+{self.home}/run]localhost/{image.name}:latest"
        run("skopeo", "copy", "-q", "--insecure-policy", f"oci:{image.layout(self.compression)}:latest", store)


class SkopeoGzip(Skopeo):
    title = "skopeo, OCI gzip -> containers-storage"
    compression = "gzip"


class SkopeoZstd(Skopeo):
    title = "skopeo, OCI zstd -> containers-storage"
    compression = "zstd"


class Umoci(Subject):
    title = "umoci unpack, OCI gzip"
    needs = ("umoci",)

    def inputs(self, image: Image) -> list[Path]:
        return [image.layout("gzip")]

    def load(self, image: Image) -> None:
        run("umoci", "unpack", "--image", f"{image.layout('gzip')}:latest", self.home / "bundle")


SUBJECTS: tuple[type[Subject], ...] = (
    Tar,
    Layerstore,
    LayerstoreErofs,
    Docker,
    Podman,
    GzipTar,
    LayerstoreGzip,
    SkopeoGzip,
    Umoci,
    ZstdTar,
    LayerstoreZstd,
    SkopeoZstd,
)


@define
class Times:
    """What the rounds found: seconds until durable, and of a `sync -f` after layerstore."""

    seconds: dict[tuple[str, str], list[float]]
    rest: dict[tuple[str, str], list[float]]


def measure(images: list[Image], subjects: list[Subject], *, rounds: int, place: Path) -> Times:
    """Every subject on every image, in turn, `rounds` times after one round that does not count."""
    times = Times({}, {})
    for number in range(rounds + 1):
        for image in images:
            for subject in subjects:
                warm(subject.inputs(image))
                run("sync", "-f", place)
                start = time.perf_counter()
                subject.load(image)
                loaded = time.perf_counter()
                run("sync", "-f", place)
                synced = time.perf_counter()
                taken = (loaded if subject.syncs_itself else synced) - start
                print(f"round {number}  {image.name:12} {subject.title:40} {taken:8.3f}", file=sys.stderr, flush=True)
                if number:
                    times.seconds.setdefault((subject.title, image.name), []).append(taken)
                    if subject.syncs_itself:
                        times.rest.setdefault((subject.title, image.name), []).append(synced - loaded)
                subject.empty()
    return times


def tables(measured: list[Measured], names: list[str]) -> str:
    """Seconds, least / median, and the ratio of the least to that of tar on the same image."""
    found = {(one.subject, one.input): one for one in measured}
    rows = []
    for title in dict.fromkeys(one.subject for one in measured):
        cells = []
        for name in names:
            one, base = found[title, name], found.get((BASE, name))
            ratio = f" (**{one.least / base.least:.2f}**)" if base else ""
            cells.append(f"{one.least:.2f} / {one.median:.2f}{ratio}")
        rows.append([title, *cells])
    return table(["seconds, least / median (ratio to tar -x)", *names], rows)


def inflated(measured: list[Measured], names: list[str]) -> str:
    """layerstore from compressed layers, against the same inflated by the usual program and fed to tar."""
    found = {(one.subject, one.input): one for one in measured}
    rows = []
    for ours, theirs in ((LayerstoreGzip.title, GzipTar.title), (LayerstoreZstd.title, ZstdTar.title)):
        pairs = [(found.get((ours, name)), found.get((theirs, name))) for name in names]
        if all(one and base for one, base in pairs):
            rows.append(
                [f"{ours} : {theirs}", *(f"{one.least / base.least:.2f}" for one, base in pairs if one and base)]
            )
    return table(["ratio of the least", *names], rows) if rows else ""


def versions() -> dict[str, str]:
    """Of the peers that are installed."""
    found = {}
    for tool in ("dockerd", "podman", "skopeo", "umoci", "tar", "gzip", "zstd"):
        if shutil.which(tool):
            match = re.search(r"\d+(\.\d+)+", run(tool, "--version"))
            found[tool] = match[0] if match else "unknown"
    return found


def main() -> None:
    """Measure and write the results file."""
    parser = usual_options("benchmarks.load", __doc__)
    parser.add_argument("--names", default=",".join(NAMES), help="which of them (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--filesystem", choices=["ext4", "xfs"], default="ext4")
    parser.add_argument("--size", type=int, default=16, help="of the loop image, GiB")
    options = parser.parse_args()

    images = [Image(options.images.resolve(), name) for name in options.names.split(",")]
    for image in images:
        if not image.archive.exists():
            sys.exit(f"{image.archive} is not there: see benchmarks/README.md")
    kinds = chosen(SUBJECTS, options.only)

    facts = machine() | {"peers": ", ".join(f"{tool} {version}" for tool, version in versions().items())}
    suffix = "" if options.filesystem == "ext4" else f"-{options.filesystem}"
    facts["filesystem"] = facts["filesystem"].replace("ext4", options.filesystem)
    made = filesystem(options.work, size=options.size << 30, kind=options.filesystem)
    with made as place, ExitStack() as daemons:
        subjects = []
        for number, kind in enumerate(kinds):
            home = place / str(number)
            home.mkdir()
            subject = kind(home)
            daemons.enter_context(subject.running())
            subjects.append(subject)
        times = measure(images, subjects, rounds=options.rounds, place=place)

    measured = [Measured(title, name, tuple(seconds)) for (title, name), seconds in times.seconds.items()]
    rest = [Measured(f"{title}: sync -f afterwards", name, tuple(s)) for (title, name), s in times.rest.items()]
    names = [image.name for image in images]
    left = max((one.median for one in rest), default=0.0)
    write_results(
        options.results / f"{facts['date']}-load{suffix}",
        title="Loading an image, durably",
        facts=facts,
        measured=measured + rest,
        tables="\n\n".join(filter(None, [tables(measured, names), inflated(measured, names)])),
        remarks=[
            f"{options.rounds} rounds after one that does not count, interleaved: each subject on each image in turn.",
            "`sync -f` of the filesystem is in every time but layerstore's, which returns when all is on disk;"
            f" a `sync -f` after it took at most {left * 1000:.0f} ms (median).",
            "tar -x: each layer into a folder of its own, from plain tars. It keeps no xattrs and hashes nothing.",
            "All by command line, the start of the program included.",
        ],
    )


if __name__ == "__main__":
    main()
