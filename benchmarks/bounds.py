"""What bounds each work: the processors, the kernel, or the disk; and what the parts of a load can do alone.

    python -m benchmarks.bounds [--scale 1.0] [--rounds 5] [--only load]

The image is that of `layerstore bench`, the same everywhere. Each work is done in a process of its own, in which its
user and system time are counted, over all threads, and how long its first thread waited for a processor that others
had, which is no time of the work; and once more under strace, which tells how long that thread waited for the disk: in
fsync, fdatasync and syncfs, what SQLite asks for included. strace makes no call slower but these.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import time
from argparse import ArgumentParser, Namespace, RawTextHelpFormatter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import zstandard
from attrs import asdict, frozen
from isal import igzip

import layerstore
from benchmarks.bench import Measured, filesystem, machine, run, table, warm, write_results
from layerstore.bench.images import Shape, make_archive
from layerstore.compression import open_stream

IMAGE = "bench:main"
SYNCING = "fsync,fdatasync,syncfs,sync"
_WAITED = re.compile(r"^(\d+) .*<(\d+\.\d+)>$")
_NO_FILE = 1 << 20
_MARK = f"fsync({_NO_FILE})"
"""A call that does nothing, before and after a work: what strace tells between the two is of the work."""


@frozen
class Ground:
    """What works have: a folder for stores on the filesystem, and the image in its forms."""

    place: Path
    inputs: Path

    def config(self, driver: str) -> layerstore.Config:
        root = self.place / driver
        return layerstore.Config(
            data_root=root / "store", exec_root=root / "exec", storage_driver=driver, storage_opts=()
        )

    def form(self, name: str) -> str:
        return os.fspath(self.inputs / name)

    @contextmanager
    def loaded(self, driver: str = "overlay2") -> Iterator[layerstore.Store]:
        """A store that has the image, on the disk."""
        with layerstore.open(config=self.config(driver)) as store:
            if not store.images():
                store.load(self.form("docker.tar"))
            os.sync()
            yield store


@frozen
class Took:
    """Seconds by the clock, of the processor in programs and in the kernel; and how often it was done, each in this.

    By the clock is without what the first thread waited for a processor.
    """

    wall: float
    user: float
    system: float
    times: int = 1


Work = Callable[[Ground], Took]


def timed(act: Callable[[], object], *, times: int = 1) -> Took:
    """Do something so often; what it took each time, of this process and of those that it has started."""

    def spent() -> tuple[float, float]:
        own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return own.ru_utime + others.ru_utime, own.ru_stime + others.ru_stime

    def queued() -> float:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9

    mark()
    before, start, waited = spent(), time.perf_counter(), queued()
    for _ in range(times):
        act()
    wall = time.perf_counter() - start - (queued() - waited)
    user, system = (after - then for then, after in zip(before, spent(), strict=True))
    mark()
    return Took(wall / times, user / times, system / times, times)


def mark() -> None:
    """See `_MARK`."""
    with suppress(OSError):
        os.fsync(_NO_FILE)


# --- the works


def load(form: str, driver: str = "overlay2") -> Work:
    def work(ground: Ground) -> Took:
        with layerstore.open(config=ground.config(driver)) as store:
            return timed(lambda: store.load(ground.form(form)))

    return work


def save(format: str, compression: str) -> Work:
    def work(ground: Ground) -> Took:
        target = ground.place / "saved"
        with ground.loaded() as store:
            return timed(lambda: store.save([IMAGE], target, format=format, compression=compression))

    return work


def removal(driver: str) -> Work:
    def work(ground: Ground) -> Took:
        with ground.loaded(driver) as store:

            def remove() -> None:
                store.remove_image(IMAGE)
                store.wait()

            return timed(remove)

    return work


def changes(ground: Ground) -> Took:
    with ground.loaded() as store, store.create_container(IMAGE) as box:
        with box.mount() as root:
            for number, path in enumerate(sorted(path for path in root.rglob("*") if path.is_file())[::100]):
                path.write_text(f"{number}")
        return timed(lambda: box.changes(), times=20)


def opening(ground: Ground) -> Took:
    with ground.loaded():
        pass
    return timed(lambda: layerstore.open(config=ground.config("overlay2")).close(), times=100)


def life(ground: Ground) -> Took:
    def live() -> None:
        with store.create_container(IMAGE) as box:
            box.mount().unmount()
            box.remove()

    with ground.loaded() as store:
        return timed(live, times=30)


def command(*words: str) -> Work:
    def work(ground: Ground) -> Took:
        with ground.loaded():
            pass
        program = Path(sys.executable).with_name("layerstore")
        root = ground.config("overlay2").data_root
        return timed(lambda: run(program, "--root", root, *words), times=5)

    return work


def start_of_python(ground: Ground) -> Took:
    return timed(lambda: run(sys.executable, "-c", "pass"), times=5)


QUIET = 1.0
"""Below this load average a machine does little else. Else clocks, cores and waits say nothing, and are left out."""

WORKS: dict[str, Work] = {
    "load of a docker-archive": load("docker.tar"),
    "load of OCI, gzip": load("gzip"),
    "load of OCI, zstd": load("zstd"),
    "load of a docker-archive, erofs": load("docker.tar", "erofs"),
    "load of OCI, gzip, erofs": load("gzip", "erofs"),
    "load of OCI, zstd, erofs": load("zstd", "erofs"),
    "save, docker-archive": save("docker-archive", "none"),
    "save, OCI, gzip": save("oci", "gzip"),
    "save, OCI, zstd": save("oci", "zstd"),
    "removal, with all files": removal("overlay2"),
    "removal, with all files, erofs": removal("erofs"),
    "changes, each 100th file written": changes,
    "create, mount, unmount, remove": life,
    "open and close a store": opening,
    "python -c pass": start_of_python,
    "layerstore --root DIR version": command("version"),
    "layerstore --root DIR images": command("images"),
}


# --- measuring


def one(ground: Ground, title: str, *, traced: bool) -> tuple[Took, float]:
    """Do a work in a fresh process and on a fresh store; and how long its first thread waited for the disk."""
    for left in ground.place.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    os.sync()
    trace = ground.inputs / "trace"
    watch = ["strace", "-f", "--seccomp-bpf", "-T", "-qq", "-e", f"trace={SYNCING}", "-o", os.fspath(trace)]
    script = [sys.executable, "-m", "benchmarks.bounds", "--one", title]
    places = ["--work", os.fspath(ground.place), "--inputs", os.fspath(ground.inputs)]
    done = subprocess.run([*(watch if traced else []), *script, *places], stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    took = Took(*(found[name] for name in ("wall", "user", "system", "times")))
    if not traced:
        return took, 0.0
    _, within, _ = trace.read_text().split(_MARK)
    lines = [match for line in within.splitlines() if (match := _WAITED.match(line))]
    return took, sum(float(match[2]) for match in lines if int(match[1]) == found["pid"]) / took.times


def bound_of(took: Took, waiting: float, *, is_quiet: bool) -> str:
    """What has to be faster for the work to be."""
    if waiting > 0.5:
        return "disk"
    who = "kernel" if took.system > took.user else "processor"
    if not is_quiet:
        return who
    cores, busy = os.cpu_count() or 1, (took.user + took.system) / took.wall
    return f"{who}, {'all cores' if busy > 0.8 * cores else 'one thread' if busy < 1.2 else f'{busy:.1f} cores'}"


def alone(inputs: Path, rounds: int) -> list[tuple[str, float]]:
    """What each part can do by itself, in MB of the layers' tars for each second of a processor: the best of all."""
    with tarfile.open(inputs / "docker.tar") as archive:
        layers = [archive.extractfile(member) for member in archive if member.name.endswith(".tar")]
        plain = [layer.read() for layer in layers if layer is not None]
    size = sum(map(len, plain))
    gzip = [igzip.compress(layer, 3) for layer in plain]
    zstd = [zstandard.ZstdCompressor(level=3).compress(layer) for layer in plain]
    compress = zstandard.ZstdCompressor(level=3).compress
    parts: dict[str, Callable[[bytes, bytes, bytes], object]] = {
        "sha256": lambda layer, _gzip, _zstd: hashlib.sha256(layer).digest(),
        "inflate gzip (isal)": lambda _layer, gzip, _zstd: drained(gzip),
        "inflate zstd": lambda _layer, _gzip, zstd: drained(zstd),
        "deflate gzip, level 3 (isal)": lambda layer, _gzip, _zstd: igzip.compress(layer, 3),
        "compress zstd, level 3": lambda layer, _gzip, _zstd: compress(layer),
    }

    def seconds(part: Callable[[bytes, bytes, bytes], object]) -> float:
        start = time.process_time()
        for three in zip(plain, gzip, zstd, strict=True):
            part(*three)
        return time.process_time() - start

    return [(title, size / 1e6 / min(seconds(part) for _ in range(rounds))) for title, part in parts.items()]


