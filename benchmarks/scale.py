"""A large store against one of ten: what each command and each call costs, in time and in memory.

    python -m benchmarks.scale [--images 2000] [--rounds 5]

Both stores are made by the library: images of five small layers of their own, and a container on each. What is done to
one thing (`point`) should cost the same in both; what lists (`list`) a little for each thing that there is.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import sys
import tarfile
import time
from argparse import ArgumentParser, RawTextHelpFormatter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path

from attrs import frozen

import layerstore
from benchmarks.bench import Measured, filesystem, machine, run, table, write_results
from benchmarks.metering import meter

FEW = 10
LAYERS = 5
"""Of each image."""
BATCH = 100
"""Images in one archive."""

LISTS = frozenset({"images", "containers", "mounted", "check", "prune", "info", "disk_usage"})
"""Calls that have to look at all there is."""
LISTING = frozenset({"images", "ps -a", "check", "image prune -f", "info", "system df", "system df -v", "volume ls"})
"""Commands that do."""
NOTHING = "python -c pass"
"""A start of Python, which is in every command."""


# --- the stores


def layer(name: str) -> bytes:
    """The tar of a small layer."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as writer:
        for number in range(3):
            content = f"{name} {number}\n".encode()
            info = tarfile.TarInfo(f"srv/{name}/{number}")
            info.size = len(content)
            writer.addfile(info, io.BytesIO(content))
    return tar.getvalue()


def archive(path: Path, numbers: Sequence[int]) -> Path:
    """A docker-archive of the images with these numbers, `scale:NUMBER`."""
    manifest = []
    with tarfile.open(path, "w") as writer:

        def put(name: str, content: bytes) -> str:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            writer.addfile(info, io.BytesIO(content))
            return name

        for number in numbers:
            tars = [layer(f"image-{number}-layer-{level}") for level in range(LAYERS)]
            config = {
                "architecture": "amd64",
                "os": "linux",
                "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(1_700_000_000 + number)),
                "config": {"Cmd": ["sh"], "Labels": {"number": str(number)}},
                "history": [{"created_by": f"COPY {level}"} for level in range(LAYERS)],
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(tar).hexdigest()}" for tar in tars]},
            }
            manifest.append(
                {
                    "Config": put(f"{number}.json", json.dumps(config).encode()),
                    "RepoTags": [f"scale:{number}"],
                    "Layers": [put(f"{number}-{level}.tar", tar) for level, tar in enumerate(tars)],
                }
            )
        put("manifest.json", json.dumps(manifest).encode())
    return path


@frozen
class Made:
    """A store, how many images and containers it has, and an archive of one image that it has not."""

    config: layerstore.Config
    size: int
    small: Path

    @property
    def command(self) -> list[str]:
        """How the command is called for it."""
        return [os.fspath(Path(sys.executable).with_name("layerstore")), "--config", f"{self.config.data_root}.json"]


