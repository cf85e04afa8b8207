"""How soon a program of a large image says something, behind a slow line: pulled lazily, and pulled whole.

    python -m benchmarks.lazy [--size 560] [--rounds 3] [--delay 20] [--rate 100]

The image has this machine's own Python and as much of its /usr as the size says (MiB), in one layer of gzip. It is in a
docker-registry behind a relay with `delay` (ms, a round trip) and `rate` (Mbit/s). In each round a store is empty, on a
fresh ext4: pull, create, mount, and a program of Python's in the tree, until it has said something: one that imports
nothing, and one that imports much. Lazily without and with the order that was recorded of a run of the same program,
and eagerly. Bytes are those that came over the line until then, and until all of a lazy image is there; turns are
requests that were made a round trip or more after what was asked for before.
"""

from __future__ import annotations

import io
import itertools
import os
import subprocess
import tarfile
import tempfile
import time
from argparse import ArgumentParser, Namespace, RawTextHelpFormatter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import date
from pathlib import Path

from attrs import asdict, frozen

import layerstore
from benchmarks.bench import Measured, filesystem, machine, run, table, warm, write_results
from benchmarks.clients import Registry
from benchmarks.relay import Relay
from layerstore.config import Config
from layerstore.store import Store

PYTHON = "/usr/bin/python3"
SAYS = "ready"
WAYS = ("lazy", "lazy, in order", "eager")
PROGRAMS = {
    "short": f"print('{SAYS}')",
    "long": f"import asyncio, email, http.client, json, multiprocessing, ssl, unittest; print('{SAYS}')",
}


@frozen
class Took:
    """One round of one way. Times are seconds from the beginning, bytes what had come by then."""

    way: str
    program: str
    pulled: float
    said: float
    requests: int
    turns: int
    bytes: int
    whole: float
    bytes_whole: int


def parts() -> Iterator[Path]:
    """What the program needs, and then whatever else there is, in the order of names."""
    extensions = sorted(Path("/usr/lib").glob("python3*/lib-dynload/*.so"))
    needed = [Path(PYTHON).resolve(), *sorted(Path("/usr/lib").glob("python3*/**/*.py")), *extensions]
    found = run("ldd", needed[0], *extensions)
    needed += [Path(word).resolve() for line in found.splitlines() for word in line.split() if word.startswith("/")]
    yield from needed
    for folder, folders, names in os.walk("/usr/lib"):
        folders.sort()
        yield from (Path(folder, name) for name in sorted(names))


def make_image(place: Path, size: int) -> Path:
    """An archive of one layer: a root filesystem with about `size` bytes in files."""
    layer, seen, total = place / "layer.tar", set[Path](), 0
    with tarfile.open(layer, "w") as tar:
        for link in ("bin", "lib", "lib64"):
            entry = tarfile.TarInfo(link)
            entry.type, entry.linkname = tarfile.SYMTYPE, f"usr/{link}"
            tar.addfile(entry)
        add_link(tar, PYTHON)
        loader = next(Path("/lib64").glob("ld-linux*"), Path("/lib64"))
        for path in parts():
            if path in seen or path.is_symlink() or not path.is_file():
                continue
            seen.add(path)
            total += path.stat().st_size
            tar.add(path, str(path).lstrip("/"), recursive=False)
            if total > size:
                break
        add_link(tar, f"/usr/lib64/{loader.name}", str(loader.resolve()))
        for path in sorted(Path("/usr/lib").glob("*-linux-gnu/lib*.so.*")):
            if path.is_symlink() and path.resolve() in seen:
                add_link(tar, str(path))
    return layer


def add_link(tar: tarfile.TarFile, path: str, target: str | None = None) -> None:
    """A symbolic link as this machine has it, or another one."""
    entry = tarfile.TarInfo(path.lstrip("/"))
    entry.type, entry.linkname = tarfile.SYMTYPE, target or os.readlink(path)
    tar.addfile(entry, io.BytesIO())


def opened(root: Path) -> Store:
    """An empty store by erofs."""
    return layerstore.open(config=Config(data_root=root, exec_root=root.with_name("exec"), storage_driver="erofs"))


def recorded(program: str, name: str, root: Path) -> Path:
    """The order in which a first run of a program reads the image."""
    root.parent.mkdir()
    order = root.with_name("order")
    with opened(root) as store:
        image = store.pull(name, lazy=True)
        box = store.create_container(image)
        with store.record_order(image, order), box.mount() as tree:
            assert said_by(tree, program) == SAYS
        box.remove()
        image.remove(force=True)
    return order