def drained(compressed: bytes) -> None:
    """Inflate as a load does, and throw away what comes."""
    buffer = memoryview(bytearray(1 << 20))
    with open_stream(io.BytesIO(compressed)) as stream:
        while stream.readinto(buffer):
            pass


def prepare(inputs: Path, scale: float) -> int:
    """The image in its forms; the bytes of its layers."""
    size = make_archive(inputs / "docker.tar", "main", Shape(scale, 1, ()))
    root = inputs / "preparing"
    config = layerstore.Config(data_root=root, exec_root=root / "exec", storage_driver="vfs", storage_opts=())
    with layerstore.open(config=config) as store:
        store.load(inputs / "docker.tar")
        for compression in ("gzip", "zstd"):
            store.save([IMAGE], inputs / compression, format="oci", folder=True, compression=compression)
    shutil.rmtree(root)
    warm([inputs])
    return size


def do_one(options: Namespace) -> None:
    took = WORKS[options.one](Ground(options.work, options.inputs))
    print(json.dumps({**asdict(took), "pid": os.getpid()}))


def measure(ground: Ground, rounds: int, only: str) -> tuple[list[Measured], list[list[str]]]:
    """All works in turn, so often; then each once under strace. Every figure, and the lines of the table."""
    is_quiet = os.getloadavg()[0] < QUIET
    titles = [title for title in WORKS if only in title]
    found: dict[str, list[Took]] = {title: [] for title in titles}
    for number in range(rounds + 1):
        for title in titles:
            took, _ = one(ground, title, traced=False)
            if number:
                found[title].append(took)
        print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
    measured: list[Measured] = []
    lines: list[list[str]] = []
    for title, every in found.items():
        wall, user, system = (
            statistics.median(getattr(took, name) for took in every) for name in ("wall", "user", "system")
        )
        median = Took(wall, user, system)
        traced, waited = one(ground, title, traced=True)
        waiting = min(waited / traced.wall, 1.0)
        for name in ("wall", "user", "system"):
            measured.append(Measured(title, name, tuple(getattr(took, name) for took in every)))
        busy = median.user + median.system
        lines.append(
            [
                title,
                f"{median.wall * 1e3:.1f}" if is_quiet else "-",
                f"{median.user * 1e3:.1f}",
                f"{median.system * 1e3:.1f}",
                f"{busy / median.wall:.2f}" if is_quiet else "-",
                f"{median.system / busy:.0%}" if busy else "-",
                f"{waiting:.0%}" if is_quiet else "-",
                bound_of(median, waiting if is_quiet else 0.0, is_quiet=is_quiet),
            ]
        )
    return measured, lines