def make(place: Path, size: int, driver: str) -> Made:
    """A store of `size` images and containers."""
    root = place / f"store of {size}"
    config = layerstore.Config(
        data_root=root, exec_root=place / f"exec of {size}", storage_driver=driver, storage_opts=()
    )
    said = {"data-root": os.fspath(root), "exec-root": os.fspath(config.exec_root)}
    Path(f"{root}.json").write_text(json.dumps(said))
    start = time.perf_counter()
    with layerstore.open(config=config) as store:
        for first in range(0, size, BATCH):
            path = archive(place / "archive.tar", range(first, min(first + BATCH, size)))
            store.load(path)
            path.unlink()
            for number in range(first, min(first + BATCH, size)):
                store.create_container(f"scale:{number}", name=f"box-{number}")
    print(f"{size} images and containers in {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    return Made(config, size, archive(place / f"small-{size}.tar", [size]))


# --- calls


@frozen
class Took:
    """Seconds by the clock, and of the processors: of this process, whatever its threads did meanwhile."""

    wall: float
    cpu: float


Note = Callable[[str, Took], None]


@contextmanager
def timed(note: Note, title: str) -> Iterator[None]:
    """Note what is done inside."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    note(title, Took(time.perf_counter() - wall, time.process_time() - cpu))


def calls(made: Made, note: Note) -> None:
    """Each call once, on an image and a container in the middle; the store is afterwards as it was."""
    image, box = f"scale:{made.size // 2}", f"box-{made.size // 2}"
    with timed(note, "open"):
        store = layerstore.open(config=made.config)
    with store:
        with timed(note, "image"):
            found = store.image(image)
        with timed(note, "container"):
            container = store.container(box)
        with timed(note, "image.inspect"):
            found.inspect()
        with timed(note, "container.inspect"):
            container.inspect()
        with timed(note, "history"):
            assert len(found.history) == LAYERS
        with timed(note, "tag"):
            store.tag(image, "scale:again")
        with timed(note, "untag"):
            store.remove_image("scale:again")
        life(store, image, note)
        with timed(note, "load"):
            store.load(made.small)
        with timed(note, "remove_image"):
            store.remove_image(f"scale:{made.size}")
        store.wait()
        with timed(note, "images"):
            assert len(store.images()) == made.size
        with timed(note, "containers"):
            assert len(store.containers()) == made.size
        with timed(note, "mounted"):
            assert not store.mounted()
        with timed(note, "info"):
            store.info()
        with timed(note, "disk_usage"):
            store.disk_usage()
        with timed(note, "prune"):
            store.prune()
        with timed(note, "check"):
            assert not store.check()


def life(store: layerstore.Store, image: str, note: Note) -> None:
    """A container's."""
    with timed(note, "create_container"):
        box = store.create_container(image, name="passing")
    with timed(note, "mount"):
        mounted = box.mount()
    (mounted.path / "new").write_text("new")
    with timed(note, "unmount"):
        mounted.unmount()
    with timed(note, "changes"):
        assert len(box.changes()) == 1
    with timed(note, "commit"):
        made = box.commit("scale:passing")
    with timed(note, "remove"):
        box.remove()
    made.remove()
    store.wait()


# --- commands


def commands(made: Made) -> list[tuple[str, ...]]:
    """Each command, in an order in which the store is afterwards as it was."""
    image, box = f"scale:{made.size // 2}", f"box-{made.size // 2}"
    return [
        ("version",),
        ("inspect", image),
        ("inspect", box),
        ("history", image),
        ("why", image, f"srv/image-{made.size // 2}-layer-0/0"),
        ("tag", image, "scale:again"),
        ("rmi", "scale:again"),
        ("create", "--name", "passing", image),
        ("mount", "passing"),
        ("umount", "passing"),
        ("diff", "passing"),
        ("rm", "passing"),
        ("load", "-i", os.fspath(made.small)),
        ("rmi", f"scale:{made.size}"),
        ("images",),
        ("ps", "-a"),
        ("volume", "ls"),
        ("info",),
        ("system", "df"),
        ("system", "df", "-v"),
        ("image", "prune", "-f"),
        ("check",),
    ]


def title_of(command: Sequence[str]) -> str:
    """A command without what it is given."""
    name = " ".join(command)
    listed = [title for title in LISTING if name == title]
    what = " IMAGE" if len(command) == 2 and command[1].startswith("scale:") else ""
    what = " CONTAINER" if len(command) == 2 and command[1].startswith("box-") else what
    return listed[0] if listed else command[0] + (" TAG" if command[-1] == "scale:again" else what)


# --- the whole


def measure(stores: Sequence[Made], rounds: int) -> tuple[list[Measured], dict[str, int]]:
    """All calls and all commands on both stores, in turns; and the most memory that each command had."""
    found: dict[tuple[str, str], list[float]] = {}
    memory: dict[str, int] = {}

    def note(title: str, size: int, wall: float, cpu: float) -> None:
        found.setdefault((f"{title}, wall", str(size)), []).append(wall)
        found.setdefault((f"{title}, cpu", str(size)), []).append(cpu)

    def note_call(size: int, title: str, took: Took) -> None:
        note(f"call {title}", size, took.wall, took.cpu)

    for number in range(rounds + 1):
        for made in stores:
            counted = bool(number)

            calls(made, partial(note_call, made.size) if counted else lambda title, took: None)
            nothing = meter(sys.executable, "-c", "pass").cost
            if counted:
                note(f"command {NOTHING}", made.size, nothing.wall, nothing.cpu)
            for command in commands(made):
                ran = meter(*made.command, *command)
                if not ran.is_done:
                    sys.exit(f"{command}: {ran.said}")
                if counted:
                    title = title_of(command)
                    note(f"command {title}", made.size, ran.cost.wall, ran.cost.cpu)
                    key = f"{title} {made.size}"
                    memory[key] = max(memory.get(key, 0), ran.cost.peak)
        print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
    return [Measured(subject, size, tuple(seconds)) for (subject, size), seconds in found.items()], memory


def tables(measured: Sequence[Measured], memory: dict[str, int], many: int) -> str:
    """Two: calls, and commands."""
    found = {(one.subject, one.input): statistics.median(one.seconds) for one in measured}
    titles = list(dict.fromkeys(one.subject.rpartition(", ")[0] for one in measured))

    def times(title: str, size: int) -> str:
        wall, cpu = (found[f"{title}, {which}", str(size)] * 1e3 for which in ("wall", "cpu"))
        return f"{wall:.2f} / {cpu:.2f}"

    def line(title: str, lists: frozenset[str]) -> list[str]:
        name = title.partition(" ")[2]
        few, more = (found[f"{title}, cpu", str(size)] for size in (FEW, many))
        each = f"{(more - few) / (many - FEW) * 1e6:.1f}" if name in lists else "-"
        kind = "list" if name in lists else "point"
        return [name, kind, times(title, FEW), times(title, many), f"{more / max(few, 1e-9):.2f}", each]

    head = ["ms, wall / processor", "kind", str(FEW), f"{many:,}", "processor, ratio", "us more for each"]
    of_calls = [line(title, LISTS) for title in titles if title.startswith("call ")]
    of_commands = []
    for title in titles:
        if title.startswith("command "):
            name = title.partition(" ")[2]
            peaks = [memory.get(f"{name} {size}", 0) >> 10 for size in (FEW, many)]
            of_commands.append([*line(title, LISTING), " / ".join(f"{peak:,}" for peak in peaks)])
    return f"{table(head, of_calls)}\n\n{table([*head, 'memory, KiB'], of_commands)}"


def main() -> None:
    """Measure and write the results file."""
    parser = ArgumentParser(prog="benchmarks.scale", description=__doc__, formatter_class=RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=2000, help="of the large store (default: %(default)s)")
    parser.add_argument("--driver", default="overlay2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, default=Path("/var/tmp"), help="where the loop image is made")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    root = Path(__file__).parent.parent
    run(sys.executable, "-m", "compileall", "-q", root / "src", root / "drivers")
    facts = machine()
    with filesystem(options.work, size=8 << 30) as place:
        stores = [make(place, size, options.driver) for size in (FEW, options.images)]
        measured, memory = measure(stores, options.rounds)
    facts |= {"load average": f"{os.getloadavg()[2]:.1f} over the last 15 minutes", "driver": options.driver}
    write_results(
        options.results / f"{facts['date']}-scale",
        title=f"A store of {options.images:,} images, {options.images * LAYERS:,} layers and as many containers",
        facts=facts,
        measured=measured,
        tables=tables(measured, memory, options.images),
        remarks=[
            f"Medians of {options.rounds} rounds after one that does not count; both stores in turns.",
            "A call's processor time is that of this process, with what its threads do in the background.",
            f"`{NOTHING}` is in every command.",
        ],
        more={"memory": memory},
    )


if __name__ == "__main__":
    main()