def said_by(tree: Path, program: str) -> str:
    """What a program says in a tree."""
    words = ["chroot", str(tree), PYTHON, "-I", "-S", "-c", PROGRAMS[program]]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def once(way: str, program: str, name: str, relay: Relay, root: Path, order: Path) -> Took:
    """Pull it, and have the program say something."""
    root.parent.mkdir()
    run("sync", "-f", root.parent)
    relay.count_anew()
    before, start = relay.carried, time.perf_counter()
    with opened(root) as store:
        source = order if way == "lazy, in order" else "nothing"
        image = store.pull(name, lazy=way != "eager", prefetch_from=source)
        pulled = time.perf_counter() - start
        box = store.create_container(image)
        with box.mount() as tree:
            assert said_by(tree, program) == SAYS
            took, came = time.perf_counter() - start, relay.carried - before
            requests, turns = relay.requests, relay.turns
        for _ in store.layer_entries(image.layers[0]):  # which waits until all of it is there
            pass
        whole = time.perf_counter() - start
        box.remove()
        image.remove(force=True)
    return Took(way, program, pulled, took, requests, turns, came, whole, relay.carried - before)


def main() -> None:
    """See the module's text."""
    parser = ArgumentParser(prog="lazy", description=__doc__, formatter_class=RawTextHelpFormatter)
    parser.add_argument("--size", type=int, default=560)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="where loop images are made")
    parser.add_argument("--results", type=Path, help="folder to write the results to")
    parser.add_argument("--delay", type=float, default=20)
    parser.add_argument("--rate", type=float, default=100)
    options = parser.parse_args()
    found: list[Took] = []
    with ExitStack() as undo:
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(dir=options.folder)))
        registry = undo.enter_context(Registry(folder / "registry"))
        layer = make_image(folder, options.size << 20)
        place = undo.enter_context(filesystem(folder, size=(options.size * 6 + 2048) << 20))
        with opened(place / "origin") as store:
            store.import_tar(layer, f"{registry.host}/bench/large:1")
            start = time.perf_counter()
            store.push(f"{registry.host}/bench/large:1")
            pushed = time.perf_counter() - start
            start = time.perf_counter()
            store.push(f"{registry.host}/bench/large:1", with_index=True)
            indexed = time.perf_counter() - start
        print(f"pushed in {pushed:.1f} s, indexed in {indexed:.1f} s; the layer has {layer.stat().st_size >> 20} MiB")
        warm([registry.storage])
        relay = undo.enter_context(Relay(registry.host, delay=options.delay / 1000, rate=options.rate * 1e6 / 8))
        at_once = f"{registry.host}/bench/large:1"
        orders = {program: recorded(program, at_once, place / program / "store") for program in PROGRAMS}
        for number, program, way in itertools.product(range(options.rounds), PROGRAMS, WAYS):
            root = place / f"{way} {program} {number}" / "store"
            took = once(way, program, f"{relay.host}/bench/large:1", relay, root, orders[program])
            found.append(took)
            print(
                f"{program:5} {way:14} {took.pulled:6.2f} s pulled {took.said:6.2f} s said, {took.requests} requests in"
                f" {took.turns} turns, {took.bytes >> 10} KiB; {took.whole:6.2f} s whole",
                flush=True,
            )
    rows = [
        [
            one.program,
            one.way,
            f"{one.pulled:.2f}",
            f"{one.said:.2f}",
            str(one.requests),
            str(one.turns),
            f"{one.bytes / 2**20:.1f}",
            f"{one.whole:.2f}",
        ]
        for one in sorted(found, key=lambda one: (one.program, one.way))
    ]
    text = table(["program", "way", "pulled, s", "said, s", "requests", "turns", "MiB until then", "whole, s"], rows)
    print(text)
    if options.results is not None:
        keep(found, text, options, indexed)


def keep(found: list[Took], text: str, options: Namespace, indexed: float) -> None:
    """Write down what was found."""
    measured = [
        Measured(way, program, tuple(one.said for one in found if (one.way, one.program) == (way, program)))
        for program, way in itertools.product(PROGRAMS, WAYS)
    ]
    write_results(
        options.results / f"{date.today():%Y-%m-%d}-lazy",
        title="A program of a large image, behind a slow line",
        facts=machine(),
        measured=measured,
        tables=text,
        remarks=[
            f"{options.size} MiB in one layer of gzip; {options.delay:g} ms, {options.rate:g} Mbit/s",
            f"the index was made and sent in {indexed:.1f} s",
        ],
        more={"found": [asdict(one) for one in found]},
    )


if __name__ == "__main__":
    main()