def main() -> None:
    """Measure and write the results file."""
    parser = ArgumentParser(prog="benchmarks.bounds", description=__doc__, formatter_class=RawTextHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="of the image (default: %(default)s: 10,000 files)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="works with this in their title")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp"), help="where the loop image is made")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--one", help="do this work, and tell what it took: for the program itself")
    parser.add_argument("--inputs", type=Path, help="the folder of the image, then")
    options = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    if options.one:
        do_one(options)
        return
    root = Path(__file__).parent.parent
    run(sys.executable, "-m", "compileall", "-q", root / "src", root / "drivers", root / "benchmarks")
    facts = machine()
    results = options.results.absolute()
    with filesystem(options.work, size=12 << 30) as place:
        inputs = place.parent / "inputs"
        inputs.mkdir()
        size = prepare(inputs, options.scale)
        parts = alone(inputs, options.rounds)
        measured, lines = measure(Ground(place, inputs), options.rounds, options.only)
        shutil.rmtree(inputs)
    facts |= {"load average": f"{os.getloadavg()[2]:.1f} over the last 15 minutes", "layers": f"{size / 1e6:.0f} MB"}
    head = [
        "median, ms",
        "clock",
        "user",
        "system",
        "cores busy",
        "kernel's share",
        "waits for the disk",
        "bound by",
    ]
    rates = table(
        ["part, alone", "MB for each second of a processor"], [[title, f"{rate:,.0f}"] for title, rate in parts]
    )
    write_results(
        results / f"{facts['date']}-bounds",
        title="What bounds each work",
        facts=facts,
        measured=measured,
        tables=f"{table(head, lines)}\n\n{rates}",
        remarks=[
            f"{options.rounds} rounds after one that does not count, all works in turn, each on a fresh store.",
            "Waits for the disk: of the first thread, in one more run under strace.",
            "Parts: all layers one after the other, from memory to memory.",
        ],
    )


if __name__ == "__main__":
    main()
